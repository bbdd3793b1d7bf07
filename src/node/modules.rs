//! Which kernel modules a machine needs, from what its devices call themselves: every `modalias` under /sys against
//! `modules.alias`, with what `modules.dep` says must come before.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::console;
use crate::sys::module::{self, Inserted};
use crate::sys::process;

/// Wanted whatever the devices say: disks and CDs behind SCSI, raw sockets for DHCP, the firmware's variables.
const ALWAYS: [&str; 4] = ["sd_mod", "sr_mod", "af_packet", "efivarfs"];
const SETTLE_PAUSE: Duration = Duration::from_millis(250);

/// The module lists of one kernel.
#[derive(Debug, Default)]
pub struct Catalogue {
    root: PathBuf,
    /// Module name to its file and what it needs first, nearest need first, as `modules.dep` has it.
    files: HashMap<String, (String, Vec<String>)>,
    /// Alias patterns by the text before their first `:` or wildcard.
    aliases: HashMap<String, Vec<(String, String)>>,
    /// `softdep` lines: what should be loaded before, if it exists.
    before: HashMap<String, Vec<String>>,
}

fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

fn bus_of(alias: &str) -> &str {
    alias.split([':', '*', '?', '[']).next().unwrap_or(alias)
}

impl Catalogue {
    /// Reads the lists in `root` (`/lib/modules/RELEASE`); a missing list is an empty one.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let list = |name: &str| std::fs::read_to_string(root.join(name)).unwrap_or_default();
        let mut catalogue = Self { root: root.to_owned(), ..Self::default() };
        for line in list("modules.dep").lines() {
            if let Some((file, needs)) = line.split_once(':') {
                let needs = needs.split_whitespace().map(str::to_owned).collect();
                catalogue.files.insert(name_of(file), (file.to_owned(), needs));
            }
        }
        for line in list("modules.alias").lines() {
            let mut words = line.split_whitespace();
            if let (Some("alias"), Some(pattern), Some(name)) = (words.next(), words.next(), words.next()) {
                let of_bus = catalogue.aliases.entry(bus_of(pattern).to_owned()).or_default();
                of_bus.push((pattern.to_owned(), name.replace('-', "_")));
            }
        }
        for line in list("modules.softdep").lines() {
            let mut words = line.split_whitespace();
            if let (Some("softdep"), Some(name)) = (words.next(), words.next()) {
                let pre = words.skip_while(|w| *w != "pre:").skip(1).take_while(|w| *w != "post:");
                catalogue.before.insert(name.replace('-', "_"), pre.map(|w| w.replace('-', "_")).collect());
            }
        }
        catalogue
    }

    /// Modules whose alias fits `modalias`.
    #[must_use]
    pub fn for_alias(&self, modalias: &str) -> Vec<&str> {
        let of_bus = self.aliases.get(bus_of(modalias)).map_or(&[][..], Vec::as_slice);
        let fits = of_bus.iter().filter(|(pattern, _)| matches(pattern.as_bytes(), modalias.as_bytes()));
        let mut names: Vec<&str> = fits.map(|(_, name)| name.as_str()).collect();
        names.dedup();
        names
    }

    /// The files to load for `name`, in order, itself last. Empty where the kernel has it built in or not at all.
    #[must_use]
    pub fn load_order(&self, name: &str) -> Vec<&str> {
        let mut order = Vec::new();
        self.gather(&name.replace('-', "_"), &mut order, 0);
        order
    }

    fn gather<'a>(&'a self, name: &str, order: &mut Vec<&'a str>, depth: u32) {
        let Some((file, needs)) = self.files.get(name) else { return };
        // softdep lines may form a ring.
        if depth > 8 || order.contains(&file.as_str()) {
            return;
        }
        for soft in self.before.get(name).into_iter().flatten() {
            self.gather(soft, order, depth + 1);
        }
        for need in needs.iter().rev() {
            if !order.contains(&need.as_str()) {
                order.push(need);
            }
        }
        order.push(file);
    }
}

/// Whether `text` fits the shell pattern: `*`, `?`, `[abc]`, `[a-z]`.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
                continue;
            }
            None if t == text.len() => return true,
            None => None,
            Some(_) if t == text.len() => return false,
            Some(b'?') => Some(p + 1),
            Some(b'[') => class(&pattern[p..], text[t]).map(|width| p + width),
            Some(letter) => (*letter == text[t]).then_some(p + 1),
        };
        match (step, retry) {
            (Some(next), _) => (p, t) = (next, t + 1),
            (None, Some((after_star, from))) if from < text.len() => {
                retry = Some((after_star, from + 1));
                (p, t) = (after_star, from + 1);
            }
            _ => return false,
        }
    }
}

/// The width of the class that begins `pattern`, when `letter` is in it.
fn class(pattern: &[u8], letter: u8) -> Option<usize> {
    let end = pattern.iter().position(|b| *b == b']')?;
    let inside = &pattern[1..end];
    let mut at = 0;
    while at < inside.len() {
        let range = at + 2 < inside.len() && inside[at + 1] == b'-';
        let (low, high) = (inside[at], if range { inside[at + 2] } else { inside[at] });
        if (low..=high).contains(&letter) {
            return Some(end + 1);
        }
        at += if range { 3 } else { 1 };
    }
    None
}

/// Loads what this machine's devices need, as they appear.
#[derive(Debug)]
pub struct Loader {
    catalogue: Catalogue,
    seen: BTreeSet<String>,
    tried: BTreeSet<String>,
    loaded: usize,
}

impl Default for Loader {
    fn default() -> Self {
        Self::new()
    }
}

impl Loader {
    /// A loader for the running kernel.
    #[must_use]
    pub fn new() -> Self {
        let root = Path::new("/lib/modules").join(process::kernel_release());
        Self { catalogue: Catalogue::read(&root), seen: BTreeSet::new(), tried: BTreeSet::new(), loaded: 0 }
    }

    /// Looks at every device once; answers whether anything new was loaded.
    pub fn pass(&mut self) -> bool {
        let mut aliases = BTreeSet::new();
        collect(Path::new("/sys/devices"), &mut aliases, 0);
        let mut wanted: Vec<String> = ALWAYS.iter().map(|name| (*name).to_owned()).collect();
        for alias in aliases.difference(&self.seen) {
            wanted.extend(self.catalogue.for_alias(alias).into_iter().map(str::to_owned));
        }
        self.seen.append(&mut aliases);
        let before = self.loaded;
        for name in wanted {
            self.load(&name);
        }
        self.loaded > before
    }

    fn load(&mut self, name: &str) {
        for file in self.catalogue.load_order(name) {
            if !self.tried.insert(file.to_owned()) {
                continue;
            }
            match module::insert(&self.catalogue.root.join(file)) {
                Ok(Inserted::Now) => self.loaded += 1,
                Ok(Inserted::Before) => {}
                // ENODEV: the driver looked and found no such device; that is an answer, not a failure.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => console::say("modules", format!("cannot load {file}: {error}")),
            }
        }
    }

    /// Passes until nothing new has appeared for a while, at most `limit`.
    pub fn settle(&mut self, limit: Duration) {
        let (began, known) = (Instant::now(), self.loaded);
        let mut quiet = 0;
        while quiet < 4 && began.elapsed() < limit {
            quiet = if self.pass() { 0 } else { quiet + 1 };
            std::thread::sleep(SETTLE_PAUSE);
        }
        if self.loaded > known {
            let took = began.elapsed().as_secs_f64();
            let (new, seen) = (self.loaded - known, self.seen.len());
            console::say("modules", format!("{new} modules loaded for {seen} kinds of device in {took:.1} s"));
        }
    }
}

/// Every `modalias` below `folder`, without following links.
fn collect(folder: &Path, aliases: &mut BTreeSet<String>, depth: u32) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth < 24 {
            collect(&entry.path(), aliases, depth + 1);
        } else if kind.is_file() && entry.file_name() == "modalias" {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            if !text.trim().is_empty() {
                aliases.insert(text.trim().to_owned());
            }
        }
    }
}

/// Answers the kernel's own request for a module, as `modprobe -q -- NAME` would.
pub fn answer_kernel(name: &str) -> std::io::Result<()> {
    let catalogue = Catalogue::read(&Path::new("/lib/modules").join(process::kernel_release()));
    let mut names = vec![name];
    names.extend(catalogue.for_alias(name));
    for name in names {
        for file in catalogue.load_order(name) {
            module::insert(&catalogue.root.join(file))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    //! Patterns fit as `fnmatch` has them, and a driver's needs come before it, softdeps first.
    use super::*;

    #[test]
    fn fits_patterns() {
        for (pattern, text, fits) in [
            ("pci:v00008086d*sv*sd*bc01sc08i02*", "pci:v00008086d00005845sv1sd2bc01sc08i02", true),
            ("pci:v*d*sv*sd*bc01sc08i02*", "pci:v00001b36d00000010sv1af4sd1100bc01sc08i02", true),
            ("pci:v*d*sv*sd*bc01sc08i02*", "pci:v00001b36d00000010sv1af4sd1100bc02sc00i00", false),
            ("virtio:d00000001v*", "virtio:d00000001v00001AF4", true),
            ("usb:v*p*d*dc*dsc*dp*ic08isc06ip50in*", "usb:v46F4p0001d0000dc00dsc00dp00ic08isc06ip50in00", true),
            ("usb:v0421p0[0-4]5d*", "usb:v0421p045d1", true),
            ("usb:v0421p0[0-4]5d*", "usb:v0421p055d1", false),
            ("a[xyz]c?", "ayc1", true),
            ("abc", "abcd", false),
            ("abc*", "abc", true),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn orders_what_must_come_first() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "modules.dep",
            "kernel/net/virtio_net.ko: kernel/net/net_failover.ko kernel/net/failover.ko kernel/virtio.ko\n\
             kernel/net/net_failover.ko: kernel/net/failover.ko\nkernel/net/failover.ko:\nkernel/virtio.ko:\n\
             kernel/crc-helper.ko.zst:\n",
        );
        write("modules.alias", "# comment\nalias virtio:d00000001v* virtio-net\nalias crypto-crc32c crc_helper\n");
        write("modules.softdep", "softdep virtio_net pre: crc-helper post: later\n");
        let catalogue = Catalogue::read(folder.path());
        assert_eq!(catalogue.for_alias("virtio:d00000001v00001AF4"), ["virtio_net"]);
        assert_eq!(catalogue.for_alias("crypto-crc32c"), ["crc_helper"]);
        assert_eq!(
            catalogue.load_order("virtio-net"),
            [
                "kernel/crc-helper.ko.zst",
                "kernel/virtio.ko",
                "kernel/net/failover.ko",
                "kernel/net/net_failover.ko",
                "kernel/net/virtio_net.ko"
            ]
        );
        assert!(catalogue.load_order("ext4").is_empty());
    }
}
