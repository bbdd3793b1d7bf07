//! Whose firmware a BMC runs: classified once, from its root, system and manager, and then asked for its facts. With `fact`, the only
//! file that names vendors.

use serde_json::Value;

use super::fact::{Fact, Facts};

/// Whose firmware answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Family {
    #[default]
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

/// What tells BMCs apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Maker {
    family: Family,
    /// The machine's model, in lower case.
    model: String,
    /// The version of the BMC's firmware, in lower case.
    firmware: String,
}

impl Maker {
    /// Reads it from what the documents say of their maker; missing documents are null.
    fn read(root: &Value, system: &Value, manager: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_ascii_lowercase();
        let makers = [text(&root["Vendor"]), text(&system["Manufacturer"]), text(&manager["Manufacturer"])].join("\n");
        let oem = |key: &str| [root, manager].iter().any(|document| document["Oem"].get(key).is_some());
        let controller = text(&manager["Model"]);
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
        Self { family, model: text(&system["Model"]), firmware: text(&manager["FirmwareVersion"]) }
    }

    pub(super) fn is(&self, family: Family) -> bool {
        self.family == family
    }

    pub(super) fn model_has(&self, part: &str) -> bool {
        self.model.contains(part)
    }

    pub(super) fn firmware_starts(&self, start: &str) -> bool {
        self.firmware.starts_with(start)
    }

    /// Whether the firmware's first number is known and lower than this.
    pub(super) fn firmware_below(&self, major: u32) -> bool {
        self.firmware.split('.').next().and_then(|first| first.parse::<u32>().ok()).is_some_and(|first| first < major)
    }
}

/// One BMC's family and facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quirks {
    family: Family,
    facts: Facts,
}

impl Quirks {
    /// What is assumed of a BMC before it is known.
    pub(super) fn unknown(without: Facts) -> Self {
        Self { family: Family::Unknown, facts: Facts::of(&Maker::default(), without) }
    }

    /// Classifies by what the documents say of their maker.
    pub(super) fn classify(root: &Value, system: &Value, manager: &Value, without: Facts) -> Self {
        let maker = Maker::read(root, system, manager);
        Self { family: maker.family, facts: Facts::of(&maker, without) }
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

    /// Whether this BMC has that oddity.
    pub(super) fn has(&self, fact: Fact) -> bool {
        self.facts.has(fact)
    }

    /// What is known of this BMC, but not what holds for every BMC.
    pub(super) fn own_facts(&self) -> impl Iterator<Item = Fact> {
        self.facts.iter().filter(|fact| !fact.name().starts_with("any-"))
    }

    /// Some resources take minutes.
    pub(super) fn is_slow(&self, path: &str) -> bool {
        let list = (self.has(Fact::AmiSlowFirmwareList) || self.family == Family::OpenBmc)
            && path.contains("FirmwareInventory");
        list || (self.has(Fact::LenovoSlowPending) && path.contains("/Pending"))
    }

    /// How a boot from virtual CD is called, best first.
    pub(super) fn cd_names(&self) -> &'static [&'static str] {
        if self.has(Fact::SupermicroUsbCd) { &["UsbCd", "Cd"] } else { &["Cd", "UsbCd"] }
    }

    /// Whether a boot target that was read back is another name of the one that was set.
    pub(super) fn same_boot_target(&self, set: &str, read: &str) -> bool {
        let next = read == "UefiBootNext" && matches!(set, "Hdd" | "UsbCd" | "Cd" | "Pxe" | "UefiHttp");
        set == read || (self.has(Fact::SupermicroOtherName) && (next || [set, read] == ["UsbCd", "Cd"]))
    }

    /// Where a media slot stands among the others, lower first; none for one that cannot take a URL.
    pub(super) fn media_rank(&self, slot: &str) -> Option<u8> {
        // RDOC is the on-board card and Remote the console's: only EXT takes a URL.
        if self.has(Fact::LenovoExtSlots) && (slot.starts_with("RDOC") || slot.starts_with("Remote")) {
            return None;
        }
        Some(if self.has(Fact::DellFirstSlot) && slot == "2" { 2 } else { 1 })
    }

    /// A refusal that passes when the same is asked again some seconds later; nothing was done.
    pub(super) fn passes_soon(&self, refusal: &super::BmcError) -> bool {
        let post = refusal.says("UnableToModifyDuringSystemPOST") || refusal.says("InvalidOperationForSystemState");
        (self.has(Fact::HpePostRefuses) && post)
            || (self.has(Fact::DellLatePowerOn) && refusal.says("ActionParameterValueConflict"))
    }

    /// A firmware's version without what stands before it.
    pub(super) fn version<'a>(&self, version: &'a str) -> &'a str {
        if self.has(Fact::NvidiaVersionPrefix)
            && let Some((prefix, rest)) = version.split_once('-')
            && prefix.to_ascii_lowercase().contains("nvl")
        {
            return rest;
        }
        // The end of a build's name: three letters and digits.
        if self.has(Fact::LenovoFirmwarePrefix)
            && let Some((build, rest)) = version.split_once('-')
            && build.len() == 3
            && build.chars().all(|c| c.is_ascii_alphanumeric())
            && rest.starts_with(|c: char| c.is_ascii_digit())
        {
            return rest;
        }
        version
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

/// Message ids that say that all went well, though they stand where errors do.
pub(super) fn is_success(id: &str) -> bool {
    let last = id.rsplit('.').next().unwrap_or(id);
    matches!(last, "Success" | "NoError" | "Created")
}

/// Message ids with which one family says the same, and that something is still to be done.
pub(super) fn is_success_of_ilo(id: &str) -> bool {
    let last = id.rsplit('.').next().unwrap_or(id);
    matches!(
        last,
        "Accepted" | "SystemResetRequired" | "ResetRequired" | "DeviceResetRequired" | "PropertyValueAlreadySet"
    )
}

#[cfg(test)]
mod tests {
    //! Each family is known by what its documents say, and facts hold for their family and not for a stranger.
    use serde_json::json;

    use super::*;

    fn of(documents: [Value; 3]) -> Quirks {
        let [root, system, manager] = documents;
        Quirks::classify(&root, &system, &manager, Facts::default())
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
        assert_eq!(of([Value::Null, Value::Null, Value::Null]), Quirks::unknown(Facts::default()));
    }

    #[test]
    fn facts_hold_where_they_were_seen() {
        let none = json!({});
        let stranger = Quirks::unknown(Facts::default());
        assert!(!stranger.has(Fact::AmiStarEtag) && stranger.own_facts().next().is_none());
        let supermicro = of([json!({"Oem": {"Supermicro": {}}}), json!({"Model": "SYS-821GE-TNHR"}), none.clone()]);
        assert_eq!(supermicro.cd_names()[0], "UsbCd");
        assert!(
            supermicro.same_boot_target("Hdd", "UefiBootNext") && !stranger.same_boot_target("Hdd", "UefiBootNext")
        );
        let grace = of([json!({"Oem": {"Supermicro": {}}}), json!({"Model": "ARS-111GL-NHR"}), none.clone()]);
        assert_eq!(grace.cd_names()[0], "Cd");
        let lenovo = of([json!({"Vendor": "Lenovo"}), json!({"Model": "ThinkSystem SR675 V3"}), none.clone()]);
        assert!(lenovo.has(Fact::LenovoRestartHangs));
        assert!(lenovo.media_rank("RDOC1").is_none() && lenovo.media_rank("EXT1").is_some());
        let dell = |firmware: &str| of([json!({"Vendor": "Dell"}), json!({}), json!({"FirmwareVersion": firmware})]);
        let (newest, newer, old) = (dell("1.20.50.50"), dell("6.00.30.00"), dell("5.10.50.00"));
        assert!(newest.has(Fact::DellLatePowerOn) && !newer.has(Fact::DellLatePowerOn));
        assert!(
            old.has(Fact::DellCdByProfile) && !newer.has(Fact::DellCdByProfile) && !newest.has(Fact::DellCdByProfile)
        );
    }

    #[test]
    fn versions_lose_what_stands_before_them() {
        let none = json!({});
        let nvidia = of([json!({"Vendor": "NVIDIA"}), none.clone(), none.clone()]);
        assert_eq!(nvidia.version("GB200Nvl-24.12-8"), "24.12-8");
        let lenovo = of([json!({"Vendor": "Lenovo"}), none.clone(), none.clone()]);
        assert_eq!(lenovo.version("42S-2.83"), "2.83");
        assert_eq!(lenovo.version("20.31-1014"), "20.31-1014");
        assert_eq!(Quirks::unknown(Facts::default()).version("GB200Nvl-24.12-8"), "GB200Nvl-24.12-8");
    }
}
