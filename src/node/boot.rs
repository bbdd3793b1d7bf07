//! Finding the boot region: at one place of one raw device, the medium that this agent was booted from.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::console;
use super::modules::Loader;
use crate::format::boot_region::{self, BootRegion, BootRegionError};

/// Devices that a boot image may come as: CD, USB stick or SCSI disk, paravirtual disk, NVMe.
const KINDS: [&str; 4] = ["sr", "sd", "vd", "nvme"];

/// The region, and where it was.
#[derive(Clone, Debug)]
pub struct Medium {
    /// What it says.
    pub region: BootRegion,
    /// The device's name, as in `sr0`.
    pub device: String,
}

/// Whole block devices that may carry a boot image, removable ones first.
fn candidates() -> Vec<String> {
    let names = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let mut names: Vec<String> = names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| KINDS.iter().any(|kind| name.starts_with(kind)))
        .collect();
    names.sort_by_key(|name| (KINDS.iter().position(|kind| name.starts_with(kind)), name.clone()));
    names
}

/// Reads the region off one device.
pub fn read_region(device: &Path) -> io::Result<Result<BootRegion, BootRegionError>> {
    let file = std::fs::File::open(device)?;
    let mut bytes = vec![0; boot_region::LENGTH];
    file.read_exact_at(&mut bytes, boot_region::OFFSET)?;
    Ok(BootRegion::decode(&bytes))
}

/// Looks at every device until one carries a region; says every ten seconds what it saw so far.
pub fn find(loader: &mut Loader) -> Medium {
    let mut said = Instant::now();
    console::say("boot", "looking for the boot region on every drive");
    loop {
        let mut looked = Vec::new();
        for name in candidates() {
            match read_region(&PathBuf::from("/dev").join(&name)) {
                Ok(Ok(region)) => {
                    console::say(
                        "boot",
                        format!("this is {}; orders from {} (read off {name})", region.node, region.url),
                    );
                    return Medium { region, device: name };
                }
                Ok(Err(BootRegionError::NoMagic)) => looked.push(format!("{name}: not a boot image")),
                Ok(Err(error)) => looked.push(format!("{name}: {error}")),
                Err(error) => looked.push(format!("{name}: {error}")),
            }
        }
        if said.elapsed() > Duration::from_secs(10) {
            said = Instant::now();
            let seen = if looked.is_empty() { "no drive yet".to_owned() } else { looked.join("; ") };
            console::say("boot", format!("no boot region found yet ({seen})"));
        }
        loader.settle(Duration::from_secs(2));
    }
}

#[cfg(test)]
mod tests {
    //! The region is read at its place, and anything else is told apart.
    use super::*;

    #[test]
    fn reads_at_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("medium");
        let region = BootRegion {
            url: "https://10.0.0.1:9100".into(),
            certificate_pin: "00".repeat(32),
            token: "t".into(),
            node: "n".into(),
        };
        let mut bytes = vec![0; 64 * 1024];
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(read_region(&path).unwrap(), Err(BootRegionError::NoMagic)));
        let at = usize::try_from(boot_region::OFFSET).unwrap();
        bytes[at..at + boot_region::LENGTH].copy_from_slice(&region.encode().unwrap());
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read_region(&path).unwrap().unwrap(), region);
        std::fs::write(&path, b"short").unwrap();
        assert!(read_region(&path).is_err());
    }
}
