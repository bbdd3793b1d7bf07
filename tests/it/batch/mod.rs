//! Batch get against the real program: many objects in one signed request come as a tar stream, whole and in order, to who may have them;
//! what cannot be had is refused at once or marked, and a stream that breaks off has no end. docs/semantics.md promises it.

mod reader;
mod trouble;

use std::process::{Command, Stdio};
use std::{fs, io::Write as _};

use serde_json::{Value, json};

use self::reader::{Answer, ask, send};
use crate::identity::signed::{Signer, encode};
use crate::support::{ACCESS_KEY, SECRET_KEY, Server, aws_cli, noise, success};

fn root() -> Signer {
    Signer::new(ACCESS_KEY, SECRET_KEY)
}

/// A server with a bucket `data`.
fn server() -> Server {
    let server = Server::start();
    server.run(&["bucket", "create", "data"]);
    server
}

/// Text that does not repeat.
fn text(seed: u64, length: usize) -> String {
    hex::encode(noise(seed, length.div_ceil(2)))[..length].to_owned()
}

fn path_of(bucket: &str, key: &str) -> String {
    let key: Vec<String> = key.split('/').map(encode).collect();
    format!("/{bucket}/{}", key.join("/"))
}

fn put(server: &Server, key: &str, content: &str) {
    let answer = root().send(server.s3(), "PUT", &path_of("data", key), content, "s3");
    assert_eq!(answer.status, 200, "{key}: {answer:?}");
}

fn list(keys: &[&str], on_error: &str) -> String {
    let objects: Vec<Value> = keys.iter().map(|key| json!({"key": key})).collect();
    json!({"objects": objects, "on_error": on_error}).to_string()
}

fn batch(server: &Server, list: &str) -> Answer {
    ask(&root(), server.s3(), "data", list).read()
}

/// Names and contents, of what came and is not marked.
fn contents(answer: &Answer) -> Vec<(String, String)> {
    let members = answer.members().into_iter().filter(|member| member.error().is_none());
    members.map(|member| (member.name, String::from_utf8(member.bytes).unwrap())).collect()
}

/// Objects in their rows and in packs, empty ones, repeats and ranges come in the order of the list, with their bytes.
#[test]
fn objects_come_in_the_order_of_the_list() {
    let server = server();
    let sizes = [("empty", 0), ("row", 300), ("pack", 20_000), ("large", 3_000_000)];
    let objects: Vec<(&str, String)> = sizes.iter().map(|(key, size)| (*key, text(*size as u64, *size))).collect();
    objects.iter().for_each(|(key, content)| put(&server, key, content));
    let keys = ["pack", "large", "empty", "row", "row", "pack", "large", "row"];
    let expected: Vec<(String, String)> = keys
        .iter()
        .map(|key| ((*key).to_owned(), objects.iter().find(|(name, _)| name == key).unwrap().1.clone()))
        .collect();
    let answer = batch(&server, &list(&keys, "stop"));
    assert!(answer.head.contains("content-type: application/x-tar"), "{}", answer.head);
    assert_eq!(contents(&answer), expected);

    let range = |key: &str, range: &str| json!({"key": key, "range": range});
    let ranges = [
        range("large", "bytes=1000000-1999999"),
        range("row", "bytes=-10"),
        range("pack", "bytes=19999-"),
        range("row", "bytes=0-9999"),
    ];
    let answer = batch(&server, &json!({"objects": ranges}).to_string());
    let found: Vec<String> = contents(&answer).into_iter().map(|(_, content)| content).collect();
    let (large, row, pack) = (&objects[3].1, &objects[1].1, &objects[2].1);
    assert_eq!(found, [&large[1_000_000..2_000_000], &row[290..], &pack[19_999..], &row[..]]);
}

/// Ten thousand objects fit into one batch; one more, none, and what is no list are refused before anything is sent.
#[test]
fn a_batch_has_its_bounds() {
    let server = server();
    for number in 0..50 {
        put(&server, &format!("k{number}"), &text(number, 200 * number as usize));
    }
    let names: Vec<String> = (0..10_000).map(|number| format!("k{}", number * 7 % 50)).collect();
    let mut keys: Vec<&str> = names.iter().map(String::as_str).collect();
    let members = batch(&server, &list(&keys, "stop")).members();
    assert_eq!(members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>(), keys);
    assert!(members.iter().zip(0..).all(|(member, number)| member.bytes.len() == 200 * (number * 7 % 50)));
    keys.push("k1");
    let unknown_field = r#"{"objects": [{"key": "k1", "version": "1"}]}"#.to_owned();
    let wide = format!(r#"{{"objects": [{{"key": "k1"}}]{}}}"#, " ".repeat(4 << 20));
    for (list, code) in [
        (list(&keys, "mark"), "InvalidRequest"),
        (list(&[], "stop"), "InvalidRequest"),
        ("no list".to_owned(), "InvalidRequest"),
        (String::new(), "InvalidRequest"),
        (unknown_field, "InvalidRequest"),
        (list(&[&"k".repeat(1_025)], "mark"), "InvalidRequest"),
        (wide, "EntityTooLarge"),
    ] {
        let answer = batch(&server, &list);
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{list:.80}");
    }
}

/// What is not there, changed, or out of range ends the request before it begins, or is marked in its place.
#[test]
fn what_is_missing_is_refused_or_marked() {
    let server = server();
    put(&server, "a", "first");
    put(&server, "b", "second");
    let answer = batch(&server, &list(&["a", "gone", "b"], "stop"));
    assert_eq!((answer.status, answer.code().as_str()), (404, "NoSuchKey"));
    assert!(String::from_utf8_lossy(&answer.body).contains("Object 1 of the list, gone"));
    let members = batch(&server, &list(&["a", "gone", "b", "gone"], "mark")).members();
    let seen: Vec<_> =
        members.iter().map(|member| (member.name.as_str(), member.bytes.len(), member.error())).collect();
    let gone = ("__refused__/gone", 0, Some("NoSuchKey"));
    assert_eq!(seen, [("a", 5, None), gone, ("b", 6, None), gone]);
    assert_eq!(members[1].records["BEDPLATE.key"], "gone");

    let etag = root().send(server.s3(), "HEAD", "/data/a", "", "s3").text;
    let etag = etag.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().trim();
    let asked = |on_error: &str| {
        json!({"on_error": on_error, "objects": [
            {"key": "a", "if_match": etag}, {"key": "b", "if_match": etag}, {"key": "b", "range": "bytes=6-"},
        ]})
    };
    let members = batch(&server, &asked("mark").to_string()).members();
    let errors: Vec<_> = members.iter().map(reader::Member::error).collect();
    assert_eq!(errors, [None, Some("PreconditionFailed"), Some("InvalidRange")]);
    let answer = batch(&server, &asked("stop").to_string());
    assert_eq!((answer.status, answer.code().as_str()), (412, "PreconditionFailed"));
}

/// The signature covers the list; a batch that is altered, unsigned, signed wrongly or in its address is refused.
#[test]
fn only_signed_lists_are_answered() {
    let server = server();
    put(&server, "a", "first");
    put(&server, "b", "second");
    let (address, path) = (server.s3(), "/data?batch-get=");
    let (asked, other) = (list(&["a"], "stop"), list(&["b"], "stop"));
    let code = |headers: &[(&str, String)], path: &str, body: &str| {
        let answer = send(address, path, headers, body).read();
        (answer.status, answer.code())
    };
    let refusal = |status: u16, code: &str| (status, code.to_owned());
    let host = ("host", address.to_string());
    let signed = |by: &Signer, service: &str, more: &[(&'static str, &str)]| {
        by.headers(address, "POST", path, &asked, service, more)
    };
    let headers = signed(&root(), "s3", &[]);
    assert_eq!(code(&headers, path, &other), refusal(400, "XAmzContentSHA256Mismatch"));
    assert_eq!(code(std::slice::from_ref(&host), path, &asked), refusal(403, "AccessDenied"));
    let wrong = signed(&Signer::new(ACCESS_KEY, "another secret"), "s3", &[]);
    assert_eq!(code(&wrong, path, &asked), refusal(403, "SignatureDoesNotMatch"));
    let unknown = signed(&Signer::new("NOSUCHKEY", SECRET_KEY), "s3", &[]);
    assert_eq!(code(&unknown, path, &asked), refusal(403, "InvalidAccessKeyId"));
    assert!(send(address, path, &signed(&root(), "sts", &[]), &asked).read().status >= 400);
    // A signature in the address covers no list.
    let presigned = root().presigned(address, "/data");
    assert!(code(std::slice::from_ref(&host), &format!("{presigned}&batch-get="), &asked).0 >= 400);
    // Nor would what stands beside be what a get makes of it.
    for more in ["&versionId=null", "&X-Amz-Signature=00", "&partNumber=1"] {
        let path = format!("{path}{more}");
        let headers = root().headers(address, "POST", &path, &asked, "s3", &[]);
        assert!(matches!(code(&headers, &path, &asked).0, 400 | 403), "{more}");
    }
    let customer = signed(&root(), "s3", &[("x-amz-server-side-encryption-customer-algorithm", "AES256")]);
    assert_eq!(code(&customer, path, &asked), refusal(400, "InvalidRequest"));
    for (owner, status) in [("somebody", 403), ("root", 200)] {
        let headers = signed(&root(), "s3", &[("x-amz-expected-bucket-owner", owner)]);
        assert_eq!(send(address, path, &headers, &asked).read().status, status, "{owner}");
    }
    assert_eq!(contents(&send(address, path, &headers, &asked).read()), [("a".to_owned(), "first".to_owned())]);
    let answer = ask(&root(), address, "no-such-bucket", &asked).read();
    assert_eq!(answer.code(), "NoSuchBucket");
    // An object's address is no bucket's.
    assert!(ask(&root(), address, "data/a", &asked).read().status >= 400);
}

/// Each key is asked about as a get of it would be: owners, strangers, one key that a policy denies, tags, and nobody.
#[test]
fn policies_decide_about_each_key() {
    let server = server();
    for key in ["open/a", "open/b", "shut/c"] {
        put(&server, key, key);
    }
    let tag = "<Tagging><TagSet><Tag><Key>level</Key><Value>low</Value></Tag></TagSet></Tagging>";
    let tagged = root().send(server.s3(), "PUT", "/data/shut/c?tagging=", tag, "s3");
    assert_eq!(tagged.status, 200, "{tagged:?}");
    server.run(&["tenant", "create", "lab"]);
    let key = server.json(&["key", "create", "--tenant", "lab"]);
    let lab = Signer::new(key["access_key"].as_str().unwrap(), key["secret_key"].as_str().unwrap());
    let keys = ["open/a", "shut/c", "open/b", "gone"];
    let ask_as = |signer: &Signer, on_error: &str| ask(signer, server.s3(), "data", &list(&keys, on_error)).read();
    let nobody = |on_error: &str| {
        let host = ("host", server.s3().to_string());
        send(server.s3(), "/data?batch-get=", &[host], &list(&keys, on_error)).read()
    };
    for answer in [ask_as(&lab, "stop"), ask_as(&lab, "mark"), nobody("mark")] {
        assert_eq!((answer.status, answer.code().as_str()), (403, "AccessDenied"));
    }
    let set = |statements: Value| {
        let policy = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
        let answer = root().send(server.s3(), "PUT", "/data?policy=", &policy, "s3");
        assert!(answer.status < 300, "{answer:?}");
    };
    let allow = |who: Value, what: &str| json!({"Effect": "Allow", "Principal": who, "Action": "s3:GetObject", "Resource": what});
    let errors = |answer: Answer| {
        answer.members().iter().map(|member| member.error().unwrap_or("-").to_owned()).collect::<Vec<_>>().join(" ")
    };
    let deny =
        json!({"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::data/open/b"});
    set(json!([allow(json!({"AWS": "arn:aws:iam::lab:root"}), "arn:aws:s3:::data/*"), deny]));
    // Who may not list does not learn what is not there.
    assert_eq!(errors(ask_as(&lab, "mark")), "- - AccessDenied AccessDenied");
    assert_eq!(errors(ask_as(&root(), "mark")), "- - AccessDenied NoSuchKey");
    assert_eq!(ask_as(&lab, "stop").code(), "AccessDenied");
    assert_eq!(errors(nobody("mark")), "AccessDenied AccessDenied AccessDenied AccessDenied");
    set(json!([allow(json!("*"), "arn:aws:s3:::data/open/*")]));
    assert_eq!(errors(nobody("mark")), "- AccessDenied - AccessDenied");
    let mut by_tag = allow(json!("*"), "arn:aws:s3:::data/*");
    by_tag["Condition"] = json!({"StringEquals": {"s3:ExistingObjectTag/level": "low"}});
    set(json!([by_tag]));
    assert_eq!(errors(nobody("mark")), "AccessDenied - AccessDenied AccessDenied");
    assert_eq!(errors(ask_as(&lab, "mark")), "AccessDenied - AccessDenied AccessDenied");
}

/// A snapshot is a bucket here as well, by both ways to write its name.
#[test]
fn snapshots_are_read_in_batches() {
    let server = server();
    put(&server, "a", "as it was");
    put(&server, "b", "still there");
    server.run(&["snapshot", "create", "data", "v1"]);
    put(&server, "a", "as it is");
    server.run(&["rm", "data/b"]);
    for bucket in ["data%40v1", "data_at_v1"] {
        let answer = ask(&root(), server.s3(), bucket, &list(&["b", "a"], "stop")).read();
        let expected = [("b", "still there"), ("a", "as it was")].map(|(key, text)| (key.to_owned(), text.to_owned()));
        assert_eq!(contents(&answer), expected, "{bucket}");
    }
    let answer = ask(&root(), server.s3(), "data_at_v2", &list(&["a"], "stop")).read();
    assert_eq!(answer.code(), "NoSuchBucket");
}

/// What the store has encrypted under its own keys is decrypted, ranges too; what is under a key of a customer's is refused.
#[test]
fn encrypted_objects_are_served_or_refused() {
    let server = server();
    let (secret, file) = (text(5, 100_000), server.path("file"));
    fs::write(&file, &secret).unwrap();
    let put_with = |key: &str, more: &[&str]| {
        let args = [&["s3api", "put-object", "--bucket", "data", "--key", key, "--body", file.to_str().unwrap()], more]
            .concat();
        let mut aws = Command::new(aws_cli());
        aws.args(["--endpoint-url", &server.s3_url()]).args(&args);
        aws.env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("AWS_DEFAULT_REGION", "us-east-1");
        success(aws.output().unwrap(), &args);
    };
    put_with("managed", &["--server-side-encryption", "AES256"]);
    put_with("customer", &["--sse-customer-algorithm", "AES256", "--sse-customer-key", &"k".repeat(32)]);
    let asked = json!({"on_error": "mark", "objects": [
        {"key": "managed"}, {"key": "customer"}, {"key": "managed", "range": "bytes=70001-70100"},
    ]});
    let members = batch(&server, &asked.to_string()).members();
    assert!(members[0].bytes == secret.as_bytes() && members[2].bytes == secret.as_bytes()[70_001..=70_100]);
    assert_eq!((members[1].error(), members[1].bytes.len()), (Some("InvalidRequest"), 0));
    assert!(members[1].records["BEDPLATE.message"].contains("Server Side Encryption"), "{:?}", members[1].records);
    assert_eq!(batch(&server, &list(&["customer"], "stop")).code(), "InvalidRequest");
}

/// Python's tarfile, reading a stream, and tar find the same names and bytes, whatever the names are.
#[test]
fn ordinary_readers_read_the_stream() {
    let server = server();
    let long = format!("deep/{}", ["d".repeat(200), "e".repeat(240), "f".repeat(240), "g".repeat(240)].join("/"));
    let names =
        ["plain", "with blank", "ümlaut/日本語", "new\nline", "quote\"s", &"x".repeat(100), &"y".repeat(101), &long];
    for (name, seed) in names.iter().zip(1..) {
        put(&server, name, &text(seed, 700 * seed as usize));
    }
    let answer = batch(&server, &list(&[&names[..], &["gone"]].concat(), "mark"));
    let found = answer.members();
    let expected: Vec<&str> = names.iter().copied().chain(["__refused__/gone"]).collect();
    assert_eq!(found.iter().map(|member| member.name.as_str()).collect::<Vec<_>>(), expected);
    let script = "import json, sys, tarfile
found = []
with tarfile.open(fileobj=sys.stdin.buffer, mode='r|') as tar:
    for member in tar:
        content = tar.extractfile(member).read().decode()
        found.append([member.name, content, member.pax_headers.get('BEDPLATE.error'), member.isfile()])
json.dump(found, sys.stdout)";
    let read = |program: &str, args: &[&str], input: &[u8]| {
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A reader that fails stops reading.
        drop(child.stdin.take().unwrap().write_all(input));
        child.wait_with_output().unwrap()
    };
    let seen: Value =
        serde_json::from_str(&success(read("python3", &["-c", script], &answer.body), &["python3"])).unwrap();
    let as_python = |member: &reader::Member| {
        json!([member.name, String::from_utf8(member.bytes.clone()).unwrap(), member.error(), true])
    };
    assert_eq!(seen, Value::Array(found.iter().map(as_python).collect()));
    let cut = read("python3", &["-c", script], &answer.body[..answer.body.len() - 2_000]);
    assert!(!cut.status.success(), "tarfile takes a cut stream for whole");

    let folder = server.path("unpacked");
    fs::create_dir(&folder).unwrap();
    success(read("tar", &["-x", "-C", folder.to_str().unwrap()], &answer.body), &["tar"]);
    for (name, seed) in names.iter().zip(1..) {
        assert_eq!(fs::read_to_string(folder.join(name)).unwrap(), text(seed, 700 * seed as usize), "{name}");
    }
}
