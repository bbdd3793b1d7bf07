//! A recorded Redfish tree: a folder with one `index.json` a resource, answered as its BMC once did. It only reads.

use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use hyper::{HeaderMap, StatusCode};
use serde_json::json;

use super::BmcError;
use super::exchange::{Answer, Ask};

const ROOT: &str = "redfish/v1";

/// A folder that answers for a BMC.
pub(super) struct Folder {
    /// The folder that was given.
    folder: PathBuf,
    /// What stands before a path's first segment: nothing, or `redfish/v1` where the folder begins below it.
    short: bool,
}

impl Folder {
    /// Opens a tree that begins with `redfish/v1` or, as short ones do, below it.
    pub(super) fn open(folder: &Path) -> Result<Self, BmcError> {
        for (short, root) in [(false, folder.join(ROOT)), (true, folder.to_owned())] {
            if root.join("index.json").is_file() {
                return Ok(Self { folder: folder.to_owned(), short });
            }
        }
        let why = if folder.is_dir() { "it has no redfish/v1/index.json" } else { "there is no such folder" };
        Err(BmcError::NoTree { folder: folder.display().to_string(), why: why.to_owned() })
    }

    /// What the BMC answered.
    pub(super) async fn answer(&self, ask: &Ask) -> Result<Answer, BmcError> {
        if !ask.is_safe() {
            let folder = self.folder.display().to_string();
            return Err(BmcError::Recorded { folder, request: ask.name() });
        }
        let path = ask.path.split(['?', '#']).next().unwrap_or_default();
        for path in [path.to_owned(), unescape(path)] {
            let Some(file) = self.file(&path) else { continue };
            if let Ok(body) = tokio::fs::read(&file).await {
                return Ok(Answer { status: StatusCode::OK, headers: HeaderMap::new(), body: Bytes::from(body) });
            }
        }
        let body = json!({ "error": { "code": "Base.1.0.ResourceMissingAtURI", "message": "It was not recorded." } });
        Ok(Answer { status: StatusCode::NOT_FOUND, headers: HeaderMap::new(), body: body.to_string().into() })
    }

    /// The file for a path; none for a path that leaves the folder.
    fn file(&self, path: &str) -> Option<PathBuf> {
        let mut path = path.trim_matches('/');
        if self.short {
            path = path.strip_prefix(ROOT)?.trim_matches('/');
        }
        let path = Path::new(path);
        let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
        inside.then(|| self.folder.join(path).join("index.json"))
    }
}

/// Percent-decoding; what is no valid escape stays as it is.
fn unescape(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = (*first == b'%').then(|| tail.get(..2)).flatten().and_then(|code| {
            let code = std::str::from_utf8(code).ok()?;
            u8::from_str_radix(code, 16).ok()
        });
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    //! A tree is found in both layouts, escapes are read both ways, and no path leaves the folder.
    use super::*;

    #[tokio::test]
    async fn answers_from_both_layouts_and_stays_inside() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("index.json"), "{}").unwrap();
        for name in ["odd#name", "%23kept"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join("index.json"), "{}").unwrap();
        }
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(inner.join("index.json"), "{}").unwrap();
        let tree = Folder::open(folder.path()).unwrap();
        let status = async |tree: &Folder, path: &str| tree.answer(&Ask::get(path)).await.unwrap().status.as_u16();
        for path in ["/redfish/v1/", "/redfish/v1/odd%23name", "/redfish/v1/%23kept/"] {
            assert_eq!(status(&tree, path).await, 200, "{path}");
        }
        let inside = Folder::open(&inner).unwrap();
        for path in ["/redfish/v1/../", "/redfish/v1/%2e%2e", "/redfish/v1/%2E%2E/inner", "/etc", "/redfish/v1//etc"] {
            assert_eq!(status(&inside, path).await, 404, "{path}");
        }
        assert!(matches!(Folder::open(Path::new("/no/such/folder")), Err(BmcError::NoTree { .. })));
    }
}
