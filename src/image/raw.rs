//! Tells raw disk images from what people hand in instead of one, by the first bytes.

/// How many bytes [`check`] wants to see, where there are that many.
pub const PEEK_BYTES: usize = 1024;

/// Why a file is no raw disk image, and what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRaw {
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// It is compressed.
    #[error("it is compressed with {0}; decompress it and import the result (the store compresses by itself)")]
    Compressed(&'static str),
    /// It is a disk image in a format that has to be converted.
    #[error("it is a {0} image; convert it with `qemu-img convert -O raw FILE FILE.raw` and import that")]
    Format(&'static str),
    /// It is an archive.
    #[error("it is a {0} archive, not a disk; import the disk image that is in it")]
    Archive(&'static str),
}

/// Refuses what is certainly no raw disk image. `head` is the content's first [`PEEK_BYTES`], or all of it.
pub fn check(head: &[u8]) -> Result<(), NotRaw> {
    let starts = |magic: &[u8]| head.starts_with(magic);
    if head.is_empty() {
        return Err(NotRaw::Empty);
    }
    for (magic, refusal) in [
        (&b"QFI\xfb"[..], NotRaw::Format("qcow2")),
        (b"KDMV", NotRaw::Format("VMDK")),
        (b"# Disk DescriptorFile", NotRaw::Format("VMDK")),
        (b"vhdxfile", NotRaw::Format("VHDX")),
        (b"conectix", NotRaw::Format("VHD")),
        (b"\x3a\xff\x26\xed", NotRaw::Format("Android sparse")),
        (b"\x1f\x8b\x08", NotRaw::Compressed("gzip")),
        (b"\x28\xb5\x2f\xfd", NotRaw::Compressed("zstd")),
        (b"\xfd7zXZ\0", NotRaw::Compressed("xz")),
        (b"BZh", NotRaw::Compressed("bzip2")),
        (b"\x04\x22\x4d\x18", NotRaw::Compressed("lz4")),
        (b"PK\x03\x04", NotRaw::Archive("zip")),
    ] {
        if starts(magic) {
            return Err(refusal);
        }
    }
    if head.get(0x40..0x44) == Some(&b"\x7f\x10\xda\xbe"[..]) {
        return Err(NotRaw::Format("VDI"));
    }
    if head.get(257..262) == Some(&b"ustar"[..]) {
        return Err(NotRaw::Archive("tar"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    //! What is certainly something else is refused, and everything else is let through.
    use super::*;

    #[test]
    fn tells_them_apart() {
        assert_eq!(check(b""), Err(NotRaw::Empty));
        assert_eq!(check(b"QFI\xfb\0\0\0\x03"), Err(NotRaw::Format("qcow2")));
        assert_eq!(check(b"\x28\xb5\x2f\xfd...."), Err(NotRaw::Compressed("zstd")));
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert_eq!(check(&tar), Err(NotRaw::Archive("tar")));
        let mut disk = vec![0; 1024];
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        disk[512..520].copy_from_slice(b"EFI PART");
        assert_eq!(check(&disk), Ok(()));
        assert_eq!(check(&[0]), Ok(()));
        assert_eq!(check(&[0; PEEK_BYTES]), Ok(()));
    }
}
