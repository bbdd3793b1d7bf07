//! The servers, each on a port of its own and an empty folder: ours, the rival and bare ones.

use std::cell::Cell;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

use super::load::{self, Load};
use super::rival::{self, Rival};
use crate::bench::{data, process};
use crate::served::{self, Served};
use crate::shell;

/// A server that can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ours.
    Bedplate,
    /// The rival as it is.
    Rival,
    /// The rival with an fsync for each object.
    Synced,
    /// hyper over files.
    Bare,
    /// The same, with bodies compressed by zstd on their way in and decoded on their way out.
    BareZstd,
    /// The same, which forgets what it is sent.
    Sink,
}

impl Kind {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bedplate => "bedplate",
            Self::Rival => "s3s-fs",
            Self::Synced => "s3s-fs, fsync",
            Self::Bare => "bare",
            Self::BareZstd => "bare, zstd",
            Self::Sink => "bare, forgets",
        }
    }
}

/// All programs that take part.
pub struct Programs {
    started: Cell<u32>,
    bedplate: PathBuf,
    generator: PathBuf,
    rival: Option<Rival>,
}

impl Programs {
    /// Builds what is missing, the rival where it takes part; `given` is a bedplate that is there.
    pub fn ready(given: Option<&Path>, with_rival: bool) -> Result<Self> {
        let built = with_rival.then(rival::ready).transpose();
        let rival = built.unwrap_or_else(|error| {
            println!("SKIPPED: s3s-fs does not build here: {error:#}");
            None
        });
        println!("building benches/s3");
        let target = data::base().join("s3-load");
        let mut cargo = shell::cargo(&["build", "--quiet", "--release", "--locked", "--manifest-path"]);
        shell::show(cargo.arg(shell::root().join("benches/s3/Cargo.toml")).env("CARGO_TARGET_DIR", &target))?;
        let generator = target.join("release/bedplate-bench-s3");
        Ok(Self { started: Cell::new(0), bedplate: served::program(given)?, generator, rival })
    }

    /// A command of the load's program.
    pub fn generator(&self, words: &[String]) -> Command {
        let mut command = Command::new(&self.generator);
        command.args(words);
        command
    }

    /// Those of these servers that are there.
    pub fn present(&self, kinds: &[Kind]) -> Vec<Kind> {
        let needs_rival = |kind: &Kind| matches!(kind, Kind::Rival | Kind::Synced);
        kinds.iter().copied().filter(|kind| self.rival.is_some() || !needs_rival(kind)).collect()
    }

    /// Starts a server on a folder of its own below `work`, with a bucket in it.
    pub fn start(&self, kind: Kind, work: &Path) -> Result<Server<'_>> {
        let number = self.started.replace(self.started.get() + 1);
        let folder = work.join(format!("{SERVED}{}-{number}", std::process::id()));
        let kept = match kind {
            Kind::Bedplate => Kept::Ours(Served::start(&self.bedplate, &folder)?),
            Kind::Rival | Kind::Synced => {
                let rival = self.rival.as_ref().context("s3s-fs was not built")?;
                let program = if kind == Kind::Rival { &rival.plain } else { &rival.synced };
                let port = served::free_port()?;
                let mut command = Command::new(program);
                command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
                command.args(["--access-key", KEY, "--secret-key", KEY, "."]).env("RUST_LOG", "error");
                Kept::Other(Other::start(&mut command, port, &folder)?)
            }
            Kind::Bare | Kind::BareZstd | Kind::Sink => {
                let port = served::free_port()?;
                let keep = match kind {
                    Kind::Bare => "raw",
                    Kind::BareZstd => "zstd",
                    _ => "nothing",
                };
                let listen = format!("listen=127.0.0.1:{port}");
                let mut command = self.generator(&["serve".into(), "root=.".into(), format!("keep={keep}"), listen]);
                Kept::Other(Other::start(&mut command, port, &folder)?)
            }
        };
        let server = Server { programs: self, kind, kept, folder };
        server.load(&["op=bucket", "requests=1"])?;
        Ok(server)
    }
}

/// What the names of servers' folders begin with.
pub const SERVED: &str = "served-";
/// The rival's access key and secret key.
const KEY: &str = "benchbench";

enum Kept {
    Ours(Served),
    Other(Other),
}

struct Other {
    process: Child,
    port: u16,
}

impl Other {
    fn start(command: &mut Command, port: u16, folder: &Path) -> Result<Self> {
        if folder.exists() {
            std::fs::remove_dir_all(folder)?;
        }
        let root = folder.join("data");
        std::fs::create_dir_all(&root)?;
        let log = std::fs::File::create(folder.join("log"))?;
        command.current_dir(&root).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let other = Self { process: command.spawn().with_context(|| format!("cannot start {command:?}"))?, port };
        shell::wait_for("a server", 30, || TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(other)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A running server.
pub struct Server<'a> {
    programs: &'a Programs,
    /// Which it is.
    pub kind: Kind,
    kept: Kept,
    folder: PathBuf,
}

impl Server<'_> {
    fn id(&self) -> u32 {
        match &self.kept {
            Kept::Ours(served) => served.id(),
            Kept::Other(other) => other.process.id(),
        }
    }

    /// Bytes that are resident now.
    pub fn resident(&self) -> Result<u64> {
        served::memory_of(self.id(), "VmRSS:")
    }

    /// Puts a load on it, as the words say that benches/s3 knows.
    pub fn load(&self, words: &[&str]) -> Result<Load> {
        let mut all = vec!["load".to_owned(), "bucket=bench".to_owned()];
        let (url, key) = match &self.kept {
            Kept::Ours(served) => (served.s3_url(), Some(served.root_key()?)),
            Kept::Other(other) => {
                let signed = matches!(self.kind, Kind::Rival | Kind::Synced);
                let key = signed.then(|| (KEY.to_owned(), KEY.to_owned()));
                (format!("http://127.0.0.1:{}", other.port), key)
            }
        };
        all.push(format!("url={url}"));
        if let Some((access, secret)) = key {
            all.extend([format!("access={access}"), format!("secret={secret}")]);
        }
        all.extend(words.iter().map(|word| (*word).to_owned()));
        process::settle(&self.folder)?;
        let before = served::cpu_of(self.id())?;
        let text = shell::output(&mut self.programs.generator(&all))
            .with_context(|| format!("{}; its log is {}/log", self.kind.name(), self.folder.display()))?;
        let server_cpu = served::cpu_of(self.id())? - before;
        Ok(Load { server_cpu, ..load::parse(&text)? })
    }

    /// Stops it. What it kept stays until [`clear`]: ext4 passes over files that were removed minutes ago, one by one, when it
    /// looks for a new file's place, and whoever comes next would pay for that.
    pub fn stop(self) -> Result<PathBuf> {
        if let Kept::Ours(mut served) = self.kept {
            served.stop()?;
        }
        Ok(self.folder)
    }
}

/// Removes what servers kept below `work`, those of runs that broke off too. Only after all is measured.
pub fn clear(work: &Path) -> Result<()> {
    for entry in std::fs::read_dir(work)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(SERVED) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
