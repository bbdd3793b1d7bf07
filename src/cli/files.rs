//! The files that a command is to bring into the store, and the key of each.

use std::path::{Path, PathBuf};

use super::exit::CliError;

/// One file and where it goes.
#[derive(Debug)]
pub struct FileBelow {
    /// Where it is.
    pub file: PathBuf,
    /// Its key in the store.
    pub key: String,
    /// Its length in bytes.
    pub bytes: u64,
}

/// A file, or all files of a folder, by key. A file keeps its name below a key that is empty or ends with a slash; a folder's files keep
/// their paths below the key. Links to folders are not followed.
pub fn files_below(source: &Path, key: &str) -> Result<Vec<FileBelow>, CliError> {
    let at = |path: &Path, error: &std::io::Error| CliError::because(format!("read {}", path.display()), error);
    let facts = std::fs::metadata(source).map_err(|error| at(source, &error))?;
    if !facts.is_dir() {
        let name = source.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let key = if key.is_empty() || key.ends_with('/') { format!("{key}{name}") } else { key.to_owned() };
        return Ok(vec![FileBelow { file: source.to_owned(), key, bytes: facts.len() }]);
    }
    let mut files = Vec::new();
    let mut folders = vec![(source.to_owned(), key.trim_end_matches('/').to_owned())];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|error| at(&folder, &error))? {
            let entry = entry.map_err(|error| at(&folder, &error))?;
            let file = entry.path();
            let Ok(name) = entry.file_name().into_string() else {
                return Err(CliError::failed(format!("{} has a name that is no UTF-8: rename it", file.display())));
            };
            let key = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            let facts = std::fs::metadata(&file).map_err(|error| at(&file, &error))?;
            let kind = entry.file_type().map_err(|error| at(&file, &error))?;
            if facts.is_file() {
                files.push(FileBelow { file, key, bytes: facts.len() });
            } else if kind.is_dir() {
                folders.push((file, key));
            }
        }
    }
    files.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(files)
}

/// Every file and link below a folder, in order; links are not followed. A folder that is not there has none.
pub fn entries_below(folder: &Path) -> Result<Vec<PathBuf>, CliError> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        let unreadable = |error: std::io::Error| CliError::because(format!("read {}", folder.display()), &error);
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(unreadable(error)),
        };
        for entry in entries {
            let entry = entry.map_err(unreadable)?;
            let kind = entry.file_type().map_err(unreadable)?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() || kind.is_symlink() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}
