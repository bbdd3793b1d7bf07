//! Racks by the command line: every mistake that a spec can hold is one paragraph that says what to do, with the
//! documented exit code; a survey reads recorded trees of real BMCs, and keeps its gaps.

use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use tempfile::TempDir;

fn rack(folder: &Path, args: &[&str]) -> Output {
    Command::cargo_bin("bedplate")
        .unwrap()
        .current_dir(folder)
        .env_remove("BEDPLATE_URL")
        .args(["rack"])
        .args(args)
        .timeout(std::time::Duration::from_secs(60))
        .output()
        .unwrap()
}

/// Plans a spec that is refused before any appliance is asked; answers the exit code and what was said.
fn refused(spec: &str) -> String {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("rack.toml"), spec).unwrap();
    let output = rack(folder.path(), &["plan", "rack.toml"]);
    assert!(output.stdout.is_empty(), "a refusal is no data");
    let said = String::from_utf8(output.stderr).unwrap().replace(&folder.path().display().to_string(), "FOLDER");
    let paragraphs = said.lines().filter(|line| line.starts_with("error: ")).count();
    assert_eq!(paragraphs, 1, "{said}");
    format!("exit {}\n{said}", output.status.code().unwrap())
}

const NODE: &str = "[[node]]\nname = \"n1\"\nbmc = \"https://10.0.0.1\"\n";
const TOP: &str = "name = \"r\"\nimage = \"os@1\"\ndisk = { serial = \"S\" }\n";

#[test]
fn mistakes_in_a_spec() {
    let two = |one: &str, other: &str| {
        format!("{TOP}[[node]]\nname = \"n1\"\nbmc = \"{one}\"\n[[node]]\nname = \"n2\"\nbmc = \"{other}\"\n")
    };
    let cases: Vec<(&str, String)> = vec![
        ("not TOML", "name = ".to_owned()),
        ("unknown key", format!("{TOP}[bmc]\nusernam = \"admin\"\n{NODE}")),
        ("unknown key in a node", format!("{TOP}{NODE}slto = 4\n")),
        ("unknown key in a disk", format!("{TOP}{NODE}disk = {{ serail = \"x\" }}\n")),
        ("password in the spec", format!("{TOP}{NODE}username = \"a\"\npassword = \"hunter2\"\n")),
        ("wrong type", format!("{TOP}{NODE}slot = \"twelve\"\n")),
        ("password among BIOS settings", format!("{TOP}{NODE}bios = {{ AdminPassword = \"hunter2\" }}\n")),
        ("empty BIOS setting", format!("{TOP}{NODE}bios = {{ Sriov = \"\" }}\n")),
        ("no such role", format!("{TOP}{NODE}role = \"gpu\"\n[role.storage]\nimage = \"os@2\"\n")),
        ("unknown key in a role", format!("{TOP}{NODE}[role.gpu]\nimages = \"os@2\"\n")),
        ("no role at all", format!("{TOP}{NODE}role = \"gpu\"\n")),
        ("no name", NODE.to_owned()),
        ("no node", TOP.to_owned()),
        ("no bmc", format!("{TOP}[[node]]\nname = \"n1\"\n")),
        ("no image", format!("name = \"r\"\ndisk = {{ serial = \"S\" }}\n{NODE}")),
        ("bad image", format!("{TOP}{NODE}image = \"os\"\n")),
        ("bad node name", format!("{TOP}[[node]]\nname = \"n_1\"\nbmc = \"https://10.0.0.1\"\n")),
        ("same name twice", format!("{TOP}{NODE}[[node]]\nname = \"N1\"\nbmc = \"https://10.0.0.2\"\n")),
        (
            "same slot twice",
            format!("{TOP}{NODE}slot = 1\n[[node]]\nname = \"n2\"\nbmc = \"https://10.0.0.2\"\nslot = 1\n"),
        ),
        ("one bmc, two spellings", two("https://BMC.rack:443/", "https://bmc.rack")),
        ("one bmc, plain and secured", two("http://bmc.rack", "https://bmc.rack/redfish/v1/")),
        ("one bmc, one folder", two("tree", "./other/../tree")),
        ("password in the address", format!("{TOP}[[node]]\nname = \"n1\"\nbmc = \"https://a:hunter2@h\"\n")),
        ("path in the address", format!("{TOP}[[node]]\nname = \"n1\"\nbmc = \"https://h/redfish/v1/Systems/1\"\n")),
        ("user without password", format!("{TOP}[bmc]\nusername = \"admin\"\n{NODE}")),
        ("two passwords", format!("{TOP}[bmc]\nusername = \"a\"\npassword-env = \"A\"\npassword-file = \"b\"\n{NODE}")),
        ("bad pin", format!("{TOP}{NODE}pin = \"abc\"\n")),
        ("bad size", format!("{TOP}{NODE}disk = {{ size-min = \"big\" }}\n")),
        ("sizes crossed", format!("{TOP}{NODE}disk = {{ size-min = \"2TB\", size-max = \"1TB\" }}\n")),
        ("bad time", format!("{TOP}[timeouts]\npost = \"soon\"\n{NODE}")),
        ("ambiguous disk", format!("name = \"r\"\nimage = \"os@1\"\n{NODE}")),
        ("ambiguous disk, empty selector", format!("{TOP}{NODE}disk = {{}}\n")),
    ];
    let told: Vec<String> = cases.iter().map(|(what, spec)| format!("== {what}\n{}", refused(spec))).collect();
    let told = told.join("\n");
    assert!(!told.contains("hunter2"), "a password was printed");
    insta::assert_snapshot!(told);
}

/// A file of user data that no node could use is refused before any appliance is asked, and its text is not shown.
#[test]
fn user_data_that_no_node_can_use() {
    let folder = TempDir::new().unwrap();
    let spec = format!("{TOP}[role.gpu]\nuser-data = \"first-start\"\n{NODE}role = \"gpu\"\n");
    std::fs::write(folder.path().join("rack.toml"), &spec).unwrap();
    let long = [b"#!/bin/sh\n".to_vec(), vec![b'#'; 256 * 1024]].concat();
    let plan = || {
        let output = rack(folder.path(), &["plan", "rack.toml"]);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (content, told) in [
        (None, "No such file"),
        (Some(&b""[..]), "it is empty; leave user-data out"),
        (Some(b"password: hunter2\n"), "its first line must begin with #cloud-config or #!"),
        (Some(b"#!/bin/sh\r\necho hunter2\r\n"), "carriage return"),
        (Some(b"\x1f\x8b hunter2"), "it is no text in UTF-8"),
        (Some(&long), "it is longer than 262144 bytes; let it fetch what is large"),
    ] {
        if let Some(content) = content {
            std::fs::write(folder.path().join("first-start"), content).unwrap();
        }
        let (code, said) = plan();
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("node \"n1\": user-data = ") && said.contains("first-start"), "{said}");
        assert!(said.contains(told) && !said.contains("hunter2"), "{said}");
    }
    // What is good is planned: the key for that is asked for next.
    std::fs::write(folder.path().join("first-start"), "#cloud-config\nhostname: a\n").unwrap();
    let (code, said) = plan();
    assert!(code == Some(1) && said.contains("cannot read the root key"), "{said}");
    let top = format!("user-data = \"first-start\"\n{spec}");
    std::fs::write(folder.path().join("rack.toml"), top).unwrap();
    assert!(plan().1.contains("unknown key \"user-data\" in the spec"));
    std::fs::write(folder.path().join("rack.toml"), spec.replace("first-start", " ")).unwrap();
    assert!(plan().1.contains("names no file; leave it out"));
}

#[test]
fn two_systems_of_one_bmc_are_two_nodes() {
    let folder = TempDir::new().unwrap();
    let spec =
        format!("{TOP}{NODE}system = \"a\"\n[[node]]\nname = \"n2\"\nbmc = \"https://10.0.0.1\"\nsystem = \"b\"\n");
    std::fs::write(folder.path().join("rack.toml"), spec).unwrap();
    let output = rack(folder.path(), &["plan", "rack.toml", "--only", "n3"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("there is no node n3 in the spec; it has n1, n2"), "{said}");
}

#[test]
fn a_list_becomes_a_spec_and_files_of_passwords() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = TempDir::new().unwrap();
    let list = "Serial Number,BMC MAC,BMC IP,Rack Unit,Password\nS1,aa:bb,10.0.0.1,1,one\nS2,aa:bc,10.0.0.2,2,two\n";
    std::fs::write(folder.path().join("row-7.csv"), list).unwrap();
    let args = ["import", "row-7.csv", "--image", "os@1"];
    let output = rack(folder.path(), &args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("row-7.toml: 2 nodes; 2 passwords in ./bmc-passwords/"), "{told}");
    let password = folder.path().join("bmc-passwords/row-7-02");
    assert_eq!(std::fs::read_to_string(&password).unwrap(), "two\n");
    assert_eq!(password.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let spec = std::fs::read_to_string(folder.path().join("row-7.toml")).unwrap();
    assert!(spec.contains("serial = \"S2\"") && !spec.contains("two"), "{spec}");
    let again = rack(folder.path(), &args);
    assert!(String::from_utf8(again.stderr).unwrap().contains("row-7.toml exists already"));
    // A spec that is made anew finds its passwords; another list's are not overwritten.
    let other = [&args[..], &["--into", "other.toml"]].concat();
    assert!(rack(folder.path(), &other).status.success());
    std::fs::write(folder.path().join("row-7.csv"), list.replace("two", "three")).unwrap();
    let third = rack(folder.path(), &[&args[..], &["--into", "third.toml"]].concat());
    assert!(String::from_utf8(third.stderr).unwrap().contains("holds another password"));
    assert!(!folder.path().join("third.toml").exists());
    // What cannot become a spec leaves nothing behind.
    std::fs::write(folder.path().join("Row 8 (new).csv"), list.replace("10.0.0.2", "10.0.0.1")).unwrap();
    let double = rack(folder.path(), &["import", "Row 8 (new).csv", "--image", "os@1", "--name", "row-8"]);
    assert_eq!(double.status.code(), Some(2), "{}", String::from_utf8_lossy(&double.stderr));
    let unnamed = rack(folder.path(), &["import", "Row 8 (new).csv", "--image", "os@1"]);
    assert!(String::from_utf8(unnamed.stderr).unwrap().contains("--name row-7"));
    let left: Vec<_> = std::fs::read_dir(folder.path().join("bmc-passwords")).unwrap().collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(!folder.path().join("row-8.toml").exists() && !folder.path().join("Row 8 (new).toml").exists());
}

#[test]
fn a_spec_that_is_not_there() {
    let folder = TempDir::new().unwrap();
    let output = rack(folder.path(), &["survey", "nowhere.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("cannot read the spec nowhere.toml"));
}

/// The recorded trees, unpacked; `None`, said aloud, where this checkout has none.
fn trees(names: &[&str]) -> Option<TempDir> {
    let archives = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/redfish");
    let folder = TempDir::new().unwrap();
    for name in names {
        let archive = archives.join(format!("{name}.tar.zst"));
        if !archive.exists() {
            eprintln!("SKIPPED: {} is absent", archive.display());
            return None;
        }
        let into = folder.path().join(name);
        std::fs::create_dir(&into).unwrap();
        let packed = std::fs::File::open(&archive).unwrap();
        let unpacked = zstd::decode_all(packed).unwrap();
        let mut tar = std::process::Command::new("tar")
            .args(["-x", "-C"])
            .arg(&into)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut tar.stdin.take().unwrap(), &unpacked).unwrap();
        assert!(tar.wait().unwrap().success());
    }
    Some(folder)
}

/// The folder under `at` that is the root of a recorded tree.
fn tree_root(at: &Path) -> PathBuf {
    let mut folders = vec![at.to_owned()];
    while let Some(folder) = folders.pop() {
        if folder.join("redfish/v1").is_dir() || folder.join("v1").is_dir() {
            return folder;
        }
        let inner = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        folders.extend(inner.filter(|path| path.is_dir()));
    }
    at.to_owned()
}

#[test]
fn surveys_recorded_racks_and_keeps_the_gaps() {
    let names = ["dell", "hpe", "lenovo", "supermicro"];
    let Some(folder) = trees(&names) else { return };
    let mut spec = TOP.to_owned();
    for name in names {
        let root = tree_root(&folder.path().join(name));
        spec.push_str(&format!("[[node]]\nname = \"{name}\"\nbmc = \"{}\"\n", root.display()));
    }
    // One that is not there must be a row, not the end.
    spec.push_str("[[node]]\nname = \"gone\"\nbmc = \"./gone\"\n");
    std::fs::write(folder.path().join("rack.toml"), spec).unwrap();
    let output = rack(folder.path(), &["survey", "rack.toml", "--output", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let survey: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let nodes = survey["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 5);
    for node in &nodes[..4] {
        assert!(node["error"].is_null(), "{node}");
        assert!(node["found"]["model"].is_string() && node["found"]["serial"].is_string(), "{node}");
    }
    assert!(nodes.iter().any(|node| !node["found"]["drives"].as_array().is_none_or(Vec::is_empty)), "no drives at all");
    assert!(nodes[4]["found"].is_null() && nodes[4]["error"]["hint"].is_string(), "{}", nodes[4]);
    let table = rack(folder.path(), &["survey", "rack.toml"]);
    let text = String::from_utf8(table.stdout).unwrap();
    for name in names {
        assert!(text.contains(name), "{text}");
    }
}

/// An appliance of its own, killed when dropped, and a key to it.
struct Appliance {
    folder: TempDir,
    port: u16,
    process: std::process::Child,
}

impl Appliance {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (s3, port) = (free(), free());
        // The least that is a boot image: the system area, with the magic of the region that is filled in for a node.
        let mut iso = vec![0; 64 * 1024];
        iso[24 * 1024..][..16].copy_from_slice(b"bedplate-boot-01");
        std::fs::write(folder.path().join("agent.iso"), iso).unwrap();
        let process = std::process::Command::new(env!("CARGO_BIN_EXE_bedplate"))
            .args([
                "serve",
                "--boot-image",
                "agent.iso",
                "--s3-listen",
                &format!("127.0.0.1:{s3}"),
                "--api-listen",
                &format!("127.0.0.1:{port}"),
            ])
            .current_dir(folder.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("serve.log")).unwrap())
            .spawn()
            .unwrap();
        let appliance = Self { folder, port, process };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let key = appliance.folder.path().join("bedplate-data/root-credentials.toml");
        while !key.exists() || std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = || std::fs::read_to_string(appliance.folder.path().join("serve.log")).unwrap();
            assert!(std::time::Instant::now() < deadline, "the appliance did not start: {}", log());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        appliance
    }

    /// Runs a command; answers its exit code, its data and its talk.
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let output = Command::cargo_bin("bedplate")
            .unwrap()
            .current_dir(self.folder.path())
            .args(["--url", &format!("http://127.0.0.1:{}", self.port)])
            .args(args)
            .timeout(std::time::Duration::from_secs(120))
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn spec(&self, text: &str) {
        std::fs::write(self.folder.path().join("rack.toml"), text).unwrap();
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        // It may be gone already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[test]
fn a_bmc_that_cannot_be_asked_stops_plan_and_apply() {
    let appliance = Appliance::start();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    appliance.spec(&format!("{TOP}[[node]]\nname = \"n1\"\nbmc = \"https://127.0.0.1:{closed}\"\n"));
    for args in [&["rack", "plan", "rack.toml"][..], &["rack", "apply", "rack.toml", "--yes", "--wait"]] {
        let (code, data, said) = appliance.run(args);
        assert_eq!((code, data.as_str()), (1, ""), "{said}");
        assert!(said.contains("n1: BMC 127.0.0.1") && said.contains("cannot be reached"), "{said}");
        assert!(said.contains("nothing was touched") && said.contains("hint: "), "{said}");
    }
    appliance.spec(&format!(
        "{TOP}[bmc]\nusername = \"a\"\npassword-env = \"NOT_SET_ANYWHERE\"\n[[node]]\nname = \"n1\"\nbmc = \"https://127.0.0.1:{closed}\"\n"
    ));
    let (code, _, said) = appliance.run(&["rack", "plan", "rack.toml"]);
    assert!(code == 1 && said.contains("environment variable NOT_SET_ANYWHERE"), "{said}");
    let (code, data, _) = appliance.run(&["rack", "jobs", "--output", "json"]);
    assert_eq!((code, data.trim()), (0, "[]"));
}

#[test]
fn plans_applies_and_tells_through_the_appliance() {
    let Some(trees) = trees(&["dell"]) else { return };
    let appliance = Appliance::start();
    let root = tree_root(&trees.path().join("dell"));
    let spec = |serial: &str| {
        let disk = format!("disk = {{ serial = \"{serial}\" }}");
        format!("name = \"r\"\nimage = \"os@1\"\n{disk}\n[[node]]\nname = \"n1\"\nbmc = \"{}\"\n", root.display())
    };
    appliance.spec(&spec("no such drive"));
    let (code, _, said) = appliance.run(&["rack", "plan", "rack.toml"]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("no drive fits") && said.contains("serial"), "{said}");
    let (_, survey, _) = appliance.run(&["rack", "survey", "rack.toml", "--output", "json"]);
    let survey: serde_json::Value = serde_json::from_str(&survey).unwrap();
    let serial = survey["nodes"][0]["found"]["drives"][0]["serial"].as_str().unwrap().to_owned();
    appliance.spec(&spec(&serial));
    let (code, _, said) = appliance.run(&["rack", "plan", "rack.toml"]);
    assert!(code == 1 && said.contains("not in the catalogue") && said.contains("image import os@1"), "{said}");

    std::fs::write(appliance.folder.path().join("os.raw"), vec![7; 1 << 20]).unwrap();
    let (code, _, said) = appliance.run(&["image", "import", "os@1", "os.raw"]);
    assert_eq!(code, 0, "{said}");
    let (code, plan, said) = appliance.run(&["rack", "plan", "rack.toml", "--detailed-exitcode"]);
    assert_eq!(code, 3, "{said}");
    assert!(plan.contains("install os@1") && plan.contains("2 reboots"), "{plan}");
    let (code, shown, said) = appliance.run(&["rack", "apply", "rack.toml"]);
    assert!(code == 3 && shown == plan && said.contains("nothing was touched"), "{shown}{said}");
    let (_, status, _) = appliance.run(&["rack", "status", "rack.toml"]);
    assert!(status.contains("nothing is known"), "{status}");

    // A recorded tree cannot be switched off: the node fails, with its cause, and is set aside.
    let (code, _, said) = appliance.run(&["rack", "apply", "rack.toml", "--yes", "--wait"]);
    assert!(code == 1 && said.contains("n1: failed: ") && said.contains("recorded tree"), "{said}");
    let (_, status, _) = appliance.run(&["rack", "status", "rack.toml", "--output", "json"]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["job"]["nodes"][0]["state"], "failed", "{status}");
    let (_, nodes, _) = appliance.run(&["node", "list"]);
    assert!(nodes.contains("quarantined") && nodes.contains("recorded tree"), "{nodes}");
    let (code, node, _) = appliance.run(&["node", "show", "r/n1", "--output", "json"]);
    let node: serde_json::Value = serde_json::from_str(&node).unwrap();
    assert_eq!((code, &node["holds"]), (0, &serde_json::Value::Null), "{node}");
}

#[test]
fn shipped_specs_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/racks");
    for name in ["demo.toml", "example.toml"] {
        let output = rack(&folder, &["plan", name, "--only", "nobody"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("there is no node nobody in the spec"), "{name}: {said}");
    }
}
