//! The rules of the wire: who is talked to, with what credentials, how often, and what of an answer is believed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bedplate::bmc::{Bmc, BmcError, BootTarget, MemoryPins, Pins as _, PowerAction, Reach, Trust};
use bedplate::model::Secret;
use serde_json::json;

use super::double::{Double, Reply, SESSIONS, SYSTEM, hasty};

const RESET: &str = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";

fn pins() -> Arc<MemoryPins> {
    Arc::new(MemoryPins::default())
}

#[tokio::test]
async fn a_wrong_password_is_tried_once() {
    let double = Double::start(|_, _| None).await;
    let mut target = double.target();
    target.credentials.as_mut().unwrap().password = Secret::new("wrong");
    let error = Bmc::connect_with(&target, pins(), hasty()).await.err().unwrap();
    assert_eq!(error, BmcError::WrongPassword { bmc: double.authority(), username: Some("admin".to_owned()) });
    assert_eq!(double.world.lock().unwrap().count("POST", SESSIONS), 1, "accounts lock after a few");
    target.credentials = None;
    let error = Bmc::connect_with(&target, pins(), hasty()).await.err().unwrap();
    assert!(error.hint().contains("--username"), "{}", error.hint());
}

#[tokio::test]
async fn a_changed_pin_stops_before_anything_is_sent() {
    let double = Double::start(|_, _| None).await;
    let pins = pins();
    pins.remember(&double.authority(), [7; 32]).unwrap();
    let error = double.connect(&pins).await.err().unwrap();
    assert!(matches!(error, BmcError::PinChanged { known, seen, .. } if known == [7; 32] && seen == double.pin));
    assert!(error.hint().contains(&hex::encode(double.pin)), "{}", error.hint());
    assert!(double.world.lock().unwrap().seen.is_empty());
    let mut target = double.target();
    target.trust = Trust::Pin(double.pin);
    Bmc::connect_with(&target, pins.clone(), hasty()).await.unwrap().close().await;
    assert_eq!(pins.known(&double.authority()), Some(double.pin), "a pin that is given replaces the known one");
    target.trust = Trust::Pin([8; 32]);
    assert!(matches!(Bmc::connect_with(&target, pins, hasty()).await, Err(BmcError::PinChanged { place: None, .. })));
}

#[tokio::test]
async fn the_first_certificate_is_remembered() {
    let double = Double::start(|_, _| None).await;
    let pins = pins();
    double.connect(&pins).await.unwrap().close().await;
    assert_eq!(pins.known(&double.authority()), Some(double.pin));
}

#[tokio::test]
async fn what_does_not_answer_is_told_apart() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    let double = Double::start(|_, _| None).await;
    let mut target = double.target();
    drop(free);
    target.address = format!("https://{address}").parse().unwrap();
    let error = Bmc::connect_with(&target, pins(), hasty()).await.err().unwrap();
    assert!(matches!(&error, BmcError::Unreachable { why: Reach::Refused, .. }), "{error}");
    target.address = "https://no-such-host.invalid".parse().unwrap();
    let error = Bmc::connect_with(&target, pins(), hasty()).await.err().unwrap();
    assert!(matches!(&error, BmcError::Unreachable { why: Reach::Name(_) | Reach::TimedOut { .. }, .. }), "{error}");
    let web = Double::start(|seen, _| {
        seen.path.starts_with("/redfish").then(|| Reply::Say {
            status: 200,
            headers: vec![],
            body: b"<html>hello</html>".to_vec(),
        })
    })
    .await;
    let error = web.connect(&pins()).await.err().unwrap();
    assert!(matches!(error, BmcError::NotRedfish { .. }), "{error}");
}

#[tokio::test]
async fn no_credential_follows_a_link_elsewhere() {
    let thief = Double::start(|_, _| None).await;
    for bait in [
        format!("{}/redfish/v1/Systems?$skip=1", thief.url),
        format!("//{}/redfish/v1/Systems", thief.authority()),
        format!("/\\{}/redfish/v1/Systems", thief.authority()),
        format!("\t//{}/redfish/v1/Systems", thief.authority()),
    ] {
        let page = json!({ "Members": [{ "@odata.id": SYSTEM }], "Members@odata.nextLink": bait });
        let double =
            Double::start(move |seen, _| seen.is("GET", "/redfish/v1/Systems").then(|| Reply::json(200, &page))).await;
        let error = double.connect(&pins()).await.err().unwrap();
        assert!(matches!(error, BmcError::ForeignLink { .. }), "{error}");
    }
    for (status, header) in [(307, "Location"), (302, "Location"), (201, "Location")] {
        let bait = format!("{}/redfish/v1/x", thief.url);
        let double = Double::start(move |seen, _| {
            (seen.is("POST", RESET) || seen.is("GET", "/redfish/v1/Managers/1"))
                .then(|| Reply::json(status, &json!({})).with(header, bait.clone()))
        })
        .await;
        let bmc = double.connect(&pins()).await.unwrap();
        let error = bmc.set_power(PowerAction::On).await.unwrap_err();
        assert!(matches!(error, BmcError::ForeignLink { .. }), "{error}");
        bmc.close().await;
    }
    let seen = thief.world.lock().unwrap().seen.len();
    assert_eq!(seen, 0, "the other host was never spoken to");
}

#[tokio::test]
async fn links_to_itself_are_followed_whole() {
    let double = Double::start(|_, _| None).await;
    {
        let mut world = double.world.lock().unwrap();
        let page = json!({ "Members": [{ "@odata.id": format!("{}{SYSTEM}", double.url) }] });
        world.tree.insert("/redfish/v1/Systems".to_owned(), page);
    }
    double.connect(&pins()).await.unwrap().close().await;
}

#[tokio::test]
async fn redirects_to_itself_are_not_followed() {
    let double = Double::start(|seen, _| {
        seen.is("GET", "/redfish/v1/Systems").then(|| Reply::empty(307).with("Location", "/redfish/v1/Elsewhere"))
    })
    .await;
    let error = double.connect(&pins()).await.err().unwrap();
    assert!(error.to_string().contains("redirects"), "{error}");
}

/// Runs a boot change against a service that takes only the `If-Match` that `taken` allows; answers those it saw.
async fn ladder(
    weak: bool,
    refusal: u16,
    taken: impl Fn(Option<&str>) -> bool + Send + Sync + 'static,
) -> (bool, Vec<Option<String>>) {
    let tag = if weak { "W/\"abc\"" } else { "\"abc\"" };
    let double = Double::start(move |seen, world| {
        if seen.is("GET", SYSTEM) {
            return Some(Reply::json(200, &world.tree[SYSTEM]).with("ETag", tag));
        }
        (seen.is("PATCH", SYSTEM) && !taken(seen.header("if-match"))).then(|| Reply::empty(refusal))
    })
    .await;
    let bmc = double.connect(&pins()).await.unwrap();
    let done = bmc.set_boot(BootTarget::Cd).await.is_ok();
    bmc.close().await;
    let world = double.world.lock().unwrap();
    let sent = world.seen.iter().filter(|s| s.is("PATCH", SYSTEM)).map(|s| s.header("if-match").map(str::to_owned));
    (done, sent.collect())
}

#[tokio::test]
async fn the_etag_ladder_is_climbed() {
    let text = |tags: &[&str]| tags.iter().map(|tag| Some((*tag).to_owned())).collect::<Vec<_>>();
    assert_eq!(ladder(false, 412, |tag| tag == Some("\"abc\"")).await, (true, text(&["\"abc\""])));
    assert_eq!(ladder(true, 412, |tag| tag == Some("\"abc\"")).await, (true, text(&["W/\"abc\"", "\"abc\""])));
    let (done, sent) = ladder(true, 412, |tag| tag.is_none()).await;
    assert!(done && sent.last() == Some(&None), "{sent:?}");
    let (done, sent) = ladder(false, 428, |tag| tag == Some("*")).await;
    assert!(done && sent.last() == Some(&Some("*".to_owned())), "{sent:?}");
    let (done, sent) = ladder(true, 412, |_| false).await;
    assert!(!done && sent.len() >= 4, "{sent:?}");
}

#[tokio::test]
async fn a_change_in_between_is_read_again() {
    let version = Arc::new(AtomicUsize::new(1));
    let double = Double::start(move |seen, world| {
        let now = version.load(Ordering::SeqCst);
        if seen.is("GET", SYSTEM) {
            return Some(Reply::json(200, &world.tree[SYSTEM]).with("ETag", format!("\"v{now}\"")));
        }
        if seen.is("PATCH", SYSTEM) && now == 1 {
            version.store(2, Ordering::SeqCst);
        }
        let now = version.load(Ordering::SeqCst);
        let stale = seen.is("PATCH", SYSTEM) && seen.header("if-match") != Some(&format!("\"v{now}\""));
        stale.then(|| Reply::empty(412))
    })
    .await;
    let bmc = double.connect(&pins()).await.unwrap();
    bmc.set_boot(BootTarget::Hdd).await.unwrap();
    assert_eq!(double.world.lock().unwrap().count("PATCH", SYSTEM), 2);
    bmc.close().await;
}

#[tokio::test]
async fn a_busy_bmc_is_waited_for_as_it_says() {
    let left = AtomicUsize::new(2);
    let double = Double::start(move |seen, _| {
        let busy = seen.is("POST", RESET)
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        busy.then(|| Reply::empty(503).with("Retry-After", "1"))
    })
    .await;
    let bmc = double.connect(&pins()).await.unwrap();
    let began = std::time::Instant::now();
    bmc.set_power(PowerAction::On).await.unwrap();
    assert!(began.elapsed() >= std::time::Duration::from_secs(2), "Retry-After is honoured");
    assert_eq!(double.world.lock().unwrap().count("POST", RESET), 3);
    bmc.close().await;
}

#[tokio::test]
async fn a_write_is_never_repeated_blindly() {
    let double = Double::start(|seen, _| match seen.method.as_str() {
        "POST" if seen.is("POST", RESET) => Some(Reply::Hang),
        _ => None,
    })
    .await;
    let bmc = double.connect(&pins()).await.unwrap();
    assert!(bmc.set_power(PowerAction::On).await.is_err());
    assert_eq!(double.world.lock().unwrap().count("POST", RESET), 1, "a broken connection");
    bmc.close().await;
    let double = Double::start(|seen, _| seen.is("POST", RESET).then(|| Reply::empty(503))).await;
    let bmc = double.connect(&pins()).await.unwrap();
    assert!(bmc.set_power(PowerAction::On).await.is_err());
    assert_eq!(double.world.lock().unwrap().count("POST", RESET), 1, "a 503 that does not say that nothing was begun");
    bmc.close().await;
}

#[tokio::test]
async fn a_read_is_repeated_after_a_broken_connection() {
    let left = AtomicUsize::new(2);
    let double = Double::start(move |seen, _| {
        let broken = seen.is("GET", SYSTEM)
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        broken.then_some(Reply::Hang)
    })
    .await;
    double.connect(&pins()).await.unwrap().close().await;
}

#[tokio::test]
async fn an_oversized_answer_is_cut_off() {
    let double = Double::start(|seen, _| {
        seen.is("GET", SYSTEM).then(|| Reply::Say { status: 200, headers: vec![], body: vec![b' '; 17 << 20] })
    })
    .await;
    let error = double.connect(&pins()).await.err().unwrap();
    assert!(matches!(error, BmcError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn an_expired_session_is_made_anew_once() {
    let double = Double::start(|_, _| None).await;
    let bmc = double.connect(&pins()).await.unwrap();
    double.world.lock().unwrap().tokens.clear();
    bmc.set_power(PowerAction::On).await.unwrap();
    bmc.close().await;
    let world = double.world.lock().unwrap();
    assert_eq!(world.count("POST", SESSIONS), 2);
    assert_eq!(world.count("DELETE", &format!("{SESSIONS}/2")), 1);
}

#[tokio::test]
async fn dropping_without_close_ends_the_session_too() {
    let double = Double::start(|_, _| None).await;
    drop(double.connect(&pins()).await.unwrap());
    for _ in 0..200 {
        if double.world.lock().unwrap().tokens.is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the session is still open after two seconds");
}

#[tokio::test]
async fn without_sessions_basic_is_used() {
    let double = Double::start(|seen, world| {
        if seen.is("POST", SESSIONS) {
            return Some(Reply::empty(404));
        }
        let basic = seen.header("authorization") == Some("Basic YWRtaW46Y29ycmVjdCBob3JzZQ==");
        let path = seen.path.trim_end_matches('/');
        basic.then(|| world.tree.get(path).map_or(Reply::empty(404), |document| Reply::json(200, document)))
    })
    .await;
    let bmc = double.connect(&pins()).await.unwrap();
    bmc.inventory().await.unwrap();
    bmc.close().await;
}

#[tokio::test]
async fn the_bmcs_own_words_are_quoted() {
    let double = Double::start(|seen, _| {
        seen.is("POST", RESET).then(|| {
            Reply::json(
                403,
                &json!({ "error": { "code": "Base.1.8.GeneralError", "@Message.ExtendedInfo": [{
                "MessageId": "Oem.1.0.LicenseNeeded", "Message": "The service needs a licence.",
                "Resolution": "Install the licence and try again." }] } }),
            )
        })
    })
    .await;
    let bmc = double.connect(&pins()).await.unwrap();
    let error = bmc.set_power(PowerAction::On).await.unwrap_err();
    assert!(error.to_string().contains("The service needs a licence."), "{error}");
    assert!(error.hint().contains("Install the licence"), "{}", error.hint());
    bmc.close().await;
}

#[tokio::test]
async fn several_systems_are_not_guessed_at() {
    let double = Double::start(|_, _| None).await;
    {
        let mut world = double.world.lock().unwrap();
        let mut second = world.tree[SYSTEM].clone();
        (second["Id"], second["UUID"]) = (json!("2"), json!("DEADBEEF-0000-0000-0000-000000000002"));
        world.tree.insert("/redfish/v1/Systems/2".to_owned(), second);
        let page = json!({ "Members": [{ "@odata.id": SYSTEM }, { "@odata.id": "/redfish/v1/Systems/2" }] });
        world.tree.insert("/redfish/v1/Systems".to_owned(), page);
    }
    let error = double.connect(&pins()).await.err().unwrap();
    assert!(matches!(&error, BmcError::WhichSystem { why, .. } if why.contains("1, 2")), "{error}");
    let mut target = double.target();
    target.system = Some("deadbeef-0000-0000-0000-000000000002".to_owned());
    let bmc = Bmc::connect_with(&target, pins(), hasty()).await.unwrap();
    assert_eq!(bmc.inventory().await.unwrap().system_id, "2");
    bmc.close().await;
}

#[tokio::test]
async fn a_failed_task_is_quoted() {
    const TASK: &str = "/redfish/v1/TaskService/Tasks/1";
    let double =
        Double::start(|seen, _| seen.path.ends_with("InsertMedia").then(|| Reply::empty(202).with("Location", TASK)))
            .await;
    let ended = json!({ "TaskState": "Exception", "Messages": [{ "Message": "The image server refused." }] });
    double.world.lock().unwrap().tree.insert(TASK.to_owned(), ended);
    let bmc = double.connect(&pins()).await.unwrap();
    let error = bmc.insert_media("http://10.0.0.1:9100/media/7/boot.iso").await.unwrap_err();
    bmc.close().await;
    assert!(error.to_string().contains("The image server refused."), "{error}");
}
