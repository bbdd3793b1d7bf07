//! Little-endian fields and varints, written and read: what the binary layouts of this layer are made of. The reader
//! takes hostile bytes: it never panics, and it never allocates more than the bytes that it was given.

/// Bytes that are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {what} is damaged: {why}")]
pub struct Damaged {
    /// What was being read.
    pub what: &'static str,
    /// What is wrong with it.
    pub why: &'static str,
}

/// Collects fields.
#[derive(Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// A writer with room for `bytes`.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Bytes as they are, without a length.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.raw(&[value])
    }

    /// Four bytes, little endian.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// Eight bytes, little endian.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// LEB128: seven bits a byte, the lowest first, the high bit set on all but the last.
    pub fn varint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.0.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.u8(value as u8)
    }

    /// A varint length, then the bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.varint(bytes.len() as u64).raw(bytes)
    }

    /// A byte 0, or a byte 1 and the text.
    pub fn optional_text(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            None => self.u8(0),
            Some(text) => self.u8(1).bytes(text.as_bytes()),
        }
    }

    /// Appends the CRC32C of all that was written, four bytes.
    pub fn seal(&mut self) -> &mut Self {
        let crc = crc32c::crc32c(&self.0);
        self.u32(crc)
    }

    /// Bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was written; the writer is empty afterwards.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

/// Reads fields in the order in which they were written.
pub struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, which should be a `what`.
    #[must_use]
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    /// Reads `bytes`, whose last four must be the CRC32C of those before.
    pub fn sealed(what: &'static str, bytes: &'a [u8]) -> Result<Self, Damaged> {
        let (body, crc) =
            bytes.split_last_chunk::<4>().ok_or(Damaged { what, why: "it is shorter than its checksum" })?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return Err(Damaged { what, why: "its checksum does not match" });
        }
        Ok(Self { what, rest: body })
    }

    /// An error about these bytes.
    #[must_use]
    pub fn damaged(&self, why: &'static str) -> Damaged {
        Damaged { what: self.what, why }
    }

    /// Bytes that are left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// `count` bytes.
    pub fn raw(&mut self, count: usize) -> Result<&'a [u8], Damaged> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(self.damaged("it is cut short"))?;
        self.rest = rest;
        Ok(head)
    }

    /// `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let mut array = [0; N];
        array.copy_from_slice(self.raw(N)?);
        Ok(array)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Damaged> {
        Ok(self.array::<1>()?[0])
    }

    /// Four bytes, little endian.
    pub fn u32(&mut self) -> Result<u32, Damaged> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes, little endian.
    pub fn u64(&mut self) -> Result<u64, Damaged> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A varint; more than 64 bits of it are damage.
    pub fn varint(&mut self) -> Result<u64, Damaged> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.damaged("a number has more than 64 bits"))
    }

    /// A varint that fits 32 bits.
    pub fn varint32(&mut self) -> Result<u32, Damaged> {
        u32::try_from(self.varint()?).map_err(|_| self.damaged("a number has more than 32 bits"))
    }

    /// A varint length and that many bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8], Damaged> {
        let length = usize::try_from(self.varint()?).map_err(|_| self.damaged("a length is too large"))?;
        self.raw(length)
    }

    /// A varint length and that many bytes of UTF-8.
    pub fn text(&mut self) -> Result<String, Damaged> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| self.damaged("a text is not UTF-8"))
    }

    /// A byte 0, or a byte 1 and a text.
    pub fn optional_text(&mut self) -> Result<Option<String>, Damaged> {
        match self.u8()? {
            0 => Ok(None),
            1 => Ok(Some(self.text()?)),
            _ => Err(self.damaged("a flag is neither 0 nor 1")),
        }
    }

    /// A version byte, which must be `known`.
    pub fn version(&mut self, known: u8) -> Result<(), Damaged> {
        if self.u8()? == known { Ok(()) } else { Err(self.damaged("its version is not one that this program knows")) }
    }

    /// A version byte between 1 and `newest`.
    pub fn version_up_to(&mut self, newest: u8) -> Result<u8, Damaged> {
        let version = self.u8()?;
        let known = (1..=newest).contains(&version);
        if known { Ok(version) } else { Err(self.damaged("its version is not one that this program knows")) }
    }

    /// A byte 0 or 1.
    pub fn flag(&mut self) -> Result<bool, Damaged> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.damaged("a flag is neither 0 nor 1")),
        }
    }

    /// Succeeds when nothing is left.
    pub fn end(self) -> Result<(), Damaged> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.damaged("bytes follow its end")) }
    }
}

#[cfg(test)]
mod tests {
    //! Fields read back as written, and no byte string makes the reader panic.
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_read_back(value: u64) {
            let bytes = Writer::default().varint(value).take();
            let mut reader = Reader::new("test", &bytes);
            prop_assert_eq!(reader.varint().unwrap(), value);
            prop_assert!(reader.end().is_ok());
        }

        #[test]
        fn hostile_bytes_are_harmless(bytes: Vec<u8>) {
            let mut reader = Reader::new("test", &bytes);
            while reader.varint().is_ok() && reader.text().is_ok() && reader.optional_text().is_ok() {}
            let _ = Reader::sealed("test", &bytes);
        }
    }
}
