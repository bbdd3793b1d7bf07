//! A Debian kernel and the modules of it that an image carries.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::deb::{self, Archive};
use crate::shell;

/// An unpacked kernel package.
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// The folder that holds `boot/` and `lib/modules/`.
    pub root: PathBuf,
}

impl Kernel {
    /// Fetches and unpacks the current version of `package`.
    pub fn fetch(package: &str) -> Result<Self> {
        let archive = Archive::machine()?;
        let file = archive.fetch(&archive.resolve(package)?)?;
        let stem = file.file_stem().expect("a package has a name").to_string_lossy().into_owned();
        let root = deb::cache(&format!("kernel-{stem}"))?;
        if !root.join("complete").exists() {
            deb::unpack(&file, &["boot/", "lib/modules/"], &root)?;
        }
        let release = only_entry(&root.join("lib/modules"))?;
        if !root.join("complete").exists() {
            shell::run(&mut depmod(&root, &release))?;
            std::fs::write(root.join("complete"), "")?;
        }
        Ok(Self { release, root })
    }

    /// The kernel itself, as the firmware starts it.
    pub fn image(&self) -> PathBuf {
        self.root.join(format!("boot/vmlinuz-{}", self.release))
    }

    /// Files of the modules named, and of all that they depend on, relative to the module folder.
    pub fn modules(&self, names: &[String]) -> Result<BTreeSet<String>> {
        let folder = self.module_folder();
        let text = std::fs::read_to_string(folder.join("modules.dep"))?;
        let mut files = BTreeMap::new();
        for line in text.lines() {
            let (file, needs) = line.split_once(':').with_context(|| format!("modules.dep says {line:?}"))?;
            files
                .insert(stem(file), (file.to_owned(), needs.split_whitespace().map(str::to_owned).collect::<Vec<_>>()));
        }
        let builtin = std::fs::read_to_string(folder.join("modules.builtin"))?;
        let builtin: BTreeSet<String> = builtin.lines().map(stem).collect();
        let mut chosen = BTreeSet::new();
        let mut missing = Vec::new();
        for name in names {
            match files.get(&name.replace('-', "_")) {
                Some((file, needs)) => {
                    chosen.insert(file.clone());
                    chosen.extend(needs.iter().cloned());
                }
                None if builtin.contains(&name.replace('-', "_")) => {}
                None => missing.push(name.as_str()),
            }
        }
        ensure!(missing.is_empty(), "kernel {} has no module {}", self.release, missing.join(", "));
        Ok(chosen)
    }

    /// Copies the modules into `tree` and writes the lists that finding them by name and by hardware takes.
    pub fn lay_modules(&self, files: &BTreeSet<String>, tree: &Path) -> Result<()> {
        let to = tree.join("lib/modules").join(&self.release);
        for file in
            files.iter().map(String::as_str).chain(["modules.builtin", "modules.builtin.modinfo", "modules.order"])
        {
            let path = to.join(file);
            std::fs::create_dir_all(path.parent().expect("a module lies in a folder"))?;
            std::fs::copy(self.module_folder().join(file), path).with_context(|| format!("no module file {file}"))?;
        }
        shell::run(&mut depmod(tree, &self.release))?;
        const KEEP: [&str; 4] = ["modules.dep", "modules.alias", "modules.softdep", "modules.builtin"];
        for entry in std::fs::read_dir(&to)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("modules.") && !KEEP.contains(&name.as_str()) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Firmware files that the modules ask for.
    pub fn firmware(&self, files: &BTreeSet<String>) -> Result<BTreeSet<String>> {
        let paths = files.iter().map(|file| self.module_folder().join(file));
        let mut modinfo = shell::command("/sbin/modinfo", &["-F", "firmware"]);
        Ok(shell::output(modinfo.args(paths))?.lines().map(str::to_owned).filter(|line| !line.is_empty()).collect())
    }

    fn module_folder(&self) -> PathBuf {
        self.root.join("lib/modules").join(&self.release)
    }
}

fn depmod(root: &Path, release: &str) -> std::process::Command {
    shell::command("/sbin/depmod", &["-b", &root.to_string_lossy(), release])
}

fn stem(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split(".ko").next().unwrap_or(name).replace('-', "_")
}

fn only_entry(folder: &Path) -> Result<String> {
    let names: Vec<_> = std::fs::read_dir(folder)?.collect::<std::io::Result<_>>()?;
    ensure!(names.len() == 1, "{} holds {} kernels and should hold one", folder.display(), names.len());
    Ok(names[0].file_name().to_string_lossy().into_owned())
}
