//! Every fact about BMCs is shown by a service that has it: with its workaround the work succeeds, and with the workaround switched
//! off the same work fails.

mod any;
mod dell;
mod hpe;
mod lenovo;
mod nvidia;
mod supermicro;

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bedplate::bmc::{Bmc, BmcError, Fact, Facts, MemoryPins};
use serde_json::{Value, json};

use super::double::{Double, Reply, Seen, World, hasty};

const ROOT: &str = "/redfish/v1";
const MANAGER: &str = "/redfish/v1/Managers/1";
const SLOTS: &str = "/redfish/v1/Managers/1/VirtualMedia";
const RESET: &str = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";
const BIOS: &str = "/redfish/v1/Systems/1/Bios";
const BIOS_SETTINGS: &str = "/redfish/v1/Systems/1/Bios/Settings";
const UPDATE: &str = "/redfish/v1/UpdateService";
const SIMPLE_UPDATE: &str = "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate";
const ACCOUNTS: &str = "/redfish/v1/AccountService/Accounts";
const TASK: &str = "/redfish/v1/TaskService/Tasks/1";
const ISO: &str = "http://10.0.0.1:9100/media/7/boot.iso";

/// How a scene ended: well, or why not.
type Ended = Result<(), Box<dyn Error>>;

/// What a scene is played with: the workarounds that are switched off.
struct Scene {
    without: Facts,
}

impl Scene {
    async fn connect(&self, double: &Double) -> Result<Bmc, BmcError> {
        let mut target = double.target();
        target.without = self.without;
        Bmc::connect_with(&target, Arc::new(MemoryPins::default()), hasty()).await
    }
}

/// Plays the scene with the workaround, which must end well, and without it, which must not.
async fn proves(fact: Fact, scene: impl AsyncFn(Scene) -> Ended) {
    if let Err(error) = scene(Scene { without: Facts::default() }).await {
        panic!("{fact} is not worked around: {error}");
    }
    let without = scene(Scene { without: [fact].into_iter().collect() }).await;
    assert!(without.is_err(), "the scene of {fact} ends well without its workaround: it shows nothing");
}

fn ensure(holds: bool, what: impl Into<String>) -> Ended {
    if holds { Ok(()) } else { Err(what.into().into()) }
}

fn edit(double: &Double, change: impl FnOnce(&mut World)) {
    change(&mut double.world.lock().unwrap());
}

fn document<'a>(world: &'a mut World, path: &str) -> &'a mut Value {
    world.tree.entry(path.to_owned()).or_insert_with(|| json!({ "@odata.id": path }))
}

/// Puts documents into the tree.
fn put<const N: usize>(double: &Double, documents: [(&str, Value); N]) {
    edit(double, |world| {
        for (path, value) in documents {
            world.tree.insert(path.to_owned(), value);
        }
    });
}

fn link(path: &str) -> Value {
    json!({ "@odata.id": path })
}

fn list(members: &[&str]) -> Value {
    json!({ "Members": members.iter().map(|member| link(member)).collect::<Vec<_>>() })
}

fn bodies(double: &Double, method: &str, path: &str) -> Vec<Value> {
    let world = double.world.lock().unwrap();
    world.seen.iter().filter(|seen| seen.is(method, path)).map(|seen| seen.body.clone()).collect()
}

fn vendor(double: &Double, name: &str) {
    edit(double, |world| document(world, ROOT)["Vendor"] = json!(name));
}

/// An error as BMCs write it.
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

/// Gives the machine BIOS settings, and a place where they are staged.
fn with_bios(double: &Double, attributes: &Value) {
    edit(double, |world| document(world, super::double::SYSTEM)["Bios"] = link(BIOS));
    put(
        double,
        [
            (
                BIOS,
                json!({ "@odata.id": BIOS, "Attributes": attributes,
                    "@Redfish.Settings": { "SettingsObject": link(BIOS_SETTINGS) } }),
            ),
            (BIOS_SETTINGS, json!({ "@odata.id": BIOS_SETTINGS, "Attributes": {} })),
        ],
    );
}

/// Gives the machine an update service with these properties.
fn with_updates(double: &Double, properties: Value) {
    edit(double, |world| document(world, ROOT)["UpdateService"] = link(UPDATE));
    let mut service = json!({ "@odata.id": UPDATE,
        "Actions": { "#UpdateService.SimpleUpdate": { "target": SIMPLE_UPDATE } } });
    if let (Some(service), Value::Object(properties)) = (service.as_object_mut(), properties) {
        service.extend(properties);
    }
    put(double, [(UPDATE, service)]);
}

/// Gives the machine accounts in numbered slots; an empty name is a free one.
fn with_accounts(double: &Double, names: &[&str]) {
    edit(double, |world| {
        document(world, ROOT)["AccountService"] = link("/redfish/v1/AccountService");
        world.tree.insert("/redfish/v1/AccountService".to_owned(), json!({ "Accounts": link(ACCOUNTS) }));
        let paths: Vec<String> = (1..=names.len()).map(|n| format!("{ACCOUNTS}/{n}")).collect();
        for (path, name) in paths.iter().zip(names) {
            let account = json!({ "UserName": name, "RoleId": if name.is_empty() { "None" } else { "Administrator" },
                "Enabled": !name.is_empty() });
            world.tree.insert(path.clone(), account);
        }
        world.tree.insert(ACCOUNTS.to_owned(), list(&paths.iter().map(String::as_str).collect::<Vec<_>>()));
    });
}

fn wanted(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A file to upload.
fn firmware_file() -> (tempfile::TempDir, bedplate::bmc::FirmwareSource) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("firmware.bin");
    std::fs::write(&file, vec![7; 100_000]).unwrap();
    (folder, bedplate::bmc::FirmwareSource::File(file))
}

fn holds(raw: &[u8], text: &str) -> bool {
    raw.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Each fact has a proof, in the file of its family, in a test that carries its name.
#[test]
fn every_fact_is_proven() {
    let files = [
        ("any", include_str!("any.rs")),
        ("dell", include_str!("dell.rs")),
        ("hpe", include_str!("hpe.rs")),
        ("lenovo", include_str!("lenovo.rs")),
        ("supermicro", include_str!("supermicro.rs")),
        ("nvidia", include_str!("nvidia.rs")),
        ("ami", include_str!("nvidia.rs")),
        ("sushy", include_str!("nvidia.rs")),
    ];
    for fact in Fact::ALL {
        let family = fact.name().split('-').next().unwrap();
        let (_, text) = files.iter().find(|(name, _)| *name == family).unwrap();
        let test = format!("async fn {}()", fact.name().replace('-', "_"));
        let proof = format!("proves(Fact::{fact:?},");
        let at = text.find(&test).unwrap_or_else(|| panic!("{fact} has no test {test}"));
        let body = &text[at..];
        let end = body.find("\n}\n").unwrap_or(body.len());
        assert!(body[..end].contains(&proof), "{test} does not prove {fact:?}");
    }
    let told = include_str!("../../../../docs/hardware.md");
    for fact in Fact::ALL {
        assert!(told.contains(&format!("| `{fact}` | {} |", fact.words())), "docs/hardware.md does not tell {fact}");
    }
    assert!(Fact::ALL.len() >= 50);
}

/// A BMC whose manager tells of consoles as `services` says, and whose command line leads there by `entry`: whether the machine shows.
async fn console_shows(scene: &Scene, double: &Double, services: Value, entry: &'static str) -> Ended {
    use super::console::{SshDouble, read_until};
    const PROTOCOL: &str = "/redfish/v1/Managers/1/NetworkProtocol";
    let ssh = SshDouble::start(entry, 5).await;
    put(double, [(PROTOCOL, json!({ "SSH": { "ProtocolEnabled": true, "Port": ssh.port } }))]);
    edit(double, |world| {
        let manager = document(world, MANAGER);
        for (key, value) in services.as_object().unwrap() {
            manager[key] = value.clone();
        }
        manager["NetworkProtocol"] = link(PROTOCOL);
    });
    let bmc = scene.connect(double).await?;
    let mut console = bmc.console(&double.target(), Arc::new(MemoryPins::default()), (80, 24)).await?;
    let shown = tokio::time::timeout(std::time::Duration::from_secs(2), read_until(&mut console, "login: ")).await;
    console.close().await;
    ssh.stop().await;
    let seen = shown.map_err(|_| "only the command line of the BMC shows")??;
    ensure(seen.contains("login: "), seen)
}
