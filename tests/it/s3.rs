//! The S3 door as clients meet it: an unmodified aws-cli, and our own commands, against the real program.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{ACCESS_KEY, SECRET_KEY, Server, aws_cli, get, noise, python_with_sdk, success};

const MIB: usize = 1024 * 1024;

/// One aws-cli for one server.
struct Aws<'a> {
    server: &'a Server,
    secret_key: &'a str,
}

impl Aws<'_> {
    fn command(&self) -> Command {
        let mut command = Command::new(aws_cli());
        command
            .args(["--endpoint-url", &self.server.s3_url()])
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", self.secret_key)
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_CONFIG_FILE", self.server.path("aws-config"))
            .env("AWS_SHARED_CREDENTIALS_FILE", self.server.path("aws-credentials"));
        command
    }

    fn output(&self, args: &[&str]) -> Output {
        self.command().args(args).output().unwrap()
    }

    fn run(&self, args: &[&str]) -> String {
        success(self.output(args), args)
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.run(args)).unwrap()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn figure(server: &Server, name: &str) -> u64 {
    server.json(&["store", "stats"])[name].as_u64().unwrap()
}

/// Large and small files go in and come out the same, in bounded memory, and a second copy costs nothing.
#[test]
fn aws_cli_copies_in_and_out() {
    let server = Server::start();
    let aws = Aws { server: &server, secret_key: SECRET_KEY };
    aws.run(&["s3", "mb", "s3://copies"]);

    let large = server.path("large");
    fs::write(&large, noise(1, 200 * MIB)).unwrap();
    aws.run(&["s3", "cp", "--no-progress", text(&large), "s3://copies/large"]);
    let back = server.path("back");
    aws.run(&["s3", "cp", "--no-progress", "s3://copies/large", text(&back)]);
    assert!(fs::read(&large).unwrap() == fs::read(&back).unwrap(), "the large file came back different");

    let folder = server.path("many");
    fs::create_dir_all(folder.join("deeper")).unwrap();
    for number in 0..120 {
        let name = if number % 3 == 0 { format!("deeper/f {number}") } else { format!("f{number}") };
        fs::write(folder.join(name), noise(100 + number, number as usize * 301)).unwrap();
    }
    aws.run(&["s3", "cp", "--no-progress", "--recursive", text(&folder), "s3://copies/many"]);
    let many_back = server.path("many-back");
    aws.run(&["s3", "cp", "--no-progress", "--recursive", "s3://copies/many", text(&many_back)]);
    let same = Command::new("diff").arg("-r").args([&folder, &many_back]).status().unwrap();
    assert!(same.success(), "the folder came back different");

    let (unique, stored) = (figure(&server, "unique_bytes"), figure(&server, "stored_bytes"));
    aws.run(&["s3", "cp", "--no-progress", text(&large), "s3://copies/again"]);
    let grown = figure(&server, "unique_bytes") - unique;
    assert!(grown * 100 < unique, "a second copy added {grown} unique bytes to {unique}");
    let grown = figure(&server, "stored_bytes").saturating_sub(stored);
    assert!(grown * 100 < stored, "a second copy added {grown} stored bytes to {stored}");

    let peak = server.peak_memory();
    assert!(peak < 300 * MIB as u64, "the server held {peak} bytes");
}

/// Ranges, conditions, listings, copies and errors answer as S3 does.
#[test]
fn aws_cli_sees_s3() {
    let server = Server::start();
    let aws = Aws { server: &server, secret_key: SECRET_KEY };
    let api = |args: &[&str]| aws.json(&[&["s3api"], args].concat());
    let refused = |args: &[&str]| {
        let output = aws.output(&[&["s3api"], args].concat());
        assert!(!output.status.success(), "{args:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let file = server.path("file");
    fs::write(&file, b"hello world").unwrap();
    aws.run(&["s3api", "create-bucket", "--bucket", "surface"]);
    let put = ["put-object", "--bucket", "surface", "--key", "a/b c+ü", "--body", text(&file)];
    let put = api(&[&put[..], &["--metadata", "who=me", "--content-type", "text/plain"]].concat());
    assert_eq!(put["ETag"], "\"5eb63bbbe01eeed093cb22bb8f5acdc3\"");

    let head = api(&["head-object", "--bucket", "surface", "--key", "a/b c+ü"]);
    assert_eq!((&head["Metadata"]["who"], &head["ContentType"]), (&"me".into(), &"text/plain".into()));
    let out = server.path("out");
    let get_range = ["get-object", "--bucket", "surface", "--key", "a/b c+ü", "--range", "bytes=-5", text(&out)];
    assert_eq!(api(&get_range)["ContentRange"], "bytes 6-10/11");
    assert_eq!(fs::read(&out).unwrap(), b"world");
    let beyond = ["get-object", "--bucket", "surface", "--key", "a/b c+ü", "--range", "bytes=11-", text(&out)];
    assert!(refused(&beyond).contains("InvalidRange"));
    let etag = "\"5eb63bbbe01eeed093cb22bb8f5acdc3\"";
    let unless = ["get-object", "--bucket", "surface", "--key", "a/b c+ü", "--if-none-match", etag, text(&out)];
    assert!(refused(&unless).contains("304"));
    let once = ["put-object", "--bucket", "surface", "--key", "a/b c+ü", "--body", text(&file), "--if-none-match", "*"];
    assert!(refused(&once).contains("PreconditionFailed"));

    aws.run(&["s3", "cp", "--no-progress", "s3://surface/a/b c+ü", "s3://surface/z"]);
    let listed = api(&["list-objects-v2", "--bucket", "surface", "--delimiter", "/"]);
    assert_eq!((&listed["CommonPrefixes"][0]["Prefix"], &listed["Contents"][0]["Key"]), (&"a/".into(), &"z".into()));
    let paged = api(&["list-objects-v2", "--bucket", "surface", "--page-size", "1"]);
    assert_eq!(paged["Contents"].as_array().unwrap().len(), 2);
    assert_eq!(paged["Contents"][0]["Key"], "a/b c+ü");

    assert!(refused(&["get-object", "--bucket", "surface", "--key", "nope", text(&out)]).contains("NoSuchKey"));
    assert!(refused(&["list-objects-v2", "--bucket", "absent"]).contains("NoSuchBucket"));
    assert!(refused(&["delete-bucket", "--bucket", "surface"]).contains("BucketNotEmpty"));
    let anonymous = get(server.s3(), "/surface").unwrap();
    assert!(anonymous.starts_with("HTTP/1.1 403"), "{anonymous}");
    aws.run(&["s3", "rm", "--recursive", "s3://surface"]);
    aws.run(&["s3api", "delete-bucket", "--bucket", "surface"]);

    let wrong = Aws { server: &server, secret_key: "not-the-secret" }.output(&["s3", "ls"]);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("SignatureDoesNotMatch"));
}

/// What was acknowledged before a SIGKILL is there after it, and a clean stop ends with 0.
#[test]
fn acknowledged_puts_survive_a_kill() {
    let mut server = Server::start();
    server.run(&["bucket", "create", "kept"]);
    let files: Vec<_> =
        (0..6).map(|number| (format!("f{number}"), noise(number, 1 + number as usize * 700_000))).collect();
    for (name, bytes) in &files {
        fs::write(server.path(name), bytes).unwrap();
        server.run(&["put", text(&server.path(name)), &format!("kept/{name}")]);
    }
    server.kill();
    server.restart();
    for (name, bytes) in &files {
        let back = server.path("back");
        server.run(&["get", "--force", &format!("kept/{name}"), text(&back)]);
        assert!(fs::read(&back).unwrap() == *bytes, "{name} came back different");
    }
    assert_eq!(server.json(&["store", "fsck", "--read-data"])["errors"], Value::Array(Vec::new()));
    assert_eq!(server.stop(), Some(0), "{}", server.log());
}

/// Our own commands put and get folders, skip what is there, and refuse what would destroy.
#[test]
fn commands_move_only_what_is_missing() {
    let server = Server::start();
    server.run(&["bucket", "create", "moved"]);
    let folder = server.path("in");
    fs::create_dir_all(folder.join("sub")).unwrap();
    fs::write(folder.join("large"), noise(7, 40 * MIB)).unwrap();
    fs::write(folder.join("sub/small"), b"small").unwrap();
    let total = 40 * MIB as u64 + 5;

    let first = server.json(&["put", "--recursive", text(&folder), "moved/set"]);
    assert_eq!(first["bytes_total"].as_u64(), Some(total));
    // Noise travels as it is, and with it what the chunks are called.
    let sent = first["bytes_sent"].as_u64().unwrap();
    assert!((total..total + total / 500).contains(&sent), "{sent} bytes were sent for {total}");
    assert!(first["seconds"].as_f64().is_some());
    fs::write(folder.join("sub/small"), b"other").unwrap();
    let second = server.json(&["put", "--recursive", text(&folder), "moved/set"]);
    assert_eq!(second["bytes_sent"].as_u64(), Some(5));

    let out = server.path("out");
    let first = server.json(&["get", "--recursive", "moved/set", text(&out)]);
    assert_eq!(first["bytes_received"].as_u64(), Some(total));
    let same = Command::new("diff").arg("-r").args([&folder, &out]).status().unwrap();
    assert!(same.success(), "the folder came back different");
    let second = server.json(&["get", "--recursive", "moved/set", text(&out)]);
    assert_eq!(second["bytes_received"].as_u64(), Some(0));

    let listed = server.json(&["ls", "moved/set"]);
    assert_eq!((&listed["prefixes"][0], &listed["objects"][0]["key"]), (&"set/sub/".into(), &"set/large".into()));
    let refused = server.program().args(["rm", "--recursive", "moved"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(4));
    assert_eq!(server.json(&["rm", "--recursive", "--yes", "moved"])["removed"], 2);
    server.run(&["bucket", "remove", "moved"]);
    let absent = server.program().args(["get", "moved/set/large"]).output().unwrap();
    assert_eq!(absent.status.code(), Some(1));
}

/// A tenant sees and uses its own buckets and no others.
#[test]
fn tenants_are_kept_apart() {
    let server = Server::start();
    server.run(&["tenant", "create", "lab"]);
    let key = server.json(&["key", "create", "--tenant", "lab"]);
    let as_lab = |args: &[&str]| {
        let mut command = server.program();
        command.env("BEDPLATE_ACCESS_KEY", key["access_key"].as_str().unwrap());
        command.env("BEDPLATE_SECRET_KEY", key["secret_key"].as_str().unwrap());
        command.args(args).output().unwrap()
    };
    server.run(&["bucket", "create", "roots"]);
    success(as_lab(&["bucket", "create", "labs"]), &["bucket"]);
    let seen: Value = serde_json::from_str(&success(as_lab(&["--output", "json", "ls"]), &["ls"])).unwrap();
    assert_eq!(seen.as_array().unwrap().len(), 1);
    assert_eq!(seen[0]["name"], "labs");
    assert_eq!(server.json(&["ls"]).as_array().unwrap().len(), 2);
    for refused in [&["ls", "roots"][..], &["bucket", "remove", "roots"], &["store", "stats"], &["tenant", "list"]] {
        assert_eq!(as_lab(refused).status.code(), Some(1), "{refused:?}");
    }
}

/// A port in use and a data folder in use are told apart, and the appliance's secrets are its owner's alone.
#[test]
fn start_says_what_is_in_the_way() {
    use std::os::unix::fs::PermissionsExt as _;

    let server = Server::start();
    let port = server.program().args(["serve", "--s3-listen", &server.s3().to_string()]).output().unwrap();
    assert_eq!(port.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&port.stderr).contains("--s3-listen"));
    let any = ["serve", "--s3-listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"];
    let folder = server.program().args(any).output().unwrap();
    assert_eq!(folder.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&folder.stderr).contains("in use by process"));
    for (name, mode) in [("", 0o700), ("root-credentials.toml", 0o600)] {
        let found = fs::metadata(server.path("data").join(name)).unwrap().permissions().mode();
        assert_eq!(found & 0o777, mode, "{name}");
    }
    assert!(!server.log().contains(SECRET_KEY));
    let metrics = get(server.api(), "/metrics").unwrap();
    assert!(metrics.contains("bedplate_requests_total"), "{metrics}");
}

/// What S3's documentation promises of versions, tags, locks, checksums, policies, CORS, lifecycle rules, conditions and multipart
/// uploads, asked of the server by the AWS SDK for Python: each promise is a function in the script.
#[test]
fn surface_is_as_documented() {
    let server = Server::start();
    let key = |tenant: &str| {
        success(server.program().args(["tenant", "create", tenant]).output().unwrap(), &["tenant", "create"]);
        let made = server.json(&["key", "create", "--tenant", tenant]);
        ["access_key", "secret_key"].map(|name| made[name].as_str().unwrap().to_owned())
    };
    let keys = [key("surface"), key("stranger")].concat();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/s3/surface.py");
    let ran = Command::new(python_with_sdk())
        .arg(script)
        .arg(server.s3_url())
        .args(keys)
        .env("AWS_CONFIG_FILE", server.path("aws-config"))
        .env("AWS_SHARED_CREDENTIALS_FILE", server.path("aws-credentials"))
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
}
