//! Cuts and root digests against an outside oracle: `hf_xet`, the reference client of the Xet protocol, from PyPI. Proves
//! that an object's root digest is Xet's file hash for lengths and contents at which an implementation may go astray.
//! Skipped aloud where the oracle is not installed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use bedplate::format::cut::Cutter;
use bedplate::format::digest::{RootDigest, chunk_digest, xet_text};
use bedplate::model::limit::{CHUNK_MAX, CHUNK_MIN};

/// A Python that has `hf_xet`: the one that `cargo xtask test` installs beside the build, or one that was named.
fn oracle() -> Option<PathBuf> {
    let named = std::env::var_os("BEDPLATE_ORACLE").map(PathBuf::from);
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("oracle/bin/python");
    let found = named.into_iter().chain([built]).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: no Python with hf_xet (oracle/bin/python beside the build, or BEDPLATE_ORACLE)");
    }
    found
}

/// SplitMix64, a number at a time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn noise(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(len).collect()
    }

    /// Lines of JSON: what data sets are made of.
    fn text(&mut self, len: usize) -> Vec<u8> {
        let words = ["rack", "node", "disk", "chunk", "pack", "index", "bucket", "object"];
        let mut text = String::with_capacity(len + 100);
        while text.len() < len {
            let (id, word, other) = (self.next() >> 40, words[self.below(8)], words[self.below(8)]);
            let _ = writeln!(
                text,
                "{{\"id\": {id}, \"{word}\": \"{other} of {word}\", \"share\": 0.{}}}",
                self.below(1000)
            );
        }
        text.truncate(len);
        text.into_bytes()
    }
}

/// On these 64 bytes the Gear hash ends a chunk, wherever they are seen.
fn hit() -> Vec<u8> {
    Random(20_400).noise(64)
}

/// Lengths at which something begins or ends, and their neighbours.
fn awkward_lengths() -> Vec<usize> {
    let around =
        [1, 64, CHUNK_MIN - 64, CHUNK_MIN, 2 * CHUNK_MIN, CHUNK_MAX, 2 * CHUNK_MAX, 3 * CHUNK_MAX, 9 * CHUNK_MAX];
    let mut lengths: Vec<usize> = around.iter().flat_map(|at| [at - 1, *at, at + 1]).collect();
    lengths.extend([10 * CHUNK_MAX, 27 * CHUNK_MAX + 5, 81 * CHUNK_MAX]);
    lengths
}

/// Everything that is compared, with a name for the failure.
fn inputs() -> Vec<(String, Vec<u8>)> {
    let mut inputs = Vec::new();
    for len in awkward_lengths() {
        inputs.push((format!("{len} zeros"), vec![0; len]));
        inputs.push((format!("{len} of noise"), Random(len as u64).noise(len)));
    }
    for len in awkward_lengths().into_iter().filter(|len| *len <= 3 * CHUNK_MAX + 1) {
        inputs.push((format!("{len} of text"), Random(len as u64).text(len)));
        inputs.push((format!("{len} bytes 255"), vec![255; len]));
    }
    // A hit that ends at every distance around the shortest and the longest chunk, once and over and over.
    for (name, bound) in [("shortest", CHUNK_MIN), ("longest", CHUNK_MAX)] {
        for gap in bound - 70..bound + 6 {
            let once = [vec![0x41; gap - 64], hit()].concat();
            inputs
                .push((format!("a hit at {gap}, the {name} chunk"), [once.clone(), Random(1).noise(20_000)].concat()));
            if gap % 8 == 0 {
                inputs.push((format!("hits every {gap}, the {name} chunk"), once.repeat(12)));
            }
        }
    }
    inputs.push(("nothing but hits".into(), hit().repeat(20_000)));
    // Runs of everything, in an order that the seed decides.
    for seed in 0..40 {
        let mut random = Random(seed << 32);
        let mut data = Vec::new();
        for _ in 0..1 + random.below(12) {
            let bits = 10 + random.below(9);
            let len = random.below(1 << bits);
            match random.below(5) {
                0 => data.resize(data.len() + len, 0),
                1 => data.extend(random.text(len)),
                2 => data.extend(hit()),
                3 => data.extend(data.clone().into_iter().take(len)),
                _ => data.extend(random.noise(len)),
            }
        }
        inputs.push((format!("mixture {seed}"), data));
    }
    inputs
}

/// Our root digest, as the protocol writes it; the bytes arrive in pieces.
fn root(data: &[u8], piece: usize) -> String {
    let (mut cutter, mut root, mut open) = (Cutter::new(), RootDigest::new(), Vec::new());
    for mut piece in data.chunks(piece) {
        while let Some(end) = cutter.next_cut(piece) {
            open.extend_from_slice(&piece[..end]);
            root.push(chunk_digest(&open), open.len() as u64);
            open.clear();
            piece = &piece[end..];
        }
        open.extend_from_slice(piece);
    }
    if !open.is_empty() {
        root.push(chunk_digest(&open), open.len() as u64);
    }
    xet_text(&root.finish())
}

#[test]
fn root_digests_are_xets_file_hashes() {
    let Some(python) = oracle() else { return };
    let folder = tempfile::tempdir().unwrap();
    let inputs = inputs();
    for (number, (_, data)) in inputs.iter().enumerate() {
        std::fs::write(folder.path().join(format!("{number:04}")), data).unwrap();
    }
    let program = "import hf_xet, os, sys\n\
                   names = [os.path.join(sys.argv[1], name) for name in sorted(os.listdir(sys.argv[1]))]\n\
                   for info in hf_xet.hash_files(names): print(info.hash, info.file_size)\n";
    let output = Command::new(python).args(["-c", program]).arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.lines().count(), inputs.len());
    for ((name, data), line) in inputs.iter().zip(said.lines()) {
        let ours = format!("{} {}", root(data, 65_521), data.len());
        assert_eq!(ours, line, "{name}");
        assert_eq!(root(data, usize::MAX), root(data, 4099), "{name}, in other pieces");
    }
    println!("{} inputs, {} bytes", inputs.len(), inputs.iter().map(|(_, data)| data.len()).sum::<usize>());
}
