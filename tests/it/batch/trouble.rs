//! Batches that meet trouble on their way: writers, readers that stall, damaged packs.

use std::time::{Duration, Instant};

use serde_json::json;

use super::reader::ask;
use super::{batch, contents, list, put, root, server, text};
use crate::care::{flip, packs};

/// Longer than what the buffers of a connection on this machine hold.
const STALLS: usize = 40_000_000;

/// What was found before a writer came is sent as it was; what is gone by the time that its turn is near is marked, or cuts the stream.
#[test]
fn writers_do_not_mix_into_a_stream() {
    let server = server();
    put(&server, "long", &text(1, STALLS));
    let names: Vec<String> = (0..150).map(|number| format!("o{number:03}")).collect();
    let keys: Vec<&str> = std::iter::once("long").chain(names.iter().map(String::as_str)).collect();
    for on_error in ["mark", "stop"] {
        names.iter().zip(10..).for_each(|(name, seed)| put(&server, name, &text(seed, 20_000)));
        let answering = ask(&root(), server.s3(), "data", &list(&keys, on_error));
        answering.begun();
        std::thread::sleep(Duration::from_millis(500));
        put(&server, "o000", "something else");
        server.run(&["rm", "data/o001"]);
        server.run(&["rm", "data/o149"]);
        let answer = answering.read();
        let (members, ended) = answer.cut_members();
        assert_eq!(answer.status, 200);
        for (member, seed) in members[1..].iter().zip(10..).take(149) {
            assert!(member.bytes == text(seed, 20_000).as_bytes(), "{} is neither old nor new", member.name);
        }
        if on_error == "mark" {
            assert!(ended && answer.is_whole);
            assert_eq!((members.len(), members[150].error()), (151, Some("NoSuchKey")));
        } else {
            assert!(!ended && !answer.is_whole && members.len() <= 150, "a cut stream looks whole");
        }
    }
}

/// A hundred readers that take nothing cost others no answer, and little memory.
#[test]
fn readers_that_stall_hold_up_nobody() {
    let server = server();
    put(&server, "long", &text(1, STALLS));
    let names: Vec<String> = (0..40).map(|number| format!("o{number}")).collect();
    names.iter().zip(10..).for_each(|(name, seed)| put(&server, name, &text(seed, 100_000)));
    let objects: Vec<_> =
        (0..9_000).map(|number| json!({"key": if number == 0 { "long" } else { &names[number % 40] }})).collect();
    let asked = json!({"objects": objects, "on_error": "mark"}).to_string();
    let stalled: Vec<_> = (0..130)
        .map(|_| {
            let answering = ask(&root(), server.s3(), "data", &asked);
            std::thread::sleep(Duration::from_millis(20));
            answering
        })
        .collect();
    let before = Instant::now();
    let keys: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut answer = batch(&server, &list(&keys, "stop"));
    while answer.status == 503 && before.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(200));
        answer = batch(&server, &list(&keys, "stop"));
    }
    assert_eq!(contents(&answer).len(), 40);
    assert!(before.elapsed() < Duration::from_secs(60), "{:?}", before.elapsed());
    let got = root().get(server.s3(), "/data/o1");
    assert!(got.status == 200 && before.elapsed() < Duration::from_secs(90));
    let peak = server.peak_memory() >> 20;
    assert!(peak < 512, "{peak} MiB");
    drop(stalled);
}

/// A bucket that was removed, and made again by whomever, is not what the batch was allowed to read.
#[test]
fn another_bucket_of_the_same_name_is_not_read() {
    let server = server();
    put(&server, "long", &text(1, STALLS));
    let names: Vec<String> = (0..100).map(|number| format!("o{number:03}")).collect();
    names.iter().zip(10..).for_each(|(name, seed)| put(&server, name, &text(seed, 9_000)));
    let keys: Vec<&str> = std::iter::once("long").chain(names.iter().map(String::as_str)).collect();
    let answering = ask(&root(), server.s3(), "data", &list(&keys, "mark"));
    answering.begun();
    std::thread::sleep(Duration::from_millis(500));
    keys.iter().for_each(|key| drop(server.run(&["rm", &format!("data/{key}")])));
    server.run(&["bucket", "remove", "data"]);
    server.run(&["bucket", "create", "data"]);
    names.iter().for_each(|name| put(&server, name, "somebody else's"));
    let answer = answering.read();
    let (members, ended) = answer.cut_members();
    assert!(!ended && !answer.is_whole && (2..60).contains(&members.len()), "{} members", members.len());
    for (member, seed) in members[1..].iter().zip(10..) {
        assert!(member.bytes == text(seed, 9_000).as_bytes(), "{} is of another bucket", member.name);
    }
}

/// However little is wanted of each object, what is held for a reader that stalls is little, too, and others read as ever.
#[test]
fn ranges_of_a_byte_hold_no_chunks() {
    let server = server();
    put(&server, "long", &text(1, STALLS));
    let range = |at: usize| json!({"key": "long", "range": format!("bytes={0}-{0}", at * 4_000)});
    let mut objects: Vec<_> = (0..9_000).map(range).collect();
    objects.insert(0, json!({"key": "long"}));
    let asked = json!({"objects": objects, "on_error": "mark"}).to_string();
    let before = server.peak_memory() >> 20;
    let stalled: Vec<_> = (0..20).map(|_| ask(&root(), server.s3(), "data", &asked)).collect();
    stalled.iter().for_each(super::reader::Answering::begun);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(root().get(server.s3(), "/data/long").status, 200);
    let peak = server.peak_memory() >> 20;
    assert!(peak < before + 250, "{before} MiB, then {peak}");
    drop(stalled);
}

/// A stream that meets damage has no end, whatever it was asked to do about errors; where the first object is damaged, nothing is sent.
#[test]
fn a_damaged_pack_cuts_the_stream() {
    let mut server = server();
    let names: Vec<String> = (0..60).map(|number| format!("o{number:02}")).collect();
    names.iter().zip(10..).for_each(|(name, seed)| put(&server, name, &text(seed, 150_000)));
    let keys: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(contents(&batch(&server, &list(&keys, "stop"))).len(), 60);
    assert_eq!(server.stop(), Some(0));
    let found = packs(&server.path("data"));
    flip(&found[found.len() / 2], |len| len / 2);
    server.restart();
    for on_error in ["stop", "mark"] {
        let answer = batch(&server, &list(&keys, on_error));
        let (members, ended) = answer.cut_members();
        assert_eq!(answer.status, 200);
        assert!(!ended && !answer.is_whole, "a stream over damage ends well");
        assert!(!members.is_empty() && members.iter().all(|member| member.error().is_none()));
        for (member, seed) in members.iter().zip(10..) {
            assert!(member.bytes == text(seed, 150_000).as_bytes(), "{} is damaged", member.name);
        }
        let victim = &names[members.len()];
        let around =
            [names[members.len()..].iter().take(3).map(String::as_str).collect::<Vec<_>>(), vec!["o00"]].concat();
        let codes: Vec<u16> = around.iter().map(|key| batch(&server, &list(&[key], on_error)).status).collect();
        assert!(codes.contains(&500) && codes.last() == Some(&200), "{codes:?} from {victim} on");
    }
}
