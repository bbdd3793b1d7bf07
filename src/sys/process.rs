//! This process and its machine: who it is, what it may open, and what the agent does when it is the first: mounts, host name, power.

use std::io;

use rustix::mount::{MountFlags, mount};
use rustix::system::RebootCommand;

/// Whether this process is the first one of the machine.
#[must_use]
pub fn is_first() -> bool {
    std::process::id() == 1
}

/// Mounts a kernel file system (`proc`, `sysfs`, …) on `target`, whose folder is made where it is missing. A file
/// system that is mounted there already is left as it is.
pub fn mount_kernel_fs(kind: &str, target: &str) -> io::Result<()> {
    std::fs::create_dir_all(target)?;
    match mount(kind, target, kind, MountFlags::NOSUID, None) {
        Ok(()) | Err(rustix::io::Errno::BUSY) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The number of the user that this process acts as.
#[must_use]
pub fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The number of its group.
#[must_use]
pub fn group() -> u32 {
    rustix::process::getegid().as_raw()
}

/// The process that a thread belongs to; nothing of one that is no more, or of another machine's or container's.
#[must_use]
pub fn process_of(thread: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
}

/// Takes a mounted file system out of the tree of folders at once; it ends when the last file in it is closed. Who may not asks
/// `fusermount3`, which may.
pub fn detach(folder: &std::path::Path) -> io::Result<()> {
    use rustix::mount::{UnmountFlags, unmount};
    match unmount(folder, UnmountFlags::DETACH) {
        Err(rustix::io::Errno::PERM) => {
            let done = std::process::Command::new("fusermount3").arg("-uz").arg("--").arg(folder).status()?;
            if done.success() { Ok(()) } else { Err(io::Error::other(format!("fusermount3 ended with {done}"))) }
        }
        done => Ok(done?),
    }
}

/// Lets the kernel read ahead by so many bytes in what is mounted on `folder`, which is absolute; only root may. Asks nothing of
/// what is mounted.
pub fn set_read_ahead(folder: &std::path::Path, bytes: usize) -> io::Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let device = device_of(&mounts, folder).ok_or(io::ErrorKind::NotFound)?;
    std::fs::write(format!("/sys/class/bdi/{device}/read_ahead_kb"), (bytes / 1024).to_string())
}

/// The device that was mounted last on a folder, as mountinfo names it. Names that it has to quote are not found.
fn device_of<'a>(mounts: &'a str, folder: &std::path::Path) -> Option<&'a str> {
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mut mounted = fields.filter(|fields| fields.get(4).copied() == folder.to_str());
    mounted.next_back()?.get(2).copied()
}

/// A text that names this process and no other, also after a restart of the machine.
#[must_use]
pub fn identity() -> String {
    identity_of(std::process::id()).unwrap_or_default()
}

/// Whether the process that [`identity`] named still runs.
#[must_use]
pub fn is_alive(identity: &str) -> bool {
    let id = identity.split(' ').next().and_then(|id| id.parse().ok());
    id.and_then(identity_of).is_some_and(|now| now == identity)
}

/// The process's number, when it began, and which boot of the machine that was (proc(5)).
fn identity_of(id: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in parentheses may hold anything; the 22nd field is the 20th behind it.
    let began = stat.rsplit(')').next()?.split_whitespace().nth(19)?;
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(format!("{id} {began} {}", boot.trim()))
}

/// Files that this process may have open at once.
#[must_use]
pub fn open_files_max() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Raises the number of files that this process may have open to what its system allows; answers what it is now.
pub fn raise_open_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it is refused, what was allowed before goes on being allowed.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    if raised.is_ok() { limit.maximum.unwrap_or(u64::MAX) } else { open_files_max() }
}

/// Sets the kernel's host name.
pub fn set_host_name(name: &str) -> io::Result<()> {
    Ok(rustix::system::sethostname(name.as_bytes())?)
}

/// Flushes every file system and device cache of the machine; returns when the kernel has finished.
pub fn sync_all() {
    rustix::fs::sync();
}

/// Powers the machine off. Returns only where the kernel refuses.
pub fn power_off() -> io::Error {
    sync_all();
    match rustix::system::reboot(RebootCommand::PowerOff) {
        Ok(()) => io::Error::other("the kernel came back from a power-off"),
        Err(errno) => errno.into(),
    }
}

/// The running kernel's release, as in `/lib/modules/RELEASE`.
#[must_use]
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Clears or sets a file's immutable flag (efivarfs sets it on every variable); answers whether it was set before.
pub fn set_immutable(file: &std::fs::File, immutable: bool) -> io::Result<bool> {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    let flags = ioctl_getflags(file)?;
    let was = flags.contains(IFlags::IMMUTABLE);
    if was != immutable {
        let mut wanted = flags;
        wanted.set(IFlags::IMMUTABLE, immutable);
        ioctl_setflags(file, wanted)?;
    }
    Ok(was)
}

#[cfg(test)]
mod tests {
    //! A mount is found by its folder; of several on one, the last.
    use std::path::Path;

    use super::*;

    #[test]
    fn mounts_have_devices() {
        let mounts = "21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
                      40 21 0:50 / /mnt/data ro,nosuid - fuse.bedplate data@v1/ ro\n\
                      41 40 0:51 / /mnt/data ro,nosuid - fuse.bedplate data@v2/ ro\n";
        assert_eq!(device_of(mounts, Path::new("/mnt/data")), Some("0:51"));
        assert_eq!(device_of(mounts, Path::new("/")), Some("8:1"));
        assert_eq!(device_of(mounts, Path::new("/mnt")), None);
        assert_eq!(device_of("broken\n", Path::new("/mnt")), None);
    }
}
