//! BMCs that mean harm: whatever they answer, credentials stay here, memory and time are bounded, and the other BMCs go on.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use bedplate::bmc::{Bmc, BmcError, Credentials, Facts, MemoryPins, Target, Timing};
use bedplate::model::Secret;
use serde_json::{Value, json};

use super::double::{Double, PASSWORD, Reply, SESSIONS, SYSTEM, hasty};

async fn error(double: &Double) -> BmcError {
    match double.connect(&Arc::new(MemoryPins::default())).await {
        Err(error) => error,
        Ok(bmc) => bmc.inventory().await.expect_err("it was believed"),
    }
}

/// A host that must never be spoken to.
async fn thief() -> Double {
    Double::start(|_, _| None).await
}

#[tokio::test]
async fn links_to_other_hosts_are_refused_wherever_they_stand() {
    let thief = thief().await;
    let bait = format!("{}/redfish/v1/x", thief.url);
    // As a member, as the next page, as an action's target, as where sessions are made, as a task, as an image's place.
    let places: [(&str, Value); 5] = [
        ("/redfish/v1/Systems", json!({ "Members": [{ "@odata.id": bait }] })),
        ("/redfish/v1/Systems", json!({ "Members": [{ "@odata.id": SYSTEM }], "Members@odata.nextLink": bait })),
        ("/redfish/v1/Systems", json!({ "Members": [{ "@odata.id": SYSTEM }], "@odata.nextLink": bait })),
        (SYSTEM, json!({ "Id": "1", "Boot": {}, "Actions": { "#ComputerSystem.Reset": { "target": bait } } })),
        (SYSTEM, json!({ "Id": "1", "Storage": { "@odata.id": format!("//{}/x", thief.authority()) } })),
    ];
    for (path, answer) in places {
        let double = Double::start(move |seen, _| seen.is("GET", path).then(|| Reply::json(200, &answer))).await;
        let error = error(&double).await;
        assert!(matches!(error, BmcError::ForeignLink { .. }), "{path}: {error}");
    }
    let root = json!({ "RedfishVersion": "1.0.0", "Systems": { "@odata.id": "/redfish/v1/Systems" },
        "Links": { "Sessions": { "@odata.id": bait } } });
    let double = Double::start(move |seen, _| seen.is("GET", "/redfish/v1").then(|| Reply::json(200, &root))).await;
    assert!(matches!(error(&double).await, BmcError::ForeignLink { .. }));
    assert_eq!(thief.world.lock().unwrap().seen.len(), 0, "the other host was spoken to");
}

#[tokio::test]
async fn a_session_elsewhere_is_not_ended_there() {
    let thief = thief().await;
    let place = format!("{}{SESSIONS}/1", thief.url);
    let double = Double::start(move |seen, world| {
        if !seen.is("POST", SESSIONS) {
            return None;
        }
        world.tokens.insert("token-1".to_owned());
        let made = Reply::json(201, &json!({})).with("X-Auth-Token", "token-1");
        Some(made.with("Location", place.clone()))
    })
    .await;
    let bmc = double.connect(&Arc::new(MemoryPins::default())).await.unwrap();
    bmc.close().await;
    assert_eq!(thief.world.lock().unwrap().seen.len(), 0, "the other host was spoken to");
}

#[tokio::test]
async fn a_collection_without_end_ends() {
    let double = Double::start(|seen, _| {
        let page: u64 = match seen.path.split_once("?page=") {
            Some((_, page)) => page.parse().unwrap_or(0),
            None if seen.is("GET", "/redfish/v1/Systems") => 0,
            None => return None,
        };
        let next = format!("/redfish/v1/Systems?page={}", page + 1);
        Some(Reply::json(
            200,
            &json!({ "Members": [{ "@odata.id": format!("{SYSTEM}{page}") }], "Members@odata.nextLink": next }),
        ))
    })
    .await;
    let error = error(&double).await;
    assert!(error.to_string().contains("do not end"), "{error}");
    assert!(double.world.lock().unwrap().seen.len() < 500);
}

#[tokio::test]
async fn json_without_bottom_is_unreadable() {
    let deep = format!("{}1{}", "[".repeat(200_000), "]".repeat(200_000));
    let body = format!("{{\"Members\":{deep}}}").into_bytes();
    let double = Double::start(move |seen, _| {
        seen.is("GET", "/redfish/v1/Systems").then(|| Reply::Say { status: 200, headers: vec![], body: body.clone() })
    })
    .await;
    let error = error(&double).await;
    assert!(matches!(error, BmcError::Unreadable { .. }), "{error}");
}

/// What a raw service answers with, on one connection after the other.
fn raw(answer: impl Fn(&mut std::net::TcpStream) + Send + 'static) -> (String, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = std::thread::spawn(move || {
        // Two connections at most are made to one BMC, and a read is tried thrice.
        for stream in listener.incoming().take(3) {
            let Ok(mut stream) = stream else { return };
            stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut head = [0; 4096];
            if matches!(stream.read(&mut head), Ok(0) | Err(_)) {
                return;
            }
            answer(&mut stream);
        }
    });
    (url, serving)
}

async fn raw_error(url: &str, timing: Timing) -> BmcError {
    let credentials = Credentials { username: "admin".to_owned(), password: Secret::new(PASSWORD) };
    let target = Target {
        address: url.parse().unwrap(),
        system: None,
        credentials: Some(credentials),
        pin: None,
        without: Facts::default(),
    };
    Bmc::connect_with(&target, Arc::new(MemoryPins::default()), timing).await.err().expect("it was believed")
}

#[tokio::test]
async fn a_gibibyte_is_not_taken_in() {
    let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = sent.clone();
    let (url, _serving) = raw(move |stream| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", 1 << 30);
        let block = vec![b' '; 1 << 20];
        let mut going = stream.write_all(head.as_bytes()).is_ok();
        for _ in 0..1024 {
            going = going && stream.write_all(&block).is_ok();
            counted.fetch_add(usize::from(going) << 20, std::sync::atomic::Ordering::SeqCst);
        }
    });
    let error = raw_error(&url, hasty()).await;
    assert!(matches!(error, BmcError::TooLarge { .. }), "{error}");
    let taken = sent.load(std::sync::atomic::Ordering::SeqCst);
    assert!(taken < 64 << 20, "{taken} bytes were taken in");
}

#[tokio::test]
async fn a_bomb_is_not_unpacked() {
    let mut packer = flate2::write::GzEncoder::new(vec![], flate2::Compression::best());
    let block = vec![b' '; 1 << 20];
    for _ in 0..256 {
        packer.write_all(&block).unwrap();
    }
    let bomb = packer.finish().unwrap();
    assert!(bomb.len() < 1 << 20);
    let double = Double::start(move |seen, _| {
        let body = bomb.clone();
        let answer = Reply::Say { status: 200, headers: vec![], body }.with("Content-Encoding", "gzip");
        seen.is("GET", SYSTEM).then_some(answer)
    })
    .await;
    assert!(matches!(error(&double).await, BmcError::TooLarge { .. }));
}

#[tokio::test]
async fn an_answer_by_drops_is_cut_off() {
    let (url, _serving) = raw(|stream| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n{";
        let mut going = stream.write_all(head.as_bytes()).is_ok();
        while going {
            std::thread::sleep(Duration::from_millis(50));
            going = stream.write_all(b" ").is_ok();
        }
    });
    let timing = Timing { answer: Duration::from_millis(400), ..hasty() };
    let error = raw_error(&url, timing).await;
    assert!(matches!(error, BmcError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_head_without_end_is_cut_off() {
    let (url, _serving) = raw(|stream| {
        let mut going = stream.write_all(b"HTTP/1.1 200 OK\r\n").is_ok();
        while going {
            going = stream
                .write_all(&b"x-filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(1000))
                .is_ok();
        }
    });
    let error = raw_error(&url, hasty()).await;
    assert!(matches!(error, BmcError::Unreachable { .. } | BmcError::NotRedfish { .. }), "{error}");
}

#[tokio::test]
async fn the_others_go_on() {
    let evil = Double::start(|_, _| Some(Reply::Late(Duration::from_secs(2), Box::new(Reply::Hang)))).await;
    let good = Double::start(|_, _| None).await;
    let gateway = bedplate::bmc::Gateway::open().await.unwrap();
    let target = good.target();
    let evil_target = evil.target();
    let pins = || Arc::new(MemoryPins::default());
    let trapped = Bmc::connect_again(&evil_target, pins(), hasty(), gateway.clone(), None);
    let others = async {
        for _ in 0..3 {
            let bmc = Bmc::connect_again(&target, pins(), hasty(), gateway.clone(), None).await.unwrap();
            assert_eq!(bmc.inventory().await.unwrap().serial.as_deref(), Some("A-1"));
            bmc.close().await;
        }
    };
    let mut trapped = Box::pin(trapped);
    tokio::select! {
        biased;
        () = Box::pin(others) => {}
        _ = &mut trapped => panic!("the evil one ended first"),
    }
    assert!(trapped.await.is_err());
}
