//! The driver against OpenStack's emulator with its fake driver, over TLS and Basic credentials: a Redfish service that
//! no one here wrote. Skipped aloud where the emulator is not installed.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bedplate::bmc::{
    Bmc, BmcError, BootTarget, Credentials, Facts, Kept, Mark, MemoryPins, PowerAction, PowerState, Target, Timing,
    Trust,
};
use bedplate::model::Secret;

const UUID: &str = "00000001-0000-4000-8000-000000000000";

/// The emulator and the Python beside it.
fn emulator() -> Option<PathBuf> {
    let named = std::env::var_os("BEDPLATE_SUSHY").map(PathBuf::from);
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/lab/venv/bin/sushy-emulator");
    let found = named.into_iter().chain([built]).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: no sushy-emulator (target/lab/venv/bin, or BEDPLATE_SUSHY)");
    }
    found
}

/// A process that ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Writes certificate, password file and configuration, and starts the emulator with one machine that is off.
fn start(program: &Path, folder: &Path, port: u16) -> Running {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let python = program.with_file_name("python");
    let hash = "import bcrypt; print('admin:' + bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode())";
    let line = Command::new(python).args(["-c", hash]).output().unwrap();
    assert!(line.status.success(), "{}", String::from_utf8_lossy(&line.stderr));
    std::fs::write(folder.join("htpasswd"), line.stdout).unwrap();
    let at = |name: &str| folder.join(name).display().to_string();
    let config = format!(
        "SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\nSUSHY_EMULATOR_LISTEN_PORT = {port}\n\
         SUSHY_EMULATOR_SSL_CERT = '{}'\nSUSHY_EMULATOR_SSL_KEY = '{}'\nSUSHY_EMULATOR_AUTH_FILE = '{}'\n\
         SUSHY_EMULATOR_FAKE_DRIVER = True\nSUSHY_EMULATOR_STATE_DIR = '{}'\n\
         SUSHY_EMULATOR_FAKE_SYSTEMS = [{{'uuid': '{UUID}', 'name': 'fake', 'power_state': 'Off', \
         'external_notifier': False, 'nics': [{{'mac': '52:54:01:00:00:01', 'ip': '10.0.0.1'}}]}}]\n",
        at("cert.pem"),
        at("key.pem"),
        at("htpasswd"),
        at("state")
    );
    std::fs::create_dir(folder.join("state")).unwrap();
    std::fs::write(folder.join("emulator.conf"), config).unwrap();
    let log = std::fs::File::create(folder.join("emulator.log")).unwrap();
    let started = Command::new(program)
        .args(["--config", &at("emulator.conf")])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn();
    Running(started.unwrap())
}

/// Serves one small file over plain HTTP, as the appliance serves boot images; the emulator downloads it.
fn serve_image() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/media/1/boot.iso", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            drop(std::io::Read::read(&mut stream, &mut head));
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nISO!"));
        }
    });
    url
}

async fn connect(target: &Target, pins: &Arc<MemoryPins>) -> Result<Bmc, BmcError> {
    let timing = Timing { look: Duration::from_millis(300), ..Timing::default() };
    for _ in 0..100 {
        match Bmc::connect_with(target, pins.clone(), timing.clone()).await {
            Err(BmcError::Unreachable { .. }) => tokio::time::sleep(Duration::from_millis(300)).await,
            outcome => return outcome,
        }
    }
    Bmc::connect_with(target, pins.clone(), timing).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_installation_on_the_emulator() {
    let Some(program) = emulator() else { return };
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let _running = start(&program, folder.path(), port);
    let credentials = Credentials { username: "admin".to_owned(), password: Secret::new("secret") };
    let address = format!("https://127.0.0.1:{port}").parse().unwrap();
    let mut target = Target {
        address,
        system: Some(UUID.to_owned()),
        credentials: Some(credentials),
        trust: Trust::Known,
        without: Facts::default(),
    };
    let pins = Arc::new(MemoryPins::default());
    let bmc = connect(&target, &pins).await.unwrap();
    let found = bmc.inventory().await.unwrap();
    assert_eq!((found.system_id.as_str(), found.power), (UUID, PowerState::Off));
    assert_eq!(found.nics[0].mac, "52:54:01:00:00:01");
    let card = bmc.card().await.unwrap();
    assert!(card.fit, "{card:?}");
    assert!(card.traits.iter().any(|t| t.name == "sessions" && t.mark == Mark::WorkedAround));
    let image = serve_image();
    bmc.insert_media(&image).await.unwrap();
    assert_eq!(bmc.media().await.unwrap().as_deref(), Some(image.as_str()));
    assert_eq!(bmc.set_boot(BootTarget::Cd).await.unwrap(), Kept::Continuous, "it ignores Once");
    bmc.set_power(PowerAction::On).await.unwrap();
    assert_eq!(bmc.power().await.unwrap(), PowerState::On);
    bmc.set_power(PowerAction::ForceOff).await.unwrap();
    bmc.eject_media().await.unwrap();
    assert_eq!(bmc.media().await.unwrap(), None);
    assert_eq!(bmc.set_boot(BootTarget::Hdd).await.unwrap(), Kept::Continuous);
    assert!(matches!(bmc.set_boot(BootTarget::None).await, Err(BmcError::Unsupported { .. })));
    bmc.identify(true).await.unwrap();
    bmc.identify(false).await.unwrap();
    let error = bmc.insert_media("http://127.0.0.1:1/none.iso").await.unwrap_err();
    assert!(matches!(error, BmcError::Refused { .. }), "{error}");
    bmc.close().await;
    target.credentials.as_mut().unwrap().password = Secret::new("wrong");
    let error = connect(&target, &pins).await.err().unwrap();
    assert!(matches!(error, BmcError::WrongPassword { .. }), "{error}");
}
