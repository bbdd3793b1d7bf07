//! Which sessions this user's processes have open at which BMC, one small file each, so that the session of a process that was killed
//! is found and deleted at the next contact. Losing the folder costs nothing but that.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::Digest;
use crate::sys::process;

/// Where a note of a session stands that was asked for, and whose answer did not come yet.
const UNNAMED: &str = "?";
/// The owner of a note whose answer will not come any more.
const NOBODY: &str = "-";

/// How often a note is written into a folder that goes at the same moment.
const TRIES: usize = 8;

/// The folder of one user's open sessions.
pub(super) struct Ledger {
    folder: PathBuf,
}

/// What is noted of sessions at one BMC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// Sessions of processes that are gone.
    pub left: Vec<String>,
    /// Sessions of processes that run.
    pub held: Vec<String>,
    /// Whether a process that is gone may have left one whose name it never learned.
    pub unnamed: bool,
}

impl Noted {
    /// Whether anything may have been left open.
    #[must_use]
    pub fn is_left(&self) -> bool {
        self.unnamed || !self.left.is_empty()
    }
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

    /// Notes that this process asks for a session; answers the note's name.
    pub(super) fn asked(&self, authority: &str) -> std::io::Result<String> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let note = format!("asked {} {}", process::identity(), COUNT.fetch_add(1, Ordering::Relaxed));
        self.write(authority, &note, &process::identity(), UNNAMED)?;
        Ok(note)
    }

    /// The answer to what was noted came, or it never will: then a session may be open at the BMC.
    pub(super) fn settled(&self, authority: &str, note: &str, lost: bool) -> std::io::Result<()> {
        match lost {
            true => self.write(authority, note, NOBODY, UNNAMED),
            false => {
                self.ended(authority, note);
                Ok(())
            }
        }
    }

    /// Notes a session of this process.
    pub(super) fn begun(&self, authority: &str, place: &str) -> std::io::Result<()> {
        self.write(authority, place, &process::identity(), place)
    }

    /// Notes that this process has let go of its session without ending it.
    pub(super) fn left(&self, authority: &str, place: &str) -> std::io::Result<()> {
        self.write(authority, place, NOBODY, place)
    }

    fn write(&self, authority: &str, name: &str, owner: &str, place: &str) -> std::io::Result<()> {
        let file = self.file(authority, name);
        let text = format!("{owner}\n{place}\n");
        // The folder goes with its last note, which may be another's and end at this very moment.
        for _ in 0..TRIES {
            match std::fs::write(&file, &text) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    match std::fs::create_dir_all(self.of(authority)) {
                        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists) => {
                            return Err(error);
                        }
                        _ => {}
                    }
                }
                written => return written,
            }
        }
        std::fs::write(&file, &text)
    }

    /// Forgets a session, or a note.
    pub(super) fn ended(&self, authority: &str, place: &str) {
        drop(std::fs::remove_file(self.file(authority, place)));
        // Only an empty folder goes.
        drop(std::fs::remove_dir(self.of(authority)));
    }

    /// What is noted of sessions at a BMC.
    pub(super) fn noted(&self, authority: &str) -> Noted {
        let mut noted = Noted::default();
        for (_, owner, place) in self.notes(authority) {
            match (process::is_alive(&owner), place == UNNAMED) {
                (true, true) => {}
                (true, false) => noted.held.push(place),
                (false, true) => noted.unnamed = true,
                (false, false) => noted.left.push(place),
            }
        }
        noted
    }

    /// Forgets what gone processes asked for: it was looked for.
    pub(super) fn unnamed_ended(&self, authority: &str) {
        for (file, owner, place) in self.notes(authority) {
            if place == UNNAMED && !process::is_alive(&owner) {
                drop(std::fs::remove_file(file));
            }
        }
        drop(std::fs::remove_dir(self.of(authority)));
    }

    /// File, owner and place of each note.
    fn notes(&self, authority: &str) -> Vec<(PathBuf, String, String)> {
        let Ok(entries) = std::fs::read_dir(self.of(authority)) else { return vec![] };
        let read = |file: PathBuf| {
            let text = std::fs::read_to_string(&file).ok()?;
            // A note that was cut short by a power cut names nobody's process, and maybe no place: it is as good as unnamed.
            let (owner, place) = text.trim_end().split_once('\n').unwrap_or((NOBODY, UNNAMED));
            Some((file, owner.to_owned(), place.to_owned()))
        };
        entries.filter_map(|entry| read(entry.ok()?.path())).collect()
    }
}

#[cfg(test)]
mod tests {
    //! Only the sessions of processes that are gone count as left behind, and so does what they asked for without learning its name.
    use super::*;

    const AT: &str = "10.0.0.5:443";
    const FIRST: &str = "/redfish/v1/SessionService/Sessions/1";
    const SECOND: &str = "/redfish/v1/SessionService/Sessions/2";

    #[test]
    fn sessions_of_the_living_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::at(folder.path().join("sessions"));
        assert_eq!(ledger.noted(AT), Noted::default());
        ledger.begun(AT, FIRST).unwrap();
        assert!(!ledger.noted(AT).is_left(), "this process lives");
        assert_eq!(ledger.noted(AT).held, [FIRST]);
        ledger.write(AT, SECOND, "a process that is gone", SECOND).unwrap();
        assert_eq!(ledger.noted(AT).left, [SECOND]);
        assert!(!ledger.noted("10.0.0.6:443").is_left());
        ledger.ended(AT, SECOND);
        assert!(!ledger.noted(AT).is_left());
    }

    #[test]
    fn notes_that_come_and_go_at_once_are_all_kept() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::at(folder.path().join("sessions"));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        let note = ledger.asked(AT).unwrap();
                        ledger.settled(AT, &note, false).unwrap();
                    }
                });
            }
        });
        assert_eq!(ledger.noted(AT), Noted::default());
    }

    #[test]
    fn what_was_asked_for_is_looked_for_once_nobody_awaits_it() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::at(folder.path().join("sessions"));
        let (first, second) = (ledger.asked(AT).unwrap(), ledger.asked(AT).unwrap());
        assert!(!ledger.noted(AT).is_left(), "both are awaited");
        ledger.settled(AT, &first, false).unwrap();
        ledger.settled(AT, &second, true).unwrap();
        assert!(ledger.noted(AT).unnamed);
        ledger.unnamed_ended(AT);
        assert_eq!(ledger.noted(AT), Noted::default());
        assert!(!folder.path().join("sessions/10.0.0.5_443").exists());
        std::fs::create_dir_all(folder.path().join("sessions/10.0.0.5_443")).unwrap();
        std::fs::write(folder.path().join("sessions/10.0.0.5_443/cut"), "").unwrap();
        assert!(ledger.noted(AT).unnamed, "a note that was cut short");
    }
}
