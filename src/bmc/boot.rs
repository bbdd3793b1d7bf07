//! The next boot: set whole, read back, under whatever name the BMC keeps it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::fact::Fact;
use super::task::Until;
use super::{Bmc, BmcError, oem, until};

/// What to boot next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootTarget {
    /// The virtual CD.
    Cd,
    /// The disk.
    Hdd,
    /// An address over HTTP (UEFI HTTP boot).
    Http,
    /// Whatever the machine's own order says.
    None,
}

/// How long a BMC keeps what was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kept {
    /// For the next boot.
    Once,
    /// Until it is changed.
    Continuous,
    /// There is no override.
    Cleared,
}

struct Setting {
    target: &'static str,
    enabled: &'static str,
    mode: bool,
}

impl Setting {
    fn body(&self, alone: bool) -> Value {
        let mut boot = json!({ "BootSourceOverrideTarget": self.target });
        if !alone {
            boot["BootSourceOverrideEnabled"] = json!(self.enabled);
        }
        if self.mode {
            boot["BootSourceOverrideMode"] = json!("UEFI");
        }
        json!({ "Boot": boot })
    }
}

impl Bmc {
    /// Sets what boots next, in UEFI mode, for one boot where the BMC can; reads it back. Says how long the BMC keeps
    /// it.
    ///
    /// # Errors
    /// [`BmcError::NotObeyed`] when it reads back otherwise, [`BmcError::Unsupported`] when the BMC offers no such
    /// target.
    pub async fn set_boot(&self, wanted: BootTarget) -> Result<Kept, BmcError> {
        if wanted == BootTarget::Cd && self.quirks.has(Fact::DellCdByProfile) {
            return self.boot_cd_by_profile().await;
        }
        let system = self.outline(&self.system).await?;
        let place = self.boot_place(&system).await;
        let mut setting = self.setting(&place.boot, &system["Boot"], wanted)?;
        let alone = wanted == BootTarget::None && self.quirks.has(Fact::HpeBootClearedByTarget);
        let mut tries = 0;
        loop {
            let body = setting.body(alone);
            let Err(error) = self.patch(&place.link, &body).await else { break };
            tries += 1;
            let refused = tries < 4 && matches!(error.status(), Some(400 | 422 | 500 | 501));
            // Old BMCs reject the mode, some reject one of the two durations.
            if refused && setting.mode && error.says("BootSourceOverrideMode") {
                setting.mode = false;
            } else if refused && setting.enabled == "Once" {
                setting.enabled = "Continuous";
            } else if refused && setting.mode {
                (setting.mode, setting.enabled) = (false, "Once");
            } else {
                return Err(error);
            }
        }
        self.boot_reads(wanted, &setting, &place.link).await
    }

    fn setting(&self, place: &Value, now: &Value, wanted: BootTarget) -> Result<Setting, BmcError> {
        let texts = |key: &str| -> Vec<String> {
            let list = place.get(key).or_else(|| now.get(key)).and_then(Value::as_array);
            list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let offered = texts("BootSourceOverrideTarget@Redfish.AllowableValues");
        let names: &[&'static str] = match wanted {
            BootTarget::Cd => self.quirks.cd_names(),
            BootTarget::Hdd => &["Hdd"],
            BootTarget::Http => &["UefiHttp"],
            BootTarget::None if self.quirks.has(Fact::SushyKeepsBoot) => {
                return Err(self.unsupported("clear a boot override: it keeps one until another is set"));
            }
            BootTarget::None => &["None"],
        };
        let target = match offered.is_empty() {
            true => names.first(),
            false => names.iter().find(|name| offered.iter().any(|o| o == *name)),
        };
        let Some(target) = target else {
            return Err(self.unsupported(format!("boot from {wanted:?}: it offers only {}", offered.join(", "))));
        };
        let durations = texts("BootSourceOverrideEnabled@Redfish.AllowableValues");
        let once = durations.is_empty() || durations.iter().any(|d| d == "Once");
        let enabled = match wanted {
            BootTarget::None => "Disabled",
            _ if once => "Once",
            _ => "Continuous",
        };
        Ok(Setting { target, enabled, mode: wanted != BootTarget::None })
    }

    /// Where the override is written: the pending settings where they hold it, else the system itself.
    async fn boot_place(&self, system: &Value) -> Place {
        let here = Place { link: self.system.clone(), boot: system["Boot"].clone() };
        let staged = system["@Redfish.Settings"]["SettingsObject"]["@odata.id"].as_str();
        let Some(link) = staged.filter(|_| self.quirks.has(Fact::BootStaged)) else { return here };
        let Ok(pending) = self.client.get::<Value>(link).await else { return here };
        match pending["Boot"].get("BootSourceOverrideTarget") {
            Some(_) => Place { link: link.to_owned(), boot: pending["Boot"].clone() },
            None => here,
        }
    }

    /// Sets the virtual CD to boot once by importing a profile, on controllers that accept the override and ignore it.
    async fn boot_cd_by_profile(&self) -> Result<Kept, BmcError> {
        self.controller_ready().await?;
        let manager = self.managers.first().map_or(oem::IDRAC_MANAGER, String::as_str);
        let target = format!("{}{}", manager.trim_end_matches('/'), oem::DELL_IMPORT);
        let body = json!({ "ShareParameters": { "Target": ["ALL"] }, "ImportBuffer": oem::DELL_CD_PROFILE });
        let taken = self.post(&target, &body).await?;
        self.follow("the boot from the virtual CD", &taken, Until::Over, self.timing().task).await?;
        Ok(Kept::Once)
    }

    async fn boot_reads(&self, wanted: BootTarget, set: &Setting, place: &str) -> Result<Kept, BmcError> {
        let look = || async {
            for link in
                [Some(self.system.as_str()), Some(place).filter(|place| *place != self.system)].into_iter().flatten()
            {
                let document: Value = self.client.get(link).await?;
                self.lately.keep(link, &document);
                if let Some(kept) = self.boot_kept(wanted, set, &document["Boot"]) {
                    return Ok(Some(kept));
                }
            }
            Ok(None)
        };
        if let Some(kept) = until(self.timing().look, self.timing().setting, look).await? {
            return Ok(kept);
        }
        let boot = self.system().await?["Boot"].clone();
        let (target, enabled) = (&boot["BootSourceOverrideTarget"], &boot["BootSourceOverrideEnabled"]);
        Err(self.not_obeyed(format!("boot from {}", set.target), format!("it reads back as {target}, {enabled}")))
    }

    /// How the BMC keeps it, if what it shows is what was set.
    fn boot_kept(&self, wanted: BootTarget, set: &Setting, boot: &Value) -> Option<Kept> {
        let target = boot["BootSourceOverrideTarget"].as_str().unwrap_or("None");
        let enabled = boot["BootSourceOverrideEnabled"].as_str().unwrap_or("Disabled");
        if wanted == BootTarget::None {
            return (enabled == "Disabled" || target == "None").then_some(Kept::Cleared);
        }
        let same = self.quirks.same_boot_target(set.target, target);
        match enabled {
            "Once" if same => Some(Kept::Once),
            "Continuous" if same => Some(Kept::Continuous),
            _ => None,
        }
    }
}

/// A resource that holds the boot override, and what it shows.
struct Place {
    link: String,
    boot: Value,
}
