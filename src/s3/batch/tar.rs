//! A tar stream, written: POSIX ustar heads, and pax records where a head has no room. Pure.

use bytes::{BufMut as _, BytesMut};

/// What everything in a tar stream is a multiple of, in bytes.
const BLOCK: usize = 512;
/// Longest name that a head has room for, in bytes.
const NAME_MAX: usize = 100;
/// Most bytes of a member that a head can say: eleven octal digits.
const SIZE_MAX: u64 = 0o777_7777_7777;
/// The name of what carries records; no reader shows it.
const RECORDS_NAME: &str = "PaxHeaders/member";

/// What ends a stream. One that ends otherwise was cut.
pub(super) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// A file in the stream.
pub(super) struct Member<'a> {
    pub(super) name: &'a str,
    pub(super) bytes: u64,
    /// Seconds since 1970.
    pub(super) modified: u64,
    /// Records of our own, by name.
    pub(super) records: &'a [(&'a str, &'a str)],
}

/// Appends all that stands before a member's bytes.
pub(super) fn put_head(out: &mut BytesMut, member: &Member<'_>) {
    let fits = member.name.len() <= NAME_MAX && member.name.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let mut records = BytesMut::new();
    if !fits {
        put_record(&mut records, "path", member.name);
    }
    if member.bytes > SIZE_MAX {
        put_record(&mut records, "size", &member.bytes.to_string());
    }
    member.records.iter().for_each(|(name, value)| put_record(&mut records, name, value));
    if !records.is_empty() {
        put_block(out, RECORDS_NAME.as_bytes(), records.len() as u64, member.modified, b'x');
        let padding = padding(records.len() as u64);
        out.extend_from_slice(&records);
        out.put_bytes(0, padding);
    }
    // Who does not know records finds what fits, in letters that all know.
    let plain: Vec<u8> =
        member.name.bytes().map(|byte| if (b' '..=b'~').contains(&byte) { byte } else { b'_' }).collect();
    put_block(out, &plain[..plain.len().min(NAME_MAX)], member.bytes.min(SIZE_MAX), member.modified, b'0');
}

/// Bytes of nothing after a member of so many bytes.
pub(super) fn padding(bytes: u64) -> usize {
    let over = (bytes % BLOCK as u64) as usize;
    if over == 0 { 0 } else { BLOCK - over }
}

/// `LENGTH NAME=VALUE\n`, the length being that of the whole record.
fn put_record(out: &mut BytesMut, name: &str, value: &str) {
    let rest = name.len() + value.len() + " =\n".len();
    let mut length = rest + 1;
    while length != rest + digits(length) {
        length = rest + digits(length);
    }
    out.extend_from_slice(format!("{length} {name}={value}\n").as_bytes());
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}

/// One head.
fn put_block(out: &mut BytesMut, name: &[u8], bytes: u64, modified: u64, kind: u8) {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, name);
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{bytes:011o}\0").as_bytes());
    put(136, format!("{:011o}\0", modified.min(SIZE_MAX)).as_bytes());
    // The checksum is computed with blanks in its place.
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend_from_slice(&block);
}

#[cfg(test)]
mod tests {
    //! Heads are what POSIX says, records count themselves, and names that do not fit go into records. That Python's tarfile and GNU tar read
    //! them, tests/it shows.
    use super::*;

    fn head(name: &str, bytes: u64, records: &[(&str, &str)]) -> BytesMut {
        let mut out = BytesMut::new();
        put_head(&mut out, &Member { name, bytes, modified: 1_000_000_000, records });
        out
    }

    #[test]
    fn plain_names_take_one_block() {
        let out = head("a/b c", 10_000, &[]);
        assert_eq!(out.len(), BLOCK);
        assert_eq!(
            (&out[..6], &out[124..136], &out[136..148]),
            (&b"a/b c\0"[..], &b"00000023420\0"[..], &b"07346545000\0"[..])
        );
        assert_eq!((out[156], &out[257..265]), (b'0', &b"ustar\x0000"[..]));
        let sum: u32 =
            out.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) }).sum();
        assert_eq!(out[148..156], *format!("{sum:06o}\0 ").as_bytes());
        assert_eq!((padding(0), padding(1), padding(512), padding(10_000)), (0, 511, 0, 240));
    }

    #[test]
    fn records_count_themselves() {
        for (count, length) in [(1, 9), (89, 98), (90, 99), (91, 101)] {
            let value = "x".repeat(count);
            let mut out = BytesMut::new();
            put_record(&mut out, "path", &value);
            assert_eq!((out.len(), &out[..]), (length, format!("{length} path={value}\n").as_bytes()));
        }
    }

    #[test]
    fn what_does_not_fit_becomes_records() {
        assert_eq!(head(&"n".repeat(100), 1, &[]).len(), BLOCK);
        for (name, length) in [("n".repeat(101), 111), ("ü".to_owned(), 11), ("a\nb".to_owned(), 12)] {
            let out = head(&name, 1, &[]);
            assert_eq!((out.len(), out[156], out[2 * BLOCK + 156]), (3 * BLOCK, b'x', b'0'));
            assert!(out[BLOCK..].starts_with(format!("{length} path={name}\n").as_bytes()), "{out:?}");
        }
        let out = head("large", SIZE_MAX + 1, &[("BEDPLATE.error", "x")]);
        assert!(out[BLOCK..].starts_with(b"19 size=8589934592\n20 BEDPLATE.error=x\n"), "{out:?}");
    }
}
