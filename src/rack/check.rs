//! Which disk a selector means, as far as a BMC tells. Pure. The agent decides again on the node, where it sees all.

use serde::{Deserialize, Serialize};

use crate::format::order::DiskSelector;
use crate::model::ByteSize;
use crate::rack::machine::{Found, FoundDrive};

/// Which disk a selector means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum DiskVerdict {
    /// Exactly this one.
    One {
        /// The drive.
        drive: FoundDrive,
    },
    /// The BMC does not tell enough; the agent will decide.
    Unknown {
        /// What is missing.
        why: String,
    },
    /// None of the drives fits.
    None {
        /// What there is.
        drives: Vec<FoundDrive>,
    },
    /// More than one fits.
    Several {
        /// Those that fit.
        drives: Vec<FoundDrive>,
    },
}

/// How a drive meets a selector.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fit {
    Yes,
    No,
    /// It fits as far as is known, and something that was asked for is not.
    Maybe,
}

/// Which of the drives that were found the selector means.
#[must_use]
pub fn disk(selector: &DiskSelector, found: &Found) -> DiskVerdict {
    if found.drives.is_empty() {
        return DiskVerdict::Unknown { why: "the BMC names no drive".to_owned() };
    }
    let fits: Vec<(Fit, &FoundDrive)> = found.drives.iter().map(|drive| (fit(selector, drive), drive)).collect();
    let of = |wanted: Fit| fits.iter().filter(move |(fit, _)| *fit == wanted).map(|(_, drive)| (*drive).clone());
    let yes: Vec<FoundDrive> = of(Fit::Yes).collect();
    let maybe = of(Fit::Maybe).count();
    match (yes.as_slice(), maybe) {
        ([], 0) if found.gaps.iter().any(|gap| is_about_drives(gap)) => {
            DiskVerdict::Unknown { why: "the BMC could not tell of all drives".to_owned() }
        }
        ([], 0) => DiskVerdict::None { drives: found.drives.clone() },
        ([drive], 0) => DiskVerdict::One { drive: drive.clone() },
        ([_, _, ..], _) => DiskVerdict::Several { drives: yes },
        _ => DiskVerdict::Unknown { why: "the BMC does not tell what the selector asks for".to_owned() },
    }
}

fn is_about_drives(gap: &str) -> bool {
    let gap = gap.to_ascii_lowercase();
    ["drive", "storage", "volume", "disk"].iter().any(|word| gap.contains(word))
}

fn fit(selector: &DiskSelector, drive: &FoundDrive) -> Fit {
    let size = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<ByteSize>().ok());
    let tests = [
        text(selector.serial.as_deref(), drive.serial.as_deref(), |wanted, has| has.trim() == wanted.trim()),
        text(selector.wwn.as_deref(), drive.wwn.as_deref(), |wanted, has| world_wide(wanted) == world_wide(has)),
        text(selector.model.as_deref(), drive.model.as_deref(), |wanted, has| has.trim().starts_with(wanted.trim())),
        // No BMC says at which PCI address its host sees a drive.
        if selector.slot.is_some() { Fit::Maybe } else { Fit::Yes },
        bound(size(&selector.size_min), drive.bytes, |bound, bytes| bytes >= bound),
        bound(size(&selector.size_max), drive.bytes, |bound, bytes| bytes <= bound),
    ];
    if tests.contains(&Fit::No) {
        Fit::No
    } else if tests.contains(&Fit::Maybe) {
        Fit::Maybe
    } else {
        Fit::Yes
    }
}

fn text(wanted: Option<&str>, has: Option<&str>, same: impl Fn(&str, &str) -> bool) -> Fit {
    match (wanted, has.filter(|has| !has.trim().is_empty())) {
        (None, _) => Fit::Yes,
        (Some(_), None) => Fit::Maybe,
        (Some(wanted), Some(has)) if same(wanted, has) => Fit::Yes,
        _ => Fit::No,
    }
}

fn bound(bound: Option<ByteSize>, has: Option<u64>, holds: impl Fn(u64, u64) -> bool) -> Fit {
    match (bound, has) {
        (None, _) => Fit::Yes,
        (Some(_), None) => Fit::Maybe,
        (Some(bound), Some(has)) if holds(bound.0, has) => Fit::Yes,
        _ => Fit::No,
    }
}

/// A world-wide name without its prefix and separators, in lower case.
fn world_wide(text: &str) -> String {
    let text = text.trim().to_ascii_lowercase();
    let text = text.split_once('.').map_or(text.as_str(), |(_, rest)| rest);
    text.trim_start_matches("0x").chars().filter(char::is_ascii_alphanumeric).collect()
}

/// A drive in words.
#[must_use]
pub fn describe(drive: &FoundDrive) -> String {
    let mut words = Vec::new();
    if let Some(serial) = &drive.serial {
        words.push(format!("serial {serial}"));
    }
    if let Some(wwn) = &drive.wwn {
        words.push(format!("wwn {wwn}"));
    }
    if let Some(model) = &drive.model {
        words.push(model.clone());
    }
    if let Some(bytes) = drive.bytes {
        words.push(ByteSize(bytes).to_string());
    }
    if words.is_empty() { drive.name.clone() } else { format!("{} ({})", drive.name, words.join(", ")) }
}

/// A selector in words.
#[must_use]
pub fn selector_words(selector: &DiskSelector) -> String {
    [
        ("serial", &selector.serial),
        ("wwn", &selector.wwn),
        ("model", &selector.model),
        ("slot", &selector.slot),
        ("size-min", &selector.size_min),
        ("size-max", &selector.size_max),
    ]
    .iter()
    .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name} = {value:?}")))
    .collect::<Vec<_>>()
    .join(", ")
}

#[cfg(test)]
mod tests {
    //! One drive, none, several or unknown: the verdict for each way in which a selector can meet drives.
    use super::*;
    use crate::rack::machine::Power;

    fn drive(serial: &str, model: &str, bytes: u64) -> FoundDrive {
        FoundDrive {
            name: format!("drive {serial}"),
            serial: Some(serial.to_owned()),
            model: Some(model.to_owned()),
            bytes: Some(bytes),
            wwn: Some(format!("eui.00{serial}")),
            protocol: None,
        }
    }

    fn found(drives: Vec<FoundDrive>) -> Found {
        Found {
            vendor: None,
            model: None,
            serial: None,
            uuid: None,
            power: Power::Off,
            bios: None,
            bmc_firmware: None,
            cpus: None,
            memory_bytes: None,
            gpus: 0,
            drives,
            health: None,
            gaps: Vec::new(),
        }
    }

    fn word(selector: &DiskSelector, found: &Found) -> &'static str {
        match disk(selector, found) {
            DiskVerdict::One { .. } => "one",
            DiskVerdict::Unknown { .. } => "unknown",
            DiskVerdict::None { .. } => "none",
            DiskVerdict::Several { .. } => "several",
        }
    }

    #[test]
    fn verdicts() {
        let some = |text: &str| Some(text.to_owned());
        let all = found(vec![drive("A1", "FAST 960", 960_000_000_000), drive("B2", "FAST 3840", 3_840_000_000_000)]);
        let none = DiskSelector::default();
        for (wanted, selector) in [
            ("one", DiskSelector { serial: some(" A1 "), ..none.clone() }),
            ("none", DiskSelector { serial: some("A"), ..none.clone() }),
            ("one", DiskSelector { wwn: some("0x00B2"), ..none.clone() }),
            ("several", DiskSelector { model: some("FAST"), ..none.clone() }),
            ("one", DiskSelector { model: some("FAST"), size_max: some("1TB"), ..none.clone() }),
            ("none", DiskSelector { size_min: some("9TB"), ..none.clone() }),
            ("unknown", DiskSelector { slot: some("0000:c1:00.0"), ..none.clone() }),
            ("none", DiskSelector { slot: some("0000:c1:00.0"), serial: some("X"), ..none.clone() }),
        ] {
            assert_eq!(word(&selector, &all), wanted, "{}", selector_words(&selector));
        }
        assert_eq!(word(&none, &found(Vec::new())), "unknown");
    }

    #[test]
    fn a_gap_in_what_the_bmc_tells_is_not_a_missing_disk() {
        let selector = DiskSelector { serial: Some("Z".to_owned()), ..DiskSelector::default() };
        let mut seen = found(vec![drive("A1", "M", 1)]);
        seen.gaps.push("Storage/2: 500".to_owned());
        assert_eq!(word(&selector, &seen), "unknown");
    }
}
