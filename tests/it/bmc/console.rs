//! A machine's serial console is reached through its BMC's SSH server: the way there is found out, the host key is kept and another one
//! refused, what is typed arrives, and what a job recorded is in the evidence.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bedplate::bmc::{BmcError, Console, MemoryPins, Pins};
use bedplate::rack::redfish::RedfishMachines;
use bedplate::rack::{Machines as _, Spec};
use bedplate::sys::worker::Workers;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::server::{self, Auth, Msg, Session};
use russh::{Channel, ChannelId, Pty};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::double::{Double, PASSWORD, SYSTEM};

/// An SSH server as BMCs have it: a command line, from which `entry` leads to the machine; the machine at once where that is empty.
pub(crate) struct SshDouble {
    pub(crate) port: u16,
    workers: Workers,
}

impl SshDouble {
    pub(crate) async fn start(entry: &'static str, seed: u8) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let workers = Workers::new();
        let stop = workers.token();
        let accept = async move {
            let key = PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]));
            let config = server::Config { keys: vec![key], auth_rejection_time: Duration::ZERO, ..Default::default() };
            let config = Arc::new(config);
            let mut lines = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let config = config.clone();
                lines.spawn(async move {
                    let line = Line { entry, inside: entry.is_empty(), typed: String::new() };
                    if let Ok(running) = server::run_stream(config, stream, line).await {
                        drop(running.await);
                    }
                });
            }
        };
        workers.spawn("ssh", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = accept => {}
            }
        });
        Self { port, workers }
    }

    pub(crate) async fn stop(self) {
        self.workers.stop().await;
    }
}

struct Line {
    entry: &'static str,
    inside: bool,
    typed: String,
}

impl server::Handler for Line {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, russh::Error> {
        Ok(if user == "admin" && password == PASSWORD { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        reply: server::ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_success(channel)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        session.channel_success(channel)?;
        let greeting = if self.inside { "Debian GNU/Linux 12\r\nlogin: " } else { "welcome to the BMC\r\n-> " };
        session.data(channel, greeting.as_bytes().to_vec())
    }

    async fn data(&mut self, channel: ChannelId, data: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        self.typed.push_str(&String::from_utf8_lossy(data));
        while let Some((line, rest)) = self.typed.split_once('\r') {
            let (line, rest) = (line.to_owned(), rest.to_owned());
            self.typed = rest;
            let answer = match (self.inside, line.as_str()) {
                (true, "exit") => return session.close(channel),
                (true, line) => format!("you said {line}\r\n"),
                (false, line) if line == self.entry => {
                    self.inside = true;
                    "Debian GNU/Linux 12\r\nlogin: ".to_owned()
                }
                (false, _) => "no such command\r\n-> ".to_owned(),
            };
            session.data(channel, answer.into_bytes())?;
        }
        Ok(())
    }
}

/// Lets the system of a double tell of the console.
pub(crate) fn tell(double: &Double, port: u16, entry: Option<&str>) {
    let mut world = double.world.lock().unwrap();
    let system = world.tree.get_mut(SYSTEM).unwrap();
    system["SerialConsole"] = json!({ "SSH": { "ServiceEnabled": true, "Port": port, "ConsoleEntryCommand": entry,
        "HotKeySequenceDisplay": "press ESC (" } });
}

/// Reads until the text has shown.
pub(crate) async fn read_until(console: &mut Console, wanted: &str) -> Result<String, BmcError> {
    let mut seen = String::new();
    let reading = async {
        while !seen.contains(wanted) {
            match console.read().await? {
                Some(bytes) => seen.push_str(&String::from_utf8_lossy(&bytes)),
                None => break,
            }
        }
        Ok::<_, BmcError>(())
    };
    // What did not come by then does not come.
    drop(timeout(Duration::from_secs(10), reading).await);
    Ok(seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_is_opened_and_used() {
    let double = Double::start(|_, _| None).await;
    let ssh = SshDouble::start("cd system1/sol1; start", 1).await;
    let pins = Arc::new(MemoryPins::default());
    let bmc = double.connect(&pins).await.unwrap();
    let open = async |target| bmc.console(target, pins.clone(), (80, 24)).await;
    let error = open(&double.target()).await.err().unwrap();
    assert!(error.to_string().contains("serial console"), "{error}");
    bmc.close().await;

    tell(&double, ssh.port, Some("cd system1/sol1; start"));
    let bmc = double.connect(&pins).await.unwrap();
    let mut console = bmc.console(&double.target(), pins.clone(), (80, 24)).await.unwrap();
    assert_eq!(console.leave.as_deref(), Some("press ESC ("));
    let seen = read_until(&mut console, "login: ").await.unwrap();
    assert!(seen.contains("welcome to the BMC") && seen.contains("login: "), "{seen}");
    console.resize((132, 50)).await;
    console.write(b"hello\r").await.unwrap();
    let seen = read_until(&mut console, "you said hello").await.unwrap();
    assert!(seen.contains("you said hello"), "{seen}");
    console.write(b"exit\r").await.unwrap();
    while let Some(_rest) = timeout(Duration::from_secs(10), console.read()).await.unwrap().unwrap() {}
    console.close().await;

    let mut stranger = double.target();
    stranger.credentials.as_mut().unwrap().password = bedplate::model::Secret::new("wrong");
    let error = bmc.console(&stranger, pins.clone(), (80, 24)).await.err().unwrap();
    assert_eq!(error.kind(), "wrong-password", "{error}");

    // Somebody else answers at the console's address.
    let other = SshDouble::start("", 2).await;
    let known = pins.known(&format!("127.0.0.1:{}", ssh.port)).unwrap();
    pins.remember(&format!("127.0.0.1:{}", other.port), known).unwrap();
    tell(&double, other.port, None);
    let bmc = double.connect(&pins).await.unwrap();
    let error = bmc.console(&double.target(), pins.clone(), (80, 24)).await.err().unwrap();
    assert_eq!(error.kind(), "pin-changed", "{error}");
    ssh.stop().await;
    other.stop().await;
}

fn command(home: &std::path::Path, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env("BEDPLATE_BMC_PASSWORD", PASSWORD).env("XDG_CONFIG_HOME", home).env("TERM", "vt100");
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn people_and_scripts_use_it() {
    let double = Double::start(|_, _| None).await;
    let ssh = SshDouble::start("", 3).await;
    tell(&double, ssh.port, None);
    let home = tempfile::tempdir().unwrap();
    let bedplate = env!("CARGO_BIN_EXE_bedplate");
    let read =
        command(home.path(), bedplate, &["bmc", "console", &double.url, "--username", "admin", "--seconds", "3"]);
    let run =
        |mut command: Command| tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output().unwrap());
    let output = run(read).await.unwrap();
    let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.code() == Some(0) && said.contains("login: ") && why.contains("read only"), "{said}{why}");

    // At a terminal, which script(1) makes: what is typed arrives, and ~. ends it.
    let line = format!("{bedplate} bmc console {} --username admin", double.url);
    let mut typed = command(home.path(), "script", &["-qec", &line, "/dev/null"]);
    let typing = tokio::task::spawn_blocking(move || {
        let mut child = typed.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut keys = child.stdin.take().unwrap();
        std::thread::sleep(Duration::from_secs(2));
        keys.write_all(b"is ~. there\r").unwrap();
        std::thread::sleep(Duration::from_secs(1));
        keys.write_all(b"~.").unwrap();
        let output = child.wait_with_output().unwrap();
        drop(keys);
        output
    });
    let output = timeout(Duration::from_secs(30), typing).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("you said is ~. there"), "{said}");
    ssh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_console_is_evidence() {
    let double = Double::start(|_, _| None).await;
    let ssh = SshDouble::start("", 4).await;
    tell(&double, ssh.port, None);
    let room = tempfile::tempdir().unwrap();
    let secret = room.path().join("password");
    std::fs::write(&secret, PASSWORD).unwrap();
    let text = format!(
        "name = \"r\"\nimage = \"a@1\"\n[bmc]\nusername = \"admin\"\npassword-file = {secret:?}\n[disk]\nserial = \"S1\"\n\
         [install]\nrecord-console = true\n[[node]]\nname = \"n1\"\nbmc = \"{}\"\n",
        double.url
    );
    let spec = Spec::parse(&text, "rack.toml", room.path()).unwrap();
    let node = &spec.nodes[0];
    assert!(node.record_console);
    let machines = RedfishMachines::new(Arc::new(MemoryPins::default()));
    machines.record_console(node);
    let shown = async {
        loop {
            let found = machines.evidence(node).await;
            if found.get("console").and_then(Value::as_str).is_some_and(|text| text.contains("login: ")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(20), shown).await.expect("the console was recorded");
    machines.end_recording(node).await;
    assert!(!machines.evidence(node).await.contains_key("console"));
    ssh.stop().await;
}
