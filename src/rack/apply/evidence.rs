//! The evidence of failed nodes: one folder a node, `JOB/NODE/`, with the task as it failed, the last requests to its BMC, and what the
//! BMC showed at that moment. For whoever has to find out why.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::job::TaskRow;
use crate::model::{JobId, NodeName};

/// Jobs whose evidence is kept.
const JOBS_MAX: usize = 200;
/// Bytes of one file at most: what a BMC tells must not fill the disk.
const FILE_MAX: usize = 1024 * 1024;

/// Where it is kept.
#[derive(Clone, Debug)]
pub(super) struct EvidenceRoom(pub(super) PathBuf);

impl EvidenceRoom {
    fn of(&self, job: JobId, node: &NodeName) -> PathBuf {
        self.0.join(job.to_string()).join(node.as_str())
    }

    /// Keeps what is known of a failed node; answers the folder.
    pub(super) async fn keep(&self, task: &TaskRow, mut found: BTreeMap<String, Value>) -> io::Result<PathBuf> {
        found.insert("task".to_owned(), json!(TaskRow { secret: None, ..task.clone() }));
        let (folder, room) = (self.of(task.job, &task.node), self.0.clone());
        spawn_blocking(move || {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            for (name, value) in found {
                let mut bytes = serde_json::to_vec_pretty(&value)?;
                if bytes.len() > FILE_MAX {
                    bytes = json!({ "left-out": format!("it has {} bytes", bytes.len()) }).to_string().into_bytes();
                }
                std::fs::write(folder.join(format!("{name}.json")), bytes)?;
            }
            forget_oldest(&room)?;
            Ok(folder)
        })
        .await
        .map_err(io::Error::other)?
    }

    /// What is kept of a node, by name; none where nothing is.
    pub(super) async fn read(&self, job: JobId, node: &NodeName) -> io::Result<Option<BTreeMap<String, Value>>> {
        let folder = self.of(job, node);
        spawn_blocking(move || {
            let entries = match std::fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                entries => entries?,
            };
            let mut found = BTreeMap::new();
            for entry in entries {
                let path = entry?.path();
                let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                // A file that a crash cut short is shown as it is.
                let bytes = std::fs::read(&path)?;
                let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
                found.insert(name, serde_json::from_slice(&bytes).unwrap_or_else(|_| text()));
            }
            Ok(Some(found))
        })
        .await
        .map_err(io::Error::other)?
    }
}

/// Removes what is kept of the oldest jobs; ids begin with the time.
fn forget_oldest(room: &Path) -> io::Result<()> {
    let mut jobs: Vec<PathBuf> = std::fs::read_dir(room)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    jobs.sort();
    let surplus = jobs.len().saturating_sub(JOBS_MAX);
    jobs.iter().take(surplus).try_for_each(std::fs::remove_dir_all)
}

#[cfg(test)]
mod tests {
    //! What is kept is bounded, by file and by job, and the oldest goes first.
    use super::*;

    #[test]
    fn the_oldest_jobs_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..JOBS_MAX + 3 {
            std::fs::create_dir_all(folder.path().join(format!("{number:032x}/n1"))).unwrap();
        }
        forget_oldest(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), JOBS_MAX);
        assert!(
            !folder.path().join(format!("{:032x}", 2)).exists() && folder.path().join(format!("{:032x}", 3)).exists()
        );
    }
}
