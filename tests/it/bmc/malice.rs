//! BMCs that mean harm: whatever they answer, credentials stay here, memory and time are bounded, and the other BMCs go on.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use bedplate::bmc::{Bmc, BmcError, Credentials, Facts, MemoryPins, Target, Timing, Trust};
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
        trust: Trust::Known,
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

#[tokio::test]
async fn no_link_leads_into_anothers_room() {
    let good = Double::start(|_, _| None).await;
    let gateway = bedplate::bmc::Gateway::open().await.unwrap();
    let pins = || Arc::new(MemoryPins::default());
    let target = good.target();
    // Room 1 of the gateway.
    let other = Bmc::connect_again(&target, pins(), hasty(), gateway.clone(), None).await.unwrap();
    let before = good.world.lock().unwrap().seen.len();
    for bait in [
        "/../1/redfish/v1/Systems/1",
        "/%2e%2e/1/redfish/v1/Systems/1",
        "\\..\\1\\redfish\\v1\\Systems\\1",
        "/redfish/v1/../../../1/redfish/v1/Systems/1",
        "/1/redfish/v1/Systems/1",
        "1/redfish/v1/Systems/1",
        "../1/redfish/v1/Systems/1",
    ] {
        let page = json!({ "Members": [{ "@odata.id": bait }] });
        let evil =
            Double::start(move |seen, _| seen.is("GET", "/redfish/v1/Systems").then(|| Reply::json(200, &page))).await;
        let evil_target = evil.target();
        let met = Bmc::connect_again(&evil_target, pins(), hasty(), gateway.clone(), None).await;
        assert!(met.is_err(), "{bait} led somewhere");
    }
    assert_eq!(good.world.lock().unwrap().seen.len(), before, "another BMC was spoken to");
    other.close().await;
}

#[tokio::test]
async fn tasks_that_point_to_each_other_end() {
    const TASK: &str = "/redfish/v1/TaskService/Tasks/1";
    const JOB: &str = "/redfish/v1/JobService/Jobs/JID_1";
    let double =
        Double::start(|seen, _| seen.path.ends_with("SimpleUpdate").then(|| Reply::empty(202).with("Location", TASK)))
            .await;
    {
        let mut world = double.world.lock().unwrap();
        let to = |place: &str| {
            json!({ "TaskState": "Running", "Messages": [
                { "MessageId": "Update.1.0.OperationTransitionedToJob", "MessageArgs": [place] }] })
        };
        world.tree.insert(TASK.to_owned(), to(JOB));
        world.tree.insert(JOB.to_owned(), to(TASK));
        world.tree.get_mut("/redfish/v1").unwrap()["Vendor"] = json!("Dell");
        world.tree.get_mut("/redfish/v1").unwrap()["UpdateService"] =
            json!({ "@odata.id": "/redfish/v1/UpdateService" });
        let action = json!({ "target": "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate" });
        let service = json!({ "Actions": { "#UpdateService.SimpleUpdate": action } });
        world.tree.insert("/redfish/v1/UpdateService".to_owned(), service);
    }
    let bmc = double.connect(&Arc::new(MemoryPins::default())).await.unwrap();
    let source = bedplate::bmc::FirmwareSource::Url("http://10.0.0.1/f".to_owned());
    let error = bmc.update_firmware(&source, &[]).await.unwrap_err();
    bmc.close().await;
    assert!(error.to_string().contains("did not end"), "{error}");
    assert!(double.world.lock().unwrap().seen.len() < 400, "it was asked without a pause");
}

#[tokio::test]
async fn a_log_in_a_circle_ends() {
    const ENTRIES: &str = "/redfish/v1/Managers/1/LogServices/Sel/Entries";
    let double = Double::start(|seen, _| {
        let other = match seen.path.strip_prefix(ENTRIES)? {
            "?page=a" => "b",
            _ => "a",
        };
        Some(Reply::json(200, &json!({ "Members": [], "Members@odata.nextLink": format!("{ENTRIES}?page={other}") })))
    })
    .await;
    {
        let mut world = double.world.lock().unwrap();
        let link = |path: &str| json!({ "@odata.id": path });
        let (list, log) = ("/redfish/v1/Managers/1/LogServices", "/redfish/v1/Managers/1/LogServices/Sel");
        world.tree.get_mut("/redfish/v1/Managers/1").unwrap()["LogServices"] = link(list);
        world.tree.insert(list.to_owned(), json!({ "Members": [link(log)] }));
        world.tree.insert(log.to_owned(), json!({ "Entries": link(ENTRIES) }));
    }
    let bmc = double.connect(&Arc::new(MemoryPins::default())).await.unwrap();
    assert!(bmc.log(None, 10).await.unwrap().is_empty());
    bmc.close().await;
}

/// A BMC whose firmware goes to `place`; the file to send.
async fn updates(
    place: &str,
    hook: impl Fn(&super::double::Seen) -> Option<Reply> + Send + Sync + 'static,
) -> (Double, tempfile::TempDir) {
    let double = Double::start(move |seen, _| hook(seen)).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("f.bin"), vec![7; 1000]).unwrap();
    let mut world = double.world.lock().unwrap();
    let root = world.tree.get_mut("/redfish/v1").unwrap();
    (root["Vendor"], root["UpdateService"]) = (json!("Lenovo"), json!({ "@odata.id": "/redfish/v1/UpdateService" }));
    let service = json!({ "@odata.id": "/redfish/v1/UpdateService", "MultipartHttpPushUri": place, "HttpPushUriTargetsBusy": false });
    world.tree.insert("/redfish/v1/UpdateService".to_owned(), service);
    drop(world);
    (double, folder)
}

#[tokio::test]
async fn firmware_and_a_session_go_to_no_other_host() {
    let thief = thief().await;
    let (double, folder) = updates(&format!("{}/upload", thief.url), |_| None).await;
    let bmc = double.connect(&Arc::new(MemoryPins::default())).await.unwrap();
    let source = bedplate::bmc::FirmwareSource::File(folder.path().join("f.bin"));
    let error = bmc.update_firmware(&source, &[]).await.unwrap_err();
    bmc.close().await;
    assert!(matches!(error, BmcError::ForeignLink { .. }), "{error}");
    assert_eq!(thief.world.lock().unwrap().seen.len(), 0, "the other host was spoken to");
}

#[tokio::test]
async fn an_upload_that_is_broken_off_gives_its_place_back() {
    let late = || Reply::Late(Duration::from_secs(3), Box::new(Reply::empty(202)));
    let (double, folder) = updates("/mfwupdate", move |seen| seen.is("POST", "/mfwupdate").then(late)).await;
    let bmc = double.connect(&Arc::new(MemoryPins::default())).await.unwrap();
    let source = bedplate::bmc::FirmwareSource::File(folder.path().join("f.bin"));
    let broken = tokio::time::timeout(Duration::from_secs(1), bmc.update_firmware(&source, &[])).await;
    assert!(broken.is_err());
    assert_eq!(double.world.lock().unwrap().tree["/redfish/v1/UpdateService"]["HttpPushUriTargetsBusy"], true);
    bmc.close().await;
    assert_eq!(double.world.lock().unwrap().tree["/redfish/v1/UpdateService"]["HttpPushUriTargetsBusy"], false);
}
