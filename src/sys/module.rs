//! Loading one kernel module. Which ones, and in which order, is `node::modules`' to decide.

use std::fs::File;
use std::io;
use std::path::Path;

/// The kernel unpacks the module itself (`MODULE_INIT_COMPRESSED_FILE`).
const COMPRESSED: i32 = 4;

/// What the kernel did with a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is loaded now.
    Now,
    /// It was loaded before, or is built in.
    Before,
}

/// Loads the module in `path`; a name that ends in `.xz`, `.zst` or `.gz` is unpacked by the kernel.
pub fn insert(path: &Path) -> io::Result<Inserted> {
    let file = File::open(path)?;
    let packed = path.extension().is_some_and(|e| e == "xz" || e == "zst" || e == "gz");
    match rustix::system::finit_module(&file, c"", if packed { COMPRESSED } else { 0 }) {
        Ok(()) => Ok(Inserted::Now),
        Err(rustix::io::Errno::EXIST) => Ok(Inserted::Before),
        Err(errno) => Err(errno.into()),
    }
}
