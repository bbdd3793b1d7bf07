//! The firmware's boot entry for the installed disk, through efivarfs: the disk's own entry first in the boot order,
//! and no stale ones of ours.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::gpt::SystemPartition;
use crate::sys::process;

/// Where the firmware's variables are mounted.
pub const EFIVARS: &str = "/sys/firmware/efi/efivars";
/// The file that the firmware starts.
pub const LOADER: &str = "\\EFI\\BOOT\\BOOTX64.EFI";
/// What the entry is called in the firmware's menu.
pub const ENTRY_NAME: &str = "bedplate";

/// The GUID of the UEFI specification's own variables.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Kept over power-off, and visible before and after the system starts.
const ATTRIBUTES: u32 = 7;
const ACTIVE: u32 = 1;

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// One node of a device path: type, subtype, length, data.
fn path_node(kind: u8, subtype: u8, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len() + 4).unwrap_or(u16::MAX).to_le_bytes();
    [&[kind, subtype], &length[..], data].concat()
}

/// The load option (UEFI 3.1.3) that starts `LOADER` from this partition.
#[must_use]
pub fn load_option(system: &SystemPartition) -> Vec<u8> {
    let mut drive = Vec::with_capacity(38);
    drive.extend(system.number.to_le_bytes());
    drive.extend(system.start.to_le_bytes());
    drive.extend(system.sectors.to_le_bytes());
    drive.extend(system.guid);
    // A GPT partition, known by its GUID.
    drive.extend([2, 2]);
    let path = [path_node(4, 1, &drive), path_node(4, 4, &utf16(LOADER)), path_node(0x7f, 0xff, &[])].concat();
    let length = u16::try_from(path.len()).unwrap_or(u16::MAX);
    [&ACTIVE.to_le_bytes()[..], &length.to_le_bytes(), &utf16(ENTRY_NAME), &path].concat()
}

/// The description of a load option.
fn name_of(option: &[u8]) -> Option<String> {
    let units = option.get(6..)?.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    String::from_utf16(&units.take_while(|unit| *unit != 0).collect::<Vec<_>>()).ok()
}

/// The firmware's variables in one folder.
struct Variables {
    folder: PathBuf,
}

impl Variables {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}-{GLOBAL}"))
    }

    /// A variable's data, without its attributes.
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let bytes = std::fs::read(self.path(name))?;
        Ok(bytes.get(4..).unwrap_or_default().to_vec())
    }

    /// Writes a variable in the one call that efivarfs needs.
    fn write(&self, name: &str, data: &[u8]) -> io::Result<()> {
        let path = self.path(name);
        self.unlock(&path)?;
        let bytes = [&ATTRIBUTES.to_le_bytes()[..], data].concat();
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
        file.write_all(&bytes)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        self.unlock(&path)?;
        std::fs::remove_file(path)
    }

    /// efivarfs makes its files immutable, so that `rm -r` does not brick a machine.
    fn unlock(&self, path: &Path) -> io::Result<()> {
        match File::open(path) {
            Ok(file) => match process::set_immutable(&file, false) {
                // Not efivarfs: nothing to unlock.
                Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => Ok(()),
                other => other.map(|_| ()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Numbers and names of all boot entries.
    fn entries(&self) -> io::Result<Vec<(u16, String)>> {
        let mut entries = Vec::new();
        for file in std::fs::read_dir(&self.folder)? {
            let name = file?.file_name().to_string_lossy().into_owned();
            let digits = name.strip_prefix("Boot").and_then(|rest| rest.strip_suffix(&format!("-{GLOBAL}")));
            let Some(digits) = digits.filter(|digits| digits.len() == 4) else { continue };
            if let Ok(number) = u16::from_str_radix(digits, 16) {
                let option = self.read(&format!("Boot{digits}"))?;
                entries.push((number, name_of(&option).unwrap_or_default()));
            }
        }
        entries.sort_unstable();
        Ok(entries)
    }
}

/// Puts an entry for this partition first in the boot order, in place of all older ones of ours. Answers its number.
///
/// Fails where the machine did not boot by UEFI, or the firmware refuses.
pub fn set_boot_entry(folder: &Path, system: &SystemPartition) -> io::Result<u16> {
    let variables = Variables { folder: folder.to_owned() };
    let entries = variables.entries()?;
    let ours: Vec<u16> = entries.iter().filter(|(_, name)| name == ENTRY_NAME).map(|(number, _)| *number).collect();
    let taken = |number: &u16| entries.iter().any(|(other, _)| other == number) && !ours.contains(number);
    let number = (0..=u16::MAX).find(|number| !taken(number)).unwrap_or_default();
    variables.write(&format!("Boot{number:04X}"), &load_option(system))?;
    for stale in ours.iter().filter(|other| **other != number) {
        variables.remove(&format!("Boot{stale:04X}"))?;
    }
    let order = variables.read("BootOrder").unwrap_or_default();
    let others = order.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let others = others.filter(|other| *other != number && !ours.contains(other));
    let wanted: Vec<u8> = [number].into_iter().chain(others).flat_map(u16::to_le_bytes).collect();
    if wanted != order {
        variables.write("BootOrder", &wanted)?;
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    //! The load option's bytes are the specification's, and the boot order keeps everybody else's entries.
    use super::*;

    fn system() -> SystemPartition {
        SystemPartition { number: 1, start: 2048, sectors: 0x4000, guid: [0xab; 16] }
    }

    #[test]
    fn makes_a_load_option() {
        let option = load_option(&system());
        let mut expected = vec![1, 0, 0, 0, 98, 0];
        expected.extend("bedplate\0".encode_utf16().flat_map(u16::to_le_bytes));
        expected.extend([4, 1, 42, 0, 1, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0]);
        expected.extend([0xab; 16]);
        expected.extend([2, 2, 4, 4, 52, 0]);
        expected
            .extend("\\EFI\\BOOT\\BOOTX64.EFI\0\0".trim_end_matches('\0').encode_utf16().flat_map(u16::to_le_bytes));
        expected.extend([0, 0, 0x7f, 0xff, 4, 0]);
        let path_length = expected.len() - 6 - 18;
        expected[4] = u8::try_from(path_length).unwrap();
        let file_length = 4 + 2 * (LOADER.len() + 1);
        let at = 6 + 18 + 42 + 2;
        expected[at] = u8::try_from(file_length).unwrap();
        assert_eq!(option, expected);
        assert_eq!(name_of(&option).as_deref(), Some("bedplate"));
    }

    #[test]
    fn keeps_others_and_replaces_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let variables = Variables { folder: folder.path().to_owned() };
        let other = [&ACTIVE.to_le_bytes()[..], &[4, 0], &utf16("PXE"), &path_node(0x7f, 0xff, &[])].concat();
        variables.write("Boot0000", &other).unwrap();
        variables.write("Boot0002", &load_option(&system())).unwrap();
        variables.write("Boot0003", &load_option(&system())).unwrap();
        variables.write("BootOrder", &[0, 0, 3, 0, 2, 0]).unwrap();
        variables.write("BootCurrent", &[0, 0]).unwrap();
        // A plain folder keeps the tail of a longer file, where efivarfs replaces the variable.
        let order = || variables.read("BootOrder").unwrap()[..4].to_vec();
        assert_eq!(set_boot_entry(folder.path(), &system()).unwrap(), 1);
        assert_eq!(order(), [1, 0, 0, 0]);
        let names: Vec<(u16, String)> = variables.entries().unwrap();
        assert_eq!(names, [(0, "PXE".to_owned()), (1, "bedplate".to_owned())]);
        assert_eq!(set_boot_entry(folder.path(), &system()).unwrap(), 1);
        assert_eq!(order(), [1, 0, 0, 0]);
        assert!(set_boot_entry(Path::new("/no/such/folder"), &system()).is_err());
    }
}
