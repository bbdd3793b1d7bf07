//! Who may call, against the real program: keys that are disabled, expired or removed are refused at once, sessions need
//! their own token, die in time and with their key, and no secret reaches the log.

pub(crate) mod signed;

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{ACCESS_KEY, SECRET_KEY, Server, aws_cli, success};
use signed::{Answer, Signer, encode, raw};

/// As much as the program can say.
const LOG_ALL: (&str, &str) = ("BEDPLATE_LOG", "trace,s3s=trace");
const ROLE: &str = "arn:aws:iam::lab:role/reader";

fn signer(key: &Value) -> Signer {
    Signer::new(key["access_key"].as_str().unwrap(), key["secret_key"].as_str().unwrap())
}

fn new_key(server: &Server, args: &[&str]) -> Signer {
    signer(&server.json(&[&["key", "create", "--tenant", "lab"], args].concat()))
}

fn with_lab(args: &[&str]) -> Server {
    let server = Server::start_with_env(args, &[LOG_ALL]);
    server.run(&["tenant", "create", "lab"]);
    server.run(&["tenant", "create", "other"]);
    server
}

fn assume(role: &str, more: &str) -> String {
    format!("Action=AssumeRole&Version=2011-06-15&RoleArn={}&RoleSessionName=s-1{more}", encode(role))
}

/// The session in an answer of STS's.
fn session(answer: &Answer) -> Signer {
    assert_eq!(answer.status, 200, "{answer:?}");
    Signer {
        access_key: answer.element("AccessKeyId").to_owned(),
        secret_key: answer.element("SecretAccessKey").to_owned(),
        token: Some(answer.element("SessionToken").to_owned()),
    }
}

fn with_token(of: &Signer, token: Option<&str>) -> Signer {
    Signer { token: token.map(str::to_owned), ..of.clone() }
}

/// The log tells nothing that opens anything.
fn assert_discreet(server: &Server, signers: &[&Signer]) {
    let log = server.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "the log was to be full");
    for signer in signers {
        let token = signer.token.as_deref().unwrap_or(&signer.secret_key);
        for secret in [signer.secret_key.as_str(), token, &encode(token)] {
            assert!(!log.contains(secret), "the log has a secret of {}", signer.access_key);
        }
    }
    assert!(!log.contains(SECRET_KEY));
    let master = std::fs::read_to_string(server.path("data/master.key")).unwrap();
    assert!(!log.contains(master.trim()));
}

/// Disabled, expired and removed keys are refused by S3, by STS and by the control API, from one request to the next.
#[test]
fn keys_stop_at_once() {
    let server = with_lab(&[]);
    let s3 = server.s3();
    let key = new_key(&server, &["--user", "ann"]);
    let access_key = key.access_key.as_str();
    let who = "Action=GetCallerIdentity&Version=2011-06-15";
    for _ in 0..2 {
        assert_eq!(key.get(s3, "/").outcome(), "200");
        assert_eq!(key.sts(s3, who).element("Arn"), "arn:aws:iam::lab:user/ann");
        assert_eq!(server.json(&["key", "disable", access_key])["state"], "disabled");
        assert_eq!(key.get(s3, "/").outcome(), "403 InvalidAccessKeyId");
        assert_eq!(key.sts(s3, who).outcome(), "403 InvalidClientTokenId");
        assert_eq!(server.json(&["key", "enable", access_key])["state"], "active");
    }
    assert_eq!(raw(s3, "GET", &key.presigned(s3, "/"), &[("host", s3.to_string())], "").outcome(), "200");
    let wrong = Signer::new(access_key, "not-the-secret");
    assert_eq!(wrong.get(s3, "/").outcome(), "403 SignatureDoesNotMatch");
    assert_eq!(with_token(&key, Some("Zm9v")).get(s3, "/").outcome(), "400 InvalidToken");
    server.run(&["key", "remove", access_key]);
    assert_eq!(key.get(s3, "/").outcome(), "403 InvalidAccessKeyId");
    for verb in ["remove", "disable", "enable"] {
        let gone = server.program().args(["key", verb, access_key]).output().unwrap();
        assert_eq!(gone.status.code(), Some(1), "{verb}");
        let root = server.program().args(["key", verb, ACCESS_KEY]).output().unwrap();
        assert!(String::from_utf8_lossy(&root.stderr).contains("root-credentials.toml"), "{verb}");
    }

    let short = new_key(&server, &["--expires-in", "2s"]);
    assert_eq!(short.get(s3, "/").outcome(), "200");
    let dated = new_key(&server, &["--expires", "2100-12-31T00:00:00Z"]);
    assert_eq!(dated.get(s3, "/").outcome(), "200");
    std::thread::sleep(Duration::from_millis(2_100));
    assert_eq!(short.get(s3, "/").outcome(), "403 InvalidAccessKeyId");
    let listed = server.json(&["key", "list"]);
    let listed: Vec<_> = listed.as_array().unwrap().iter().collect();
    let state =
        |of: &Signer| listed.iter().find(|key| key["access_key"] == of.access_key.as_str()).unwrap()["state"].clone();
    assert_eq!((state(&short), state(&dated), listed.len()), ("expired".into(), "active".into(), 2));
    for bad in [["--expires", "2001-01-01T00:00:00Z"], ["--expires", "soon"], ["--expires-in", "0h"], ["--user", "a/b"]]
    {
        let refused = server.program().args(["key", "create", "--tenant", "lab"]).args(bad).output().unwrap();
        assert_ne!(refused.status.code(), Some(0), "{bad:?}");
    }
    assert_discreet(&server, &[&key, &short, &dated]);
}

/// A session acts as its role's tenant, with its own token and no other, as long as its key is there.
#[test]
fn sessions_need_their_own_token() {
    let mut server = with_lab(&[]);
    let s3 = server.s3();
    let key = new_key(&server, &[]);
    assert_eq!(key.send(s3, "PUT", "/labs", "", "s3").outcome(), "200");
    let answer = key.sts(s3, &assume(ROLE, "&DurationSeconds=900"));
    assert_eq!(answer.element("Arn"), "arn:aws:sts::lab:assumed-role/reader/s-1");
    let first = session(&answer);
    let second = session(&key.sts(s3, "Action=GetSessionToken&Version=2011-06-15"));
    let (token, other) = (first.token.as_deref().unwrap(), second.token.as_deref().unwrap());
    assert!(first.access_key.starts_with("ASIA"));
    assert_eq!(first.get(s3, "/labs").outcome(), "200");
    let presigned = |signer: &Signer| raw(s3, "GET", &signer.presigned(s3, "/labs"), &[("host", s3.to_string())], "");
    assert_eq!(presigned(&first).outcome(), "200");

    let altered = format!("{}{}", &token[..40], token[40..].chars().rev().collect::<String>());
    for bad in [None, Some(""), Some("x"), Some(other), Some(altered.as_str()), Some(&token[..token.len() - 4])] {
        assert_eq!(with_token(&first, bad).get(s3, "/labs").outcome(), "400 InvalidToken", "{bad:?}");
        assert_eq!(presigned(&with_token(&first, bad)).outcome(), "400 InvalidToken", "{bad:?}");
        assert_eq!(with_token(&first, bad).sts(s3, &assume(ROLE, "")).outcome(), "400 InvalidToken", "{bad:?}");
    }
    let unsigned =
        format!("{}&X-Amz-Security-Token={}", with_token(&first, None).presigned(s3, "/labs"), encode(token));
    let unsigned = raw(s3, "GET", &unsigned, &[("host", s3.to_string())], "");
    assert_eq!(unsigned.outcome(), "403 SignatureDoesNotMatch");
    let wrong = Signer { secret_key: "not-the-secret".into(), ..first.clone() };
    assert_eq!(wrong.get(s3, "/labs").outcome(), "403 SignatureDoesNotMatch");
    let made_up = Signer { access_key: "ASIAAAAAAAAAAAAAAAAAAAAAAAAA".into(), ..first.clone() };
    assert_eq!(made_up.get(s3, "/labs").outcome(), "403 InvalidAccessKeyId");
    let chained = first.sts(s3, &assume(ROLE, ""));
    assert_eq!(chained.outcome(), "403 AccessDenied");
    let who = "Action=GetCallerIdentity&Version=2011-06-15";
    assert_eq!(second.sts(s3, who).element("Arn"), "arn:aws:iam::lab:root");

    // It outlives the program, and not its key.
    assert_eq!(server.stop(), Some(0));
    server.restart();
    assert_eq!(first.get(s3, "/labs").outcome(), "200");
    server.run(&["key", "disable", &key.access_key]);
    assert_eq!(first.get(s3, "/labs").outcome(), "403 InvalidAccessKeyId");
    assert_eq!(presigned(&second).outcome(), "403 InvalidAccessKeyId");
    server.run(&["key", "enable", &key.access_key]);
    assert_eq!(first.get(s3, "/labs").outcome(), "200");
    server.run(&["key", "remove", &key.access_key]);
    assert_eq!(first.get(s3, "/labs").outcome(), "403 InvalidAccessKeyId");

    let short = new_key(&server, &["--expires-in", "3s"]);
    let brief = session(&short.sts(s3, &assume(ROLE, "")));
    assert_eq!(brief.get(s3, "/labs").outcome(), "200");
    std::thread::sleep(Duration::from_millis(3_100));
    assert_eq!(brief.get(s3, "/labs").outcome(), "400 ExpiredToken");
    assert_discreet(&server, &[&key, &first, &second, &short, &brief]);
}

/// STS refuses what it cannot give, in its own words.
#[test]
fn sts_refuses_in_its_words() {
    let server = with_lab(&[]);
    let s3 = server.s3();
    let key = new_key(&server, &[]);
    let root = Signer::new(ACCESS_KEY, SECRET_KEY);
    let other = ROLE.replace("lab", "other");
    for (signer, form, outcome) in [
        (&key, assume(&other, ""), "403 AccessDenied"),
        (&key, assume(&ROLE.replace("lab", "none"), ""), "403 AccessDenied"),
        (&root, assume(&ROLE.replace("lab", "none"), ""), "403 AccessDenied"),
        (&root, assume(&other, ""), "200"),
        (&key, assume(ROLE, "&DurationSeconds=899"), "400 ValidationError"),
        (&key, assume(ROLE, "&DurationSeconds=43201"), "400 ValidationError"),
        (&key, assume(ROLE, "&DurationSeconds=x"), "400 ValidationError"),
        (&key, assume(ROLE, "&DurationSeconds=43200"), "200"),
        (&key, assume(ROLE, "&Policy=%7B%7D"), "400 ValidationError"),
        (&key, assume(ROLE, "&RoleSessionName=again"), "400 ValidationError"),
        (&key, assume("lab/reader", ""), "400 ValidationError"),
        (&key, "Action=GetSessionToken&Version=2011-06-15&DurationSeconds=60".into(), "400 ValidationError"),
        (&key, "Action=AssumeRole&Version=2011-06-15".into(), "400 ValidationError"),
        (&key, "Action=AssumeRole".into(), "400 NoSuchVersion"),
        (&key, "Action=DecodeAuthorizationMessage&Version=2011-06-15".into(), "400 InvalidAction"),
    ] {
        let answer = signer.sts(s3, &form);
        assert_eq!(answer.outcome(), outcome, "{form}");
        assert!(answer.status == 200 || answer.text.contains("<ErrorResponse xmlns"), "{answer:?}");
    }
    let wrong = Signer::new(&key.access_key, "not-the-secret").sts(s3, &assume(ROLE, ""));
    assert_eq!(wrong.outcome(), "403 SignatureDoesNotMatch");
    let nobody = Signer::new("NOBODY", "not-the-secret").sts(s3, &assume(ROLE, ""));
    assert_eq!(nobody.outcome(), "403 InvalidClientTokenId");
    // A form signed for S3, none at all, and S3 asked with a signature for STS.
    assert_eq!(key.send(s3, "POST", "/", &assume(ROLE, ""), "s3").outcome(), "403 SignatureDoesNotMatch");
    let form = ("content-type", "application/x-www-form-urlencoded".to_owned());
    let unsigned = raw(s3, "POST", "/", &[("host", s3.to_string()), form], &assume(ROLE, ""));
    assert_eq!(unsigned.outcome(), "403 MissingAuthenticationToken");
    assert_eq!(key.send(s3, "GET", "/", "", "sts").outcome(), "501 NotImplemented");
    let large = format!("{}&x={}", assume(ROLE, ""), "x".repeat(9_000));
    assert!(key.sts(s3, &large).status >= 400);
    assert_discreet(&server, &[&key, &root]);
}

/// aws-cli, unmodified, takes a role and works with it.
#[test]
fn aws_cli_assumes_a_role() {
    let server = with_lab(&[]);
    let key = new_key(&server, &["--user", "ann"]);
    let aws = |signer: &Signer, args: &[&str]| {
        let mut command = Command::new(aws_cli());
        command
            .args(["--endpoint-url", &server.s3_url(), "--output", "json"])
            .args(args)
            .env("AWS_ACCESS_KEY_ID", &signer.access_key)
            .env("AWS_SECRET_ACCESS_KEY", &signer.secret_key)
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_CONFIG_FILE", server.path("aws-config"))
            .env("AWS_SHARED_CREDENTIALS_FILE", server.path("aws-credentials"));
        if let Some(token) = &signer.token {
            command.env("AWS_SESSION_TOKEN", token);
        }
        command.output().unwrap()
    };
    let json =
        |signer: &Signer, args: &[&str]| -> Value { serde_json::from_str(&success(aws(signer, args), args)).unwrap() };
    let assume = ["sts", "assume-role", "--role-arn", ROLE, "--role-session-name", "s-1"];
    let given = json(&key, &assume);
    let given = &given["Credentials"];
    assert!(given["Expiration"].as_str().unwrap().starts_with("20"));
    let text = |name: &str| given[name].as_str().unwrap().to_owned();
    let held = Signer {
        access_key: text("AccessKeyId"),
        secret_key: text("SecretAccessKey"),
        token: Some(text("SessionToken")),
    };
    let who = json(&held, &["sts", "get-caller-identity"]);
    assert_eq!(who["Arn"], "arn:aws:sts::lab:assumed-role/reader/s-1");
    success(aws(&held, &["s3", "mb", "s3://labs"]), &["mb"]);
    let large = server.path("large");
    std::fs::write(&large, crate::support::noise(3, 20 << 20)).unwrap();
    let copy = ["s3", "cp", "--no-progress", large.to_str().unwrap(), "s3://labs/large"];
    success(aws(&held, &copy), &copy);
    // Left to itself, it signs URLs by the old version 2.
    std::fs::write(server.path("aws-config"), "[default]\ns3 =\n  signature_version = s3v4\n").unwrap();
    let url = success(aws(&held, &["s3", "presign", "s3://labs/large"]), &["presign"]);
    let path = url.trim().strip_prefix(&server.s3_url()).unwrap().to_owned();
    let host = [("host", server.s3().to_string())];
    assert_eq!(raw(server.s3(), "GET", &path, &host, "").status, 200);
    let without = aws(&with_token(&held, None), &["s3", "ls"]);
    assert!(String::from_utf8_lossy(&without.stderr).contains("InvalidToken"), "{without:?}");
    let others = ["sts", "assume-role", "--role-arn", "arn:aws:iam::other:role/r", "--role-session-name", "s-1"];
    let denied = aws(&key, &others);
    assert!(String::from_utf8_lossy(&denied.stderr).contains("AccessDenied"), "{denied:?}");
    assert_discreet(&server, &[&key, &held]);
}

/// The master key may come from elsewhere; a wrong one and a lost one end the start with what to do, and the way on works.
#[test]
fn the_master_key_is_needed() {
    let mut server = with_lab(&[]);
    let s3 = server.s3();
    let key = new_key(&server, &[]);
    assert_eq!(server.stop(), Some(0));
    let file = server.path("data/master.key");
    let text = std::fs::read_to_string(&file).unwrap();
    let refused = |server: &Server, name: &str, value: &str| {
        let mut command = server.program();
        command.args(["serve", "--s3-listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"]).env(name, value);
        // It ends by itself, or the test has failed.
        let started = Instant::now();
        let mut process = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
        while process.try_wait().unwrap().is_none() {
            if started.elapsed() > Duration::from_secs(60) {
                process.kill().unwrap();
                panic!("it went on with the wrong key");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let output = process.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = refused(&server, "BEDPLATE_MASTER_KEY", &"ab".repeat(32));
    assert!(said.contains("BEDPLATE_MASTER_KEY is not the one"), "{said}");
    let said = refused(&server, "BEDPLATE_MASTER_KEY", "ab");
    assert!(said.contains("64 hexadecimal digits"), "{said}");
    let elsewhere = server.path("elsewhere");
    let said = refused(&server, "BEDPLATE_MASTER_KEY_FILE", elsewhere.to_str().unwrap());
    assert!(said.contains("elsewhere"), "{said}");

    std::fs::rename(&file, &elsewhere).unwrap();
    let said = refused(&server, "BEDPLATE_LOG", "info");
    assert!(said.contains("master key is missing") && !file.exists(), "{said}");
    std::fs::rename(&elsewhere, &file).unwrap();
    server.restart();
    assert_eq!(key.get(s3, "/").outcome(), "200");
    assert_eq!(server.stop(), Some(0));

    // Lost for good.
    std::fs::remove_file(&file).unwrap();
    let unsure = server.program().args(["key", "forget-all"]).output().unwrap();
    assert_eq!(unsure.status.code(), Some(4));
    assert_eq!(server.json(&["key", "forget-all", "--yes"])["removed"], 1);
    server.restart();
    assert_ne!(std::fs::read_to_string(&file).unwrap(), text);
    assert_eq!(key.get(s3, "/").outcome(), "403 InvalidAccessKeyId");
    assert_eq!(new_key(&server, &[]).get(s3, "/").outcome(), "200");
}
