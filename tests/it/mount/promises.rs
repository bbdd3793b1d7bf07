//! What docs/semantics.md says of mounts beyond what a plain folder does: refusals, renames, encrypted objects, keys that no file can
//! have, statistics, options.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Mounted, can_mount};
use crate::support::{ACCESS_KEY, SECRET_KEY, Server, noise, python_with_sdk, success};

/// The error number of a refusal.
fn errno<T: std::fmt::Debug>(done: std::io::Result<T>) -> i32 {
    done.unwrap_err().raw_os_error().unwrap()
}

fn writable(server: &Server) -> Mounted {
    server.run(&["bucket", "create", "data"]);
    Mounted::new(server, "data", "mount", &["--read-write"])
}

/// Does something with the SDK that other programs have: `s3` is a client, `noise` makes bytes.
fn with_sdk(server: &Server, script: &str) {
    let head = "import sys, random, botocore.session, botocore.config\n\
        s3 = botocore.session.get_session().create_client('s3', endpoint_url=sys.argv[1], region_name='us-east-1',\n\
        \x20   config=botocore.config.Config(s3={'addressing_style': 'path'}))\n";
    let mut python = Command::new(python_with_sdk());
    python.args(["-c", &format!("{head}{script}"), &server.s3_url()]);
    python.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    success(python.output().unwrap(), &["python", script]);
}

#[test]
fn a_long_file_goes_from_its_beginning_to_its_end() {
    if !can_mount() {
        return;
    }
    let server = Server::start();
    let mounted = writable(&server);
    let path = mounted.path("long");
    let long = noise(3, 40_000_000);
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    file.write_all(&long[..20_000_000]).unwrap();
    // What has left for the store is neither changed nor read back, and the file is not read by others.
    assert_eq!(errno(file.write_at(b"x", 0)), libc::EOPNOTSUPP);
    assert_eq!(errno(file.read_at(&mut [0; 10], 0)), libc::EOPNOTSUPP);
    assert_eq!(errno(file.set_len(5)), libc::EOPNOTSUPP);
    assert_eq!(errno(File::open(&path)), libc::EBUSY);
    assert_eq!(errno(fs::rename(&path, mounted.path("other"))), libc::EBUSY);
    // A program that is started meanwhile closes what it inherited, and ends nothing.
    assert!(Command::new("true").status().unwrap().success());
    file.write_all(&long[20_000_000..]).unwrap();
    drop(file);
    server.run(&["get", "data/long", server.path("long").to_str().unwrap()]);
    assert!(fs::read(server.path("long")).unwrap() == long);
    let append = || OpenOptions::new().append(true).open(&path).unwrap();
    assert_eq!(errno((&append()).write(b"x")), libc::EOPNOTSUPP);
    assert_eq!(errno(append().set_len(17_000_000)), libc::EOPNOTSUPP);
    append().set_len(long.len() as u64).unwrap();
    assert!(fs::read(&path).unwrap() == long);
    // Cut so far that it fits, it may be changed.
    append().set_len(1_000_000).unwrap();
    append().write_all(b"and more").unwrap();
    let read = fs::read(&path).unwrap();
    assert!(read.len() == 1_000_008 && read[..1_000_000] == long[..1_000_000] && read.ends_with(b"and more"));
    // What grows too long to be held goes on from its beginning.
    let mut file = append();
    file.write_all(&long[..30_000_000]).unwrap();
    drop(file);
    assert_eq!(fs::metadata(&path).unwrap().len(), 31_000_008);
    assert!(fs::read(&path).unwrap()[1_000_008..] == long[..30_000_000]);
    mounted.stop();
}

#[test]
fn a_file_that_several_have_open_is_one_file() {
    if !can_mount() {
        return;
    }
    let server = Server::start();
    let mounted = writable(&server);
    let path = mounted.path("log");
    let append = || OpenOptions::new().append(true).create(true).open(&path).unwrap();
    let (mut first, mut second) = (append(), append());
    first.write_all(b"one ").unwrap();
    second.write_all(b"two ").unwrap();
    first.write_all(b"three").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"one two three");
    // Others see what was stored.
    assert!(!server.program().args(["get", "data/log", "-"]).output().unwrap().status.success());
    first.sync_all().unwrap();
    assert_eq!(server.run(&["get", "data/log", "-"]), "one two three");
    second.write_all(b" four").unwrap();
    drop((first, second));
    assert_eq!(server.run(&["get", "data/log", "-"]), "one two three four");
    // A file without a name is as good as any, and leaves nothing.
    let mut nameless = File::create_new(mounted.path("nameless")).unwrap();
    fs::remove_file(mounted.path("nameless")).unwrap();
    nameless.write_all(b"for nobody").unwrap();
    drop(nameless);
    assert!(!server.run(&["ls", "data"]).contains("nameless"));
    mounted.stop();
}

#[test]
fn a_rename_over_a_file_is_one_step() {
    if !can_mount() {
        return;
    }
    let server = Server::start();
    let mounted = writable(&server);
    let (current, fresh) = (mounted.path("current"), mounted.path("fresh"));
    let version = |number: u8| vec![number; 70_000 + usize::from(number)];
    fs::write(&current, version(0)).unwrap();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = 0;
            while !is_done.load(Ordering::Relaxed) {
                let mut content = Vec::new();
                match File::open(&current).and_then(|mut file| file.read_to_end(&mut content)) {
                    Ok(_) => assert!(content == version(content[0]), "a mixture of {} bytes", content.len()),
                    // It was replaced again and again between its name and its open: docs/semantics.md.
                    Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ESTALE)),
                }
                seen += 1;
            }
            seen
        });
        for number in 1..40 {
            fs::write(&fresh, version(number)).unwrap();
            fs::rename(&fresh, &current).unwrap();
        }
        is_done.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 5);
    });
    assert!(fs::read(&current).unwrap() == version(39));
    // No data moved: both names' bytes are stored once, and a folder is copied by mv, not renamed.
    fs::create_dir(mounted.path("folder")).unwrap();
    assert_eq!(errno(fs::rename(mounted.path("folder"), mounted.path("other"))), libc::EXDEV);
    fs::write(mounted.path("folder/in"), b"in").unwrap();
    assert!(Command::new("mv").args([mounted.path("folder"), mounted.path("other")]).status().unwrap().success());
    assert_eq!(fs::read(mounted.path("other/in")).unwrap(), b"in");
    // In a bucket that keeps versions S3 renames nothing: a copy, then.
    with_sdk(
        &server,
        "s3.create_bucket(Bucket='kept')\n\
        s3.put_bucket_versioning(Bucket='kept', VersioningConfiguration={'Status': 'Enabled'})\n",
    );
    let kept = Mounted::new(&server, "kept", "kept", &["--read-write"]);
    fs::write(kept.path("one"), b"one").unwrap();
    fs::rename(kept.path("one"), kept.path("two")).unwrap();
    assert_eq!((fs::read(kept.path("two")).unwrap().as_slice(), kept.path("one").exists()), (&b"one"[..], false));
    kept.stop();
    mounted.stop();
}

#[test]
fn encrypted_objects_are_read_over_s3() {
    if !can_mount() {
        return;
    }
    let server = Server::start();
    let mounted = writable(&server);
    with_sdk(
        &server,
        "body = random.Random(1).randbytes(9_000_000)\n\
        s3.put_object(Bucket='data', Key='sealed', Body=body, ServerSideEncryption='AES256')\n\
        s3.put_object(Bucket='data', Key='empty', Body=b'', ServerSideEncryption='AES256')\n\
        s3.put_object(Bucket='data', Key='plain', Body=body)\n\
        key = {'SSECustomerAlgorithm': 'AES256', 'SSECustomerKey': 'k' * 32}\n\
        s3.put_object(Bucket='data', Key='foreign', Body=body, **key)\n",
    );
    let content = fs::read(mounted.path("plain")).unwrap();
    assert_eq!(content.len(), 9_000_000);
    assert!(fs::read(mounted.path("sealed")).unwrap() == content);
    assert_eq!(fs::read(mounted.path("empty")).unwrap(), b"");
    let file = File::open(mounted.path("sealed")).unwrap();
    for offset in [8_999_990, 0, 4_444_444, 77] {
        let mut bytes = vec![0; 200_000];
        let read = file.read_at(&mut bytes, offset as u64).unwrap();
        assert!(read > 0 && bytes[..read] == content[offset..offset + read], "{offset}");
    }
    // Its key is its customer's: it has a name and a size, and cannot be read.
    assert_eq!(fs::metadata(mounted.path("foreign")).unwrap().len(), 9_000_000);
    assert_eq!(errno(fs::read(mounted.path("foreign"))), libc::EIO);
    // It is bound to its key, and gets another name all the same.
    fs::rename(mounted.path("sealed"), mounted.path("renamed")).unwrap();
    assert!(fs::read(mounted.path("renamed")).unwrap() == content);
    assert!(!mounted.path("sealed").exists());
    mounted.stop();
}

#[test]
fn keys_that_no_file_can_have_hide_nothing_else() {
    if !can_mount() {
        return;
    }
    let server = Server::start();
    let mounted = writable(&server);
    with_sdk(
        &server,
        "keys = ['a//b', '/a', '//', 'd/', 'd/./y', 'd/../z', 'd/.', 'd/..', 'd/' + 'x' * 300, 'd/' + 'y' * 300 + '/z',\n\
        \x20   'd/line\\nbreak', 'd/<&\">', 'd/100%+', 'd/seen', 'only//hidden', 'p', 'p/below', 'p/', 'p-more/x']\n\
        keys += [f'p!{number:04}' for number in range(1200)]\n\
        for key in keys: s3.put_object(Bucket='data', Key=key, Body=key.encode())\n",
    );
    let names = |folder: &str| {
        let found = fs::read_dir(mounted.path(folder)).unwrap().map(|entry| entry.unwrap());
        let mut names: Vec<String> = found.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names("d"), ["100%+", "<&\">", "line\nbreak", "seen"]);
    assert_eq!(fs::read(mounted.path("d/line\nbreak")).unwrap(), b"d/line\nbreak");
    assert_eq!(fs::read(mounted.path("d/100%+")).unwrap(), b"d/100%+");
    // A file hides the folder of its name, also where a thousand names lie between them.
    let root = names("");
    assert_eq!(root.len(), 1200 + 5, "{root:?}");
    for name in ["a", "d", "only", "p", "p-more", "p!1199"] {
        assert_eq!(root.iter().filter(|other| *other == name).count(), 1, "{name}");
    }
    assert_eq!(fs::read(mounted.path("p")).unwrap(), b"p");
    // A folder of hidden names looks empty, and is not: what it holds is not lost with it.
    assert_eq!(names("only"), [""; 0]);
    assert_eq!(errno(fs::remove_dir(mounted.path("only"))), libc::ENOTEMPTY);
    assert_eq!(errno(File::create(mounted.path(&"n".repeat(256)))), libc::ENAMETOOLONG);
    fs::write(mounted.path("d/with\nbreak"), b"x").unwrap();
    assert_eq!(fs::read(mounted.path("d/with\nbreak")).unwrap(), b"x");
    mounted.stop();
}

#[test]
fn a_mount_tells_what_it_has_done() {
    if !can_mount() {
        return;
    }
    let server = Server::start();
    let mounted = writable(&server);
    let figures = || server.json(&["mount", "--stats", mounted.folder.to_str().unwrap()]);
    let of = |figures: &serde_json::Value, name: &str| figures[name].as_u64().unwrap();
    for number in 0..300 {
        fs::write(mounted.path(&format!("{number}")), noise(number, 30_000)).unwrap();
    }
    let written = figures();
    assert_eq!((of(&written, "written_bytes"), of(&written, "read_bytes")), (9_000_000, 0));
    assert!(of(&written, "known_names") >= 300 && of(&written, "requests") >= 300, "{written}");
    let read_all = |mounted: &Mounted| {
        (0..300).for_each(|number| {
            assert_eq!(fs::read(mounted.path(&format!("{number}"))).unwrap().len(), 30_000);
        });
        server.json(&["mount", "--stats", mounted.folder.to_str().unwrap()])
    };
    // The first time over the network; afterwards the kernel has it.
    let read = read_all(&mounted);
    assert!(of(&read, "network_bytes") > 9_000_000 && of(&read, "cache_misses") >= 300, "{read}");
    assert_eq!(of(&read_all(&mounted), "read_bytes"), 9_000_000);
    // The cache has it for other mounts, under whatever name they read it.
    server.run(&["snapshot", "create", "data", "s"]);
    for (name, is_first) in [("first", true), ("other", false)] {
        let other = Mounted::new(&server, "data@s", name, &[]);
        let read = read_all(&other);
        assert_eq!((of(&read, "read_bytes"), of(&read, "errors")), (9_000_000, 0), "{read}");
        let (network, cached) = (of(&read, "network_bytes"), of(&read, "cache_bytes"));
        let (hits, misses) = (of(&read, "cache_hits"), of(&read, "cache_misses"));
        assert!(cached == 9_000_000 && hits >= 300 && misses == 0, "{read}");
        // What little objects hold comes with their recipes, whether the node has it or not; a snapshot's recipes are kept.
        assert!(if is_first { network > 9_000_000 } else { network < 200_000 }, "{read}");
        other.stop();
    }
    // The file itself is there for programs that watch, is in no list, and stays.
    let shown = fs::read_to_string(mounted.path(".bedplate-stats")).unwrap();
    assert!(shown.contains("\"cache_hits\""), "{shown}");
    assert_eq!(fs::read_dir(&mounted.folder).unwrap().count(), 300);
    assert!(fs::remove_file(mounted.path(".bedplate-stats")).is_err());
    assert!(server.run(&["mount", "--stats", mounted.folder.to_str().unwrap()]).contains("from cache"));
    // What is gone the kernel forgets, and so does the mount.
    for number in 0..300 {
        fs::remove_file(mounted.path(&format!("{number}"))).unwrap();
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while of(&figures(), "known_names") > 5 {
        assert!(std::time::Instant::now() < deadline, "{}", figures());
        std::thread::sleep(Duration::from_millis(50));
    }
    let none = server.program().args(["mount", "--stats", "/"]).output().unwrap();
    assert!(String::from_utf8_lossy(&none.stderr).contains("bedplate mount"), "{none:?}");
    mounted.stop();
}

#[test]
fn an_option_of_fstab_that_is_not_known_is_refused() {
    let server = Server::start();
    let helper = server.path("mount.bedplate");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_bedplate"), &helper).unwrap();
    let refused = Command::new(&helper).args(["data", "/mnt", "-o", "ro,nofail,cache_sice=1GiB"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("cache_sice=1GiB") && said.contains("docs/operating.md"), "{said}");
}
