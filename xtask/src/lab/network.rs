//! The lab's network namespace: a bridge, addresses by DHCP, and a script to enter it.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{ADDRESS, Lab};
use crate::shell;

const BRIDGE: &str = "br0";

/// libvirt's folders, each of which the lab sees a private one of: where they are, and where the lab's lie.
const FOLDERS: [(&str, &str); 5] = [
    ("/etc/libvirt", "etc"),
    ("/var/lib/libvirt", "var"),
    ("/run/libvirt", "run"),
    ("/var/cache/libvirt", "cache"),
    ("/var/log/libvirt", "log/libvirt"),
];

/// Makes the namespace, its bridge and its DHCP service.
pub fn up(lab: &Lab) -> Result<()> {
    let mut script = String::from(
        "#!/bin/sh\n# Runs a command inside the lab: in its network, with its own libvirt and its own known BMCs.\n\
         exec ip netns exec ",
    );
    script.push_str(&format!("{} sh -c '\n", lab.netns));
    for (theirs, ours) in FOLDERS {
        let ours = lab.dir.join(ours);
        std::fs::create_dir_all(&ours)?;
        std::fs::create_dir_all(theirs)?;
        script.push_str(&format!("mount --bind \"{}\" {theirs} || exit 125\n", ours.display()));
    }
    // The machines' certificates are as short-lived as the lab, so what is known of them stays in it.
    script.push_str(&format!("export XDG_CONFIG_HOME=\"{}\"\n", lab.dir.join("state/config").display()));
    script.push_str("exec \"$@\"' enter \"$@\"\n");
    std::fs::write(&lab.enter, script)?;
    std::fs::set_permissions(&lab.enter, std::fs::Permissions::from_mode(0o755))?;

    let ns = lab.netns.as_str();
    ip(&["netns", "add", ns])?;
    ip(&["-n", ns, "link", "set", "lo", "up"])?;
    ip(&["-n", ns, "link", "add", BRIDGE, "type", "bridge", "stp_state", "0", "forward_delay", "0"])?;
    ip(&["-n", ns, "addr", "add", &format!("{ADDRESS}/24"), "dev", BRIDGE])?;
    ip(&["-n", ns, "link", "set", BRIDGE, "up"])?;

    let mut dnsmasq = lab.command("/usr/sbin/dnsmasq".as_ref());
    dnsmasq.args(["--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--no-hosts", "--no-resolv"]);
    dnsmasq.args(["--port=0", "--bind-interfaces", "--dhcp-authoritative", "--pid-file=", "--log-facility=-"]);
    dnsmasq.args(["--dhcp-range=10.99.0.100,10.99.0.200,1h", "--dhcp-option=3", "--dhcp-option=6"]);
    dnsmasq.arg(format!("--interface={BRIDGE}"));
    dnsmasq.arg(format!("--dhcp-leasefile={}", lab.dir.join("run/leases").display()));
    super::spawn(lab, "dnsmasq", &mut dnsmasq)
}

/// Ends every process in the namespace and removes it. Nothing happens where there is none.
pub fn down(netns: &str) -> Result<()> {
    let known = shell::output(&mut shell::command("ip", &["netns", "list"])).unwrap_or_default();
    if !known.lines().any(|line| line.split_whitespace().next() == Some(netns)) {
        return Ok(());
    }
    for (signal, seconds) in [("-TERM", 10), ("-KILL", 10)] {
        let limit = Instant::now() + Duration::from_secs(seconds);
        let pids = processes(netns)?;
        if pids.is_empty() {
            break;
        }
        // One may have ended by itself meanwhile; what matters is that none is left.
        shell::command("kill", &[signal]).args(&pids).stderr(std::process::Stdio::null()).status()?;
        while Instant::now() < limit && !processes(netns)?.is_empty() {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    ip(&["netns", "del", netns])
}

fn processes(netns: &str) -> Result<Vec<String>> {
    let text = shell::output(&mut shell::command("ip", &["netns", "pids", netns]))?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

fn ip(words: &[&str]) -> Result<()> {
    shell::run(&mut shell::command("ip", words))
}
