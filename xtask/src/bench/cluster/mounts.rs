//! Folders that are mounted from one running appliance: by us, by the rivals, and by a file system that only passes through.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::Programs;
use crate::served::{self, Served};
use crate::shell;

/// Seconds that a mount may take to come, and to go.
const PATIENCE: u64 = 60;

/// Who mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ours, with a cache folder.
    Bedplate,
    /// rclone mount, which keeps nothing on the disk.
    Rclone,
    /// The same with `--vfs-cache-mode full`.
    RcloneCached,
    /// s3fs, which keeps nothing on the disk.
    S3fs,
    /// The same with `use_cache`.
    S3fsCached,
    /// bindfs over a local folder: what FUSE itself costs.
    Passthrough,
}

impl Kind {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bedplate => "bedplate",
            Self::Rclone => "rclone",
            Self::RcloneCached => "rclone, cache",
            Self::S3fs => "s3fs",
            Self::S3fsCached => "s3fs, cache",
            Self::Passthrough => "bindfs",
        }
    }

    /// Everything of S3 that is not ours.
    pub const RIVALS: [Self; 4] = [Self::Rclone, Self::RcloneCached, Self::S3fs, Self::S3fsCached];
}

/// A running appliance with one bucket, from which folders are mounted.
pub struct Site<'a> {
    /// What can be started.
    pub programs: &'a Programs,
    /// The appliance.
    pub served: Served,
    /// Where everything of this site lies.
    pub home: PathBuf,
}

/// The bucket, and the snapshot of it that we mount.
pub const BUCKET: &str = "bench";
const SNAPSHOT: &str = "bench@now";

impl<'a> Site<'a> {
    /// Starts an appliance in an empty folder below `work`, with an empty bucket.
    pub fn start(programs: &'a Programs, work: &Path) -> Result<Self> {
        let home = work.join(format!("site-{}", std::process::id()));
        let served = Served::start(&programs.bedplate, &home.join("served"))?;
        shell::run(&mut served.command(&["bucket", "create", BUCKET]))?;
        Ok(Self { programs, served, home })
    }

    /// Puts what lies in `folder` into the bucket, and keeps the bucket as it then is.
    pub fn fill(&self, folder: &Path) -> Result<()> {
        let folder = folder.to_string_lossy();
        shell::run(&mut self.served.command(&["put", "--recursive", &folder, BUCKET]))?;
        shell::run(&mut self.served.command(&["snapshot", "create", BUCKET, "now"]))
    }

    /// A folder for the cache `name`, empty.
    pub fn empty(&self, name: &str) -> Result<PathBuf> {
        let folder = self.home.join(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Mounts the bucket with what lies in `cache`. A pass-through mounts `cache` itself.
    pub fn mount(&self, kind: Kind, cache: &Path) -> Result<Mounted> {
        let folder = self.home.join("mnt");
        std::fs::create_dir_all(&folder)?;
        let command = self.command(kind, cache, &folder)?;
        Mounted::start(command, folder, &self.home.join(format!("{}.log", kind.name())))
    }

    fn command(&self, kind: Kind, cache: &Path, folder: &Path) -> Result<Command> {
        let (access, secret) = self.served.root_key()?;
        let mut command = match kind {
            Kind::Bedplate => {
                let mut command = self.served.command(&["mount", SNAPSHOT]);
                command.arg(folder).arg("--cache").arg(cache).args(["--cache-size", "64GiB"]);
                return Ok(command);
            }
            Kind::Passthrough => {
                let mut command = Command::new("bindfs");
                command.args(["-f", "-r", "--no-allow-other", "--multithreaded"]).arg(cache).arg(folder);
                return Ok(command);
            }
            Kind::Rclone | Kind::RcloneCached => {
                let settings = self.home.join("rclone.conf");
                std::fs::write(&settings, self.programs.rclone_settings(&self.served, &access, &secret))?;
                let mut command = Command::new(&self.programs.rclone);
                command.args(["mount", "--read-only", "--config"]).arg(settings);
                command.arg(format!("s3:{BUCKET}")).arg(folder);
                if kind == Kind::RcloneCached {
                    command.args(["--vfs-cache-mode", "full", "--vfs-cache-max-size", "64G", "--cache-dir"]).arg(cache);
                }
                command
            }
            Kind::S3fs | Kind::S3fsCached => {
                let key = self.home.join("s3fs.key");
                write_private(&key, &format!("{access}:{secret}"))?;
                let mut options =
                    format!("url={},use_path_request_style,passwd_file={}", self.served.s3_url(), key.display());
                options.push_str(",ro,enable_noobj_cache");
                if kind == Kind::S3fsCached {
                    options.push_str(&format!(",use_cache={}", cache.display()));
                }
                let mut command = Command::new("s3fs");
                command.arg(BUCKET).arg(folder).args(["-f", "-o", &options]);
                command
            }
        };
        super::alone(&mut command, &self.home);
        Ok(command)
    }
}

fn write_private(file: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(file, text)?;
    Ok(std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600))?)
}

/// A mounted folder; unmounted when it is dropped.
pub struct Mounted {
    process: Child,
    /// Where it is.
    pub folder: PathBuf,
}

impl Mounted {
    fn start(mut command: Command, folder: PathBuf, log: &Path) -> Result<Self> {
        let said = File::create(log)?;
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        let process = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let mut mounted = Self { process, folder };
        let began = Instant::now();
        while !is_mounted(&mounted.folder)? {
            let runs = mounted.process.try_wait()?.is_none() && began.elapsed() < Duration::from_secs(PATIENCE);
            ensure!(runs, "nothing was mounted: {}", std::fs::read_to_string(log)?);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(mounted)
    }

    /// Seconds of processor time of its process so far.
    pub fn cpu(&self) -> Result<f64> {
        served::cpu_of(self.process.id())
    }

    /// Most bytes of its process that were resident so far.
    pub fn peak(&self) -> Result<u64> {
        served::memory_of(self.process.id(), "VmHWM:")
    }

    /// Unmounts, and waits for the process to end.
    pub fn end(mut self) -> Result<()> {
        shell::run(Command::new("umount").arg(&self.folder))?;
        let limit = Instant::now() + Duration::from_secs(PATIENCE);
        while self.process.try_wait()?.is_none() {
            ensure!(Instant::now() < limit, "what was mounted on {} does not end", self.folder.display());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // After `end` nothing of this finds anything, which is no harm.
        if is_mounted(&self.folder).unwrap_or(false) {
            drop(shell::run(Command::new("umount").arg("--lazy").arg(&self.folder)));
        }
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn is_mounted(folder: &Path) -> Result<bool> {
    let folder = folder.to_string_lossy();
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    Ok(mounts.lines().any(|line| line.split(' ').nth(1) == Some(&*folder)))
}
