//! The rack's machines: libvirtd in the lab, and one UEFI machine per node, off, with blank disks.

use std::path::Path;

use anyhow::Result;

use super::{Lab, Node};
use crate::shell;

/// The drive that gets installed.
const DISK_BYTES: u64 = 4 << 30;
/// A second drive that nothing may write to. The emulator sets the boot order only on drives that libvirt knows, and this
/// libvirt knows no NVMe; besides, a machine with two drives shows that the right one is chosen.
const OTHER_BYTES: u64 = 64 << 20;
const MEMORY_MIB: u32 = 1024;

const QEMU_CONF: &str = r#"user = "root"
group = "root"
security_driver = "none"
dynamic_ownership = 0
remember_owner = 0
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
"#;

/// Starts libvirtd and defines the machines.
pub fn up(lab: &Lab) -> Result<()> {
    let dir = &lab.dir;
    for folder in ["disks", "pool", "nvram", "log", "var/qemu", "var/images"] {
        std::fs::create_dir_all(dir.join(folder))?;
    }
    std::fs::write(dir.join("etc/qemu.conf"), QEMU_CONF)?;
    std::fs::write(dir.join("etc/libvirtd.conf"), "auth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\n")?;
    super::spawn(lab, "libvirtd", &mut lab.command("/usr/sbin/libvirtd".as_ref()))?;
    shell::wait_for("libvirtd", 60, || virsh(lab, &["uri"]).is_ok())?;
    let pool = dir.join("pool");
    virsh(lab, &["pool-define-as", "default", "dir", "--target", &pool.to_string_lossy()])?;
    virsh(lab, &["pool-start", "default"])?;
    for node in &lab.nodes {
        blank(&node.disk, DISK_BYTES)?;
        blank(&other_disk(node), OTHER_BYTES)?;
        std::fs::write(&node.console, "")?;
        let file = dir.join(format!("nvram/{}.xml", node.name));
        std::fs::write(&file, domain(lab, node))?;
        virsh(lab, &["define", &file.to_string_lossy()])?;
    }
    Ok(())
}

fn virsh(lab: &Lab, words: &[&str]) -> Result<()> {
    let mut command = lab.command("/usr/bin/virsh".as_ref());
    shell::run(command.args(["--quiet", "--connect", "qemu:///system"]).args(words))
}

fn blank(path: &Path, bytes: u64) -> Result<()> {
    std::fs::File::create(path)?.set_len(bytes)?;
    Ok(())
}

fn other_disk(node: &Node) -> std::path::PathBuf {
    node.disk.with_extension("other.img")
}

fn domain(lab: &Lab, node: &Node) -> String {
    let (kind, cpu) = if lab.accelerator == "kvm" { ("kvm", "host-passthrough") } else { ("qemu", "maximum") };
    format!(
        r#"<domain type='{kind}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{MEMORY_MIB}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <loader readonly='yes' type='pflash'>{code}</loader>
    <nvram template='{vars}'>{dir}/nvram/{name}.fd</nvram>
  </os>
  <features><acpi/><apic/></features>
  <cpu mode='{cpu}'/>
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='unsafe' discard='unmap'/>
      <source file='{other}'/>
      <target dev='vda' bus='virtio'/>
      <serial>{name}-other</serial>
      <boot order='1'/>
    </disk>
    <interface type='bridge'>
      <mac address='{mac}'/>
      <source bridge='br0'/>
      <model type='virtio'/>
    </interface>
    <serial type='file'><source path='{console}' append='on'/><target port='0'/></serial>
    <memballoon model='none'/>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-drive'/>
    <qemu:arg value='file={disk},format=raw,if=none,id=nvme,cache=unsafe,discard=unmap,detect-zeroes=unmap'/>
    <qemu:arg value='-device'/>
    <qemu:arg value='nvme,drive=nvme,serial={serial},bus=pcie.0,addr=0x10,bootindex=90'/>
  </qemu:commandline>
</domain>
"#,
        name = node.name,
        uuid = node.uuid,
        code = super::probe::FIRMWARE,
        vars = super::probe::VARIABLES,
        dir = lab.dir.display(),
        other = other_disk(node).display(),
        mac = node.mac,
        console = node.console.display(),
        disk = node.disk.display(),
        serial = node.disk_serial,
    )
}
