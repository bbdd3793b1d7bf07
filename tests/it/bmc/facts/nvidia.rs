//! NVIDIA's own BMCs, AMI MegaRAC, from which some of them come, and the emulator of the lab.

use std::time::Duration;

use bedplate::bmc::BootTarget;

use super::super::double::{SYSTEM, behave};
use super::lenovo::hurried;
use super::*;

const LIST: &str = "/redfish/v1/UpdateService/FirmwareInventory";
const INSERT: &str = "/redfish/v1/Managers/1/VirtualMedia/CD/Actions/VirtualMedia.InsertMedia";

async fn made_by(name: &str, hook: impl Fn(&Seen, &mut World) -> Option<Reply> + Send + Sync + 'static) -> Double {
    let double = Double::start(hook).await;
    vendor(&double, name);
    double
}

#[tokio::test]
async fn ami_star_etag() {
    proves(Fact::AmiStarEtag, async |scene| {
        let double = made_by("AMI", |seen, world| {
            if seen.is("GET", SYSTEM) {
                return Some(behave(seen, world).with("ETag", "\"1720039110\""));
            }
            (seen.is("PATCH", SYSTEM) && seen.header("if-match") != Some("*")).then(|| Reply::empty(412))
        })
        .await;
        scene.connect(&double).await?.set_boot(BootTarget::Cd).await?;
        let sent = double.world.lock().unwrap().count("PATCH", SYSTEM);
        ensure(sent == 1, format!("it took {sent} tries"))
    })
    .await;
}

#[tokio::test]
async fn ami_slow_firmware_list() {
    proves(Fact::AmiSlowFirmwareList, async |scene| {
        let double = made_by("AMI", |seen, world| {
            seen.is("GET", LIST).then(|| Reply::Late(Duration::from_millis(900), Box::new(behave(seen, world))))
        })
        .await;
        with_updates(&double, json!({ "FirmwareInventory": link(LIST) }));
        put(&double, [(LIST, list(&[]))]);
        Ok(hurried(&scene, &double).await?.firmware().await.map(drop)?)
    })
    .await;
}

#[tokio::test]
async fn ami_upload_unlisted() {
    proves(Fact::AmiUploadUnlisted, async |scene| {
        let double =
            made_by("AMI", |seen, _| seen.is("POST", &format!("{UPDATE}/upload")).then(|| Reply::empty(202))).await;
        with_updates(&double, json!({}));
        let (_folder, file) = firmware_file();
        let update = scene.connect(&double).await?.update_firmware(&file, &[]).await?;
        ensure(update.way == "upload", update.way)
    })
    .await;
}

#[tokio::test]
async fn nvidia_media_user() {
    proves(Fact::NvidiaMediaUser, async |scene| {
        let double = made_by("NVIDIA", |seen, _| {
            (seen.is("POST", INSERT) && seen.body["UserName"] != "none").then(|| refusal(400, "PropertyMissing"))
        })
        .await;
        Ok(scene.connect(&double).await?.insert_media(ISO).await?)
    })
    .await;
}

#[tokio::test]
async fn nvidia_boot_staged() {
    const SETTINGS: &str = "/redfish/v1/Systems/1/Settings";
    proves(Fact::NvidiaBootStaged, async |scene| {
        let double = made_by("NVIDIA", |seen, _| seen.is("PATCH", SYSTEM).then(|| Reply::empty(405))).await;
        edit(&double, |world| {
            let system = document(world, SYSTEM);
            system["Boot"]["BootOrder"] = json!(["Boot0001", "Boot0002"]);
            system["@Redfish.Settings"] = json!({ "SettingsObject": link(SETTINGS) });
            *document(world, SETTINGS) = json!({ "Boot": { "BootOrder": ["Boot0001", "Boot0002"] } });
        });
        let set = scene.connect(&double).await?.set_boot_order(&["Boot0002".to_owned()]).await?;
        ensure(set[0].reference == "Boot0002", format!("{set:?}"))
    })
    .await;
}

#[tokio::test]
async fn nvidia_version_prefix() {
    proves(Fact::NvidiaVersionPrefix, async |scene| {
        let double = made_by("NVIDIA", |_, _| None).await;
        edit(&double, |world| document(world, MANAGER)["FirmwareVersion"] = json!("GB200Nvl-24.12-8"));
        let found = scene.connect(&double).await?.inventory().await?;
        ensure(found.manager.firmware_version.as_deref() == Some("24.12-8"), format!("{:?}", found.manager))
    })
    .await;
}

#[tokio::test]
async fn nvidia_attribute_spaces() {
    proves(Fact::NvidiaAttributeSpaces, async |scene| {
        let double = made_by("NVIDIA", |_, _| None).await;
        with_bios(&double, &json!({ "Internal CPU Model": "Embedded" }));
        let order = scene.connect(&double).await?.set_bios(&wanted(&[("InternalCPUModel", "Separated")])).await?;
        ensure(order.changes[0].name == "Internal CPU Model", format!("{order:?}"))
    })
    .await;
}

#[tokio::test]
async fn nvidia_lockout_four() {
    proves(Fact::NvidiaLockoutFour, async |scene| {
        let double = made_by("NVIDIA", |seen, _| {
            let none = seen.body["AccountLockoutThreshold"] == 0;
            (seen.is("PATCH", "/redfish/v1/AccountService") && none).then(|| refusal(400, "PropertyValueOutOfRange"))
        })
        .await;
        with_accounts(&double, &["root"]);
        let set = scene.connect(&double).await?.set_lockout(0).await?;
        ensure(set == 4, format!("{set}"))
    })
    .await;
}

#[tokio::test]
async fn sushy_keeps_boot() {
    proves(Fact::SushyKeepsBoot, async |scene| {
        let double = Double::start(|_, _| None).await;
        edit(&double, |world| document(world, ROOT)["Name"] = json!("Redvirt Service"));
        let refused = scene.connect(&double).await?.set_boot(BootTarget::None).await.err();
        ensure(refused.is_some() && bodies(&double, "PATCH", SYSTEM).is_empty(), "it was sent")
    })
    .await;
}
