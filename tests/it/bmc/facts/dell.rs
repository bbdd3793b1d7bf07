//! Dell iDRAC.

use bedplate::bmc::{BootTarget, FirmwareSource, PowerAction};
use bedplate::model::Secret;

use super::super::double::{SLOT, SYSTEM, behave};
use super::*;

const JOB: &str = "/redfish/v1/Managers/1/Jobs/JID_1";
const LC: &str = "/redfish/v1/Managers/1/Oem/Dell/DellLCService/Actions/DellLCService.GetRemoteServicesAPIStatus";

/// An iDRAC whose controller is ready unless the hook says otherwise.
async fn idrac(hook: impl Fn(&Seen, &mut World) -> Option<Reply> + Send + Sync + 'static) -> Double {
    let double = Double::start(move |seen, world| {
        hook(seen, world).or_else(|| seen.is("POST", LC).then(|| Reply::json(200, &json!({ "LCStatus": "Ready" }))))
    })
    .await;
    vendor(&double, "Dell");
    double
}

#[tokio::test]
async fn dell_service_tag() {
    proves(Fact::DellServiceTag, async |scene| {
        let double = idrac(|_, _| None).await;
        edit(&double, |world| document(world, SYSTEM)["SKU"] = json!("F54P1G3"));
        let found = scene.connect(&double).await?.inventory().await?;
        ensure(found.serial.as_deref() == Some("F54P1G3"), format!("{:?}", found.serial))
    })
    .await;
}

#[tokio::test]
async fn dell_old_firmware_listed() {
    const LIST: &str = "/redfish/v1/UpdateService/FirmwareInventory";
    proves(Fact::DellOldFirmwareListed, async |scene| {
        let double = idrac(|_, _| None).await;
        with_updates(&double, json!({ "FirmwareInventory": link(LIST) }));
        let entry = |id: &str, version: &str| json!({ "@odata.id": format!("{LIST}/{id}"), "Id": id, "Name": "BIOS", "Version": version });
        let ids = ["Previous-159-1.6", "Installed-159-1.8", "Available-159-1.9"].map(|id| format!("{LIST}/{id}"));
        put(&double, [
            (LIST, list(&[&ids[0], &ids[1], &ids[2]])),
            (&ids[0], entry("Previous-159-1.6", "1.6")),
            (&ids[1], entry("Installed-159-1.8", "1.8")),
            (&ids[2], entry("Available-159-1.9", "1.9")),
        ]);
        let found = scene.connect(&double).await?.firmware().await?;
        ensure(found.len() == 1 && found[0].version == "1.8", format!("{found:?}"))
    })
    .await;
}

#[tokio::test]
async fn dell_stale_inserted() {
    proves(Fact::DellStaleInserted, async |scene| {
        let stale = at_first(1, |seen| seen.path.ends_with("EjectMedia").then(|| Reply::empty(204)));
        let double = idrac(move |seen, _| stale(seen)).await;
        edit(&double, |world| document(world, SLOT)["Inserted"] = json!(true));
        Ok(scene.connect(&double).await?.eject_media().await?)
    })
    .await;
}

#[tokio::test]
async fn dell_first_slot() {
    proves(Fact::DellFirstSlot, async |scene| {
        let double = idrac(|_, _| None).await;
        let slot = |id: &str| json!({ "Id": id, "MediaTypes": ["CD"], "Inserted": false, "Image": null });
        let (first, second) = (format!("{SLOTS}/1"), format!("{SLOTS}/2"));
        put(&double, [(&first, slot("1")), (&second, slot("2")), (SLOTS, list(&[&second, &first]))]);
        scene.connect(&double).await?.insert_media(ISO).await?;
        ensure(bodies(&double, "PATCH", &first).len() == 1, "the image is in slot 2")
    })
    .await;
}

#[tokio::test]
async fn dell_late_power_on() {
    proves(Fact::DellLatePowerOn, async |scene| {
        let late = at_first(2, |seen| seen.is("POST", RESET).then(|| refusal(409, "ActionParameterValueConflict")));
        let double = idrac(move |seen, _| late(seen)).await;
        edit(&double, |world| document(world, MANAGER)["FirmwareVersion"] = json!("1.20.50.50"));
        Ok(scene.connect(&double).await?.set_power(PowerAction::On).await?)
    })
    .await;
}

#[tokio::test]
async fn dell_account_slots() {
    proves(Fact::DellAccountSlots, async |scene| {
        let double = idrac(|seen, _| seen.is("POST", ACCOUNTS).then(|| Reply::empty(405))).await;
        with_accounts(&double, &["", "root", "", ""]);
        scene.connect(&double).await?.ensure_administrator("bedplate", &Secret::new("pw")).await?;
        let sent = bodies(&double, "PATCH", &format!("{ACCOUNTS}/3"));
        let whole = json!({ "UserName": "bedplate", "Password": "pw", "RoleId": "Administrator", "Enabled": true });
        ensure(sent == [whole], format!("{sent:?}"))
    })
    .await;
}

#[tokio::test]
async fn dell_bios_at_reset() {
    proves(Fact::DellBiosAtReset, async |scene| {
        let double = idrac(|seen, _| {
            let told = seen.body["@Redfish.SettingsApplyTime"]["ApplyTime"] == "OnReset";
            (seen.is("PATCH", BIOS_SETTINGS) && !told).then(|| refusal(400, "PropertyMissing"))
        })
        .await;
        with_bios(&double, &json!({ "BootMode": "Bios", "Turbo": "On" }));
        let settings = wanted(&[("BootMode", "Uefi"), ("Turbo", "Off")]);
        scene.connect(&double).await?.set_bios(&settings).await?;
        let sent = bodies(&double, "PATCH", BIOS_SETTINGS);
        ensure(
            sent.len() == 1 && sent[0]["Attributes"] == json!({ "BootMode": "Uefi", "Turbo": "Off" }),
            "not in one change",
        )
    })
    .await;
}

#[tokio::test]
async fn dell_bios_pending_shown() {
    proves(Fact::DellBiosPendingShown, async |scene| {
        let double = idrac(|seen, world| {
            if !seen.is("PATCH", BIOS_SETTINGS) {
                return None;
            }
            // It shows what waits as though it held.
            document(world, BIOS)["Attributes"]["BootMode"] = json!("Uefi");
            Some(Reply::empty(202).with("Location", JOB))
        })
        .await;
        with_bios(&double, &json!({ "BootMode": "Bios" }));
        put(&double, [(JOB, json!({ "@odata.id": JOB, "JobState": "Scheduled" }))]);
        let bmc = scene.connect(&double).await?;
        let order = bmc.set_bios(&wanted(&[("BootMode", "Uefi")])).await?;
        ensure(bmc.bios_open(&order).await?.len() == 1, "a setting that waits counts as made")?;
        put(&double, [(JOB, json!({ "@odata.id": JOB, "JobState": "Completed" }))]);
        ensure(bmc.bios_open(&order).await?.is_empty(), "a setting that holds is still waited for")
    })
    .await;
}

#[tokio::test]
async fn dell_controller_busy() {
    proves(Fact::DellControllerBusy, async |scene| {
        let busy = at_first(2, |seen| seen.is("POST", LC).then(|| Reply::json(200, &json!({ "LCStatus": "InUse" }))));
        let double = idrac(move |seen, world| {
            let asked = world.count("POST", LC);
            if seen.is("PATCH", BIOS_SETTINGS) && asked < 3 {
                return Some(refusal(400, "RAC0679"));
            }
            busy(seen)
        })
        .await;
        with_bios(&double, &json!({ "BootMode": "Bios" }));
        Ok(scene.connect(&double).await?.set_bios(&wanted(&[("BootMode", "Uefi")])).await.map(drop)?)
    })
    .await;
}

#[tokio::test]
async fn dell_job_late() {
    proves(Fact::DellJobLate, async |scene| {
        let late = at_first(2, |seen| seen.is("GET", JOB).then(|| Reply::empty(404)));
        let double = idrac(move |seen, _| {
            late(seen).or_else(|| seen.is("PATCH", BIOS_SETTINGS).then(|| Reply::empty(202).with("Location", JOB)))
        })
        .await;
        with_bios(&double, &json!({ "BootMode": "Bios" }));
        put(&double, [(JOB, json!({ "@odata.id": JOB, "JobState": "Scheduled" }))]);
        let order = scene.connect(&double).await?.set_bios(&wanted(&[("BootMode", "Uefi")])).await?;
        ensure(order.job.as_deref() == Some(JOB), format!("{order:?}"))
    })
    .await;
}

#[tokio::test]
async fn dell_task_moves() {
    proves(Fact::DellTaskMoves, async |scene| {
        let double =
            idrac(|seen, _| seen.is("POST", SIMPLE_UPDATE).then(|| Reply::empty(202).with("Location", TASK))).await;
        with_updates(&double, json!({}));
        let moved = json!({ "TaskState": "Running", "Messages": [
            { "MessageId": "Update.1.0.OperationTransitionedToJob", "MessageArgs": ["JID_1"] }] });
        put(&double, [(TASK, moved), (JOB, json!({ "@odata.id": JOB, "JobState": "Completed", "Message": "Done." }))]);
        let source = FirmwareSource::Url("http://10.0.0.1/f".to_owned());
        let update = scene.connect(&double).await?.update_firmware(&source, &[]).await?;
        ensure(update.messages == ["Done."], format!("{update:?}"))
    })
    .await;
}

#[tokio::test]
async fn dell_oem_in_upload() {
    proves(Fact::DellOemInUpload, async |scene| {
        let double = idrac(|seen, _| {
            let whole = holds(&seen.raw, "\"Oem\":{}");
            seen.path
                .ends_with("MultipartUpload")
                .then(|| if whole { Reply::empty(202) } else { refusal(400, "SYS403") })
        })
        .await;
        with_updates(&double, json!({ "MultipartHttpPushUri": format!("{UPDATE}/MultipartUpload") }));
        let (_folder, file) = firmware_file();
        let update = scene.connect(&double).await?.update_firmware(&file, &[]).await?;
        ensure(update.way == "upload", update.way)
    })
    .await;
}

#[tokio::test]
async fn dell_cd_by_profile() {
    const IMPORT: &str = "/redfish/v1/Managers/1/Actions/Oem/EID_674_Manager.ImportSystemConfiguration";
    proves(Fact::DellCdByProfile, async |scene| {
        let double = idrac(|seen, _| {
            if seen.is("PATCH", SYSTEM) {
                return Some(Reply::empty(204));
            }
            seen.is("POST", IMPORT).then(|| Reply::empty(202).with("Location", JOB))
        })
        .await;
        edit(&double, |world| document(world, MANAGER)["FirmwareVersion"] = json!("5.10.50.00"));
        put(&double, [(JOB, json!({ "JobState": "Completed" }))]);
        scene.connect(&double).await?.set_boot(BootTarget::Cd).await?;
        let sent = bodies(&double, "POST", IMPORT);
        let profile = sent[0]["ImportBuffer"].as_str().unwrap_or_default();
        ensure(profile.contains("VCD-DVD") && !profile.contains("> "), profile)
    })
    .await;
}

#[tokio::test]
async fn dell_http_boot_in_bios() {
    const URI: &str = "http://10.0.0.1/boot.efi";
    proves(Fact::DellHttpBootInBios, async |scene| {
        let double = idrac(|_, _| None).await;
        with_bios(&double, &json!({ "HttpDev1EnDis": "Disabled", "HttpDev1Uri": "", "HttpDev1Protocol": "IPv4" }));
        edit(&double, |world| {
            document(world, SYSTEM)["Boot"]["BootSourceOverrideTarget@Redfish.AllowableValues"] =
                json!(["None", "Cd", "UefiHttp"]);
        });
        scene.connect(&double).await?.set_http_boot(URI).await?;
        let sent = bodies(&double, "PATCH", BIOS_SETTINGS);
        ensure(sent[0]["Attributes"] == json!({ "HttpDev1EnDis": "Enabled", "HttpDev1Uri": URI }), format!("{sent:?}"))
    })
    .await;
}

#[tokio::test]
async fn dell_no_date() {
    const LOGS: &str = "/redfish/v1/Managers/1/LogServices";
    proves(Fact::DellNoDate, async |scene| {
        let double = idrac(|_, _| None).await;
        edit(&double, |world| document(world, MANAGER)["LogServices"] = link(LOGS));
        let entry = |time: &str| json!({ "Created": time, "Severity": "OK", "Message": "Reset." });
        let (log, entries) = (format!("{LOGS}/Sel"), format!("{LOGS}/Sel/Entries"));
        put(
            &double,
            [
                (LOGS, list(&[&log])),
                (&log, json!({ "Entries": link(&entries) })),
                (&entries, json!({ "Members": [entry("0000-00-00T00:00:00Z"), entry("2026-01-02T03:04:05Z")] })),
            ],
        );
        let found = scene.connect(&double).await?.log(None, 10).await?;
        let times: Vec<_> = found.iter().map(|entry| entry.time.as_deref()).collect();
        ensure(times == [Some("2026-01-02T03:04:05Z"), None], format!("{times:?}"))
    })
    .await;
}

/// What is not a fact of its own: a change of the BIOS that the double refuses leaves an error in its words.
#[tokio::test]
async fn a_refused_setting_is_quoted() {
    let double = idrac(|seen, world| {
        seen.is("PATCH", BIOS_SETTINGS).then(|| {
            behave(seen, world);
            refusal(400, "SYS410")
        })
    })
    .await;
    with_bios(&double, &json!({ "BootMode": "Bios" }));
    let scene = Scene { without: Facts::default() };
    let bmc = scene.connect(&double).await.unwrap();
    let error = bmc.set_bios(&wanted(&[("BootMode", "Uefi")])).await.unwrap_err();
    assert!(error.to_string().contains("Not now."), "{error}");
    let error = bmc.set_bios(&wanted(&[("NoSuchThing", "1")])).await.unwrap_err();
    assert!(error.to_string().contains("NoSuchThing"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dell_console_command() {
    proves(Fact::DellConsoleCommand, async |scene| {
        let double = idrac(|_, _| None).await;
        console_shows(
            &scene,
            &double,
            json!({
                "SerialConsole": { "ConnectTypesSupported": [], "ServiceEnabled": false },
                "CommandShell": { "ConnectTypesSupported": ["SSH", "IPMI"], "ServiceEnabled": true },
            }),
            "console com2",
        )
        .await
    })
    .await;
}
