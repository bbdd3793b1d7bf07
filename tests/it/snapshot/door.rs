//! Snapshots as clients meet them: the program's own commands, and an unmodified aws-cli.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{ACCESS_KEY, SECRET_KEY, Server, aws_cli, noise, success};

struct Aws<'a>(&'a Server);

impl Aws<'_> {
    fn output(&self, args: &[&str]) -> Output {
        let mut command = Command::new(aws_cli());
        command
            .args(["--endpoint-url", &self.0.s3_url()])
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_CONFIG_FILE", self.0.path("aws-config"))
            .env("AWS_SHARED_CREDENTIALS_FILE", self.0.path("aws-credentials"));
        command.args(args).output().unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&success(self.output(args), args)).unwrap()
    }

    fn refused(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert!(!output.status.success(), "{args:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

fn keys(listing: &Value) -> Vec<&str> {
    let objects = listing["Contents"].as_array().map(Vec::as_slice).unwrap_or_default();
    objects.iter().map(|object| object["Key"].as_str().unwrap()).collect()
}

/// A snapshot reads like a bucket over S3, by both ways to write its name, and refuses every write in words that say what to do.
#[test]
fn clients_read_snapshots_and_cannot_write_them() {
    let server = Server::start();
    let aws = Aws(&server);
    let file = server.path("file");
    let path = file.to_str().unwrap();
    let put = |content: &[u8], place: &str| {
        fs::write(&file, content).unwrap();
        server.run(&["put", path, place]);
    };
    server.run(&["bucket", "create", "data"]);
    let first = noise(1, 300_000);
    put(&first, "data/a/one");
    put(b"two", "data/a/two");
    put(b"three", "data/b");
    server.run(&["snapshot", "create", "data", "monday", "--keep-days", "30"]);
    put(b"changed", "data/a/one");
    put(b"new", "data/c");
    server.run(&["rm", "data/b"]);

    let out = server.path("out");
    let out_path = out.to_str().unwrap();
    for place in ["data@monday/a/one", "data_at_monday/a/one"] {
        server.run(&["get", place, out_path, "--force"]);
        assert!(fs::read(&out).unwrap() == first, "{place} is different");
    }
    let monday = "data_at_monday";
    for list in ["list-objects-v2", "list-objects"] {
        assert_eq!(keys(&aws.json(&["s3api", list, "--bucket", monday])), ["a/one", "a/two", "b"]);
        let grouped = aws.json(&["s3api", list, "--bucket", monday, "--delimiter", "/"]);
        assert_eq!((keys(&grouped), &grouped["CommonPrefixes"][0]["Prefix"]), (vec!["b"], &"a/".into()));
        let paged = aws.json(&["s3api", list, "--bucket", monday, "--page-size", "1"]);
        assert_eq!(keys(&paged).len(), 3);
    }
    let versions = aws.json(&["s3api", "list-object-versions", "--bucket", monday]);
    assert_eq!(versions["Versions"].as_array().unwrap().len(), 3);
    let head = aws.json(&["s3api", "head-object", "--bucket", monday, "--key", "a/one"]);
    assert_eq!(head["ContentLength"], 300_000);
    let object = ["--bucket", monday, "--key", "a/one"];
    aws.json(&[&["s3api", "get-object"], &object[..], &["--range", "bytes=100-199", out_path]].concat());
    assert!(fs::read(&out).unwrap() == first[100..200]);

    for write in [
        vec!["s3api", "put-object", "--bucket", monday, "--key", "x", "--body", path],
        vec!["s3api", "delete-object", "--bucket", monday, "--key", "b"],
        vec!["s3api", "create-multipart-upload", "--bucket", monday, "--key", "x"],
        vec!["s3api", "put-object-tagging", "--bucket", monday, "--key", "b", "--tagging", "TagSet=[{Key=k,Value=v}]"],
        vec!["s3api", "put-bucket-versioning", "--bucket", monday, "--versioning-configuration", "Status=Enabled"],
        vec!["s3api", "delete-bucket", "--bucket", monday],
    ] {
        let said = aws.refused(&write);
        assert!(said.contains("AccessDenied") && said.contains("never changes"), "{write:?}: {said}");
    }
    let said = aws.refused(&["s3api", "list-objects-v2", "--bucket", "data_at_tuesday"]);
    assert!(said.contains("NoSuchBucket") && said.contains("there is no snapshot data@tuesday"), "{said}");
    let said = aws.refused(&["s3api", "delete-bucket", "--bucket", "data"]);
    assert!(said.contains("BucketNotEmpty") && said.contains("has snapshots"), "{said}");
    let args = ["s3api", "put-bucket-versioning", "--bucket", "data", "--versioning-configuration", "Status=Enabled"];
    assert!(aws.refused(&args).contains("cannot keep versions"));
}

/// The commands: list, diff, branch, refusals, removal.
#[test]
fn commands_compare_branch_and_remove() {
    let server = Server::start();
    let file = server.path("file");
    let path = file.to_str().unwrap();
    let put = |content: &[u8], place: &str| {
        fs::write(&file, content).unwrap();
        server.run(&["put", path, place]);
    };
    let refused = |args: &[&str], code: i32| {
        let output = server.program().args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    server.run(&["bucket", "create", "data"]);
    put(b"one", "data/one");
    put(b"two", "data/two");
    let made = server.json(&["snapshot", "create", "data", "v1"]);
    assert_eq!((&made["name"], &made["expires"]), (&"v1".into(), &Value::Null));
    assert!(refused(&["snapshot", "create", "data", "v1"], 1).contains("data@v1 already"));
    put(b"one, and more", "data/one");
    put(b"three", "data/three");
    server.run(&["rm", "data/two"]);
    let diff = server.json(&["snapshot", "diff", "data@v1", "data"]);
    assert_eq!((&diff["added"], &diff["changed"], &diff["removed"]), (&1.into(), &1.into(), &1.into()));
    assert_eq!(
        (&diff["added_bytes"], &diff["changed_bytes"], &diff["removed_bytes"]),
        (&5.into(), &13.into(), &3.into())
    );
    let text = server.run(&["snapshot", "diff", "data@v1", "data"]);
    assert!(text.contains("~ one") && text.contains("+ three") && text.contains("- two"), "{text}");

    server.run(&["snapshot", "branch", "data@v1", "work"]);
    put(b"mine", "work/mine");
    server.run(&["rm", "work/one"]);
    let listed = server.json(&["ls", "work"]);
    let names: Vec<_> = listed["objects"].as_array().unwrap().iter().map(|object| object["key"].clone()).collect();
    assert_eq!(names, ["mine", "two"]);
    let listed = server.json(&["snapshot", "list", "data"]);
    assert_eq!(listed[0]["branches"], serde_json::json!(["work"]));

    assert!(refused(&["snapshot", "remove", "data", "v1"], 4).contains("--yes"));
    assert!(refused(&["snapshot", "remove", "data", "v1", "--yes"], 1).contains("work"));
    assert!(refused(&["bucket", "remove", "data"], 1).contains("snapshot list data"));
    assert!(refused(&["bucket", "remove", "work"], 1).contains("BucketNotEmpty"));
    server.run(&["rm", "work/mine"]);
    server.run(&["bucket", "remove", "work"]);
    server.run(&["snapshot", "remove", "data", "v1", "--yes"]);
    assert_eq!(server.json(&["snapshot", "list", "data"]), serde_json::json!([]));
    assert!(refused(&["get", "data@v1/one", "-"], 1).contains("data@v1"));
}

/// What the store has encrypted under a bucket's name reads back through a snapshot and a branch of it, and copies on.
#[test]
fn encrypted_objects_read_through_snapshots_and_branches() {
    let server = Server::start();
    let aws = Aws(&server);
    let (file, out) = (server.path("file"), server.path("out"));
    let (path, out_path) = (file.to_str().unwrap(), out.to_str().unwrap());
    let content = noise(7, 200_000);
    fs::write(&file, &content).unwrap();
    server.run(&["bucket", "create", "data"]);
    let sealed = ["--server-side-encryption", "AES256"];
    let put = ["s3api", "put-object", "--bucket", "data", "--key", "secret", "--body", path];
    aws.json(&[&put[..], &sealed].concat());
    server.run(&["snapshot", "create", "data", "s"]);
    server.run(&["snapshot", "branch", "data@s", "work"]);
    server.run(&["rm", "data/secret"]);
    let copy = ["s3api", "copy-object", "--bucket", "work", "--key", "copy", "--copy-source", "work/secret"];
    aws.json(&[&copy[..], &sealed].concat());
    for (bucket, key) in [("data_at_s", "secret"), ("work", "secret"), ("work", "copy")] {
        aws.json(&["s3api", "get-object", "--bucket", bucket, "--key", key, out_path]);
        assert!(fs::read(&out).unwrap() == content, "{bucket}/{key} is different");
    }
    // Its key is bound to the bucket that it was written to: it must not become the branch's own as it is.
    let tags =
        ["s3api", "put-object-tagging", "--bucket", "work", "--key", "secret", "--tagging", "TagSet=[{Key=k,Value=v}]"];
    assert!(aws.refused(&tags).contains("copy it onto itself first"));
    let said = server.program().args(["put", path, "data@s/x"]).output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("never changes") && said.contains("snapshot branch data@s"), "{said}");
}
