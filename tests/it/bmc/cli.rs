//! `bedplate bmc` as people and programs meet it: exit codes, one paragraph of error with a hint, JSON.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::double::{Double, PASSWORD, Reply, SYSTEM};

/// How long anything here may take.
const BOUND: Duration = Duration::from_secs(60);

struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs the program with `arguments`, off this thread so that the double can answer.
async fn bedplate(known: &Path, password: &str, arguments: &[&str]) -> Ended {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bedplate"));
    command.args(arguments).env("BEDPLATE_BMC_PASSWORD", password).env("XDG_CONFIG_HOME", known);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_hints() {
    let double = Double::start(|_, _| None).await;
    let home = tempfile::tempdir().unwrap();
    let url = double.url.as_str();
    let ended =
        bedplate(home.path(), PASSWORD, &["bmc", "inventory", url, "--username", "admin", "--output", "json"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let found: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(found["serial"], "A-1");
    assert!(ended.err.contains("first contact"), "{}", ended.err);
    let known = home.path().join("bedplate/known-bmcs.toml");
    let kept = std::fs::read_to_string(&known).unwrap();
    assert!(kept.contains(&hex::encode(double.pin)), "{kept}");

    let ended = bedplate(home.path(), "wrong", &["bmc", "check", url, "--username", "admin"]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("refused the password") && ended.err.contains("hint:"), "{}", ended.err);
    assert!(!ended.err.contains("wrong-secret") && !ended.err.contains(PASSWORD), "{}", ended.err);

    std::fs::write(&known, kept.replace(&hex::encode(double.pin), &"ab".repeat(32))).unwrap();
    let before = double.world.lock().unwrap().seen.len();
    let ended = bedplate(home.path(), PASSWORD, &["bmc", "check", url, "--username", "admin"]).await;
    assert_eq!(ended.code, Some(4), "{}", ended.err);
    assert!(ended.err.contains("--bmc-pin sha256:"), "{}", ended.err);
    assert_eq!(double.world.lock().unwrap().seen.len(), before);
    let pin = format!("sha256:{}", hex::encode(double.pin));
    let ended = bedplate(home.path(), PASSWORD, &["bmc", "check", url, "--username", "admin", "--bmc-pin", &pin]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.out.contains("can be imaged"), "{}", ended.out);

    let ended = bedplate(home.path(), PASSWORD, &["bmc", "check", "https://127.0.0.1:1", "--username", "admin"]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("the connection was refused"), "{}", ended.err);
    let ended = bedplate(home.path(), "", &["bmc", "check", url, "--username", "admin"]).await;
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    let ended = bedplate(home.path(), PASSWORD, &["bmc", "check", "https://admin:hunter2@h"]).await;
    assert_eq!(ended.code, Some(2));
    assert!(!ended.err.contains("hunter2"), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_reader() {
    const LOG: &str = "/redfish/v1/Systems/1/LogServices/Log";
    let entries = format!("{LOG}/Entries");
    let double = Double::start(move |seen, world| {
        let looks = world.count("GET", &entries);
        // Another entry with each look, so that there is always something to tell.
        let all = (0..looks).map(|n| json!({ "Message": format!("entry {n}"), "Created": format!("{n:04}") }));
        seen.is("GET", &entries).then(|| Reply::json(200, &json!({ "Members": all.collect::<Vec<_>>() })))
    })
    .await;
    {
        let mut world = double.world.lock().unwrap();
        let list = LOG.rsplit_once('/').unwrap().0;
        world.tree.get_mut(SYSTEM).unwrap()["LogServices"] = json!({ "@odata.id": list });
        world.tree.insert(list.to_owned(), json!({ "Members": [{ "@odata.id": LOG }] }));
        world.tree.insert(LOG.to_owned(), json!({ "Entries": { "@odata.id": format!("{LOG}/Entries") } }));
    }
    let home = tempfile::tempdir().unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_bedplate"));
    command.args(["bmc", "events", &double.url, "--username", "admin", "--follow"]).kill_on_drop(true);
    command.env("BEDPLATE_BMC_PASSWORD", PASSWORD).env("XDG_CONFIG_HOME", home.path()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = tokio::time::timeout(BOUND, lines.next_line()).await.unwrap().unwrap().unwrap();
    assert!(first.contains("entry"), "{first}");
    drop(lines);
    let ended = tokio::time::timeout(BOUND, child.wait()).await.expect("it goes on for nobody").unwrap();
    assert!(ended.success(), "{ended}");
    assert!(double.world.lock().unwrap().tokens.is_empty(), "it left its session open");
}
