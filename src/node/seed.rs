//! The installed system's one report: the seed that the agent left on the disk says where to, the system says what it
//! is.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::fat::Volume;
use super::gpt::SEED_NAME;
use crate::format::digest::chunk_digest;
use crate::format::order::{Booted, Seed};
use crate::model::{ImageRef, Secret};
use crate::pull::{Appliance, Login, Patience, PullError};
use crate::sys::disk::{Access, Disk};

/// The file of the seed volume that is ours.
pub const SEED_FILE: &str = "bedplate.json";
const IMAGE_FILE: &str = "/etc/bedplate/image";
const REPORTED: &str = "/var/lib/bedplate/reported";
/// Networks come up late, and an appliance may be restarting.
const PATIENCE: Patience = Patience::For(Duration::from_secs(15 * 60));

/// Why the report could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// No seed anywhere.
    #[error(
        "no volume labelled {SEED_NAME} with a {SEED_FILE} on any drive: this system was not installed by bedplate"
    )]
    NoSeed,
    /// The system does not say which image it is.
    #[error("{IMAGE_FILE} does not name an image: the recipe that built this system must write it")]
    NoImage(#[source] io::Error),
    /// The appliance cannot be told.
    #[error("the appliance at {url} was not told of this boot")]
    Pull {
        /// Where it was looked for.
        url: String,
        /// Why.
        #[source]
        source: PullError,
    },
    /// The seed is unusable.
    #[error("the seed's certificate pin is not 64 hexadecimal digits")]
    Pin,
}

/// The device that holds `/`, and the name of the drive that it is on.
struct Root {
    device: String,
    drive: Option<String>,
}

fn root() -> Root {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    parse_root(&mounts, |numbers| Path::new("/sys/dev/block").join(numbers).canonicalize().ok())
}

fn parse_root(mounts: &str, resolve: impl Fn(&str) -> Option<PathBuf>) -> Root {
    let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let Some(fields) = fields.rfind(|fields| fields.get(4) == Some(&"/")) else {
        return Root { device: "unknown".to_owned(), drive: None };
    };
    let name = |path: Option<&Path>| path.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let path = resolve(fields[2]);
    let source = fields.iter().position(|field| *field == "-").and_then(|at| fields.get(at + 2));
    let fallback = || source.map_or_else(|| "unknown".to_owned(), |source| (*source).to_owned());
    let device = name(path.as_deref()).map(|name| format!("/dev/{name}")).unwrap_or_else(fallback);
    Root { device, drive: name(path.as_deref().and_then(Path::parent)) }
}

/// Every block device, those on `drive` first: another drive may hold the seed of an older installation.
fn candidates(drive: Option<&str>) -> Vec<PathBuf> {
    let folder = Path::new("/sys/class/block");
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<(bool, String)> = names
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = entry.path().canonicalize().unwrap_or_default();
            let on_drive = drive.is_some_and(|drive| path.components().any(|part| part.as_os_str() == drive));
            (!on_drive, name)
        })
        .filter(|(_, name)| !name.starts_with("loop") && !name.starts_with("ram"))
        .collect();
    names.sort();
    names.into_iter().map(|(_, name)| Path::new("/dev").join(name)).collect()
}

/// The seed of one volume; `None` where it is not a seed volume.
#[must_use]
pub fn read_seed(path: &Path) -> Option<Seed> {
    let disk = Disk::open(path, Access::Read).ok()?;
    let volume = Volume::open(&disk)?;
    if !volume.label().eq_ignore_ascii_case(SEED_NAME) {
        return None;
    }
    serde_json::from_slice(&volume.read_file(SEED_FILE)?).ok()
}

fn read_image() -> Result<ImageRef, ReportError> {
    let text = std::fs::read_to_string(IMAGE_FILE).map_err(ReportError::NoImage)?;
    text.trim().parse().map_err(|error| ReportError::NoImage(io::Error::other(error)))
}

fn line_of(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Tells the appliance what booted; answers whether there was anything to tell. Once told, later boots of the same
/// installation tell nothing.
pub async fn report_boot() -> Result<bool, ReportError> {
    let root = root();
    let seed = candidates(root.drive.as_deref()).iter().find_map(|path| read_seed(path)).ok_or(ReportError::NoSeed)?;
    let image = read_image()?;
    let told = chunk_digest(format!("{image} {}", seed.token).as_bytes()).to_string();
    if line_of(REPORTED) == told {
        return Ok(false);
    }
    let booted = Booted {
        image,
        hostname: line_of("/proc/sys/kernel/hostname"),
        root_device: root.device,
        boot_id: line_of("/proc/sys/kernel/random/boot_id"),
    };
    send(&seed, &booted).await?;
    let remembered = std::fs::create_dir_all("/var/lib/bedplate").and_then(|()| std::fs::write(REPORTED, &told));
    if let Err(error) = remembered {
        tracing::warn!("{REPORTED} cannot be written ({error}): the next boot will report again");
    }
    Ok(true)
}

async fn send(seed: &Seed, booted: &Booted) -> Result<(), ReportError> {
    let mut pin = [0; 32];
    hex::decode_to_slice(&seed.certificate_pin, &mut pin).map_err(|_| ReportError::Pin)?;
    let failed = |source| ReportError::Pull { url: seed.url.clone(), source };
    let login = Login::Token(Secret::new(seed.token.clone()));
    let appliance = Appliance::new(&seed.url, Some(pin), &login).map_err(failed)?;
    PATIENCE.keep_trying("reporting the boot", || appliance.post_json("/agent/v1/booted", booted)).await.map_err(failed)
}

#[cfg(test)]
mod tests {
    //! The root device is found whatever the kernel calls it.
    use super::*;

    #[test]
    fn finds_the_root_device() {
        let mounts =
            "22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/root rw\n23 22 0:5 / /dev rw - devtmpfs udev rw\n";
        let found = parse_root(mounts, |numbers| {
            assert_eq!(numbers, "259:2");
            Some(PathBuf::from("/sys/devices/pci0000:00/0000:00:03.0/nvme/nvme0/nvme0n1/nvme0n1p2"))
        });
        assert_eq!((found.device.as_str(), found.drive.as_deref()), ("/dev/nvme0n1p2", Some("nvme0n1")));
        let overlay = parse_root("22 1 0:30 / / rw - overlay overlay rw\n", |_| None);
        assert_eq!((overlay.device.as_str(), overlay.drive), ("overlay", None));
        assert_eq!(parse_root("", |_| None).device, "unknown");
    }
}
