//! The firmware's boot entry for the installed disk.

/// Where the firmware's variables are mounted.
pub const EFIVARS: &str = "/sys/firmware/efi/efivars";
