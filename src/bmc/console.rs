//! The serial console of the machine, through the BMC's SSH server: where it is, what is typed there to get to it, and the line itself.
//! DSP0268 tells the place in the system's or the manager's `SerialConsole`, and not every BMC what to type.

use std::net::Ipv6Addr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use russh::keys::ssh_key::Fingerprint;
use russh::keys::{HashAlg, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg, Disconnect, MethodKind, client};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Host;

use super::fact::Fact;
use super::{Address, Bmc, BmcError, Credentials, Pins, Reach, Target, oem};

/// SSH's own port.
const SSH: u16 = 22;
/// Time for the connection, the keys and the password.
const OPEN_LIMIT: Duration = Duration::from_secs(30);
/// How long the BMC's command line is waited for before something is typed there all the same.
const PROMPT_LIMIT: Duration = Duration::from_secs(5);
/// How long a command line is silent that waits.
const PROMPT_PAUSE: Duration = Duration::from_millis(300);
/// Bytes that are read while a prompt is waited for: enough for a greeting.
const GREETING_MAX: usize = 64 * 1024;
/// Between two signs of life on a silent line.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Where a serial console is, and how it is entered and left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsolePlace {
    /// The port of the SSH server that leads to it.
    pub port: u16,
    /// What is typed at the BMC's command line to get to it; nothing where the server is the console itself.
    pub entry: Option<String>,
    /// How to leave it, in the BMC's own words.
    pub leave: Option<String>,
}

/// An open serial console. Dropping it closes the connection.
pub struct Console {
    name: String,
    session: client::Handle<HostKey>,
    channel: Channel<client::Msg>,
    /// What came before anyone read.
    before: Vec<u8>,
    /// How to leave it, in the BMC's own words.
    pub leave: Option<String>,
}

/// Columns and rows of the terminal at this end.
pub type TerminalSize = (u16, u16);

impl Bmc {
    /// Where the machine's serial console is.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] where the BMC offers none by SSH, or has it switched off.
    pub async fn console_place(&self) -> Result<ConsolePlace, BmcError> {
        let system = self.just_read(&self.system).await?;
        let ssh = &system["SerialConsole"]["SSH"];
        if ssh["ServiceEnabled"] == true {
            let text = |key: &str| ssh[key].as_str().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
            let port = ssh["Port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(SSH);
            let entry = text("ConsoleEntryCommand").or_else(|| self.entry_command());
            return Ok(ConsolePlace { port, entry, leave: text("HotKeySequenceDisplay") });
        }
        for link in &self.managers {
            let manager = self.outline(link).await?;
            // A console that is one command away from the BMC's own command line needs only that.
            let leads = offers_ssh(&manager["SerialConsole"])
                || (self.entry_command().is_some() && offers_ssh(&manager["CommandShell"]));
            if leads && let Some(port) = self.ssh_port(&manager).await? {
                return Ok(ConsolePlace { port, entry: self.entry_command(), leave: None });
            }
        }
        Err(self.unsupported("show a serial console by SSH: it offers none, or its SSH service is switched off"))
    }

    /// What this make of BMC wants typed, where it does not say so itself.
    fn entry_command(&self) -> Option<String> {
        let commands = [
            (Fact::DellConsoleCommand, oem::DELL_CONSOLE),
            (Fact::HpeConsoleCommand, oem::HPE_CONSOLE),
            (Fact::LenovoConsoleCommand, oem::LENOVO_CONSOLE),
        ];
        commands.into_iter().find(|(fact, _)| self.quirks.has(*fact)).map(|(_, command)| command.to_owned())
    }

    /// The port of a manager's SSH server; none where it is switched off.
    async fn ssh_port(&self, manager: &Value) -> Result<Option<u16>, BmcError> {
        let Some(link) = manager["NetworkProtocol"]["@odata.id"].as_str() else { return Ok(Some(SSH)) };
        let protocol = self.outline(link).await?;
        let port = protocol["SSH"]["Port"].as_u64().and_then(|port| u16::try_from(port).ok());
        Ok((protocol["SSH"]["ProtocolEnabled"] != false).then_some(port.unwrap_or(SSH)))
    }

    /// Opens the machine's serial console: logs in at the BMC's SSH server and types what leads there. The server's host key is kept
    /// with the certificates, under its own port, when it is first seen.
    ///
    /// # Errors
    /// As [`Bmc::console_place`]; [`BmcError::PinChanged`] where the server shows another host key than before, and nothing was sent;
    /// [`BmcError::WrongPassword`]; [`BmcError::Unreachable`].
    pub async fn console(&self, target: &Target, pins: Arc<dyn Pins>, size: TerminalSize) -> Result<Console, BmcError> {
        let (Address::Url(url), Some(credentials)) = (&target.address, &target.credentials) else {
            return Err(self.unsupported("show a console without an address and credentials"));
        };
        let place = self.console_place().await?;
        let host = match url.host() {
            Some(Host::Ipv6(address)) => address.to_string(),
            Some(host) => host.to_string(),
            None => return Err(self.unsupported("show a console: its address names no host")),
        };
        let name = match host.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]:{}", place.port),
            Err(_) => format!("{host}:{}", place.port),
        };
        let opened = Box::pin(Console::open(&host, name.clone(), &place, credentials, pins, size));
        let late = |_| unreachable(&name, Reach::TimedOut { phase: "console", seconds: OPEN_LIMIT.as_secs() });
        timeout(OPEN_LIMIT, opened).await.map_err(late)?
    }
}

fn offers_ssh(service: &Value) -> bool {
    let kinds = service["ConnectTypesSupported"].as_array().map(Vec::as_slice).unwrap_or_default();
    service["ServiceEnabled"] != false && kinds.iter().any(|kind| kind == "SSH")
}

fn unreachable(name: &str, why: Reach) -> BmcError {
    BmcError::Unreachable { bmc: name.to_owned(), why }
}

fn broken(name: &str, error: &russh::Error) -> BmcError {
    unreachable(name, Reach::Broken(error.to_string()))
}

impl Console {
    async fn open(
        host: &str,
        name: String,
        place: &ConsolePlace,
        credentials: &Credentials,
        pins: Arc<dyn Pins>,
        (columns, rows): TerminalSize,
    ) -> Result<Self, BmcError> {
        let stream = TcpStream::connect((host, place.port)).await.map_err(|error| {
            let refused = error.kind() == std::io::ErrorKind::ConnectionRefused;
            unreachable(&name, if refused { Reach::Refused } else { Reach::Broken(error.to_string()) })
        })?;
        let refusal = Arc::new(OnceLock::new());
        let host_key = HostKey { name: name.clone(), pins, refusal: refusal.clone() };
        let connected = client::connect_stream(Arc::new(settings()), stream, host_key).await;
        let mut session = connected.map_err(|error| refusal.get().cloned().unwrap_or_else(|| broken(&name, &error)))?;
        let fail = |error: russh::Error| broken(&name, &error);
        if !log_in(&mut session, credentials).await.map_err(fail)? {
            return Err(BmcError::WrongPassword { bmc: name, username: Some(credentials.username.clone()) });
        }
        let channel = session.channel_open_session().await.map_err(fail)?;
        channel.request_pty(false, "vt100", columns.into(), rows.into(), 0, 0, &[]).await.map_err(fail)?;
        channel.request_shell(true).await.map_err(fail)?;
        let mut console = Self { name, session, channel, before: vec![], leave: place.leave.clone() };
        if let Some(entry) = &place.entry {
            console.await_prompt().await?;
            console.write(format!("{entry}\r").as_bytes()).await?;
        }
        Ok(console)
    }

    /// Waits until the BMC's command line has greeted and is silent; what is typed before some of them listen is lost.
    async fn await_prompt(&mut self) -> Result<(), BmcError> {
        let end = tokio::time::Instant::now() + PROMPT_LIMIT;
        let mut greeting = vec![];
        while tokio::time::Instant::now() < end && greeting.len() < GREETING_MAX {
            let pause = if greeting.is_empty() { PROMPT_LIMIT } else { PROMPT_PAUSE };
            match timeout(pause, self.read()).await {
                Ok(Ok(Some(bytes))) => greeting.extend_from_slice(&bytes),
                Ok(Ok(None)) => return Err(unreachable(&self.name, Reach::Broken("it closed the console".to_owned()))),
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
        }
        self.before = greeting;
        Ok(())
    }

    /// What the machine wrote next; none when the console has ended.
    ///
    /// # Errors
    /// [`BmcError::Refused`] where the BMC gives no command line.
    pub async fn read(&mut self) -> Result<Option<Bytes>, BmcError> {
        if !self.before.is_empty() {
            return Ok(Some(std::mem::take(&mut self.before).into()));
        }
        loop {
            match self.channel.wait().await {
                Some(ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. }) => return Ok(Some(data)),
                Some(ChannelMsg::Failure) => {
                    return Err(BmcError::Refused {
                        bmc: self.name.clone(),
                        request: "a command line by SSH".to_owned(),
                        status: 0,
                        message: "it gives none".to_owned(),
                        resolution: String::new(),
                        ids: vec![],
                    });
                }
                Some(ChannelMsg::Eof | ChannelMsg::Close) | None => return Ok(None),
                Some(_) => {}
            }
        }
    }

    /// Types something.
    ///
    /// # Errors
    /// [`BmcError::Unreachable`] when the connection has ended.
    pub async fn write(&self, bytes: &[u8]) -> Result<(), BmcError> {
        self.channel.data(bytes).await.map_err(|error| broken(&self.name, &error))
    }

    /// Tells that the terminal has another size now.
    pub async fn resize(&self, (columns, rows): TerminalSize) {
        // A console that is gone shows so at the next read.
        drop(self.channel.window_change(columns.into(), rows.into(), 0, 0).await);
    }

    /// Closes the connection.
    pub async fn close(self) {
        drop(self.channel.close().await);
        drop(self.session.disconnect(Disconnect::ByApplication, "", "").await);
    }
}

/// With what old BMCs know at the end of what is offered, so that it is used only where there is nothing better.
fn settings() -> client::Config {
    let mut settings = client::Config { keepalive_interval: Some(KEEPALIVE), nodelay: true, ..Default::default() };
    settings.preferred.kex.to_mut().extend([russh::kex::DH_G14_SHA1]);
    settings.preferred.mac.to_mut().extend([russh::mac::HMAC_SHA1]);
    settings
}

/// By password, or where the server asks for it in a dialogue, in that.
async fn log_in(session: &mut client::Handle<HostKey>, credentials: &Credentials) -> Result<bool, russh::Error> {
    use client::{AuthResult, KeyboardInteractiveAuthResponse as Asked};
    let (username, password) = (&credentials.username, credentials.password.reveal());
    let remaining = match session.authenticate_password(username, password).await? {
        AuthResult::Success => return Ok(true),
        AuthResult::Failure { remaining_methods, .. } => remaining_methods,
    };
    // A server that takes passwords has judged this one: another try would count towards the account's lock.
    if remaining.contains(&MethodKind::Password) || !remaining.contains(&MethodKind::KeyboardInteractive) {
        return Ok(false);
    }
    let mut asked = session.authenticate_keyboard_interactive_start(username, None).await?;
    for _ in 0..4 {
        asked = match asked {
            Asked::Success => return Ok(true),
            Asked::Failure { .. } => return Ok(false),
            Asked::InfoRequest { prompts, .. } => {
                let answers = prompts.iter().map(|_| password.to_owned()).collect();
                session.authenticate_keyboard_interactive_respond(answers).await?
            }
        };
    }
    Ok(false)
}

/// Believes the host key that is known, or the first that is seen.
struct HostKey {
    name: String,
    pins: Arc<dyn Pins>,
    refusal: Arc<OnceLock<BmcError>>,
}

impl client::Handler for HostKey {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else { return Ok(false) };
        let Fingerprint::Sha256(seen) = key.fingerprint(HashAlg::Sha256) else { return Ok(false) };
        let refused = match self.pins.known(&self.name) {
            Some(known) if known == seen => return Ok(true),
            Some(known) => BmcError::PinChanged { bmc: self.name.clone(), known, seen, place: Some(self.pins.place()) },
            None => match self.pins.remember(&self.name, seen) {
                Ok(()) => return Ok(true),
                Err(error) => error,
            },
        };
        // Whoever connected tells it.
        drop(self.refusal.set(refused));
        Ok(false)
    }
}
