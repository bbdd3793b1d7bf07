//! Random operations on a mount and on a plain folder have the same outcomes, errors included, but for the differences that
//! docs/semantics.md names: a folder's rename is EXDEV, and a file of more than 16 MiB is not changed.
//! `BEDPLATE_MOUNT_SEEDS=100` tries as many seeds; a failure names its seed.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::{Mounted, can_mount, walk};
use crate::support::{Server, noise};

/// Operations of one seed.
const ROUNDS: u64 = 140;
const FOLDERS: [&str; 3] = ["d", "d/e", "g"];

/// What an operation answers: a text that both must agree on, or the system's error number.
type Outcome = Result<String, Option<i32>>;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn file(&mut self) -> String {
        let folder = ["", "d/", "d/e/", "g/"][self.below(4) as usize];
        format!("{folder}f{}", self.below(4))
    }

    /// A file, sometimes a folder.
    fn name(&mut self) -> String {
        if self.below(5) == 0 { FOLDERS[self.below(3) as usize].to_owned() } else { self.file() }
    }

    fn operation(&mut self) -> Operation {
        let (name, other, at, len) = (self.file(), self.name(), self.below(400_000), self.below(300_000) as usize);
        match self.below(20) {
            0..=2 => Operation::Write(name, len),
            3 => Operation::WriteAt(name, at, len % 50_000),
            4 => Operation::Append(self.name(), len % 5_000),
            5 => Operation::Cut(name, at),
            6 => Operation::CreateNew(self.name()),
            7 => Operation::Rename(name, other),
            8 => Operation::Rename(other, name),
            9 => Operation::WriteAndRename(name, self.file(), len),
            10 => Operation::WriteAndRemove(name, len % 9_000),
            11 => Operation::ReadOn(name, other),
            12 => Operation::Remove(other),
            13 => Operation::MakeFolder(self.name()),
            14 => Operation::RemoveFolder(self.name()),
            15 => Operation::List(["", "d", "d/e", "g", "f1"][self.below(5) as usize].to_owned()),
            16 => Operation::ReadBack(name, len % 70_000),
            17 => Operation::Read(self.name(), at, len),
            18 => Operation::Replace(name, self.below(3_000) as usize),
            _ => Operation::Facts(other),
        }
    }
}

#[derive(Debug)]
enum Operation {
    Write(String, usize),
    WriteAt(String, u64, usize),
    Append(String, usize),
    Cut(String, u64),
    CreateNew(String),
    Rename(String, String),
    WriteAndRename(String, String, usize),
    WriteAndRemove(String, usize),
    ReadOn(String, String),
    Remove(String),
    MakeFolder(String),
    RemoveFolder(String),
    List(String),
    ReadBack(String, usize),
    Read(String, u64, usize),
    Replace(String, usize),
    Facts(String),
}

/// Does one operation below a root.
fn act(root: &Path, operation: &Operation, seed: u64) -> Outcome {
    let at = |name: &String| root.join(name);
    let content = |len: usize| noise(seed, len);
    let done = match operation {
        Operation::Write(name, len) => fs::write(at(name), content(*len)).map(|()| String::new()),
        Operation::WriteAt(name, offset, len) => (|| {
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(at(name))?;
            file.write_all_at(&content(*len), *offset)?;
            file.write_all_at(b"earlier", offset / 2)?;
            file.sync_all().map(|()| String::new())
        })(),
        Operation::Append(name, len) => (|| {
            let mut file = OpenOptions::new().append(true).open(at(name))?;
            file.write_all(&content(*len))?;
            file.write_all(b"and more").map(|()| String::new())
        })(),
        Operation::Cut(name, len) => {
            OpenOptions::new().write(true).open(at(name)).and_then(|file| file.set_len(*len)).map(|()| String::new())
        }
        Operation::CreateNew(name) => File::create_new(at(name)).map(|_| String::new()),
        Operation::Rename(from, to) => fs::rename(at(from), at(to)).map(|()| String::new()),
        Operation::WriteAndRename(from, to, len) => (|| {
            let mut file = File::create(at(from))?;
            file.write_all(&content(*len))?;
            fs::rename(at(from), at(to))?;
            file.write_all(b"after the rename").map(|()| String::new())
        })(),
        Operation::WriteAndRemove(name, len) => (|| {
            let mut file = File::options().read(true).write(true).create(true).truncate(true).open(at(name))?;
            file.write_all(&content(*len))?;
            fs::remove_file(at(name))?;
            file.write_all(b"after the removal")?;
            read_again(&mut file)
        })(),
        Operation::ReadOn(name, other) => (|| {
            let mut file = File::open(at(name))?;
            let renamed = fs::rename(at(name), at(other)).map_err(|error| error.raw_os_error());
            read_again(&mut file).map(|text| format!("{renamed:?} {text}"))
        })(),
        Operation::Remove(name) => fs::remove_file(at(name)).map(|()| String::new()),
        Operation::MakeFolder(name) => fs::create_dir(at(name)).map(|()| String::new()),
        Operation::RemoveFolder(name) => fs::remove_dir(at(name)).map(|()| String::new()),
        Operation::List(name) => list(&at(name)),
        Operation::ReadBack(name, len) => (|| {
            let mut file = File::options().read(true).write(true).open(at(name))?;
            let before = read_again(&mut file)?;
            file.write_all_at(&content(*len), 3)?;
            Ok(before + &read_again(&mut file)?)
        })(),
        Operation::Read(name, offset, len) => (|| {
            let mut bytes = vec![0; *len];
            let file = File::open(at(name))?;
            let read = file.read_at(&mut bytes, *offset)?;
            Ok(digest(&bytes[..read]))
        })(),
        Operation::Replace(name, len) => (|| {
            let fresh = at(&format!("{name}.tmp"));
            let mut file = File::create_new(&fresh)?;
            file.write_all(&content(*len))?;
            file.sync_all()?;
            drop(file);
            fs::rename(fresh, at(name)).map(|()| String::new())
        })(),
        Operation::Facts(name) => fs::symlink_metadata(at(name)).map(|facts| match facts.is_dir() {
            true => "folder".to_owned(),
            false => format!("{} bytes", facts.len()),
        }),
    };
    done.map_err(|error| error.raw_os_error())
}

fn read_again(file: &mut File) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(digest(&bytes))
}

fn digest(bytes: &[u8]) -> String {
    format!("{} bytes {}", bytes.len(), blake3::hash(bytes))
}

fn list(folder: &Path) -> std::io::Result<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let facts = entry.metadata()?;
        names.push(format!(
            "{} {} {}",
            entry.file_name().display(),
            facts.is_dir(),
            if facts.is_dir() { 0 } else { facts.len() }
        ));
    }
    names.sort();
    Ok(names.join("\n"))
}

/// Whether both may differ here, as docs/semantics.md says.
fn is_named(plain: &Path, operation: &Operation) -> bool {
    match operation {
        Operation::Rename(from, _) | Operation::ReadOn(from, _) => plain.join(from).is_dir(),
        _ => false,
    }
}

/// Everything below both folders is the same, to several readers at once.
fn compare(mounted: &Path, plain: &Path, when: &str) {
    let folders = |root: &Path| FOLDERS.map(|name| root.join(name).is_dir());
    assert_eq!(folders(mounted), folders(plain), "{when}: the folders differ");
    let mut held = Vec::new();
    walk(plain, plain, &mut held);
    held.sort();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut found = Vec::new();
                walk(mounted, mounted, &mut found);
                found.sort();
                let names = |all: &[(String, Vec<u8>)]| {
                    all.iter().map(|(name, content)| format!("{name}: {}", content.len())).collect::<Vec<_>>()
                };
                assert_eq!(names(&found), names(&held), "{when}");
                assert!(found == held, "{when}: some content differs");
            });
        }
    });
}

fn one_seed(server: &Server, seed: u64) {
    let bucket = format!("model-{seed}");
    server.run(&["bucket", "create", &bucket]);
    let mount = |number: u64| Mounted::new(server, &bucket, &format!("mount-{seed}-{number}"), &["--read-write"]);
    let mut mounted = mount(0);
    let plain: PathBuf = server.path(&format!("plain-{seed}"));
    fs::create_dir_all(&plain).unwrap();
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1);
    for round in 0..ROUNDS {
        let operation = random.operation();
        let when = format!("seed {seed}, round {round}: {operation:?}");
        if is_named(&plain, &operation) {
            let outcome = act(&mounted.folder, &operation, round);
            assert!(outcome.is_err(), "{when}: {outcome:?}");
            continue;
        }
        let outcomes = [&mounted.folder, &plain].map(|root| act(root, &operation, round));
        assert_eq!(outcomes[0], outcomes[1], "{when} (the mount's, and a plain folder's)");
        if random.below(35) == 0 {
            compare(&mounted.folder, &plain, &when);
        }
        if random.below(70) == 0 {
            mounted.stop();
            mounted = mount(round + 1);
        }
    }
    compare(&mounted.folder, &plain, &format!("seed {seed}, at its end"));
    mounted.stop();
    compare(&mount(ROUNDS + 1).folder, &plain, &format!("seed {seed}, mounted again"));
}

#[test]
fn a_mount_does_what_a_plain_folder_does() {
    if !can_mount() {
        return;
    }
    let server = Server::start();
    let seeds = std::env::var("BEDPLATE_MOUNT_SEEDS").map_or(3, |text| text.parse().unwrap());
    for seed in 0..seeds {
        one_seed(&server, seed);
    }
}
