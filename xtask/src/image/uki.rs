//! A unified kernel image: systemd's EFI stub with the kernel, its initramfs and its command line as further sections.

use anyhow::{Context as _, Result, ensure};

const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";
/// Section header of a PE file, in bytes.
const SECTION: usize = 40;
/// Initialised data that may be read.
const CHARACTERISTICS: u32 = 0x4000_0040;

/// Joins the parts into one EFI program.
pub fn build(os_release: &str, cmdline: &str, kernel: &[u8], initramfs: &[u8]) -> Result<Vec<u8>> {
    let stub = std::fs::read(STUB).with_context(|| format!("{STUB} is missing: install systemd-boot-efi"))?;
    let mut pe = Pe::open(stub)?;
    pe.add(b".osrel\0\0", os_release.as_bytes())?;
    pe.add(b".cmdline", cmdline.as_bytes())?;
    pe.add(b".linux\0\0", kernel)?;
    pe.add(b".initrd\0", initramfs)?;
    Ok(pe.bytes)
}

struct Pe {
    bytes: Vec<u8>,
    /// Where the COFF header begins.
    coff: usize,
    /// Where the section table begins.
    table: usize,
    section_alignment: u32,
    file_alignment: u32,
}

impl Pe {
    fn open(bytes: Vec<u8>) -> Result<Self> {
        let mut pe = Self { bytes, coff: 0, table: 0, section_alignment: 0, file_alignment: 0 };
        let start = pe.u32(0x3c)? as usize;
        ensure!(pe.bytes.get(start..start + 4) == Some(b"PE\0\0"), "the EFI stub is no PE file");
        pe.coff = start + 4;
        let optional = pe.coff + 20;
        pe.table = optional + usize::from(pe.u16(pe.coff + 16)?);
        ensure!(pe.u16(optional)? == 0x20b, "the EFI stub is not 64-bit");
        pe.section_alignment = pe.u32(optional + 32)?;
        pe.file_alignment = pe.u32(optional + 36)?;
        ensure!(pe.section_alignment.is_power_of_two() && pe.file_alignment.is_power_of_two(), "odd alignment");
        Ok(pe)
    }

    /// Appends a section behind the last one, in the file and in memory.
    fn add(&mut self, name: &[u8; 8], content: &[u8]) -> Result<()> {
        let count = usize::from(self.u16(self.coff + 2)?);
        let mut end = 0;
        let mut first_data = u32::MAX;
        for index in 0..count {
            let at = self.table + index * SECTION;
            end = end.max(self.u32(at + 12)? + self.u32(at + 8)?);
            if self.u32(at + 20)? > 0 {
                first_data = first_data.min(self.u32(at + 20)?);
            }
        }
        let header = self.table + count * SECTION;
        ensure!(header + SECTION <= first_data as usize, "the EFI stub has no room for another section header");
        let address = end.next_multiple_of(self.section_alignment);
        let length = u32::try_from(content.len()).context("a section is too long")?;
        let at = self.bytes.len().next_multiple_of(self.file_alignment as usize);
        self.bytes.resize(at, 0);
        self.bytes.extend_from_slice(content);
        let padded = self.bytes.len().next_multiple_of(self.file_alignment as usize);
        self.bytes.resize(padded, 0);

        self.bytes[header..header + SECTION].fill(0);
        self.bytes[header..header + 8].copy_from_slice(name);
        self.put(header + 8, length);
        self.put(header + 12, address);
        self.put(header + 16, u32::try_from(padded - at).context("a section is too long")?);
        self.put(header + 20, u32::try_from(at).context("the program is too long")?);
        self.put(header + 36, CHARACTERISTICS);
        let count = u16::try_from(count + 1).context("too many sections")?;
        self.bytes[self.coff + 2..self.coff + 4].copy_from_slice(&count.to_le_bytes());
        let optional = self.coff + 20;
        self.put(optional + 56, (address + length).next_multiple_of(self.section_alignment));
        self.put(optional + 64, 0);
        Ok(())
    }

    fn put(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn u16(&self, at: usize) -> Result<u16> {
        let bytes = self.bytes.get(at..at + 2).context("the EFI stub is cut short")?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&self, at: usize) -> Result<u32> {
        let bytes = self.bytes.get(at..at + 4).context("the EFI stub is cut short")?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}
