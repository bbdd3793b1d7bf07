//! The first process's first second: kernel file systems, consoles, and a panic that does not take the kernel along.

use std::time::Duration;

use super::console;
use crate::sys::process;

const MOUNTS: [(&str, &str); 4] = [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run")];

/// Makes the machine usable for the rest of the agent. Failures are said, not returned: there is nobody to return to.
pub fn set_up() {
    let failures: Vec<String> = MOUNTS
        .iter()
        .filter_map(|(kind, target)| process::mount_kernel_fs(kind, target).err().map(|e| format!("{target}: {e}")))
        .collect();
    // Driver chatter would bury what a technician is to read; the kernel's errors still show.
    drop(std::fs::write("/proc/sys/kernel/printk", "4"));
    console::open_all();
    console::log_to_console();
    for failure in failures {
        console::say("init", format!("cannot mount {failure}"));
    }
    std::panic::set_hook(Box::new(|panic| {
        console::say("panic", panic);
        console::banner(&["The agent has a bug and stopped. The disk may be partly written.", "Power the node off."]);
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }));
    // The kernel asks for modules by name through this path; the agent answers (node::modules::answer_kernel).
    drop(std::fs::write("/proc/sys/kernel/modprobe", "/init"));
    console::say(
        "init",
        format!("bedplate-agent {} on Linux {}", env!("CARGO_PKG_VERSION"), process::kernel_release()),
    );
}

/// Mounts the firmware's variables, once their module is loaded. Absent on machines that did not boot by UEFI.
pub fn mount_efivars() -> std::io::Result<()> {
    process::mount_kernel_fs("efivarfs", super::efi::EFIVARS)
}

/// Stays up for good: the last resort of a node that may not reboot.
pub fn stay() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Powers off, or stays up where the kernel refuses.
pub fn power_off() -> ! {
    console::say("power", "powering off");
    let error = process::power_off();
    console::say("power", format!("cannot power off: {error}; press the button"));
    stay()
}
