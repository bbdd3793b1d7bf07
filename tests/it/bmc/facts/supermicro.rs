//! Supermicro.

use bedplate::bmc::{BootTarget, Kept};

use super::super::double::{SLOT, SYSTEM, behave};
use super::*;

const EJECT: &str = "/redfish/v1/Managers/1/VirtualMedia/CD/Actions/VirtualMedia.EjectMedia";

async fn supermicro(hook: impl Fn(&Seen, &mut World) -> Option<Reply> + Send + Sync + 'static) -> Double {
    let double = Double::start(hook).await;
    edit(&double, |world| {
        document(world, SYSTEM)["Manufacturer"] = json!("Supermicro");
        document(world, SYSTEM)["Boot"]["BootSourceOverrideTarget@Redfish.AllowableValues"] =
            json!(["None", "Cd", "UsbCd", "Hdd", "UefiBootNext"]);
    });
    double
}

#[tokio::test]
async fn supermicro_usb_cd() {
    proves(Fact::SupermicroUsbCd, async |scene| {
        // Any other name is taken, and silently dropped.
        let double = supermicro(|seen, _| {
            let other = seen.body["Boot"]["BootSourceOverrideTarget"] != "UsbCd";
            (seen.is("PATCH", SYSTEM) && other).then(|| Reply::empty(200))
        })
        .await;
        let kept = scene.connect(&double).await?.set_boot(BootTarget::Cd).await?;
        let sent = bodies(&double, "PATCH", SYSTEM);
        let whole = json!({ "BootSourceOverrideTarget": "UsbCd", "BootSourceOverrideEnabled": "Once",
            "BootSourceOverrideMode": "UEFI" });
        ensure(kept == Kept::Once && sent == [json!({ "Boot": whole })], format!("{sent:?}"))
    })
    .await;
}

#[tokio::test]
async fn supermicro_other_name() {
    proves(Fact::SupermicroOtherName, async |scene| {
        let double = supermicro(|seen, world| {
            if !seen.is("PATCH", SYSTEM) {
                return None;
            }
            behave(seen, world);
            document(world, SYSTEM)["Boot"]["BootSourceOverrideTarget"] = json!("UefiBootNext");
            Some(Reply::json(200, &json!({ "Success": { "code": "Base.v1_4_0.Success" } })))
        })
        .await;
        Ok(scene.connect(&double).await?.set_boot(BootTarget::Hdd).await.map(drop)?)
    })
    .await;
}

#[tokio::test]
async fn supermicro_oem_eject() {
    proves(Fact::SupermicroOemEject, async |scene| {
        let double = supermicro(|seen, _| seen.is("PATCH", SLOT).then(|| Reply::empty(405))).await;
        edit(&double, |world| {
            let slot = document(world, SLOT);
            let eject = slot["Actions"]["#VirtualMedia.EjectMedia"].take();
            slot["Actions"].as_object_mut().unwrap().remove("#VirtualMedia.EjectMedia");
            slot["Actions"]["Oem"] = json!({ "#SmcVirtualMedia.EjectMedia": eject });
            (slot["Inserted"], slot["Image"]) = (json!(true), json!("http://10.0.0.1/other.iso"));
        });
        let bmc = scene.connect(&double).await?;
        bmc.eject_media().await?;
        ensure(bodies(&double, "POST", EJECT).len() == 1, "the action was not run")
    })
    .await;
}

#[tokio::test]
async fn supermicro_idle_slot() {
    proves(Fact::SupermicroIdleSlot, async |scene| {
        let double = supermicro(|seen, world| {
            if seen.is("POST", EJECT) {
                return Some(refusal(400, "NoMediaToEject"));
            }
            if seen.path.ends_with("InsertMedia") {
                document(world, SLOT)["ConnectedVia"] = json!("URI");
            }
            None
        })
        .await;
        edit(&double, |world| {
            let slot = document(world, SLOT);
            slot["ConnectedVia"] = json!("NotConnected");
            (slot["Inserted"], slot["Image"]) = (json!(true), json!("/old.iso"));
        });
        Ok(scene.connect(&double).await?.insert_media(ISO).await?)
    })
    .await;
}

#[tokio::test]
async fn supermicro_bios_in_place() {
    proves(Fact::SupermicroBiosInPlace, async |scene| {
        let double = supermicro(|seen, world| {
            if seen.is("PATCH", BIOS) {
                document(world, BIOS_SETTINGS)["Attributes"] = seen.body["Attributes"].clone();
                return Some(Reply::empty(200));
            }
            seen.is("PATCH", BIOS_SETTINGS).then(|| Reply::empty(405))
        })
        .await;
        with_bios(&double, &json!({ "QuietBoot_002D": true }));
        let order = scene.connect(&double).await?.set_bios(&wanted(&[("QuietBoot_002D", "false")])).await?;
        ensure(order.changes.len() == 1, "nothing changed")
    })
    .await;
}

#[tokio::test]
async fn supermicro_attribute_suffix() {
    proves(Fact::SupermicroAttributeSuffix, async |scene| {
        let double = supermicro(|_, _| None).await;
        with_bios(&double, &json!({ "QuietBoot_002D": true, "QuietBootMode_00F7": "Text" }));
        let order = scene.connect(&double).await?.set_bios(&wanted(&[("QuietBoot", "true")])).await?;
        ensure(order.changes.is_empty(), "it holds already")?;
        scene.connect(&double).await?.set_bios(&wanted(&[("QuietBootMode", "Logo")])).await?;
        let sent = bodies(&double, "PATCH", BIOS);
        ensure(sent == [json!({ "Attributes": { "QuietBootMode_00F7": "Logo" } })], format!("{sent:?}"))
    })
    .await;
}

#[tokio::test]
async fn supermicro_fixed_boot_order() {
    const FIXED: &str = "/redfish/v1/Systems/1/Oem/Supermicro/FixedBootOrder";
    proves(Fact::SupermicroFixedBootOrder, async |scene| {
        let double = supermicro(|seen, _| seen.is("PATCH", SYSTEM).then(|| refusal(400, "PropertyUnknown"))).await;
        edit(&double, |world| document(world, SYSTEM)["Boot"]["BootOrder"] = json!(["Boot0001", "Boot0002"]));
        put(
            &double,
            [
                ("/redfish/v1/Systems/1/BootOptions", list(&["/redfish/v1/Systems/1/BootOptions/1"])),
                (
                    "/redfish/v1/Systems/1/BootOptions/1",
                    json!({ "BootOptionReference": "Boot0002", "DisplayName": "UEFI Hard Disk" }),
                ),
                (FIXED, json!({ "FixedBootOrder": ["UEFI Network", "UEFI Hard Disk", "Disabled"] })),
            ],
        );
        edit(&double, |world| {
            document(world, SYSTEM)["Boot"]["BootOptions"] = link("/redfish/v1/Systems/1/BootOptions");
        });
        let set = scene.connect(&double).await?.set_boot_order(&["hard disk".to_owned()]).await?;
        ensure(set[0].name == "UEFI Hard Disk" && set.len() == 3, format!("{set:?}"))
    })
    .await;
}

#[tokio::test]
async fn supermicro_keeps_settings() {
    proves(Fact::SupermicroKeepsSettings, async |scene| {
        let double = supermicro(|seen, _| {
            let keeps = holds(&seen.raw, "\"PreserveNVRAM\":true");
            seen.path.ends_with("/upload").then(|| Reply::empty(if keeps { 202 } else { 400 }))
        })
        .await;
        with_updates(&double, json!({ "MultipartHttpPushUri": format!("{UPDATE}/upload") }));
        let (_folder, file) = firmware_file();
        let targets = [BIOS.to_owned()];
        Ok(scene.connect(&double).await?.update_firmware(&file, &targets).await.map(drop)?)
    })
    .await;
}

#[tokio::test]
async fn supermicro_update_started() {
    const START: &str = "/redfish/v1/UpdateService/Actions/UpdateService.StartUpdate";
    proves(Fact::SupermicroUpdateStarted, async |scene| {
        let double = supermicro(|seen, _| {
            if seen.path.ends_with("/upload") {
                let waits = holds(&seen.raw, "OnStartUpdateRequest");
                return Some(Reply::empty(if waits { 202 } else { 400 }));
            }
            seen.is("POST", START).then(|| Reply::empty(202).with("Location", TASK))
        })
        .await;
        with_updates(
            &double,
            json!({ "MultipartHttpPushUri": format!("{UPDATE}/upload"),
                "MultipartHttpPushUri@Redfish.OperationApplyTimeSupport": { "SupportedValues": ["OnStartUpdateRequest"] },
                "Actions": { "#UpdateService.StartUpdate": { "target": START } } }),
        );
        put(&double, [(TASK, json!({ "TaskState": "Completed", "Messages": [{ "Message": "Started." }] }))]);
        let (_folder, file) = firmware_file();
        let update = scene.connect(&double).await?.update_firmware(&file, &[]).await?;
        ensure(update.messages == ["Started."], format!("{update:?}"))
    })
    .await;
}

#[tokio::test]
async fn supermicro_licence() {
    const SECURE_BOOT: &str = "/redfish/v1/Systems/1/SecureBoot";
    proves(Fact::SupermicroLicence, async |scene| {
        let double = supermicro(|seen, _| {
            let hidden = seen.is("GET", SECURE_BOOT) || seen.is("POST", SIMPLE_UPDATE);
            hidden.then(|| refusal(403, "OemLicenseNotPassed"))
        })
        .await;
        edit(&double, |world| document(world, SYSTEM)["SecureBoot"] = link(SECURE_BOOT));
        with_updates(&double, json!({}));
        let bmc = scene.connect(&double).await?;
        ensure(bmc.secure_boot().await?.enabled.is_none(), "what is hidden counts as known")?;
        let source = bedplate::bmc::FirmwareSource::Url("http://10.0.0.1/f".to_owned());
        let error = bmc.update_firmware(&source, &[]).await.err().ok_or("it was obeyed")?;
        ensure(error.hint().contains("SFT-OOB-LIC"), error.hint())
    })
    .await;
}
