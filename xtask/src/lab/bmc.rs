//! The rack's BMCs: OpenStack's Redfish emulator, one process per machine, each with TLS and a password.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::{Lab, Node};
use crate::shell;

/// Password of every BMC in a lab.
const PASSWORD: &str = "lab-bmc-password";

/// Starts one emulator for each machine and waits until all of them answer.
pub fn up(lab: &Lab, venv: &Path) -> Result<()> {
    std::fs::write(lab.dir.join("bmc-password"), format!("{PASSWORD}\n"))?;
    let hash = "import bcrypt,sys;print('admin:'+bcrypt.hashpw(sys.argv[1].encode(),bcrypt.gensalt(4)).decode())";
    let mut python = std::process::Command::new(venv.join("bin/python"));
    let htpasswd = shell::output(python.args(["-c", hash, PASSWORD]))?;
    for node in &lab.nodes {
        let home = lab.dir.join("bmc").join(&node.name);
        std::fs::create_dir_all(home.join("tmp"))?;
        std::fs::create_dir_all(home.join("state"))?;
        std::fs::write(home.join("htpasswd"), &htpasswd)?;
        certificate(&home, &node.name)?;
        let settings = home.join("emulator.conf");
        std::fs::write(&settings, configuration(node, &home)?)?;
        let mut emulator = lab.command(&venv.join("bin/sushy-emulator"));
        emulator.arg("--config").arg(&settings).env("TMPDIR", home.join("tmp"));
        super::spawn(lab, &format!("bmc-{}", node.name), &mut emulator)?;
    }
    for node in &lab.nodes {
        let url = format!("{}/redfish/v1/", node.bmc);
        shell::wait_for(&format!("the BMC of {} (log/bmc-{}.log)", node.name, node.name), 60, || {
            let mut curl = lab.command("/usr/bin/curl".as_ref());
            shell::run(curl.args([
                "--silent",
                "--fail",
                "--insecure",
                "--max-time",
                "5",
                "--output",
                "/dev/null",
                &url,
            ]))
            .is_ok()
        })?;
    }
    Ok(())
}

fn certificate(home: &Path, name: &str) -> Result<()> {
    let mut openssl = shell::command("openssl", &["req", "-x509", "-newkey", "ec", "-nodes", "-days", "3650"]);
    openssl.args(["-pkeyopt", "ec_paramgen_curve:P-256", "-subj", &format!("/CN={name}-bmc")]);
    openssl.args(["-addext", "subjectAltName=IP:127.0.0.1"]);
    shell::run(openssl.arg("-keyout").arg(home.join("key.pem")).arg("-out").arg(home.join("cert.pem")))
}

fn configuration(node: &Node, home: &Path) -> Result<String> {
    let port = node.bmc.rsplit(':').next().context("a BMC has a port")?;
    let home = home.display();
    let (code, vars) = (super::probe::FIRMWARE, super::probe::VARIABLES);
    Ok(format!(
        "SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\n\
         SUSHY_EMULATOR_LISTEN_PORT = {port}\n\
         SUSHY_EMULATOR_SSL_CERT = '{home}/cert.pem'\n\
         SUSHY_EMULATOR_SSL_KEY = '{home}/key.pem'\n\
         SUSHY_EMULATOR_AUTH_FILE = '{home}/htpasswd'\n\
         SUSHY_EMULATOR_STATE_DIR = '{home}/state'\n\
         SUSHY_EMULATOR_LIBVIRT_URI = 'qemu:///system'\n\
         SUSHY_EMULATOR_STORAGE_POOL = 'default'\n\
         SUSHY_EMULATOR_ALLOWED_INSTANCES = ['{uuid}']\n\
         # Both are needed: without them a change of the boot mode turns to firmware that is not there.\n\
         SUSHY_EMULATOR_BOOT_LOADER_MAP = {{'UEFI': {{'x86_64': '{code}'}}, 'Legacy': {{'x86_64': None}}}}\n\
         SUSHY_EMULATOR_SECURE_BOOT_DISABLED_NVRAM = '{vars}'\n",
        uuid = node.uuid,
    ))
}
