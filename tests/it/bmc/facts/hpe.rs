//! HPE iLO.

use bedplate::bmc::{BootTarget, PowerAction};

use super::super::double::{SYSTEM, behave};
use super::*;

async fn ilo(hook: impl Fn(&Seen, &mut World) -> Option<Reply> + Send + Sync + 'static) -> Double {
    let double = Double::start(hook).await;
    vendor(&double, "HPE");
    double
}

#[tokio::test]
async fn hpe_star_refused() {
    proves(Fact::HpeStarRefused, async |scene| {
        let double = ilo(|seen, _| seen.is("PATCH", SYSTEM).then(|| Reply::empty(412))).await;
        let bmc = scene.connect(&double).await?;
        ensure(bmc.set_boot(BootTarget::Cd).await.is_err(), "it was obeyed")?;
        let world = double.world.lock().unwrap();
        let patches = world.seen.iter().filter(|seen| seen.is("PATCH", SYSTEM));
        ensure(
            patches.clone().count() > 0 && patches.clone().all(|seen| seen.header("if-match") != Some("*")),
            "* was sent",
        )
    })
    .await;
}

#[tokio::test]
async fn hpe_post_refuses() {
    proves(Fact::HpePostRefuses, async |scene| {
        let busy = at_first(2, |seen| seen.is("PATCH", SYSTEM).then(|| refusal(400, "UnableToModifyDuringSystemPOST")));
        let double = ilo(move |seen, _| busy(seen)).await;
        edit(&double, |world| {
            document(world, SYSTEM)["Boot"]["BootSourceOverrideEnabled@Redfish.AllowableValues"] = json!(["Once"]);
        });
        let bmc = scene.connect(&double).await?;
        bmc.set_boot(BootTarget::Hdd).await?;
        let sent = bodies(&double, "PATCH", SYSTEM);
        // The same thing again, and not another form of it.
        ensure(sent.len() == 3 && sent[0] == sent[2], format!("{sent:?}"))
    })
    .await;
}

#[tokio::test]
async fn hpe_boot_cleared_by_target() {
    proves(Fact::HpeBootClearedByTarget, async |scene| {
        let double = ilo(|seen, _| {
            let both = seen.body["Boot"].get("BootSourceOverrideEnabled").is_some();
            (seen.is("PATCH", SYSTEM) && both).then(|| refusal(400, "PropertyNotWritableOrUnknown"))
        })
        .await;
        Ok(scene.connect(&double).await?.set_boot(BootTarget::None).await.map(drop)?)
    })
    .await;
}

#[tokio::test]
async fn hpe_success_as_error() {
    proves(Fact::HpeSuccessAsError, async |scene| {
        let double = ilo(|seen, world| {
            if !seen.is("PATCH", BIOS_SETTINGS) {
                return None;
            }
            behave(seen, world);
            let info = json!([{ "MessageId": "iLO.2.14.SystemResetRequired" }]);
            let body = json!({ "error": { "code": "iLO.0.10.ExtendedInfo", "@Message.ExtendedInfo": info } });
            Some(Reply::json(200, &body))
        })
        .await;
        with_bios(&double, &json!({ "BootMode": "LegacyBios" }));
        Ok(scene.connect(&double).await?.set_bios(&wanted(&[("BootMode", "Uefi")])).await.map(drop)?)
    })
    .await;
}

#[tokio::test]
async fn hpe_boot_order_oem() {
    const BOOT: &str = "/redfish/v1/systems/1/bios/oem/hpe/boot";
    const SETTINGS: &str = "/redfish/v1/systems/1/bios/oem/hpe/boot/settings";
    proves(Fact::HpeBootOrderOem, async |scene| {
        let double =
            ilo(|seen, _| seen.is("PATCH", SYSTEM).then(|| refusal(400, "PropertyNotWritableOrUnknown"))).await;
        with_bios(&double, &json!({}));
        let order = json!(["HD.EmbRAID.1", "NIC.Slot.5.1.Httpv4"]);
        let boot = json!({ "PersistentBootConfigOrder": order,
            "BootSources": [{ "StructuredBootString": "NIC.Slot.5.1.Httpv4", "BootString": "Slot 5 (HTTP(S) IPv4)" }],
            "@Redfish.Settings": { "SettingsObject": link(&format!("{SETTINGS}/")) } });
        edit(&double, |world| {
            document(world, SYSTEM)["Boot"]["BootOrder"] = json!(["Boot0001", "Boot0002"]);
            document(world, BIOS)["Oem"] = json!({ "Hpe": { "Links": { "Boot": link(BOOT) } } });
        });
        put(&double, [(BOOT, boot), (SETTINGS, json!({ "PersistentBootConfigOrder": order }))]);
        let set = scene.connect(&double).await?.set_boot_order(&["HTTP(S) IPv4".to_owned()]).await?;
        ensure(set[0].reference == "NIC.Slot.5.1.Httpv4", format!("{set:?}"))
    })
    .await;
}

#[tokio::test]
async fn hpe_aux_cycle() {
    const CYCLE: &str = "/redfish/v1/Systems/1/Actions/Oem/Hpe/HpeComputerSystemExt.SystemReset";
    proves(Fact::HpeAuxCycle, async |scene| {
        let double = ilo(|seen, _| seen.is("POST", CYCLE).then(|| Reply::empty(200))).await;
        edit(&double, |world| {
            document(world, SYSTEM)["Actions"]["Oem"] =
                json!({ "Hpe": { "#HpeComputerSystemExt.SystemReset": { "target": CYCLE } } });
        });
        scene.connect(&double).await?.set_power(PowerAction::AcCycle).await?;
        ensure(bodies(&double, "POST", CYCLE) == [json!({ "ResetType": "AuxCycle" })], "another action was run")
    })
    .await;
}

#[tokio::test]
async fn hpe_push_form() {
    proves(Fact::HpePushForm, async |scene| {
        let double = ilo(|seen, _| {
            let cookie = seen.header("cookie").is_some_and(|cookie| cookie == "sessionKey=token-1");
            let whole = cookie && holds(&seen.raw, "name=\"sessionKey\"\r\n\r\ntoken-1\r\n");
            seen.is("POST", "/cgi-bin/uploadFile").then(|| Reply::empty(if whole { 200 } else { 403 }))
        })
        .await;
        with_updates(&double, json!({ "HttpPushUri": "/cgi-bin/uploadFile" }));
        let (_folder, file) = firmware_file();
        let update = scene.connect(&double).await?.update_firmware(&file, &[]).await?;
        ensure(update.way == "push", update.way)
    })
    .await;
}

#[tokio::test]
async fn hpe_push_state() {
    proves(Fact::HpePushState, async |scene| {
        let double = ilo(|seen, world| {
            if seen.is("POST", "/cgi-bin/uploadFile") {
                document(world, UPDATE)["Oem"]["Hpe"]["State"] = json!("Writing");
                return Some(Reply::empty(200));
            }
            if seen.is("GET", UPDATE) && world.count("POST", "/cgi-bin/uploadFile") > 0 {
                let answer = behave(seen, world);
                document(world, UPDATE)["Oem"]["Hpe"] =
                    json!({ "State": "Error", "Result": { "MessageId": "iLO.0.10.ImageSignature" } });
                return Some(answer);
            }
            None
        })
        .await;
        with_updates(&double, json!({ "HttpPushUri": "/cgi-bin/uploadFile", "Oem": { "Hpe": { "State": "Idle" } } }));
        let (_folder, file) = firmware_file();
        let error =
            scene.connect(&double).await?.update_firmware(&file, &[]).await.err().ok_or("it counts as updated")?;
        ensure(error.to_string().contains("ImageSignature"), error.to_string())
    })
    .await;
}

#[tokio::test]
async fn hpe_no_retry_policy() {
    const SUBSCRIPTIONS: &str = "/redfish/v1/EventService/Subscriptions";
    proves(Fact::HpeNoRetryPolicy, async |scene| {
        let double = ilo(|seen, world| {
            if !seen.is("POST", SUBSCRIPTIONS) {
                return None;
            }
            if seen.body.get("DeliveryRetryPolicy").is_some() {
                return Some(refusal(400, "PropertyUnknown"));
            }
            let made = format!("{SUBSCRIPTIONS}/1");
            world.tree.insert(made.clone(), seen.body.clone());
            world.tree.insert(SUBSCRIPTIONS.to_owned(), list(&[&made]));
            Some(Reply::empty(201).with("Location", made))
        })
        .await;
        edit(&double, |world| document(world, ROOT)["EventService"] = link("/redfish/v1/EventService"));
        put(
            &double,
            [("/redfish/v1/EventService", json!({ "Subscriptions": link(SUBSCRIPTIONS) })), (SUBSCRIPTIONS, list(&[]))],
        );
        let bmc = scene.connect(&double).await?;
        let made = bmc.subscribe("https://10.0.0.1:9100/events", "rack-1").await?;
        bmc.subscribe("https://10.0.0.1:9100/events", "rack-1").await?;
        ensure(bodies(&double, "POST", SUBSCRIPTIONS).len() == 1 && made.context == "rack-1", "subscribed twice")
    })
    .await;
}

#[tokio::test]
async fn hpe_certificate_apart() {
    const SECURITY: &str = "/redfish/v1/Managers/1/SecurityService";
    const OWN: &str = "/redfish/v1/Managers/1/SecurityService/HttpsCert";
    const GENERATE: &str = "/redfish/v1/Managers/1/SecurityService/HttpsCert/Actions/HpeHttpsCert.GenerateCSR";
    proves(Fact::HpeCertificateApart, async |scene| {
        let double = ilo(|seen, world| {
            let made = world.count("POST", GENERATE) > 0 && world.count("GET", OWN) > 3;
            if seen.is("GET", OWN) && made {
                // Ready some looks later.
                let request = "-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n";
                document(world, OWN)["CertificateSigningRequest"] = json!(request);
            }
            seen.is("POST", GENERATE).then(|| Reply::empty(200))
        })
        .await;
        edit(&double, |world| {
            document(world, MANAGER)["Oem"] = json!({ "Hpe": { "Links": { "SecurityService": link(SECURITY) } } });
        });
        let about = json!({ "Subject": "CN = ILO1", "ValidNotAfter": "2038-01-17T07:07:34Z" });
        let actions = json!({ "#HpeHttpsCert.GenerateCSR": { "target": GENERATE } });
        put(
            &double,
            [
                (SECURITY, json!({ "Links": { "HttpsCert": link(OWN) } })),
                (OWN, json!({ "@odata.id": OWN, "Actions": actions, "X509CertificateInformation": about })),
            ],
        );
        let bmc = scene.connect(&double).await?;
        ensure(bmc.certificate().await?.subject.as_deref() == Some("CN = ILO1"), "another certificate was shown")?;
        let subject = "C=US,ST=Texas,L=Houston,O=Example,OU=Racks,CN=ilo1".parse()?;
        let request = bmc.request_certificate(&subject, &[]).await?;
        let asked = bodies(&double, "POST", GENERATE);
        ensure(request.contains("REQUEST") && asked[0]["OrgUnit"] == "Racks", format!("{asked:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hpe_console_command() {
    proves(Fact::HpeConsoleCommand, async |scene| {
        let double = ilo(|_, _| None).await;
        console_shows(
            &scene,
            &double,
            json!({ "SerialConsole": { "ConnectTypesSupported": ["SSH", "IPMI", "Oem"], "ServiceEnabled": true } }),
            "vsp",
        )
        .await
    })
    .await;
}
