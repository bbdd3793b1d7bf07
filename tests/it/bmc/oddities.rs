//! Every known oddity of a family of BMCs, shown by a service that has it, and lived with.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bedplate::bmc::{Bmc, BootTarget, Kept, MemoryPins, PowerAction};
use serde_json::{Value, json};

use super::double::{Double, Reply, SLOT, SYSTEM, Seen, World};

const ROOT: &str = "/redfish/v1";
const MANAGER: &str = "/redfish/v1/Managers/1";
const SLOTS: &str = "/redfish/v1/Managers/1/VirtualMedia";
const RESET: &str = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";
const ISO: &str = "http://10.0.0.1:9100/media/7/boot.iso";

fn edit(double: &Double, change: impl FnOnce(&mut World)) {
    change(&mut double.world.lock().unwrap());
}

fn document<'a>(world: &'a mut World, path: &str) -> &'a mut Value {
    world.tree.entry(path.to_owned()).or_insert_with(|| json!({ "@odata.id": path }))
}

async fn connect(double: &Double) -> Bmc {
    double.connect(&Arc::new(MemoryPins::default())).await.unwrap()
}

fn bodies(double: &Double, method: &str, path: &str) -> Vec<Value> {
    let world = double.world.lock().unwrap();
    world.seen.iter().filter(|seen| seen.is(method, path)).map(|seen| seen.body.clone()).collect()
}

fn tags(double: &Double) -> Vec<Option<String>> {
    let world = double.world.lock().unwrap();
    let patches = world.seen.iter().filter(|seen| seen.is("PATCH", SYSTEM));
    patches.map(|seen| seen.header("if-match").map(str::to_owned)).collect()
}

fn refusal(status: u16, id: &str) -> Reply {
    let info = json!([{ "MessageId": format!("Oem.1.0.{id}"), "Message": "Not now." }]);
    Reply::json(status, &json!({ "error": { "@Message.ExtendedInfo": info } }))
}

/// Answers so the first `times`.
fn at_first(
    times: usize,
    reply: impl Fn(&Seen) -> Option<Reply> + Send + Sync,
) -> impl Fn(&Seen) -> Option<Reply> + Send + Sync {
    let left = AtomicUsize::new(times);
    move |seen| {
        let answer = reply(seen)?;
        left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok().then_some(answer)
    }
}

#[tokio::test]
async fn megarac_takes_any_etag_and_not_its_own() {
    let double = Double::start(|seen, world| {
        if seen.is("GET", SYSTEM) {
            return Some(Reply::json(200, &world.tree[SYSTEM]).with("ETag", "\"1720039110\""));
        }
        (seen.is("PATCH", SYSTEM) && seen.header("if-match") != Some("*")).then(|| Reply::empty(412))
    })
    .await;
    edit(&double, |world| document(world, ROOT)["Vendor"] = json!("AMI"));
    let bmc = connect(&double).await;
    bmc.set_boot(BootTarget::Cd).await.unwrap();
    bmc.close().await;
    assert_eq!(tags(&double), [Some("*".to_owned())]);
}

#[tokio::test]
async fn ilo_is_never_sent_any_etag() {
    let double = Double::start(|seen, _| seen.is("PATCH", SYSTEM).then(|| Reply::empty(412))).await;
    edit(&double, |world| document(world, ROOT)["Vendor"] = json!("HPE"));
    let bmc = connect(&double).await;
    assert!(bmc.set_boot(BootTarget::Cd).await.is_err());
    bmc.close().await;
    assert!(!tags(&double).is_empty() && tags(&double).iter().all(|tag| tag.as_deref() != Some("*")));
}

#[tokio::test]
async fn ilo_refuses_settings_during_post_for_a_while() {
    let busy = at_first(2, |seen| seen.is("PATCH", SYSTEM).then(|| refusal(400, "UnableToModifyDuringSystemPOST")));
    let double = Double::start(move |seen, _| busy(seen)).await;
    edit(&double, |world| document(world, ROOT)["Vendor"] = json!("HPE"));
    let bmc = connect(&double).await;
    bmc.set_boot(BootTarget::Hdd).await.unwrap();
    bmc.set_boot(BootTarget::None).await.unwrap();
    bmc.close().await;
    let sent = bodies(&double, "PATCH", SYSTEM);
    assert_eq!(sent.len(), 4);
    assert_eq!(sent[3], json!({ "Boot": { "BootSourceOverrideTarget": "None" } }), "cleared by its target alone");
}

#[tokio::test]
async fn supermicro_boots_usb_cd_and_reads_back_otherwise() {
    let double = Double::start(|seen, world| {
        if seen.is("PATCH", SYSTEM) {
            let boot = &mut world.tree.get_mut(SYSTEM).unwrap()["Boot"];
            boot["BootSourceOverrideTarget"] = json!("UefiBootNext");
            boot["BootSourceOverrideEnabled"] = json!("Once");
            return Some(Reply::json(200, &json!({ "Success": { "code": "Base.v1_4_0.Success" } })));
        }
        None
    })
    .await;
    edit(&double, |world| {
        document(world, ROOT)["Oem"] = json!({ "Supermicro": {} });
        document(world, SYSTEM)["Boot"]["BootSourceOverrideTarget@Redfish.AllowableValues"] =
            json!(["None", "Cd", "UsbCd", "Hdd", "UefiBootNext"]);
    });
    let bmc = connect(&double).await;
    assert_eq!(bmc.set_boot(BootTarget::Cd).await.unwrap(), Kept::Once);
    bmc.close().await;
    let sent = bodies(&double, "PATCH", SYSTEM);
    let whole = json!({ "BootSourceOverrideTarget": "UsbCd", "BootSourceOverrideEnabled": "Once", "BootSourceOverrideMode": "UEFI" });
    assert_eq!(sent, [json!({ "Boot": whole })], "sent whole, and the other name is believed");
}

#[tokio::test]
async fn supermicro_ejects_by_an_oem_action() {
    let double = Double::start(|seen, _| {
        (seen.path.ends_with("InsertMedia") && seen.body.get("Inserted").is_some()).then(|| Reply::empty(400))
    })
    .await;
    edit(&double, |world| {
        document(world, ROOT)["Oem"] = json!({ "Supermicro": {} });
        let slot = document(world, SLOT);
        let eject = slot["Actions"]["#VirtualMedia.EjectMedia"].take();
        slot["Actions"].as_object_mut().unwrap().remove("#VirtualMedia.EjectMedia");
        slot["Actions"]["Oem"] = json!({ "#SmcVirtualMedia.EjectMedia": eject });
        (slot["Inserted"], slot["Image"]) = (json!(true), json!("http://10.0.0.1/other.iso"));
    });
    let bmc = connect(&double).await;
    bmc.insert_media(ISO).await.unwrap();
    bmc.eject_media().await.unwrap();
    bmc.close().await;
    assert_eq!(bodies(&double, "POST", &format!("{SLOT}/Actions/VirtualMedia.EjectMedia")).len(), 2);
}

#[tokio::test]
async fn xclarity_takes_urls_only_in_ext_slots_by_patch() {
    let double = Double::start(|_, _| None).await;
    edit(&double, |world| {
        document(world, ROOT)["Vendor"] = json!("Lenovo");
        let slots = ["RDOC1", "Remote1", "EXT1"].map(|id| {
            let path = format!("{SLOTS}/{id}");
            *document(world, &path) =
                json!({ "Id": id, "MediaTypes": ["CD", "DVD"], "Inserted": false, "Image": null });
            json!({ "@odata.id": path })
        });
        *document(world, SLOTS) = json!({ "Members": slots });
    });
    let bmc = connect(&double).await;
    bmc.insert_media(ISO).await.unwrap();
    assert_eq!(bmc.media().await.unwrap().as_deref(), Some(ISO));
    bmc.close().await;
    let sent = bodies(&double, "PATCH", &format!("{SLOTS}/EXT1"));
    assert_eq!(sent, [json!({ "Image": ISO, "Inserted": true, "WriteProtected": true })]);
    assert!(bodies(&double, "PATCH", &format!("{SLOTS}/RDOC1")).is_empty());
}

#[tokio::test]
async fn sr675_v3_is_never_restarted_without_switching_off() {
    let double = Double::start(|_, _| None).await;
    edit(&double, |world| {
        document(world, ROOT)["Vendor"] = json!("Lenovo");
        let system = document(world, SYSTEM);
        (system["Model"], system["PowerState"]) = (json!("ThinkSystem SR675 V3"), json!("On"));
    });
    let bmc = connect(&double).await;
    bmc.set_power(PowerAction::ForceRestart).await.unwrap();
    bmc.close().await;
    assert_eq!(bodies(&double, "POST", RESET), [json!({ "ResetType": "ForceOff" }), json!({ "ResetType": "On" })]);
}

#[tokio::test]
async fn idrac_is_known_by_its_service_tag() {
    let double = Double::start(|_, _| None).await;
    edit(&double, |world| {
        document(world, ROOT)["Vendor"] = json!("Dell");
        document(world, SYSTEM)["SKU"] = json!("F54P1G3");
    });
    let bmc = connect(&double).await;
    assert_eq!(bmc.inventory().await.unwrap().serial.as_deref(), Some("F54P1G3"));
    bmc.close().await;
}

#[tokio::test]
async fn idrac10_refuses_power_on_for_a_while() {
    let late = at_first(2, |seen| seen.is("POST", RESET).then(|| refusal(409, "ActionParameterValueConflict")));
    let double = Double::start(move |seen, _| late(seen)).await;
    edit(&double, |world| {
        document(world, ROOT)["Vendor"] = json!("Dell");
        document(world, MANAGER)["FirmwareVersion"] = json!("1.20.50.50");
    });
    let bmc = connect(&double).await;
    bmc.set_power(PowerAction::On).await.unwrap();
    bmc.close().await;
    assert_eq!(bodies(&double, "POST", RESET).len(), 3);
}

#[tokio::test]
async fn a_boot_override_that_is_staged_is_written_there() {
    const STAGED: &str = "/redfish/v1/Systems/1/SD";
    let double = Double::start(|_, _| None).await;
    edit(&double, |world| {
        let boot = document(world, SYSTEM)["Boot"].clone();
        document(world, SYSTEM)["@Redfish.Settings"] = json!({ "SettingsObject": { "@odata.id": STAGED } });
        *document(world, STAGED) = json!({ "Boot": boot });
    });
    let bmc = connect(&double).await;
    assert_eq!(bmc.set_boot(BootTarget::Cd).await.unwrap(), Kept::Once);
    bmc.close().await;
    assert_eq!(bodies(&double, "PATCH", STAGED).len(), 1);
    assert!(bodies(&double, "PATCH", SYSTEM).is_empty());
}

#[tokio::test]
async fn a_baseboard_is_no_machine_but_its_gpus_are_the_machines() {
    const BOARD: &str = "/redfish/v1/Systems/Baseboard_0";
    let double = Double::start(|_, _| None).await;
    edit(&double, |world| {
        let gpu = format!("{BOARD}/Processors/GPU_0");
        *document(world, BOARD) =
            json!({ "Id": "Baseboard_0", "Processors": { "@odata.id": format!("{BOARD}/Processors") } });
        *document(world, &format!("{BOARD}/Processors")) = json!({ "Members": [{ "@odata.id": gpu }] });
        *document(world, &gpu) = json!({ "Id": "GPU_0", "ProcessorType": "GPU", "Model": "G", "SerialNumber": "7" });
        *document(world, "/redfish/v1/Systems") =
            json!({ "Members": [{ "@odata.id": BOARD }, { "@odata.id": SYSTEM }] });
    });
    let bmc = connect(&double).await;
    let found = bmc.inventory().await.unwrap();
    bmc.close().await;
    assert_eq!((found.system_id.as_str(), found.gpus.len()), ("1", 1));
    assert_eq!(found.gpus[0].serial.as_deref(), Some("7"));
}

#[tokio::test]
async fn a_failed_task_is_quoted() {
    const TASK: &str = "/redfish/v1/TaskService/Tasks/1";
    let double =
        Double::start(|seen, _| seen.path.ends_with("InsertMedia").then(|| Reply::empty(202).with("Location", TASK)))
            .await;
    edit(&double, |world| {
        *document(world, TASK) =
            json!({ "TaskState": "Exception", "Messages": [{ "Message": "The image server refused." }] });
    });
    let bmc = connect(&double).await;
    let error = bmc.insert_media(ISO).await.unwrap_err();
    bmc.close().await;
    assert!(error.to_string().contains("The image server refused."), "{error}");
}
