//! Debian packages: which one is current, fetched once, unpacked without dpkg.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{install, shell};

/// Where packages come from: the machine's own archive, or the same one with another component.
pub struct Archive {
    options: Vec<String>,
    cache: PathBuf,
}

impl Archive {
    /// The machine's archive.
    pub fn machine() -> Result<Self> {
        let cache = cache("deb")?;
        let mut archive = Self { options: vec!["APT::Sandbox::User=root".into()], cache };
        if archive.ask(&["policy", "base-files"])?.contains("Candidate:") {
            return Ok(archive);
        }
        if install::is_root() {
            shell::run(&mut archive.apt("apt-get", &["update"]))?;
        } else {
            archive = Self::with_component("main")?;
        }
        Ok(archive)
    }

    /// The machine's Debian mirrors with `component`, in a package list of our own: the machine's stays as it is.
    pub fn with_component(component: &str) -> Result<Self> {
        let state = cache(&format!("apt-{component}"))?;
        for folder in ["lists/partial", "archives/partial"] {
            std::fs::create_dir_all(state.join(folder))?;
        }
        let query =
            ["indextargets", "--format", "$(LABEL)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)", "Created-By: Packages"];
        let known = shell::output(&mut shell::command("apt-get", &query))?;
        let mut lines: Vec<String> = known
            .lines()
            .filter_map(|line| {
                let mut parts = line.split('|');
                let (label, uri, release) = (parts.next()?, parts.next()?, parts.next()?);
                label.starts_with("Debian").then(|| format!("deb {uri} {release} {component}"))
            })
            .collect();
        lines.sort();
        lines.dedup();
        ensure!(!lines.is_empty(), "apt knows no Debian archive on this machine: add one to /etc/apt/sources.list");
        let list = state.join("sources.list");
        std::fs::write(&list, lines.join("\n") + "\n")?;
        let options = vec![
            "APT::Sandbox::User=root".into(),
            "Dir::Etc::SourceParts=-".into(),
            format!("Dir::Etc::SourceList={}", list.display()),
            format!("Dir::State::Lists={}", state.join("lists").display()),
            format!("Dir::Cache={}", state.display()),
            format!("Dir::Cache::Archives={}", state.join("archives").display()),
        ];
        let archive = Self { options, cache: cache("deb")? };
        shell::run(&mut archive.apt("apt-get", &["-o", "APT::Update::Error-Mode=any", "update"]))?;
        Ok(archive)
    }

    /// Follows a meta package to the package that it depends on; any other package stands for itself.
    pub fn resolve(&self, package: &str) -> Result<String> {
        let text = self.ask(&["depends", "--important", package])?;
        let target = text.lines().find_map(|line| line.trim().strip_prefix("Depends: ")).unwrap_or("").trim();
        let stem = package.strip_suffix("-amd64").unwrap_or(package);
        Ok(if target.starts_with(stem.strip_suffix("-cloud").unwrap_or(stem)) { target } else { package }.to_owned())
    }

    /// Fetches the current version of the package, unless it was fetched before, and returns the file.
    pub fn fetch(&self, package: &str) -> Result<PathBuf> {
        let policy = self.ask(&["policy", package])?;
        let version = policy
            .lines()
            .find_map(|line| line.trim().strip_prefix("Candidate: "))
            .filter(|version| *version != "(none)")
            .with_context(|| format!("the Debian archive has no package {package}: run apt-get update"))?;
        let file = |arch: &str| self.cache.join(format!("{package}_{}_{arch}.deb", version.replace(':', "%3a")));
        for _ in 0..2 {
            if let Some(found) = ["amd64", "all"].map(file).into_iter().find(|path| path.exists()) {
                return Ok(found);
            }
            println!("fetching {package} {version}");
            let wanted = format!("{package}={version}");
            shell::run(self.apt("apt-get", &["download", &wanted]).current_dir(&self.cache))?;
        }
        bail!("apt-get download left no file for {package} {version}")
    }

    fn ask(&self, words: &[&str]) -> Result<String> {
        shell::output(&mut self.apt("apt-cache", words))
    }

    fn apt(&self, program: &str, words: &[&str]) -> std::process::Command {
        let mut command = shell::command(program, &[]);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command.args(words).env("LC_ALL", "C");
        command
    }
}

/// Unpacks those files of the package whose path begins with one of `prefixes` (`"boot/"`), below `into`.
pub fn unpack(package: &Path, prefixes: &[&str], into: &Path) -> Result<()> {
    let mut members = ar::Archive::new(std::fs::File::open(package)?);
    while let Some(member) = members.next_entry() {
        let member = member?;
        let name = String::from_utf8_lossy(member.header().identifier()).into_owned();
        let reader: Box<dyn Read> = match name.as_str() {
            "data.tar.xz" => Box::new(liblzma::read::XzDecoder::new(member)),
            "data.tar.zst" => Box::new(zstd::Decoder::new(member)?),
            "data.tar" => Box::new(member),
            _ => continue,
        };
        let mut files = tar::Archive::new(reader);
        for file in files.entries()? {
            let mut file = file?;
            let path = file.path()?.to_string_lossy().trim_start_matches("./").to_owned();
            if prefixes.iter().any(|prefix| path.starts_with(prefix)) {
                file.unpack_in(into).with_context(|| format!("cannot unpack {path}"))?;
            }
        }
        return Ok(());
    }
    bail!("{} holds no data: delete it and try again", package.display())
}

/// A folder for what is worth keeping between builds.
pub fn cache(name: &str) -> Result<PathBuf> {
    let path = shell::target().join("images/cache").join(name);
    std::fs::create_dir_all(&path)?;
    Ok(path)
}
