//! Where vendors keep what the standard has no place for: links behind a system or a manager, places in a document, and bodies that
//! are the vendor's own. Which BMCs are asked there, `fact` says.

use serde_json::{Value, json};

/// The manager of an iDRAC, should it not list itself.
pub(super) const IDRAC_MANAGER: &str = "/redfish/v1/Managers/iDRAC.Embedded.1";
/// Behind a manager: how its lifecycle controller stands.
pub(super) const DELL_CONTROLLER_STATUS: &str =
    "/Oem/Dell/DellLCService/Actions/DellLCService.GetRemoteServicesAPIStatus";
/// Behind a manager: the import of a configuration profile.
pub(super) const DELL_IMPORT: &str = "/Actions/Oem/EID_674_Manager.ImportSystemConfiguration";
/// A profile that boots the virtual CD once. Not a blank between the elements: the importer takes them for values.
pub(super) const DELL_CD_PROFILE: &str = "<SystemConfiguration><Component FQDD=\"iDRAC.Embedded.1\">\
    <Attribute Name=\"ServerBoot.1#BootOnce\">Enabled</Attribute>\
    <Attribute Name=\"ServerBoot.1#FirstBootDevice\">VCD-DVD</Attribute></Component></SystemConfiguration>";
/// At the command line of an iDRAC: to the serial console (iDRAC user's guide, "Switching between RACADM and serial console").
pub(super) const DELL_CONSOLE: &str = "console com2";
/// At the command line of an iLO: to the virtual serial port (iLO user guide, "Virtual Serial Port").
pub(super) const HPE_CONSOLE: &str = "vsp";
/// At the command line of an XClarity controller: to the serial console (XCC user's guide, `console`).
pub(super) const LENOVO_CONSOLE: &str = "console 1";
/// In a BIOS: the link of its boot order.
pub(super) const HPE_BOOT: &str = "/Oem/Hpe/Links/Boot/@odata.id";
/// In an update service: what a pushed file is going through.
pub(super) const HPE_PUSH_STATE: &str = "/Oem/Hpe/State";
/// In an update service: why it failed.
pub(super) const HPE_PUSH_RESULT: &str = "/Oem/Hpe/Result/MessageId";
/// In a manager: the link of what keeps its certificates.
pub(super) const HPE_SECURITY: &str = "/Oem/Hpe/Links/SecurityService/@odata.id";
/// In that: the link of the certificate of its web server.
pub(super) const HPE_CERTIFICATE: &str = "/Links/HttpsCert/@odata.id";
/// What makes a request for another.
pub(super) const HPE_GENERATE: &str = "#HpeHttpsCert.GenerateCSR";
/// What puts another in.
pub(super) const HPE_IMPORT: &str = "#HpeHttpsCert.ImportCertificate";
/// In a system: the link of its boot orders.
pub(super) const LENOVO_BOOT_SETTINGS: &str = "/Oem/Lenovo/BootSettings/@odata.id";
/// Behind a system: the order of kinds of devices.
pub(super) const SUPERMICRO_BOOT_ORDER: &str = "/Oem/Supermicro/FixedBootOrder";
/// What keeps machines from being managed without it.
pub(super) const SUPERMICRO_LICENCES: &str = "Supermicro: SFT-OOB-LIC or SFT-DCMS-SINGLE";

/// What an upload asks to be kept, of the BMC's settings or of the BIOS's.
pub(super) fn supermicro_keeps(of_bmc: bool) -> Value {
    match of_bmc {
        true => json!({ "Supermicro": { "BMC": {
            "PreserveCfg": true, "PreserveSdr": true, "PreserveSsl": true, "BackupBMC": true } } }),
        false => json!({ "Supermicro": { "BIOS": {
            "PreserveME": true, "PreserveNVRAM": true, "PreserveSMBIOS": true, "BackupBIOS": false } } }),
    }
}
