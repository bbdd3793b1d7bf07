//! What must hold for any bytes that a decoder of `bedplate::format` is given. The fuzz targets run these checks on what
//! libFuzzer makes up; `tests/it/decoders.rs` runs them on every case that was kept.
//!
//! A decoder never panics and holds no more memory than its input's length allows; what it accepts encodes to bytes
//! that decode to the same value.

mod codec;
mod cutter;
mod pack;
mod push;
mod region;
mod row;

use std::fmt::Debug;

/// One decoder's check.
pub(crate) struct Target {
    /// The target's name: its program, and its folder of kept cases.
    pub(crate) name: &'static str,
    /// The check; panics on a finding.
    pub(crate) check: fn(&Probe, &[u8]),
}

/// Every target, by name.
pub(crate) const TARGETS: &[Target] = &[
    Target { name: "boot_region", check: region::boot_region },
    Target { name: "bucket_row", check: row::bucket },
    Target { name: "chunk_list", check: region::chunk_list },
    Target { name: "codec_decode", check: codec::decode },
    Target { name: "codec_encode", check: codec::encode },
    Target { name: "cutter", check: cutter::cut },
    Target { name: "damage_row", check: row::damage },
    Target { name: "disk_marker", check: region::disk_marker },
    Target { name: "epoch_row", check: row::epoch },
    Target { name: "index_row", check: row::index },
    Target { name: "manifest", check: row::manifest },
    Target { name: "manifest_row", check: row::manifest_row },
    Target { name: "object_row", check: row::object },
    Target { name: "pack_directory", check: pack::directory },
    Target { name: "pack_footer", check: pack::footer },
    Target { name: "pack_group", check: pack::group },
    Target { name: "pack_row", check: row::pack },
    Target { name: "part_row", check: row::part },
    Target { name: "push", check: push::push },
    Target { name: "recipe", check: region::recipe },
    Target { name: "snapshot_row", check: row::snapshot },
    Target { name: "upload_row", check: row::upload },
];

/// Runs a closure, and tells how many bytes it held at the most; a program that does not count answers 0.
pub(crate) type Meter = fn(&mut dyn FnMut()) -> usize;

/// What a check looks at memory with.
pub(crate) struct Probe {
    meter: Meter,
}

impl Probe {
    /// A probe that measures with `meter`.
    pub(crate) fn new(meter: Meter) -> Self {
        Self { meter }
    }

    /// Runs `act`, which may hold `limit` bytes at the most.
    fn within<T>(&self, limit: usize, act: impl FnOnce() -> T) -> T {
        let (mut act, mut done) = (Some(act), None);
        let held = (self.meter)(&mut || done = act.take().map(|act| act()));
        assert!(held <= limit, "{held} bytes were held, {limit} are allowed");
        done.expect("a meter runs what it is given")
    }

    /// The whole check of a decoder of sealed bytes. Hardly any made-up bytes carry the right checksum, so each input is
    /// tried as it is and with its last four bytes set right. `factor` is how many bytes a byte of input may become.
    fn sealed<T: PartialEq + Debug, E: Debug>(
        &self,
        data: &[u8],
        factor: usize,
        decode: impl Fn(&[u8]) -> Result<T, E>,
        encode: impl Fn(&T) -> Vec<u8>,
    ) {
        self.round_trip(data, factor, &decode, &encode);
        if let Some(sealed) = with_checksum(data) {
            self.round_trip(&sealed, factor, &decode, &encode);
        }
    }

    /// Decodes `data`; what comes out must encode to bytes that decode to it.
    fn round_trip<T: PartialEq + Debug, E: Debug>(
        &self,
        data: &[u8],
        factor: usize,
        decode: impl Fn(&[u8]) -> Result<T, E>,
        encode: impl Fn(&T) -> Vec<u8>,
    ) {
        let Ok(value) = self.within(data.len() * factor + 4096, || decode(data)) else { return };
        let bytes = encode(&value);
        let again = decode(&bytes).unwrap_or_else(|error| panic!("{value:?} does not decode: {error:?}"));
        assert!(again == value, "{value:?} came back as {again:?}");
    }
}

/// The bytes with their last four replaced by the CRC32C of those before; nothing where there are not as many.
fn with_checksum(data: &[u8]) -> Option<Vec<u8>> {
    let (body, _) = data.split_last_chunk::<4>()?;
    Some([body, &crc32c::crc32c(body).to_le_bytes()].concat())
}
