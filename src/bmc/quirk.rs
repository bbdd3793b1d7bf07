//! Vendor oddities as named facts: a BMC is classified once, from its root, system and manager, and then asked. The
//! only file that names vendors. Where each fact comes from is written in docs/hardware.md.

use serde_json::Value;

/// Whose firmware answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Unknown,
    Idrac,
    Ilo,
    Xcc,
    Supermicro,
    MegaRac,
    OpenBmc,
    Cisco,
    Emulator,
}

/// What is odd about one BMC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quirks {
    family: Family,
    /// A machine that hangs when it is reset without being switched off.
    restart_hangs: bool,
    /// The one machine of its family whose virtual CD is an ordinary one.
    plain_cd: bool,
    /// The generation of controller that refuses to switch on for a while after switching off.
    late_power_on: bool,
}

impl Quirks {
    /// What is assumed of a BMC before it is known.
    pub(super) const fn unknown() -> Self {
        Self { family: Family::Unknown, restart_hangs: false, plain_cd: false, late_power_on: false }
    }

    /// Classifies by what the documents say of their maker; missing documents are null.
    pub(super) fn classify(root: &Value, system: &Value, manager: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_ascii_lowercase();
        let makers = [text(&root["Vendor"]), text(&system["Manufacturer"]), text(&manager["Manufacturer"])].join("\n");
        let oem = |key: &str| [root, manager].iter().any(|document| document["Oem"].get(key).is_some());
        let controller = text(&manager["Model"]);
        let model = text(&system["Model"]);
        let is = |name: &str| makers.contains(name);
        let family = if is("dell") || oem("Dell") {
            Family::Idrac
        } else if is("hpe") || oem("Hpe") || controller.starts_with("ilo") {
            Family::Ilo
        } else if is("lenovo") || oem("Lenovo") {
            Family::Xcc
        } else if is("supermicro") || oem("Supermicro") {
            Family::Supermicro
        } else if text(&root["Vendor"]) == "ami" || is("american megatrends") || is("asrockrack") || oem("Ami") {
            Family::MegaRac
        } else if is("cisco") || oem("Cisco") {
            Family::Cisco
        } else if is("nvidia") || controller.contains("openbmc") || oem("OpenBmc") {
            Family::OpenBmc
        } else if is("sushy emulator") || text(&root["Name"]) == "redvirt service" {
            Family::Emulator
        } else {
            Family::Unknown
        };
        let late_power_on = family == Family::Idrac && text(&manager["FirmwareVersion"]).starts_with("1.");
        Self {
            family,
            restart_hangs: model.contains("sr675 v3"),
            plain_cd: model.contains("ars-111gl-nhr"),
            late_power_on,
        }
    }

    /// The family's name, for people.
    pub(super) fn family(&self) -> &'static str {
        match self.family {
            Family::Unknown => "unknown",
            Family::Idrac => "Dell iDRAC",
            Family::Ilo => "HPE iLO",
            Family::Xcc => "Lenovo XClarity",
            Family::Supermicro => "Supermicro",
            Family::MegaRac => "AMI MegaRAC",
            Family::OpenBmc => "OpenBMC",
            Family::Cisco => "Cisco IMC",
            Family::Emulator => "sushy-emulator",
        }
    }

    /// Its own ETags are refused; `If-Match: *` is taken.
    pub(super) fn wants_any_etag(&self) -> bool {
        self.family == Family::MegaRac
    }

    /// `If-Match: *` is always refused.
    pub(super) fn refuses_any_etag(&self) -> bool {
        self.family == Family::Ilo
    }

    /// Some resources take minutes.
    pub(super) fn is_slow(&self, path: &str) -> bool {
        matches!(self.family, Family::MegaRac | Family::Xcc | Family::OpenBmc)
            && ["FirmwareInventory", "/Pending", "/SD"].iter().any(|part| path.contains(part))
    }

    /// How a boot from virtual CD is called, best first.
    pub(super) fn cd_names(&self) -> &'static [&'static str] {
        match self.family {
            Family::Supermicro if !self.plain_cd => &["UsbCd", "Cd"],
            _ => &["Cd", "UsbCd"],
        }
    }

    /// Whether a boot target that was read back is another name of the one that was set.
    pub(super) fn same_boot_target(&self, set: &str, read: &str) -> bool {
        let swaps = [["UsbCd", "Cd"], ["Hdd", "UefiBootNext"], ["UsbCd", "UefiBootNext"], ["Cd", "UefiBootNext"]];
        set == read || (self.family == Family::Supermicro && swaps.contains(&[set, read]))
    }

    /// `BootSourceOverrideEnabled` must not come with the target `None`.
    pub(super) fn clears_boot_by_target_alone(&self) -> bool {
        self.family == Family::Ilo
    }

    /// An override cannot be cleared at all; setting the disk is the nearest.
    pub(super) fn cannot_clear_boot(&self) -> bool {
        self.family == Family::Emulator
    }

    /// Where a media slot stands among the others, lower first; none for one that cannot take a URL.
    pub(super) fn media_rank(&self, slot: &str) -> Option<u8> {
        match self.family {
            // RDOC is the on-board card and Remote the console's: only EXT takes a URL.
            Family::Xcc if slot.starts_with("RDOC") || slot.starts_with("Remote") => None,
            // The newest controllers boot from slot 1 only.
            Family::Idrac if slot == "2" => Some(2),
            _ => Some(1),
        }
    }

    /// A reset without switching off hangs the machine.
    pub(super) fn restart_hangs(&self) -> bool {
        self.restart_hangs
    }

    /// The number that people know the machine by is in `SKU`, not in `SerialNumber`.
    pub(super) fn serial_is_sku(&self) -> bool {
        self.family == Family::Idrac
    }

    /// Whether an entry of the firmware list is what runs now, and not an older or a waiting version.
    pub(super) fn is_running_firmware(&self, id: &str) -> bool {
        let aside = ["Previous-", "Available-"].iter().any(|prefix| id.starts_with(prefix));
        !(self.family == Family::Idrac && aside)
    }

    /// A refusal that passes when the same is asked again some seconds later; nothing was done.
    pub(super) fn passes_soon(&self, refusal: &super::BmcError) -> bool {
        match self.family {
            Family::Ilo => {
                refusal.says("UnableToModifyDuringSystemPOST") || refusal.says("InvalidOperationForSystemState")
            }
            Family::Idrac => self.late_power_on && refusal.says("ActionParameterValueConflict"),
            _ => false,
        }
    }

    /// What is worked around on this BMC, in people's words.
    pub(super) fn facts(&self) -> Vec<&'static str> {
        let mut facts: Vec<&'static str> = match self.family {
            Family::Unknown => vec![],
            Family::Idrac => vec![
                "the service tag (SKU) is taken as the serial number",
                "virtual media: slot 1 before slot 2; an image shown as inserted after its ejection is waited out",
            ],
            Family::Ilo => vec![
                "If-Match: * is never sent",
                "settings refused during POST are tried again",
                "a boot override is cleared by its target alone",
            ],
            Family::Xcc => vec![
                "weak ETags are sent without W/",
                "virtual media: only EXT slots take a URL, by PATCH",
                "slow pending settings get more time",
            ],
            Family::Supermicro => vec![
                "a boot override is sent whole each time and read back, also under its other names",
                "virtual media: Inserted and WriteProtected are not sent; ejection may be under Oem",
            ],
            Family::MegaRac => vec!["If-Match: * instead of its own ETags", "its firmware list gets minutes to answer"],
            Family::OpenBmc => {
                vec!["several systems: the one that boots is chosen", "its firmware list gets minutes to answer"]
            }
            Family::Cisco => vec!["virtual media: slots of the console are passed over"],
            Family::Emulator => {
                vec![
                    "boot overrides stay until they are changed; clearing one is left out",
                    "media and boot act at the next cold start",
                ]
            }
        };
        if self.family == Family::Supermicro && !self.plain_cd {
            facts.push("virtual CD boots as UsbCd");
        }
        if self.restart_hangs {
            facts.push("a restart is made by switching off and on: ForceRestart hangs this machine");
        }
        if self.late_power_on {
            facts.push("power-on that is refused shortly after power-off is tried again");
        }
        facts
    }
}

/// Message ids by which services say that nothing was begun because they are not ready.
pub(super) fn is_not_ready(id: &str) -> bool {
    let last = id.rsplit('.').next().unwrap_or(id);
    matches!(last, "SYS518" | "ServiceTemporarilyUnavailable" | "InvalidOperationForSystemState")
}

/// Message ids by which services refuse a password, some of them with status 400.
pub(super) fn is_wrong_password(id: &str) -> bool {
    let last = id.rsplit('.').next().unwrap_or(id);
    matches!(last, "UnauthorizedLoginAttempt" | "ResourceAtUriUnauthorized" | "InvalidUserNameOrPassword" | "RAC0212")
}

#[cfg(test)]
mod tests {
    //! Each family is known by what its documents say, and each fact holds for its family and not for a stranger.
    use serde_json::json;

    use super::*;

    fn of(documents: [Value; 3]) -> Quirks {
        let [root, system, manager] = documents;
        Quirks::classify(&root, &system, &manager)
    }

    #[test]
    fn families_are_told_apart() {
        let none = json!({});
        assert_eq!(of([json!({"Vendor": "Dell"}), none.clone(), none.clone()]).family, Family::Idrac);
        assert_eq!(of([json!({"Vendor": "HPE"}), none.clone(), none.clone()]).family, Family::Ilo);
        assert_eq!(of([none.clone(), json!({"Manufacturer": "Supermicro"}), none.clone()]).family, Family::Supermicro);
        assert_eq!(
            of([json!({"Vendor": "AMI"}), json!({"Manufacturer": "NVIDIA"}), none.clone()]).family,
            Family::MegaRac
        );
        assert_eq!(of([none.clone(), none.clone(), json!({"Model": "OpenBmc"})]).family, Family::OpenBmc);
        assert_eq!(of([json!({"Name": "Redvirt Service"}), none.clone(), none.clone()]).family, Family::Emulator);
        assert_eq!(of([Value::Null, Value::Null, Value::Null]), Quirks::unknown());
    }

    #[test]
    fn facts_hold_where_they_were_seen() {
        let none = json!({});
        let stranger = Quirks::unknown();
        assert!(!stranger.wants_any_etag() && !stranger.refuses_any_etag() && stranger.facts().is_empty());
        let supermicro = of([json!({"Oem": {"Supermicro": {}}}), json!({"Model": "SYS-821GE-TNHR"}), none.clone()]);
        assert_eq!(supermicro.cd_names()[0], "UsbCd");
        assert!(
            supermicro.same_boot_target("Hdd", "UefiBootNext") && !stranger.same_boot_target("Hdd", "UefiBootNext")
        );
        let grace = of([json!({"Oem": {"Supermicro": {}}}), json!({"Model": "ARS-111GL-NHR"}), none.clone()]);
        assert_eq!(grace.cd_names()[0], "Cd");
        let lenovo = of([json!({"Vendor": "Lenovo"}), json!({"Model": "ThinkSystem SR675 V3"}), none.clone()]);
        assert!(lenovo.restart_hangs() && lenovo.media_rank("RDOC1").is_none() && lenovo.media_rank("EXT1").is_some());
        let new_dell = of([json!({"Vendor": "Dell"}), none.clone(), json!({"FirmwareVersion": "1.20.50.50"})]);
        let old_dell = of([json!({"Vendor": "Dell"}), none.clone(), json!({"FirmwareVersion": "6.00.30.00"})]);
        assert!(new_dell.late_power_on && !old_dell.late_power_on && old_dell.serial_is_sku());
    }
}
