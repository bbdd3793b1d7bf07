//! What a fresh Debian machine lacks: packages by apt-get where we are root (else the one command to run), and Python
//! packages into a folder of our own.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::shell;

/// A Debian package and a file that shows it is there.
pub type Need = (&'static str, &'static str);

/// What building takes besides Rust and a C compiler.
pub const BUILD: &[Need] = &[("make", "/usr/bin/make")];

/// What building images takes.
pub const IMAGE: &[Need] = &[
    ("kmod", "/sbin/depmod"),
    ("mmdebstrap", "/usr/bin/mmdebstrap"),
    ("e2fsprogs", "/sbin/mke2fs"),
    ("systemd-boot-efi", "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"),
    ("ca-certificates", "/etc/ssl/certs/ca-certificates.crt"),
];

/// What the benches of the store take: the rivals that Debian has, a plain compressor, and Python for its wheels.
pub const BENCH: &[Need] = &[
    ("restic", "/usr/bin/restic"),
    ("borgbackup", "/usr/bin/borg"),
    ("zstd", "/usr/bin/zstd"),
    ("python3-venv", "/usr/share/doc/python3-venv"),
];

/// What the virtual rack takes.
pub const LAB: &[Need] = &[
    ("qemu-system-x86", "/usr/bin/qemu-system-x86_64"),
    ("ovmf", "/usr/share/OVMF/OVMF_CODE_4M.fd"),
    ("libvirt-daemon-system", "/usr/sbin/libvirtd"),
    ("libvirt-clients", "/usr/bin/virsh"),
    ("libvirt-dev", "/usr/include/libvirt/libvirt.h"),
    ("pkg-config", "/usr/bin/pkg-config"),
    ("gcc", "/usr/bin/gcc"),
    ("python3-dev", "/usr/include/python3.11/Python.h"),
    ("python3-venv", "/usr/share/doc/python3-venv"),
    ("openssl", "/usr/bin/openssl"),
    ("iproute2", "/sbin/ip"),
    ("dnsmasq-base", "/usr/sbin/dnsmasq"),
    ("curl", "/usr/bin/curl"),
];

/// The rclone that Debian carries.
pub const RCLONE: &[Need] = &[("rclone", "/usr/bin/rclone")];
/// The S3 file system for FUSE.
pub const S3FS: &[Need] = &[("s3fs", "/usr/bin/s3fs"), ("fuse", "/usr/bin/fusermount")];

/// What the benches of mounts take: the rivals' FUSE, and a file system that passes through.
pub const MOUNTS: &[Need] =
    &[("s3fs", "/usr/bin/s3fs"), ("fuse3", "/usr/bin/fusermount3"), ("bindfs", "/usr/bin/bindfs")];

/// What fuzzing takes: libFuzzer comes as C++ in a crate.
pub const FUZZ: &[Need] = &[("g++", "/usr/bin/g++")];

/// Whether we may change the machine.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| {
        use std::os::unix::fs::MetadataExt as _;
        meta.uid() == 0
    })
}

/// Installs what is missing of `needs`.
pub fn debian(needs: &[Need]) -> Result<()> {
    let missing: Vec<&str> =
        needs.iter().filter(|(_, file)| !Path::new(file).exists()).map(|(package, _)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !is_root() {
        bail!(
            "Debian packages are missing. Run this once, then again what you wanted:\n  \
             sudo apt-get update && sudo apt-get install -y --no-install-recommends {list}"
        );
    }
    println!("installing {list}");
    apt(&["update"])?;
    let mut words = vec!["install", "-y", "--no-install-recommends"];
    words.extend(missing);
    apt(&words)
}

/// A Python environment of our own with the Redfish emulator in it; returns its folder.
pub fn emulator() -> Result<PathBuf> {
    python("lab/venv", &["sushy-tools==2.2.0", "libvirt-python==12.8.0"])
}

/// A Python environment with these PyPI packages, made once in this folder of the target folder; returns it.
pub fn python(folder: &str, packages: &[&str]) -> Result<PathBuf> {
    let venv = shell::target().join(folder);
    let stamp = venv.join("complete");
    let listed = packages.join(" ");
    if std::fs::read_to_string(&stamp).is_ok_and(|text| text == listed) {
        return Ok(venv);
    }
    std::fs::create_dir_all(&venv)?;
    can_make_venv()?;
    let path = venv.to_string_lossy().into_owned();
    shell::run(&mut shell::command("python3", &["-m", "venv", "--clear", &path]))?;
    if !packages.is_empty() {
        println!("installing {listed} from PyPI");
        let pip = venv.join("bin/pip").to_string_lossy().into_owned();
        shell::run(shell::command(&pip, &["install", "--quiet"]).args(packages))?;
    }
    std::fs::write(stamp, listed)?;
    Ok(venv)
}

/// Debian keeps apart what a Python environment is made with.
fn can_make_venv() -> Result<()> {
    if shell::run(&mut shell::command("python3", &["-c", "import ensurepip"])).is_err() {
        debian(&[("python3-venv", "/usr/share/doc/python3-venv")])?;
    }
    Ok(())
}

/// A Python environment of our own with the reference client of the Xet protocol, against which the tests compare root
/// digests.
pub fn oracle() -> Result<()> {
    let venv = shell::target().join("oracle");
    let stamp = venv.join("complete");
    if stamp.exists() {
        return Ok(());
    }
    can_make_venv()?;
    println!("installing hf_xet from PyPI");
    let folder = venv.to_string_lossy().into_owned();
    shell::run(&mut shell::command("python3", &["-m", "venv", "--clear", &folder]))?;
    let pip = venv.join("bin/pip").to_string_lossy().into_owned();
    shell::run(&mut shell::command(&pip, &["install", "--quiet", "hf_xet==1.8.0"]))?;
    std::fs::write(stamp, "")?;
    Ok(())
}

/// cargo-fuzz, in a folder of our own; returns that folder.
pub fn cargo_fuzz() -> Result<PathBuf> {
    let folder = shell::target().join("tools");
    let programs = folder.join("bin");
    if programs.join("cargo-fuzz").exists() {
        return Ok(programs);
    }
    debian(FUZZ)?;
    println!("installing cargo-fuzz from crates.io");
    let mut command = shell::cargo(&["install", "--quiet", "--locked", "cargo-fuzz@0.13.2", "--root"]);
    shell::run(command.arg(&folder))?;
    Ok(programs)
}

/// Whether rustup has a nightly compiler here: the address sanitizer needs one.
pub fn has_nightly() -> bool {
    let asked =
        shell::command("rustup", &["run", "nightly", "rustc", "--version"]).env_remove("RUSTUP_TOOLCHAIN").output();
    asked.is_ok_and(|output| output.status.success())
}

fn apt(words: &[&str]) -> Result<()> {
    let mut command = shell::command("apt-get", &["-o", "DPkg::Lock::Timeout=600", "-q"]);
    shell::run(command.args(words).env("DEBIAN_FRONTEND", "noninteractive"))
}
