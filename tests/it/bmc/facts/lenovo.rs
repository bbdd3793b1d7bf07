//! Lenovo XClarity.

use std::time::Duration;

use bedplate::bmc::{BootTarget, FirmwareSource, PowerAction, Timing};
use bedplate::model::Secret;

use super::super::double::{SYSTEM, behave};
use super::*;

async fn xcc(hook: impl Fn(&Seen, &mut World) -> Option<Reply> + Send + Sync + 'static) -> Double {
    let double = Double::start(hook).await;
    vendor(&double, "Lenovo");
    double
}

/// Connects with little time for ordinary answers and more for slow ones.
pub(super) async fn hurried(scene: &Scene, double: &Double) -> Result<Bmc, BmcError> {
    let timing = Timing { answer: Duration::from_millis(300), busy_limit: Duration::from_millis(300), ..hasty() };
    let mut target = double.target();
    target.without = scene.without;
    Bmc::connect_with(&target, Arc::new(MemoryPins::default()), timing).await
}

#[tokio::test]
async fn lenovo_ext_slots() {
    proves(Fact::LenovoExtSlots, async |scene| {
        let double = xcc(|_, _| None).await;
        let ids = ["RDOC1", "Remote1", "EXT1"].map(|id| format!("{SLOTS}/{id}"));
        let slot = |id: &str| json!({ "Id": id, "MediaTypes": ["CD", "DVD"], "Inserted": false, "Image": null });
        put(
            &double,
            [
                (&ids[0], slot("RDOC1")),
                (&ids[1], slot("Remote1")),
                (&ids[2], slot("EXT1")),
                (SLOTS, list(&[&ids[0], &ids[1], &ids[2]])),
            ],
        );
        scene.connect(&double).await?.insert_media(ISO).await?;
        ensure(bodies(&double, "PATCH", &ids[2]).len() == 1, "the image is in another slot")
    })
    .await;
}

#[tokio::test]
async fn lenovo_slow_pending() {
    const PENDING: &str = "/redfish/v1/Systems/1/Pending";
    proves(Fact::LenovoSlowPending, async |scene| {
        let double = xcc(|seen, world| {
            let slow = seen.path.starts_with(PENDING);
            slow.then(|| Reply::Late(Duration::from_millis(900), Box::new(behave(seen, world))))
        })
        .await;
        edit(&double, |world| {
            let boot = document(world, SYSTEM)["Boot"].clone();
            document(world, SYSTEM)["@Redfish.Settings"] = json!({ "SettingsObject": link(PENDING) });
            *document(world, PENDING) = json!({ "Boot": boot });
        });
        hurried(&scene, &double).await?.set_boot(BootTarget::Cd).await?;
        ensure(bodies(&double, "PATCH", PENDING).len() == 1, "it was not written where it is staged")
    })
    .await;
}

#[tokio::test]
async fn lenovo_restart_hangs() {
    proves(Fact::LenovoRestartHangs, async |scene| {
        let double = xcc(|seen, world| {
            let hangs = seen.is("POST", RESET) && seen.body["ResetType"] == "ForceRestart";
            hangs.then(|| {
                document(world, SYSTEM)["PowerState"] = json!("PoweringOn");
                Reply::empty(200)
            })
        })
        .await;
        edit(&double, |world| {
            let system = document(world, SYSTEM);
            (system["Model"], system["PowerState"]) = (json!("ThinkSystem SR675 V3"), json!("On"));
        });
        Ok(scene.connect(&double).await?.set_power(PowerAction::ForceRestart).await?)
    })
    .await;
}

#[tokio::test]
async fn lenovo_monitor_forgets() {
    const MONITOR: &str = "/redfish/v1/TaskService/TaskMonitors/1";
    proves(Fact::LenovoMonitorForgets, async |scene| {
        let double = xcc(|seen, world| {
            if seen.is("GET", MONITOR) {
                world.tree.remove(TASK);
                return Some(Reply::empty(404));
            }
            seen.is("POST", SIMPLE_UPDATE).then(|| Reply::empty(202).with("Location", MONITOR))
        })
        .await;
        with_updates(&double, json!({}));
        put(&double, [(TASK, json!({ "TaskState": "Completed", "Messages": [{ "Message": "Flashed." }] }))]);
        let source = FirmwareSource::Url("http://10.0.0.1/f".to_owned());
        let update = scene.connect(&double).await?.update_firmware(&source, &[]).await?;
        ensure(update.messages == ["Flashed."], format!("{update:?}"))
    })
    .await;
}

#[tokio::test]
async fn lenovo_account_slots() {
    proves(Fact::LenovoAccountSlots, async |scene| {
        let double = xcc(|seen, _| seen.is("POST", ACCOUNTS).then(|| Reply::empty(405))).await;
        with_accounts(&double, &["USERID", "", ""]);
        scene.connect(&double).await?.ensure_administrator("bedplate", &Secret::new("pw")).await?;
        ensure(bodies(&double, "PATCH", &format!("{ACCOUNTS}/2")).len() == 1, "the slot is still free")
    })
    .await;
}

#[tokio::test]
async fn lenovo_boot_order_oem() {
    const SETTINGS: &str = "/redfish/v1/Systems/1/Oem/Lenovo/BootSettings";
    proves(Fact::LenovoBootOrderOem, async |scene| {
        let order = format!("{SETTINGS}/BootOrder.BootOrder");
        let child = order.clone();
        let double = xcc(move |seen, world| {
            // It is not there before its list was read.
            let known = world.count("GET", SETTINGS) > 0;
            let early = seen.is("GET", &child) && !known;
            (early || seen.is("PATCH", SYSTEM)).then(|| Reply::empty(if early { 404 } else { 405 }))
        })
        .await;
        edit(&double, |world| {
            let system = document(world, SYSTEM);
            system["Boot"]["BootOrder"] = json!(["Boot0003", "Boot0002"]);
            system["Oem"] = json!({ "Lenovo": { "BootSettings": link(SETTINGS) } });
        });
        put(
            &double,
            [
                (SETTINGS, list(&[&order])),
                (
                    &order,
                    json!({ "BootOrderNext": ["Network", "Hard Disk"], "BootOrderCurrent": ["Network", "Hard Disk"] }),
                ),
            ],
        );
        let set = scene.connect(&double).await?.set_boot_order(&["hard disk".to_owned()]).await?;
        ensure(set[0].name == "Hard Disk", format!("{set:?}"))
    })
    .await;
}

#[tokio::test]
async fn lenovo_upload_claimed() {
    proves(Fact::LenovoUploadClaimed, async |scene| {
        let double = xcc(|seen, world| {
            let claimed = document(world, UPDATE)["HttpPushUriTargetsBusy"] == true;
            seen.is("POST", "/mfwupdate").then(|| Reply::empty(if claimed { 202 } else { 409 }))
        })
        .await;
        with_updates(&double, json!({ "MultipartHttpPushUri": "/mfwupdate", "HttpPushUriTargetsBusy": false }));
        let (_folder, file) = firmware_file();
        scene.connect(&double).await?.update_firmware(&file, &[]).await?;
        ensure(double.world.lock().unwrap().tree[UPDATE]["HttpPushUriTargetsBusy"] == false, "it was not given back")
    })
    .await;
}

#[tokio::test]
async fn lenovo_ac_cycle() {
    const CYCLE: &str = "/redfish/v1/Systems/1/Actions/Oem/LenovoComputerSystem.SystemReset";
    proves(Fact::LenovoAcCycle, async |scene| {
        let double = xcc(|seen, _| seen.is("POST", CYCLE).then(|| Reply::empty(204))).await;
        edit(&double, |world| {
            document(world, SYSTEM)["Actions"]["Oem"] =
                json!({ "#LenovoComputerSystem.SystemReset": { "target": CYCLE } });
        });
        scene.connect(&double).await?.set_power(PowerAction::AcCycle).await?;
        ensure(bodies(&double, "POST", CYCLE) == [json!({ "ResetType": "ACPowerCycle" })], "another action was run")
    })
    .await;
}

#[tokio::test]
async fn lenovo_firmware_prefix() {
    const LIST: &str = "/redfish/v1/UpdateService/FirmwareInventory";
    proves(Fact::LenovoFirmwarePrefix, async |scene| {
        let double = xcc(|_, _| None).await;
        with_updates(&double, json!({ "FirmwareInventory": link(LIST) }));
        let part = format!("{LIST}/BMC-Primary");
        put(
            &double,
            [
                (LIST, list(&[&part])),
                (&part, json!({ "@odata.id": part, "Id": "BMC-Primary", "Name": "BMC", "Version": "42S-2.83" })),
            ],
        );
        let found = scene.connect(&double).await?.firmware().await?;
        ensure(found[0].version == "2.83", format!("{found:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lenovo_console_command() {
    proves(Fact::LenovoConsoleCommand, async |scene| {
        let double = xcc(|_, _| None).await;
        console_shows(
            &scene,
            &double,
            json!({ "SerialConsole": { "ConnectTypesSupported": ["IPMI", "SSH"], "ServiceEnabled": true } }),
            "console 1",
        )
        .await
    })
    .await;
}
