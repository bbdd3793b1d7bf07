//! A volume: the folder in which the store keeps its files, with the few operations that the store needs and what each
//! promises about power cuts. One of the program's seams: a simulation puts its own volume here.
//!
//! Paths are relative, `FOLDER/FILE`. Calls block; make them through [`super::worker::blocking`].

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::folder;
use super::space::{self, Space};

/// Files by path.
pub trait Volume: Send + Sync + 'static {
    /// Makes a new file, and its folder where that is absent. An existing file is an error. Durable after
    /// [`Volume::sync_folder`].
    fn create(&self, path: &str) -> io::Result<Arc<dyn VolumeFile>>;

    /// Opens a file for reading and writing.
    fn open(&self, path: &str) -> io::Result<Arc<dyn VolumeFile>>;

    /// All files, in any order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Removes a file. Durable after [`Volume::sync_folder`].
    fn remove(&self, path: &str) -> io::Result<()>;

    /// Gives a file another name, in place of what has that name. Durable after [`Volume::sync_folder`] of both.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes durable which files the folder of `path` has, and that there is such a folder.
    fn sync_folder(&self, path: &str) -> io::Result<()>;

    /// Room on the volume; none where it does not say.
    fn space(&self) -> io::Result<Option<Space>> {
        Ok(None)
    }
}

/// An open file.
pub trait VolumeFile: Send + Sync + 'static {
    /// Writes all of `bytes` at `offset`. Durable after [`VolumeFile::sync`]; until then a power cut may leave any part of it.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Up to `len` bytes from `offset` on; fewer only where the file ends.
    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes>;

    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file to `len` bytes. Durable after [`VolumeFile::sync`].
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Makes durable what was written.
    fn sync(&self) -> io::Result<()>;

    /// Lets go of what the system remembers of the file, so that the next read asks the disk.
    fn forget(&self) {}
}

/// A folder of this machine.
#[derive(Debug)]
pub struct LocalVolume {
    root: PathBuf,
}

impl LocalVolume {
    /// Opens the folder; makes it, durably, where it is absent.
    pub fn open(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        folder::create(&root)?;
        Ok(Self { root })
    }

    fn folder_of(&self, path: &str) -> PathBuf {
        let path = self.root.join(path);
        path.parent().map_or_else(|| self.root.clone(), Path::to_owned)
    }
}

impl Volume for LocalVolume {
    fn create(&self, path: &str) -> io::Result<Arc<dyn VolumeFile>> {
        let folder = self.folder_of(path);
        match std::fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(self.root.join(path))?;
        Ok(Arc::new(LocalFile(file)))
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn VolumeFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.root.join(path))?;
        Ok(Arc::new(LocalFile(file)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for folder in std::fs::read_dir(&self.root)? {
            let folder = folder?;
            if !folder.file_type()?.is_dir() {
                continue;
            }
            for file in std::fs::read_dir(folder.path())? {
                let (folder, file) = (folder.file_name(), file?.file_name());
                if let (Some(folder), Some(file)) = (folder.to_str(), file.to_str()) {
                    found.push(format!("{folder}/{file}"));
                }
            }
        }
        Ok(found)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        std::fs::remove_file(self.root.join(path))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.root.join(from), self.root.join(to))
    }

    fn sync_folder(&self, path: &str) -> io::Result<()> {
        // The root too: the folder itself may be new.
        File::open(self.folder_of(path))?.sync_all()?;
        File::open(&self.root)?.sync_all()
    }

    fn space(&self) -> io::Result<Option<Space>> {
        space::of(&self.root).map(Some)
    }
}

struct LocalFile(File);

impl VolumeFile for LocalFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        // Read into memory as it comes: to clear it first costs as much as a third of the read.
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = offset + bytes.len() as u64;
            match rustix::io::pread(&self.0, rustix::buffer::spare_capacity(&mut bytes), at) {
                Ok(0) => break,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bytes.truncate(len);
        Ok(bytes.into())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn forget(&self) {
        // A system that cannot forget reads from memory: that checks less and harms nothing.
        let _ = rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::DontNeed);
    }
}

#[cfg(test)]
mod tests {
    //! Files read back by their paths; an existing file is never made anew.
    use super::*;

    #[test]
    fn files_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let volume = LocalVolume::open(folder.path().join("packs")).unwrap();
        let file = volume.create("ab/one").unwrap();
        file.write_at(0, b"hello").unwrap();
        file.write_at(5, b" world").unwrap();
        file.sync().unwrap();
        volume.sync_folder("ab/one").unwrap();
        assert!(volume.create("ab/one").is_err());
        let again = volume.open("ab/one").unwrap();
        assert_eq!(again.read_at(6, 100).unwrap(), "world");
        again.truncate(5).unwrap();
        assert_eq!(again.len().unwrap(), 5);
        volume.rename("ab/one", "ab/two").unwrap();
        assert_eq!(volume.list().unwrap(), ["ab/two"]);
        volume.remove("ab/two").unwrap();
        assert!(volume.open("ab/two").is_err());
    }
}
