//! A BMC's certificate: believed because the site's authority signed it, requested, put in, and known from then on.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bedplate::bmc::{Bmc, BmcError, MemoryPins, Pins, SiteCa, Trust};
use bedplate::sys::wire::{ServerTls, pin_of};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;

use super::double::{Double, PASSWORD, Reply, World, behave, hasty};

const MANAGER: &str = "/redfish/v1/Managers/1";
const PROTOCOL: &str = "/redfish/v1/Managers/1/NetworkProtocol";
const CERTIFICATES: &str = "/redfish/v1/Managers/1/NetworkProtocol/HTTPS/Certificates";
const CERTIFICATE: &str = "/redfish/v1/Managers/1/NetworkProtocol/HTTPS/Certificates/1";
const SERVICE: &str = "/redfish/v1/CertificateService";
const GENERATE: &str = "/redfish/v1/CertificateService/Actions/CertificateService.GenerateCSR";
const REPLACE: &str = "/redfish/v1/CertificateService/Actions/CertificateService.ReplaceCertificate";

/// An authority, and where its certificate lies.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: PathBuf,
}

struct Signed {
    pem: String,
    der: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Self {
        let mut about = CertificateParams::new(vec![]).unwrap();
        about.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        about.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let file = folder.join(format!("{name}.pem"));
        std::fs::write(&file, about.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(about, key), file }
    }

    fn sign(&self, name: &str) -> Signed {
        let key = KeyPair::generate().unwrap();
        let made = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        Signed { pem: made.pem(), der: made.der().clone(), key: key.into() }
    }

    async fn connect(&self, double: &Double, pins: &Arc<MemoryPins>) -> Result<Bmc, BmcError> {
        let mut target = double.target();
        target.trust = Trust::Site(SiteCa::read(&self.file)?);
        Bmc::connect_with(&target, pins.clone(), hasty()).await
    }
}

impl Signed {
    fn show(self, tls: &ServerTls) {
        tls.exchange(vec![self.der], self.key).unwrap();
    }
}

#[tokio::test]
async fn the_sites_authority_is_believed_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, others) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "others"));
    let double = Double::start(|_, _| None).await;
    let pins = Arc::new(MemoryPins::default());
    let refused = |outcome: Result<Bmc, BmcError>| match outcome {
        Err(BmcError::Tls { why, .. }) => why,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was believed"),
    };
    // Its own, another authority's, another host's.
    refused(ours.connect(&double, &pins).await);
    others.sign("127.0.0.1").show(&double.tls);
    refused(ours.connect(&double, &pins).await);
    ours.sign("127.0.0.2").show(&double.tls);
    refused(ours.connect(&double, &pins).await);
    assert!(double.world.lock().unwrap().seen.is_empty(), "something was sent to a stranger");
    for _ in 0..2 {
        // Each time another certificate, as if it had been renewed meanwhile.
        ours.sign("127.0.0.1").show(&double.tls);
        let bmc = ours.connect(&double, &pins).await.unwrap();
        bmc.close().await;
    }
    assert_eq!(pins.known(&double.authority()), None);
}

fn tree(world: &mut World) {
    let link = |path: &str| json!({ "@odata.id": path });
    world.tree.get_mut("/redfish/v1").unwrap()["CertificateService"] = link(SERVICE);
    world.tree.get_mut(MANAGER).unwrap()["NetworkProtocol"] = link(PROTOCOL);
    let actions = json!({ "#CertificateService.GenerateCSR": { "target": GENERATE },
        "#CertificateService.ReplaceCertificate": { "target": REPLACE } });
    world.tree.insert(SERVICE.to_owned(), json!({ "Actions": actions }));
    world.tree.insert(PROTOCOL.to_owned(), json!({ "HTTPS": { "Certificates": link(CERTIFICATES) } }));
    world.tree.insert(CERTIFICATES.to_owned(), json!({ "Members": [link(CERTIFICATE)] }));
    let subject = json!({ "CommonName": "old", "Organization": "Maker" });
    world.tree.insert(CERTIFICATE.to_owned(), json!({ "Subject": subject, "ValidNotAfter": "2030-01-01T00:00:00Z" }));
}

/// A BMC that makes requests and shows what is put in, once the cell says how; else it takes it and goes on showing the old one.
async fn bmc(next: Arc<OnceLock<(ServerTls, Signed)>>) -> Double {
    let double = Double::start(move |seen, world| {
        if seen.is("POST", GENERATE) {
            let made = "-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n";
            return Some(Reply::json(200, &json!({ "CSRString": made })));
        }
        if !seen.is("POST", REPLACE) {
            return None;
        }
        behave(seen, world);
        if let Some((tls, signed)) = next.get() {
            tls.exchange(vec![signed.der.clone()], signed.key.clone_key()).unwrap();
            // Its web server starts anew before it has answered.
            return Some(Reply::Hang);
        }
        // Where the certificate is, which is no task.
        Some(Reply::empty(204).with("Location", CERTIFICATE))
    })
    .await;
    tree(&mut double.world.lock().unwrap());
    double
}

#[tokio::test]
async fn what_is_put_in_is_known_once_it_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ours");
    let next = Arc::new(OnceLock::new());
    let double = bmc(next.clone()).await;
    let pins = Arc::new(MemoryPins::default());
    let bmc = double.connect(&pins).await.unwrap();
    let found = bmc.certificate().await.unwrap();
    assert_eq!((found.subject.as_deref(), found.issuer), (Some("CN=old, O=Maker"), None));
    assert_eq!(found.pin.unwrap(), format!("sha256:{}", hex::encode(double.pin)));

    let subject = "C=DE,ST=Hessen,L=Frankfurt,O=Example,OU=Racks".parse().unwrap();
    let request = bmc.request_certificate(&subject, &["bmc-1".to_owned()]).await.unwrap();
    assert!(request.contains("BEGIN CERTIFICATE REQUEST"), "{request}");
    let asked = double.world.lock().unwrap().seen.iter().find(|seen| seen.is("POST", GENERATE)).unwrap().body.clone();
    assert_eq!((&asked["CommonName"], &asked["Country"]), (&json!("127.0.0.1"), &json!("DE")));
    assert_eq!(asked["CertificateCollection"]["@odata.id"], CERTIFICATES);
    assert_eq!(asked["AlternativeNames"], json!(["bmc-1"]));

    // What is no certificate is not sent.
    assert!(matches!(bmc.exchange_certificate("hello", false).await, Err(BmcError::Local { .. })));
    // It takes one and does not show it: the old pin stays.
    let signed = authority.sign("elsewhere");
    let change = bmc.exchange_certificate(&signed.pem, false).await.unwrap();
    assert!(!change.shown && !change.names_host, "{change:?}");
    assert_eq!(pins.known(&double.authority()), Some(double.pin));
    // It shows it.
    let signed = authority.sign("127.0.0.1");
    let (pem, pin) = (signed.pem.clone(), pin_of(&signed.der));
    assert!(next.set((double.tls.clone(), signed)).is_ok());
    let change = bmc.exchange_certificate(&pem, false).await.unwrap();
    assert!(change.shown && change.names_host, "{change:?}");
    let sent = double.world.lock().unwrap().seen.iter().rfind(|seen| seen.is("POST", REPLACE)).unwrap().body.clone();
    assert_eq!((&sent["CertificateType"], &sent["CertificateUri"]["@odata.id"]), (&json!("PEM"), &json!(CERTIFICATE)));
    bmc.close().await;
    assert_eq!(pins.known(&double.authority()), Some(pin));
    // It is met again by its new pin, and by its authority.
    double.connect(&pins).await.unwrap().close().await;
    authority.connect(&double, &pins).await.unwrap().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_shows_and_exchanges() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ours");
    let next = Arc::new(OnceLock::new());
    let double = bmc(next.clone()).await;
    let signed = authority.sign("127.0.0.1");
    std::fs::write(folder.path().join("bmc.pem"), &signed.pem).unwrap();
    next.set((double.tls.clone(), signed)).ok().unwrap();
    let run = async |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bedplate"));
        command.args(["bmc", "certificate", &double.url, "--username", "admin"]).args(more).current_dir(&folder);
        command.env("BEDPLATE_BMC_PASSWORD", PASSWORD).env("XDG_CONFIG_HOME", folder.path());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, said, why) = run(&["--bmc-ca", "ours.pem"]).await;
    assert!(code == Some(1) && why.contains("no secure connection"), "{said}{why}");
    let (code, said, why) = run(&["--request", "C=DE"]).await;
    assert!(code == Some(2) && why.contains("ST, L, O, OU must be given"), "{said}{why}");
    let (code, said, why) = run(&["--request", "C=DE,ST=Hessen,L=Frankfurt,O=Example,OU=Racks"]).await;
    assert!(code == Some(0) && said.starts_with("-----BEGIN CERTIFICATE REQUEST"), "{said}{why}");
    let (code, said, why) = run(&["--install", "bmc.pem"]).await;
    assert!(code == Some(0) && said.starts_with("the BMC shows the new certificate, sha256:"), "{said}{why}");
    let (code, said, why) = run(&["--bmc-ca", "ours.pem"]).await;
    assert!(code == Some(0) && said.contains("subject      CN=old, O=Maker"), "{said}{why}");
}
