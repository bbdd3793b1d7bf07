//! Which sessions this user's processes have open at which BMC, one small file each, so that the session of a process that was killed
//! is found and deleted at the next contact. Losing the folder costs nothing but that.

use std::path::{Path, PathBuf};

use crate::model::Digest;
use crate::sys::process;

/// The folder of one user's open sessions.
pub(super) struct Ledger {
    folder: PathBuf,
}

impl Ledger {
    /// Sessions in `folder`, which is made with the first of them.
    pub(super) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn of(&self, authority: &str) -> PathBuf {
        let name: String =
            authority.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' }).collect();
        self.folder.join(name.trim_start_matches('.'))
    }

    fn file(&self, authority: &str, place: &str) -> PathBuf {
        self.of(authority).join(&Digest(*blake3::hash(place.as_bytes()).as_bytes()).to_string()[..16])
    }

    /// Notes a session of this process.
    pub(super) fn begun(&self, authority: &str, place: &str) -> std::io::Result<()> {
        std::fs::create_dir_all(self.of(authority))?;
        std::fs::write(self.file(authority, place), format!("{}\n{place}\n", process::identity()))
    }

    /// Forgets a session.
    pub(super) fn ended(&self, authority: &str, place: &str) {
        drop(std::fs::remove_file(self.file(authority, place)));
        // Only an empty folder goes.
        drop(std::fs::remove_dir(self.of(authority)));
    }

    /// The sessions at a BMC whose process is gone.
    pub(super) fn left(&self, authority: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.of(authority)) else { return vec![] };
        entries.filter_map(|entry| left_behind(&entry.ok()?.path())).collect()
    }
}

fn left_behind(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let (owner, place) = text.trim_end().split_once('\n')?;
    (!process::is_alive(owner)).then(|| place.to_owned())
}

#[cfg(test)]
mod tests {
    //! Only the sessions of processes that are gone count as left behind.
    use super::*;

    #[test]
    fn sessions_of_the_living_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::at(folder.path().join("sessions"));
        assert!(ledger.left("10.0.0.5:443").is_empty());
        ledger.begun("10.0.0.5:443", "/redfish/v1/SessionService/Sessions/1").unwrap();
        assert!(ledger.left("10.0.0.5:443").is_empty(), "this process lives");
        let file = ledger.file("10.0.0.5:443", "/redfish/v1/SessionService/Sessions/2");
        std::fs::write(file, "a process that is gone\n/redfish/v1/SessionService/Sessions/2\n").unwrap();
        assert_eq!(ledger.left("10.0.0.5:443"), ["/redfish/v1/SessionService/Sessions/2"]);
        assert!(ledger.left("10.0.0.6:443").is_empty());
        ledger.ended("10.0.0.5:443", "/redfish/v1/SessionService/Sessions/2");
        assert!(ledger.left("10.0.0.5:443").is_empty());
    }
}
