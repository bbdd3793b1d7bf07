//! Which disk: what drives the machine has, and the one that the order means. More than one is as wrong as none.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::boot;
use crate::format::boot_region::BootRegionError;
use crate::format::order::DiskSelector;
use crate::model::ByteSize;

/// Devices that are never a node's disk: memory, loops, CDs, floppies, and what other block devices are made into.
const NEVER: [&str; 10] = ["loop", "ram", "zram", "sr", "fd", "dm-", "md", "nbd", "mtd", "pmem"];

/// One drive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskInfo {
    /// The kernel's name, as in `nvme0n1`.
    pub name: String,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its model.
    pub model: Option<String>,
    /// Its world-wide name.
    pub wwn: Option<String>,
    /// Its length in bytes.
    pub bytes: u64,
    /// PCI addresses on the way to it, its own last.
    pub slots: Vec<String>,
    /// Why it may not be written, whatever the order says.
    pub barred: Option<&'static str>,
}

impl DiskInfo {
    /// Its device node.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    /// One line for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut line = format!("{}: {}", self.name, ByteSize(self.bytes));
        let fields = [("model", &self.model), ("serial", &self.serial), ("wwn", &self.wwn)];
        for (label, value) in fields.into_iter().filter_map(|(label, value)| Some((label, value.as_ref()?))) {
            // Writing to a String cannot fail.
            let _ = write!(line, ", {label} {value:?}");
        }
        if let Some(slot) = self.slots.last() {
            let _ = write!(line, ", slot {slot:?}");
        }
        if let Some(why) = self.barred {
            let _ = write!(line, " ({why})");
        }
        line
    }
}

/// Why no disk was chosen.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// A size in the order is not one.
    #[error("the order's disk selector has {0:?} as a size: write one like \"900GB\" in the spec")]
    BadSize(String),
    /// No disk fits.
    #[error("no disk fits the spec's disk selector ({wanted}). This machine has: {have}. {advice}")]
    None {
        /// The selector in words.
        wanted: String,
        /// The machine's disks.
        have: String,
        /// What to write in the spec.
        advice: String,
    },
    /// Several disks fit.
    #[error("{count} disks fit the spec's disk selector ({wanted}) and only one may: {have}. {advice}")]
    Several {
        /// How many.
        count: usize,
        /// The selector in words.
        wanted: String,
        /// The disks that fit.
        have: String,
        /// What to write in the spec.
        advice: String,
    },
}

/// The one disk that the selector means.
pub fn choose<'a>(disks: &'a [DiskInfo], selector: &DiskSelector) -> Result<&'a DiskInfo, ChoiceError> {
    let size = |text: &Option<String>| match text {
        Some(text) => text.parse::<ByteSize>().map(|size| Some(size.0)).map_err(|_| ChoiceError::BadSize(text.clone())),
        None => Ok(None),
    };
    let (min, max) = (size(&selector.size_min)?, size(&selector.size_max)?);
    let fitting: Vec<&DiskInfo> = disks
        .iter()
        .filter(|disk| disk.barred.is_none() && fits(disk, selector))
        .filter(|disk| min.is_none_or(|min| disk.bytes >= min) && max.is_none_or(|max| disk.bytes <= max))
        .collect();
    let wanted = in_words(selector);
    match fitting.as_slice() {
        [disk] => Ok(disk),
        [] => {
            let all: Vec<&DiskInfo> = disks.iter().collect();
            Err(ChoiceError::None { wanted, have: listing(&all), advice: advice(&all) })
        }
        several => {
            Err(ChoiceError::Several { count: several.len(), wanted, have: listing(several), advice: advice(several) })
        }
    }
}

fn fits(disk: &DiskInfo, selector: &DiskSelector) -> bool {
    let same = |wanted: &Option<String>, has: &Option<String>| match wanted {
        Some(wanted) => has.as_ref().is_some_and(|has| has.trim() == wanted.trim()),
        None => true,
    };
    let wwn = match &selector.wwn {
        Some(wanted) => disk.wwn.as_ref().is_some_and(|has| bare_wwn(has) == bare_wwn(wanted)),
        None => true,
    };
    let model = match &selector.model {
        Some(wanted) => disk.model.as_ref().is_some_and(|has| has.trim().starts_with(wanted.trim())),
        None => true,
    };
    let slot = match &selector.slot {
        Some(wanted) => disk.slots.iter().any(|has| has.eq_ignore_ascii_case(wanted.trim())),
        None => true,
    };
    same(&selector.serial, &disk.serial) && wwn && model && slot
}

/// A world-wide name without the prefix that only some tools print.
fn bare_wwn(text: &str) -> String {
    let lower = text.trim().to_ascii_lowercase();
    let bare = ["eui.", "naa.", "uuid.", "0x"].iter().find_map(|prefix| lower.strip_prefix(prefix));
    bare.unwrap_or(&lower).to_owned()
}

fn in_words(selector: &DiskSelector) -> String {
    let fields = [
        ("serial", &selector.serial),
        ("wwn", &selector.wwn),
        ("model", &selector.model),
        ("slot", &selector.slot),
        ("size-min", &selector.size_min),
        ("size-max", &selector.size_max),
    ];
    let given: Vec<String> =
        fields.iter().filter_map(|(name, value)| value.as_ref().map(|value| format!("{name} = {value:?}"))).collect();
    if given.is_empty() { "which names nothing, so that any one disk would do".to_owned() } else { given.join(", ") }
}

fn listing(disks: &[&DiskInfo]) -> String {
    if disks.is_empty() {
        return "no disk at all (is its controller's driver in the boot image?)".to_owned();
    }
    disks.iter().map(|disk| disk.describe()).collect::<Vec<_>>().join("; ")
}

fn advice(disks: &[&DiskInfo]) -> String {
    let usable = disks.iter().filter(|disk| disk.barred.is_none());
    let example = usable.clone().find_map(|disk| disk.serial.as_ref().map(|serial| ("serial", serial)));
    let example = example.or_else(|| usable.clone().find_map(|disk| disk.wwn.as_ref().map(|wwn| ("wwn", wwn))));
    match example.or_else(|| usable.clone().find_map(|disk| disk.slots.last().map(|slot| ("slot", slot)))) {
        Some((key, value)) => format!("Name the one that you mean in the spec, as in disk = {{ {key} = {value:?} }}"),
        None => "Check the machine's drives and its controller's mode".to_owned(),
    }
}

/// The machine's drives, in the kernel's order of names.
#[must_use]
pub fn survey() -> Vec<DiskInfo> {
    let names = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let mut names: Vec<String> = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let drives = names.iter().filter(|name| !NEVER.iter().any(|prefix| name.starts_with(prefix)));
    drives.filter_map(|name| examine(&Path::new("/sys/block").join(name), name)).collect()
}

/// What /sys says of one drive; `None` for what is no drive (no size, a hidden path of a multipath device).
fn examine(folder: &Path, name: &str) -> Option<DiskInfo> {
    let text = |attribute: &str| {
        let text = std::fs::read_to_string(folder.join(attribute)).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    // /sys counts in 512-byte units whatever the drive's sector is.
    let bytes = text("size")?.parse::<u64>().ok()?.checked_mul(512).filter(|bytes| *bytes > 0)?;
    let is_boot_part = name.starts_with("mmcblk") && name.contains("boot");
    if text("hidden").as_deref() == Some("1") || is_boot_part {
        return None;
    }
    let mut disk = DiskInfo {
        name: name.to_owned(),
        serial: text("device/serial").or_else(|| text("serial")).or_else(|| vpd_serial(folder)),
        model: text("device/model"),
        wwn: text("wwid").or_else(|| text("device/wwid")),
        bytes,
        slots: slots_of(&device_path(folder)),
        barred: None,
    };
    disk.barred = if text("removable").as_deref() == Some("1") {
        Some("removable")
    } else if text("ro").as_deref() == Some("1") {
        Some("read-only")
    } else if matches!(boot::read_region(&disk.path()), Ok(Ok(_) | Err(BootRegionError::Empty))) {
        Some("a boot medium of the agent")
    } else {
        None
    };
    Some(disk)
}

/// The serial number in a SCSI or SATA drive's vital product data, page 0x80.
fn vpd_serial(folder: &Path) -> Option<String> {
    let page = std::fs::read(folder.join("device/vpd_pg80")).ok()?;
    let length = usize::from(u16::from_be_bytes([*page.get(2)?, *page.get(3)?]));
    let text = String::from_utf8_lossy(page.get(4..)?.get(..length)?).trim_matches(['\0', ' ']).to_owned();
    Some(text).filter(|text| !text.is_empty())
}

/// Where the drive hangs. A drive with several ports is a child of its NVMe subsystem, which is on no bus: there the
/// first of its controllers says where.
fn device_path(folder: &Path) -> PathBuf {
    let path = folder.canonicalize().unwrap_or_default();
    let Some(subsystem) = path.parent().filter(|parent| parent.components().any(|c| c.as_os_str() == "nvme-subsystem"))
    else {
        return path;
    };
    let entries = std::fs::read_dir(subsystem).into_iter().flatten().flatten();
    let links = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
    let mut controllers: Vec<PathBuf> =
        links.map(|entry| entry.path()).filter(|path| name_of(path).starts_with("nvme")).collect();
    controllers.sort();
    controllers.first().and_then(|link| link.canonicalize().ok()).unwrap_or(path)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The parts of a device's path that are PCI addresses (`0000:c1:00.0`).
fn slots_of(path: &Path) -> Vec<String> {
    let is_slot = |text: &str| {
        let bytes = text.as_bytes();
        bytes.len() == 12
            && [(4, b':'), (7, b':'), (10, b'.')].iter().all(|(at, mark)| bytes[*at] == *mark)
            && bytes.iter().enumerate().all(|(at, b)| [4, 7, 10].contains(&at) || b.is_ascii_hexdigit())
    };
    let parts = path.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
    parts.filter(|part| is_slot(part)).collect()
}

#[cfg(test)]
mod tests {
    //! A table of selectors against one machine's drives: exactly one, or an error that says what to write.
    use super::*;

    fn machine() -> Vec<DiskInfo> {
        let disk = |name: &str, serial: &str, gb: u64, slot: &str| DiskInfo {
            name: name.into(),
            serial: Some(serial.into()),
            model: Some("ACME Flash 9000".into()),
            wwn: Some(format!("eui.00{}", serial.to_lowercase())),
            bytes: gb * 1_000_000_000,
            slots: vec!["0000:80:01.0".into(), slot.into()],
            barred: None,
        };
        vec![
            disk("nvme0n1", "S1", 960, "0000:c1:00.0"),
            disk("nvme1n1", "S2", 7680, "0000:c2:00.0"),
            disk("nvme2n1", "S3", 7680, "0000:c3:00.0"),
            DiskInfo { barred: Some("removable"), ..disk("sda", "USB", 32, "0000:00:14.0") },
        ]
    }

    fn select(text: &str) -> DiskSelector {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn one_disk_or_none() {
        for (selector, expected) in [
            (r#"{"serial":"S2"}"#, Some("nvme1n1")),
            (r#"{"serial":" S2 "}"#, Some("nvme1n1")),
            (r#"{"serial":"s2"}"#, None),
            (r#"{"serial":"S"}"#, None),
            (r#"{"serial":"USB"}"#, None),
            (r#"{"wwn":"EUI.00S3"}"#, Some("nvme2n1")),
            (r#"{"wwn":"0x00s3"}"#, Some("nvme2n1")),
            (r#"{"model":"ACME"}"#, None),
            (r#"{"model":"ACME","size-max":"1TB"}"#, Some("nvme0n1")),
            (r#"{"size-min":"1TB"}"#, None),
            (r#"{"size-min":"1TB","slot":"0000:C3:00.0"}"#, Some("nvme2n1")),
            (r#"{"slot":"0000:80:01.0"}"#, None),
            (r#"{"size-max":"100GB"}"#, None),
            (r#"{"serial":"S1","size-min":"1TB"}"#, None),
            ("{}", None),
        ] {
            let disks = machine();
            let chosen = choose(&disks, &select(selector)).ok().map(|disk| disk.name.as_str());
            assert_eq!(chosen, expected, "{selector}");
        }
    }

    #[test]
    fn says_what_there_is_and_what_to_write() {
        let disks = machine();
        let error = choose(&disks, &select(r#"{"size-min":"1TB"}"#)).unwrap_err().to_string();
        assert!(error.starts_with("2 disks fit"), "{error}");
        assert!(
            error.contains("serial \"S2\"") && error.contains("serial \"S3\"") && !error.contains("\"S1\""),
            "{error}"
        );
        assert!(error.ends_with("disk = { serial = \"S2\" }"), "{error}");
        let error = choose(&disks, &select(r#"{"serial":"X"}"#)).unwrap_err().to_string();
        assert!(error.contains("sda") && error.contains("removable"), "{error}");
        let error = choose(&[], &select("{}")).unwrap_err().to_string();
        assert!(error.contains("no disk at all"), "{error}");
        assert_eq!(choose(&disks, &select(r#"{"size-min":"big"}"#)), Err(ChoiceError::BadSize("big".into())));
    }

    #[test]
    fn reads_sys() {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("device");
        std::fs::create_dir(&device).unwrap();
        std::fs::write(folder.path().join("size"), "2048\n").unwrap();
        std::fs::write(folder.path().join("removable"), "0\n").unwrap();
        std::fs::write(device.join("model"), "QEMU HARDDISK   \n").unwrap();
        std::fs::write(device.join("vpd_pg80"), b"\0\x80\0\x08QM00001 ").unwrap();
        let disk = examine(folder.path(), "no-such-device").unwrap();
        assert_eq!((disk.bytes, disk.serial.as_deref()), (1 << 20, Some("QM00001")));
        assert_eq!(disk.model.as_deref(), Some("QEMU HARDDISK"));
        std::fs::write(folder.path().join("size"), "0\n").unwrap();
        assert_eq!(examine(folder.path(), "empty"), None);
        let path = Path::new("/sys/devices/pci0000:80/0000:80:01.0/0000:c1:00.0/nvme/nvme0/nvme0n1");
        assert_eq!(slots_of(path), ["0000:80:01.0", "0000:c1:00.0"]);
    }
}
