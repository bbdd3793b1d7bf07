//! What holds for every BMC.

use std::io::Write as _;
use std::sync::Mutex;

use bedplate::bmc::{BootTarget, FirmwareSource, Kept, Noted, Pins, PowerAction, change_first_password};
use bedplate::model::Secret;

use super::super::double::{SESSIONS, SLOT, SYSTEM, behave};
use super::*;

const INSERT: &str = "/redfish/v1/Managers/1/VirtualMedia/CD/Actions/VirtualMedia.InsertMedia";

/// A service that shows this ETag and takes only what `taken` allows.
async fn tagged(tag: &'static str, in_body: Option<&'static str>, taken: fn(Option<&str>) -> bool) -> Double {
    let double = Double::start(move |seen, world| {
        if seen.is("GET", SYSTEM) {
            let answer = behave(seen, world);
            return Some(if tag.is_empty() { answer } else { answer.with("ETag", tag) });
        }
        (seen.is("PATCH", SYSTEM) && !taken(seen.header("if-match"))).then(|| Reply::empty(412))
    })
    .await;
    if let Some(tag) = in_body {
        edit(&double, |world| document(world, SYSTEM)["@odata.etag"] = json!(tag));
    }
    double
}

async fn boots(scene: &Scene, double: &Double) -> Ended {
    let bmc = scene.connect(double).await?;
    let outcome = bmc.set_boot(BootTarget::Cd).await;
    bmc.close().await;
    Ok(outcome.map(drop)?)
}

#[tokio::test]
async fn any_weak_etag() {
    proves(Fact::WeakEtag, async |scene| {
        boots(&scene, &tagged("W/\"abc\"", None, |tag| tag == Some("\"abc\"")).await).await
    })
    .await;
}

#[tokio::test]
async fn any_etag_in_body() {
    proves(Fact::EtagInBody, async |scene| {
        boots(&scene, &tagged("", Some("\"body\""), |tag| tag == Some("\"body\"")).await).await
    })
    .await;
}

#[tokio::test]
async fn any_empty_etag() {
    proves(Fact::EmptyEtag, async |scene| {
        boots(&scene, &tagged("\"\"", Some("\"real\""), |tag| tag == Some("\"real\"")).await).await
    })
    .await;
}

#[tokio::test]
async fn any_etag_unwanted() {
    proves(Fact::EtagUnwanted, async |scene| boots(&scene, &tagged("\"abc\"", None, |tag| tag.is_none()).await).await)
        .await;
}

#[tokio::test]
async fn any_etag_demanded() {
    proves(Fact::EtagDemanded, async |scene| {
        let double = Double::start(|seen, world| {
            let patched = world.count("PATCH", SYSTEM) > 0;
            if seen.is("GET", SYSTEM) && patched {
                return Some(behave(seen, world).with("ETag", "\"now\""));
            }
            (seen.is("PATCH", SYSTEM) && seen.header("if-match") != Some("\"now\"")).then(|| Reply::empty(428))
        })
        .await;
        boots(&scene, &double).await
    })
    .await;
}

#[tokio::test]
async fn any_not_ready_yet() {
    proves(Fact::NotReadyYet, async |scene| {
        let busy = at_first(2, |seen| seen.is("POST", RESET).then(|| refusal(503, "SYS518")));
        let double = Double::start(move |seen, _| busy(seen)).await;
        Ok(scene.connect(&double).await?.set_power(PowerAction::On).await?)
    })
    .await;
}

#[tokio::test]
async fn any_connection_dropped() {
    proves(Fact::ConnectionDropped, async |scene| {
        let broken = at_first(1, |seen| seen.is("GET", SYSTEM).then_some(Reply::Hang));
        let double = Double::start(move |seen, _| broken(seen)).await;
        Ok(scene.connect(&double).await.map(drop)?)
    })
    .await;
}

#[tokio::test]
async fn any_read_fails() {
    proves(Fact::ReadFails, async |scene| {
        let fails = at_first(1, |seen| seen.is("GET", SYSTEM).then(|| Reply::empty(500)));
        let double = Double::start(move |seen, _| fails(seen)).await;
        Ok(scene.connect(&double).await.map(drop)?)
    })
    .await;
}

#[tokio::test]
async fn any_session_expires() {
    proves(Fact::SessionExpires, async |scene| {
        let double = Double::start(|_, _| None).await;
        let bmc = scene.connect(&double).await?;
        edit(&double, |world| world.tokens.clear());
        Ok(bmc.set_power(PowerAction::On).await?)
    })
    .await;
}

#[tokio::test]
async fn any_sessions_full() {
    proves(Fact::SessionsFull, async |scene| {
        let double = Double::start(|seen, world| {
            if seen.is("POST", SESSIONS) {
                return Some(refusal(503, "RAC0218"));
            }
            let path = seen.path.trim_end_matches('/');
            seen.header("authorization")?;
            world.tree.get(path).map(|document| Reply::json(200, document))
        })
        .await;
        Ok(scene.connect(&double).await.map(drop)?)
    })
    .await;
}

/// Pins that know of a session which another process left behind.
#[derive(Default)]
struct LeftBehind(MemoryPins, Mutex<Vec<String>>);

impl Pins for LeftBehind {
    fn known(&self, authority: &str) -> Option<[u8; 32]> {
        self.0.known(authority)
    }

    fn remember(&self, authority: &str, pin: [u8; 32]) -> Result<(), BmcError> {
        self.0.remember(authority, pin)
    }

    fn session_ended(&self, _: &str, place: &str) {
        self.1.lock().unwrap().push(place.to_owned());
    }

    fn sessions_noted(&self, _: &str) -> Noted {
        Noted { left: vec![format!("{SESSIONS}/77"), format!("{SESSIONS}/78")], ..Noted::default() }
    }
}

#[tokio::test]
async fn any_session_left_behind() {
    proves(Fact::SessionLeftBehind, async |scene| {
        // Another's, which has the number of one that was left behind before the BMC was restarted.
        let double = Double::start(|seen, _| {
            let whose = [("77", "admin"), ("78", "somebody else")];
            let found = whose.iter().find(|(number, _)| seen.is("GET", &format!("{SESSIONS}/{number}")))?;
            Some(Reply::json(200, &json!({ "UserName": found.1 })))
        })
        .await;
        let pins = Arc::new(LeftBehind::default());
        let mut target = double.target();
        target.without = scene.without;
        let bmc = Bmc::connect_with(&target, pins.clone(), hasty()).await?;
        bmc.close().await;
        let deleted = double.world.lock().unwrap().count("DELETE", &format!("{SESSIONS}/77"));
        ensure(deleted == 1, "the session was not deleted")?;
        let strange = double.world.lock().unwrap().count("DELETE", &format!("{SESSIONS}/78"));
        ensure(strange == 0, "somebody else's session was deleted")?;
        ensure(pins.1.lock().unwrap().contains(&format!("{SESSIONS}/77")), "it was not forgotten")
    })
    .await;
}

/// Pins of a process that was killed before a session that it asked for was answered; another of the same user runs.
#[derive(Default)]
struct Unnamed(MemoryPins, Mutex<bool>);

impl Pins for Unnamed {
    fn known(&self, authority: &str) -> Option<[u8; 32]> {
        self.0.known(authority)
    }

    fn remember(&self, authority: &str, pin: [u8; 32]) -> Result<(), BmcError> {
        self.0.remember(authority, pin)
    }

    fn sessions_noted(&self, _: &str) -> Noted {
        Noted { held: vec![format!("{SESSIONS}/76")], unnamed: true, ..Noted::default() }
    }

    fn sessions_unnamed_ended(&self, _: &str) {
        *self.1.lock().unwrap() = true;
    }
}

#[tokio::test]
async fn any_session_unnamed() {
    proves(Fact::SessionUnnamed, async |scene| {
        // One that runs, the one that was lost, one from elsewhere, and one of somebody else.
        let all = [
            ("76", "admin", "10.0.0.1"),
            ("77", "admin", "10.0.0.1"),
            ("78", "admin", "10.0.0.2"),
            ("79", "somebody else", "10.0.0.1"),
        ];
        let double = Double::start(move |seen, world| {
            if seen.is("GET", SESSIONS) {
                let own = format!("{SESSIONS}/{}", world.made);
                let places = all.iter().map(|(number, ..)| format!("{SESSIONS}/{number}"));
                let places: Vec<String> = places.chain([own]).collect();
                return Some(Reply::json(200, &list(&places.iter().map(String::as_str).collect::<Vec<_>>())));
            }
            let number = seen.path.strip_prefix(SESSIONS)?.strip_prefix('/')?;
            let own = number == world.made.to_string();
            let found = all.iter().find(|session| session.0 == number).copied();
            let (_, user, from) = found.or(own.then_some(("", "admin", "10.0.0.1")))?;
            let shown = json!({ "UserName": user, "ClientOriginIPAddress": from });
            (seen.method == "GET").then(|| Reply::json(200, &shown))
        })
        .await;
        let pins = Arc::new(Unnamed::default());
        let mut target = double.target();
        target.without = scene.without;
        let bmc = Bmc::connect_with(&target, pins.clone(), hasty()).await?;
        let deleted = |number: &str| double.world.lock().unwrap().count("DELETE", &format!("{SESSIONS}/{number}"));
        ensure(deleted("77") == 1, "the lost session was not deleted")?;
        for number in ["76", "78", "79"] {
            ensure(deleted(number) == 0, format!("session {number} was deleted"))?;
        }
        bmc.close().await;
        ensure(*pins.1.lock().unwrap(), "it is looked for again and again")
    })
    .await;
}

#[tokio::test]
async fn any_info_as_object() {
    proves(Fact::InfoAsObject, async |scene| {
        let double = Double::start(|seen, _| {
            let info =
                json!({ "MessageId": "Base.1.0.Odd", "Message": "The door is open.", "Resolution": "Close it." });
            seen.is("POST", RESET).then(|| {
                Reply::json(
                    400,
                    &json!({ "error": { "@Message.ExtendedInfo": info, "code": "Base.1.0.GeneralError" } }),
                )
            })
        })
        .await;
        let error = scene.connect(&double).await?.set_power(PowerAction::On).await.err().ok_or("it was obeyed")?;
        ensure(error.hint().contains("Close it."), error.hint())
    })
    .await;
}

#[tokio::test]
async fn any_body_demanded() {
    proves(Fact::BodyDemanded, async |scene| {
        let double = Double::start(|seen, _| {
            (seen.path.ends_with("EjectMedia") && !seen.body.is_object()).then(|| Reply::empty(415))
        })
        .await;
        edit(&double, |world| document(world, SLOT)["Inserted"] = json!(true));
        Ok(scene.connect(&double).await?.eject_media().await?)
    })
    .await;
}

#[tokio::test]
async fn any_boot_staged() {
    const STAGED: &str = "/redfish/v1/Systems/1/SD";
    proves(Fact::BootStaged, async |scene| {
        let double = Double::start(|seen, _| seen.is("PATCH", SYSTEM).then(|| Reply::empty(405))).await;
        edit(&double, |world| {
            let boot = document(world, SYSTEM)["Boot"].clone();
            document(world, SYSTEM)["@Redfish.Settings"] = json!({ "SettingsObject": link(STAGED) });
            *document(world, STAGED) = json!({ "Boot": boot });
        });
        let kept = scene.connect(&double).await?.set_boot(BootTarget::Cd).await?;
        ensure(kept == Kept::Once && bodies(&double, "PATCH", STAGED).len() == 1, "it was not staged")
    })
    .await;
}

#[tokio::test]
async fn any_null_members() {
    proves(Fact::NullMembers, async |scene| {
        let double = Double::start(|_, _| None).await;
        put(&double, [("/redfish/v1/Systems/1/EthernetInterfaces", json!({ "Members": null }))]);
        let found = scene.connect(&double).await?.inventory().await?;
        ensure(!found.gaps.iter().any(|gap| gap.contains("unreadable")), found.gaps.join("; "))
    })
    .await;
}

#[tokio::test]
async fn any_success_without_json() {
    proves(Fact::SuccessWithoutJson, async |scene| {
        let double = Double::start(|seen, world| {
            if !seen.is("PATCH", SYSTEM) {
                return None;
            }
            behave(seen, world);
            Some(Reply::Say { status: 200, headers: vec![], body: b"<html>Done.</html>".to_vec() })
        })
        .await;
        boots(&scene, &double).await
    })
    .await;
}

#[tokio::test]
async fn any_task_unnamed() {
    proves(Fact::TaskUnnamed, async |scene| {
        let double = Double::start(|seen, world| {
            if !seen.is("PATCH", BIOS_SETTINGS) {
                return None;
            }
            behave(seen, world);
            Some(Reply::empty(202))
        })
        .await;
        with_bios(&double, &json!({ "Quiet": true }));
        let order = scene.connect(&double).await?.set_bios(&wanted(&[("Quiet", "false")])).await?;
        ensure(order.changes.len() == 1 && order.job.is_none(), "nothing changed")
    })
    .await;
}

#[tokio::test]
async fn any_critical_completion() {
    proves(Fact::CriticalCompletion, async |scene| {
        let double =
            Double::start(|seen, _| seen.is("POST", SIMPLE_UPDATE).then(|| Reply::empty(202).with("Location", TASK)))
                .await;
        with_updates(&double, json!({}));
        let ended = json!({ "TaskState": "Completed", "TaskStatus": "Critical",
            "Messages": [{ "Message": "The image is for another machine." }] });
        put(&double, [(TASK, ended)]);
        let bmc = scene.connect(&double).await?;
        let outcome = bmc.update_firmware(&FirmwareSource::Url("http://10.0.0.1/f".to_owned()), &[]).await;
        let error = outcome.err().ok_or("it counts as updated")?;
        ensure(error.to_string().contains("for another machine"), error.to_string())
    })
    .await;
}

#[tokio::test]
async fn any_restart_missing() {
    proves(Fact::RestartMissing, async |scene| {
        let double = Double::start(|_, _| None).await;
        edit(&double, |world| {
            let system = document(world, SYSTEM);
            system["PowerState"] = json!("On");
            system["Actions"]["#ComputerSystem.Reset"]["ResetType@Redfish.AllowableValues"] = json!(["On", "ForceOff"]);
        });
        scene.connect(&double).await?.set_power(PowerAction::ForceRestart).await?;
        let sent = bodies(&double, "POST", RESET);
        ensure(sent == [json!({ "ResetType": "ForceOff" }), json!({ "ResetType": "On" })], format!("{sent:?}"))
    })
    .await;
}

#[tokio::test]
async fn any_reset_types_linked() {
    const INFO: &str = "/redfish/v1/Systems/1/ResetActionInfo";
    proves(Fact::ResetTypesLinked, async |scene| {
        let double = Double::start(|seen, world| {
            if !seen.is("POST", RESET) {
                return None;
            }
            if seen.body["ResetType"] != "ForceOn" {
                return Some(refusal(400, "ActionParameterNotSupported"));
            }
            document(world, SYSTEM)["PowerState"] = json!("On");
            Some(Reply::empty(204))
        })
        .await;
        edit(&double, |world| {
            document(world, SYSTEM)["Actions"]["#ComputerSystem.Reset"] =
                json!({ "target": RESET, "@Redfish.ActionInfo": INFO });
            *document(world, INFO) =
                json!({ "Parameters": [{ "Name": "ResetType", "AllowableValues": ["ForceOn", "ForceOff"] }] });
        });
        Ok(scene.connect(&double).await?.set_power(PowerAction::On).await?)
    })
    .await;
}

#[tokio::test]
async fn any_compression_demanded() {
    proves(Fact::CompressionDemanded, async |scene| {
        let double = Double::start(|seen, world| {
            if !seen.is("GET", SYSTEM) {
                return None;
            }
            if seen.header("accept-encoding") != Some("gzip") {
                return Some(Reply::empty(406));
            }
            let mut packer = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
            packer.write_all(world.tree[SYSTEM].to_string().as_bytes()).unwrap();
            Some(
                Reply::Say { status: 200, headers: vec![], body: packer.finish().unwrap() }
                    .with("Content-Encoding", "gzip"),
            )
        })
        .await;
        Ok(scene.connect(&double).await.map(drop)?)
    })
    .await;
}

#[tokio::test]
async fn any_password_blocked() {
    const ACCOUNT: &str = "/redfish/v1/AccountService/Accounts/1";
    proves(Fact::PasswordBlocked, async |scene| {
        let changed = std::sync::atomic::AtomicBool::new(false);
        let double = Double::start(move |seen, _| {
            if seen.is("PATCH", ACCOUNT) {
                changed.store(seen.body["Password"] == "a new one", Ordering::SeqCst);
                return Some(Reply::empty(204));
            }
            let info = json!([{ "MessageId": "Base.1.8.PasswordChangeRequired", "MessageArgs": [ACCOUNT],
                "Message": "Change it first." }]);
            let blocked = seen.method == "GET" && seen.path.trim_end_matches('/') != ROOT;
            (blocked && !changed.load(Ordering::SeqCst))
                .then(|| Reply::json(403, &json!({ "error": { "@Message.ExtendedInfo": info } })))
        })
        .await;
        let mut target = double.target();
        target.without = scene.without;
        let pins = Arc::new(MemoryPins::default());
        let had_to = change_first_password(&target, &Secret::new("a new one"), pins, hasty()).await?;
        ensure(had_to, "it was not changed")?;
        Ok(scene.connect(&double).await.map(drop)?)
    })
    .await;
}

#[tokio::test]
async fn any_slot_refuses() {
    const CONSOLE: &str = "/redfish/v1/Managers/1/VirtualMedia/KVM";
    proves(Fact::SlotRefuses, async |scene| {
        let double =
            Double::start(|seen, _| seen.path.starts_with(&format!("{CONSOLE}/Actions")).then(|| Reply::empty(405)))
                .await;
        edit(&double, |world| {
            let mut console = document(world, SLOT).clone();
            console["Actions"]["#VirtualMedia.InsertMedia"]["target"] = json!(format!("{CONSOLE}/Actions/Insert"));
            *document(world, CONSOLE) = console;
            *document(world, SLOTS) = list(&[CONSOLE, SLOT]);
        });
        Ok(scene.connect(&double).await?.insert_media(ISO).await?)
    })
    .await;
}

#[tokio::test]
async fn any_insert_parameters() {
    proves(Fact::InsertParameters, async |scene| {
        let double = Double::start(|seen, _| {
            let missing = seen.body.get("TransferProtocolType").is_none() || seen.body.get("TransferMethod").is_none();
            (seen.is("POST", INSERT) && missing).then(|| refusal(400, "ActionParameterMissing"))
        })
        .await;
        Ok(scene.connect(&double).await?.insert_media(ISO).await?)
    })
    .await;
}

#[tokio::test]
async fn any_baseboard_beside() {
    const BOARD: &str = "/redfish/v1/Systems/Baseboard_0";
    proves(Fact::BaseboardBeside, async |scene| {
        let double = Double::start(|_, _| None).await;
        put(&double, [(BOARD, json!({ "Id": "Baseboard_0" })), ("/redfish/v1/Systems", list(&[BOARD, SYSTEM]))]);
        let found = scene.connect(&double).await?.inventory().await?;
        ensure(found.system_id == "1", found.system_id)
    })
    .await;
}

#[tokio::test]
async fn any_media_by_patch() {
    proves(Fact::MediaByPatch, async |scene| {
        let double = Double::start(|_, _| None).await;
        edit(&double, |world| {
            document(world, SLOT).as_object_mut().unwrap().remove("Actions");
        });
        scene.connect(&double).await?.insert_media(ISO).await?;
        let sent = bodies(&double, "PATCH", SLOT);
        ensure(sent == [json!({ "Image": ISO, "Inserted": true, "WriteProtected": true })], format!("{sent:?}"))
    })
    .await;
}

#[tokio::test]
async fn any_gpus_on_baseboard() {
    const BOARD: &str = "/redfish/v1/Systems/HGX_Baseboard_0";
    proves(Fact::GpusOnBaseboard, async |scene| {
        let double = Double::start(|_, _| None).await;
        let (processors, gpu) = (format!("{BOARD}/Processors"), format!("{BOARD}/Processors/GPU_0"));
        put(
            &double,
            [
                (BOARD, json!({ "Id": "HGX_Baseboard_0", "Processors": link(&processors) })),
                (&processors, list(&[&gpu])),
                (&gpu, json!({ "Id": "GPU_0", "ProcessorType": "GPU", "Model": "G", "SerialNumber": "7" })),
                ("/redfish/v1/Systems", list(&[BOARD, SYSTEM])),
            ],
        );
        let found = scene.connect(&double).await?.inventory().await?;
        ensure(found.gpus.len() == 1 && found.gpus[0].serial.as_deref() == Some("7"), format!("{:?}", found.gpus))
    })
    .await;
}
