//! Each verb does what it says on a well-behaved BMC, and none believes a BMC that only says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bedplate::bmc::{BmcError, BootTarget, Kept, Mark, MemoryPins, PowerAction, PowerState};
use serde_json::json;

use super::double::{Double, Reply, SESSIONS, SLOT, SYSTEM};

const ISO: &str = "http://10.0.0.1:9100/media/7/boot.iso";
const RESET: &str = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";

#[tokio::test]
async fn a_whole_installation_in_one_session() {
    let double = Double::start(|_, _| None).await;
    let pins = Arc::new(MemoryPins::default());
    let bmc = double.connect(&pins).await.unwrap();
    assert_eq!(bmc.power().await.unwrap(), PowerState::Off);
    bmc.insert_media(ISO).await.unwrap();
    assert_eq!(bmc.media().await.unwrap().as_deref(), Some(ISO));
    assert_eq!(bmc.set_boot(BootTarget::Cd).await.unwrap(), Kept::Once);
    bmc.set_power(PowerAction::On).await.unwrap();
    assert_eq!(bmc.power().await.unwrap(), PowerState::On);
    bmc.set_power(PowerAction::On).await.unwrap();
    bmc.set_power(PowerAction::ForceOff).await.unwrap();
    bmc.eject_media().await.unwrap();
    assert_eq!(bmc.media().await.unwrap(), None);
    assert_eq!(bmc.set_boot(BootTarget::Hdd).await.unwrap(), Kept::Once);
    assert_eq!(bmc.set_boot(BootTarget::None).await.unwrap(), Kept::Cleared);
    bmc.identify(true).await.unwrap();
    assert_eq!(double.world.lock().unwrap().tree[SYSTEM]["IndicatorLED"], "Blinking");
    bmc.close().await;
    let world = double.world.lock().unwrap();
    assert_eq!(world.count("POST", SESSIONS), 1, "one session for everything");
    assert_eq!(world.count("DELETE", &format!("{SESSIONS}/1")), 1, "and it is ended");
    assert!(world.tokens.is_empty());
    assert_eq!(world.count("POST", RESET), 2, "switching on what is on sends nothing");
    assert!(world.seen.iter().all(|seen| seen.header("authorization").is_none()));
    assert!(world.seen.iter().all(|seen| seen.header("host") == Some(&double.authority())));
    assert!(world.seen.iter().all(|seen| seen.header("x-bedplate-gateway").is_none()), "the secret stays here");
}

#[tokio::test]
async fn inventory_and_card() {
    let double = Double::start(|_, _| None).await;
    let bmc = double.connect(&Arc::new(MemoryPins::default())).await.unwrap();
    let found = bmc.inventory().await.unwrap();
    assert_eq!((found.vendor.as_deref(), found.serial.as_deref()), (Some("Acme"), Some("A-1")));
    assert_eq!(found.cpus.len(), 2);
    assert_eq!(found.memory_bytes, Some(64 << 30));
    assert_eq!(found.drives[0].serial.as_deref(), Some("D-0"));
    assert_eq!(found.drives[0].wwn.as_deref(), Some("eui.0025"));
    assert_eq!(found.nics[0].mac, "52:54:00:aa:bb:cc");
    assert_eq!(found.gaps, ["firmware: the BMC lists none"]);
    let before = double.world.lock().unwrap().seen.len();
    let card = bmc.card().await.unwrap();
    assert!(card.fit);
    assert!(card.traits.iter().any(|t| t.name == "virtual media" && t.mark == Mark::Works));
    let reads_only = double.world.lock().unwrap().seen[before..].iter().all(|seen| seen.method == "GET");
    assert!(reads_only, "the card changes nothing");
    bmc.close().await;
    double.stop().await;
}

#[tokio::test]
async fn a_bmc_that_says_yes_and_does_nothing_is_not_believed() {
    let double = Double::start(|seen, _| match seen.method.as_str() {
        "POST" if seen.path != SESSIONS => Some(Reply::json(200, &json!({ "error": { "code": "Base.1.0.Success" } }))),
        "PATCH" => Some(Reply::json(200, &json!({}))),
        _ => None,
    })
    .await;
    let bmc = double.connect(&Arc::new(MemoryPins::default())).await.unwrap();
    let not_obeyed = |error: BmcError| matches!(error, BmcError::NotObeyed { .. });
    assert!(not_obeyed(bmc.set_power(PowerAction::On).await.unwrap_err()));
    assert!(not_obeyed(bmc.insert_media(ISO).await.unwrap_err()));
    assert!(not_obeyed(bmc.set_boot(BootTarget::Cd).await.unwrap_err()));
    assert!(not_obeyed(bmc.identify(true).await.unwrap_err()));
    bmc.close().await;
}

#[tokio::test]
async fn a_boot_override_that_is_kept_is_told_as_such() {
    let double = Double::start(|seen, world| {
        if seen.is("PATCH", SYSTEM) {
            let boot = &mut world.tree.get_mut(SYSTEM).unwrap()["Boot"];
            boot["BootSourceOverrideTarget"] = seen.body["Boot"]["BootSourceOverrideTarget"].clone();
            boot["BootSourceOverrideEnabled"] = json!("Continuous");
            return Some(Reply::empty(204));
        }
        None
    })
    .await;
    let bmc = double.connect(&Arc::new(MemoryPins::default())).await.unwrap();
    assert_eq!(bmc.set_boot(BootTarget::Cd).await.unwrap(), Kept::Continuous);
    bmc.close().await;
}

#[tokio::test]
async fn media_shown_after_ejection_is_waited_out() {
    let looks = AtomicUsize::new(0);
    let double = Double::start(move |seen, world| {
        if seen.path.ends_with("VirtualMedia.EjectMedia") {
            looks.store(3, Ordering::SeqCst);
            return None;
        }
        let left = looks.load(Ordering::SeqCst);
        if seen.is("GET", SLOT) && left > 0 {
            looks.store(left - 1, Ordering::SeqCst);
            let mut stale = world.tree[SLOT].clone();
            (stale["Inserted"], stale["Image"]) = (json!(true), json!("http://10.0.0.1/old/boot.iso"));
            return Some(Reply::json(200, &stale));
        }
        None
    })
    .await;
    {
        let mut world = double.world.lock().unwrap();
        let slot = world.tree.get_mut(SLOT).unwrap();
        (slot["Inserted"], slot["Image"]) = (json!(true), json!("http://10.0.0.1/old/boot.iso"));
    }
    let bmc = double.connect(&Arc::new(MemoryPins::default())).await.unwrap();
    bmc.insert_media(ISO).await.unwrap();
    assert_eq!(bmc.media().await.unwrap().as_deref(), Some(ISO));
    bmc.close().await;
    let world = double.world.lock().unwrap();
    let order: Vec<_> = world.seen.iter().filter(|s| s.method == "POST" && s.path != SESSIONS).collect();
    assert!(order[0].path.ends_with("EjectMedia") && order[1].path.ends_with("InsertMedia"));
}

#[tokio::test]
async fn the_insertion_ladder_finds_the_form_that_is_taken() {
    let double = Double::start(|seen, _| {
        let lacks = seen.body.get("TransferProtocolType").is_none();
        (seen.path.ends_with("InsertMedia") && lacks).then(|| {
            Reply::json(
                400,
                &json!({ "error": { "@Message.ExtendedInfo": [{
                "MessageId": "Base.1.8.ActionParameterMissing",
                "Message": "The action InsertMedia requires the parameter TransferProtocolType." }] } }),
            )
        })
    })
    .await;
    let bmc = double.connect(&Arc::new(MemoryPins::default())).await.unwrap();
    bmc.insert_media(ISO).await.unwrap();
    bmc.close().await;
    let world = double.world.lock().unwrap();
    let sent: Vec<_> = world.seen.iter().filter(|s| s.path.ends_with("InsertMedia")).map(|s| s.body.clone()).collect();
    assert_eq!(sent, [json!({ "Image": ISO }), json!({ "Image": ISO, "TransferProtocolType": "HTTP" })]);
}

#[tokio::test]
async fn a_slot_without_actions_is_patched_and_a_console_slot_passed_over() {
    const CONSOLE: &str = "/redfish/v1/Managers/1/VirtualMedia/KVM";
    let double = Double::start(|seen, _| {
        let refused = seen.path.starts_with(CONSOLE) && seen.method == "POST";
        refused.then(|| Reply::json(405, &json!({ "error": { "message": "console only" } })))
    })
    .await;
    {
        let mut world = double.world.lock().unwrap();
        world.tree.get_mut(SLOT).unwrap().as_object_mut().unwrap().remove("Actions");
        let console = json!({ "Id": "KVM", "MediaTypes": ["CD"], "Inserted": false,
            "Actions": { "#VirtualMedia.InsertMedia": { "target": format!("{CONSOLE}/Actions/VirtualMedia.InsertMedia") } } });
        world.tree.insert(CONSOLE.to_owned(), console);
        let members = json!({ "Members": [{ "@odata.id": CONSOLE }, { "@odata.id": SLOT }] });
        world.tree.insert("/redfish/v1/Managers/1/VirtualMedia".to_owned(), members);
    }
    let bmc = double.connect(&Arc::new(MemoryPins::default())).await.unwrap();
    bmc.insert_media(ISO).await.unwrap();
    assert_eq!(bmc.media().await.unwrap().as_deref(), Some(ISO));
    bmc.eject_media().await.unwrap();
    assert_eq!(bmc.media().await.unwrap(), None);
    bmc.close().await;
}

#[tokio::test]
async fn a_success_that_is_no_json_is_a_success() {
    let double = Double::start(|seen, world| {
        if seen.is("POST", RESET) {
            world.tree.get_mut(SYSTEM).unwrap()["PowerState"] = json!("On");
            return Some(Reply::Say { status: 200, headers: vec![], body: b"<html>OK</html>".to_vec() });
        }
        None
    })
    .await;
    let bmc = double.connect(&Arc::new(MemoryPins::default())).await.unwrap();
    bmc.set_power(PowerAction::On).await.unwrap();
    assert_eq!(double.world.lock().unwrap().count("POST", RESET), 1);
    bmc.close().await;
}

#[tokio::test]
async fn a_restart_that_is_not_offered_is_made_of_off_and_on() {
    let double = Double::start(|_, _| None).await;
    {
        let mut world = double.world.lock().unwrap();
        let system = world.tree.get_mut(SYSTEM).unwrap();
        system["PowerState"] = json!("On");
        system["Actions"]["#ComputerSystem.Reset"]["ResetType@Redfish.AllowableValues"] = json!(["On", "ForceOff"]);
    }
    let bmc = double.connect(&Arc::new(MemoryPins::default())).await.unwrap();
    bmc.set_power(PowerAction::ForceRestart).await.unwrap();
    let error = bmc.set_power(PowerAction::GracefulOff).await.unwrap_err();
    assert!(error.to_string().contains("On, ForceOff"), "{error}");
    bmc.close().await;
    let world = double.world.lock().unwrap();
    let sent: Vec<_> = world.seen.iter().filter(|s| s.is("POST", RESET)).map(|s| s.body["ResetType"].clone()).collect();
    assert_eq!(sent, ["ForceOff", "On"]);
}
