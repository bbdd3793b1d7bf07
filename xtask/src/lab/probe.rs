//! Whether KVM really runs machines here. `/dev/kvm` that opens proves nothing: on some hosts a stock guest never
//! prints a byte. So the firmware is started under KVM, and has to say something on its serial console.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::shell;

/// UEFI for the machines.
pub const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
/// Its variables, as they leave the factory.
pub const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// Under KVM the firmware speaks within two seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// `kvm` where it works, else `tcg`.
pub fn accelerator(dir: &Path) -> Result<String> {
    if !Path::new("/dev/kvm").exists() {
        return Ok("tcg".into());
    }
    let folder = dir.join("state");
    std::fs::create_dir_all(&folder)?;
    let serial = folder.join("probe.serial");
    let variables = folder.join("probe.fd");
    std::fs::write(&serial, "")?;
    std::fs::copy(VARIABLES, &variables)?;
    let mut qemu = shell::command("/usr/bin/qemu-system-x86_64", &["-machine", "q35,accel=kvm", "-cpu", "host"]);
    qemu.args(["-m", "256", "-display", "none", "-no-reboot", "-nodefaults", "-net", "none"]);
    qemu.args(["-drive", &format!("if=pflash,format=raw,readonly=on,file={FIRMWARE}")]);
    qemu.args(["-drive", &format!("if=pflash,format=raw,file={}", variables.display())]);
    qemu.args(["-serial", &format!("file:{}", serial.display())]);
    let mut guest = qemu.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let limit = Instant::now() + PATIENCE;
    let mut works = false;
    while !works && Instant::now() < limit && guest.try_wait()?.is_none() {
        std::thread::sleep(Duration::from_millis(100));
        works = std::fs::metadata(&serial).is_ok_and(|meta| meta.len() > 0);
    }
    // It may have ended by itself already.
    drop(guest.kill());
    guest.wait()?;
    if !works {
        println!("/dev/kvm is there, but a guest under it stays silent: the machines run under TCG");
    }
    Ok(if works { "kvm" } else { "tcg" }.into())
}
