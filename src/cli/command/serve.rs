//! `bedplate serve`: the one place where the appliance is put together.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::api::identity::{GivenFiles, ServerIdentity};
use crate::api::{self, ApiParts, ApiState, Gate, Leave};
use crate::auth::{Auth, MasterSource, Principal, RootCredentials};
use crate::bmc::PinFile;
use crate::cli::Context;
use crate::cli::config::size;
use crate::cli::exit::{CliError, DONE, Exit};
use crate::image::Catalogue;
use crate::image::boot::BootMedia;
use crate::meta::Embedded;
use crate::rack::{Conductor, ConductorConfig, Pace};
use crate::s3::{self, BODY_PATIENCE, Lifecycle, LifecycleSettings, S3Config, S3Door, SideGate};
use crate::store::{BoxError, GcOptions, PackHome, Ration, ScrubSettings, Store};
use crate::sys::process;
use crate::sys::space::Reserve;
use crate::sys::wire::{self, Patience, Peer, Tls};
use crate::sys::worker::Workers;
use crate::telemetry::{log, metrics};

const S3_LISTEN: &str = "127.0.0.1:9000";
const API_LISTEN: &str = "127.0.0.1:9100";
/// What is logged. s3s and the database report as errors what clients do wrong, and as news what is routine.
const LOGGED: &str = "info,s3s=off,fjall=warn,lsm_tree=warn";
/// Where the boot image lies in the data folder when no other is named.
const BOOT_IMAGE: &str = "boot/agent.iso";
/// Between two rounds of garbage collection.
const GC_EVERY: &str = "1h";
/// Every pack is read again within this time.
const SCRUB_WITHIN: &str = "30d";
/// What the scrub reads in a second at most.
const SCRUB_RATE: &str = "32MiB";
/// Rules count in days, so an hour more or less is not felt.
const LIFECYCLE: LifecycleSettings = LifecycleSettings { every: Duration::from_secs(3_600) };
/// Between two looks at the store's figures for /metrics.
const FIGURES_EVERY: Duration = Duration::from_secs(300);

/// Run the appliance: S3, the control API, the agent's endpoint and boot media.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  bedplate serve
  bedplate serve --data /srv/bedplate --s3-listen 10.0.1.1:9000 --api-listen 10.0.0.1:9100
  BEDPLATE_LOG=info,bedplate::rack=debug bedplate serve

The first start makes the root key: from BEDPLATE_ROOT_ACCESS_KEY and BEDPLATE_ROOT_SECRET_KEY, else a random one. It
is kept in DIR/root-credentials.toml. The master key, which encrypts the secrets of all other keys, is BEDPLATE_MASTER_KEY
(64 hexadecimal digits), else the file that --master-key-file names, else DIR/master.key, which the first start makes:
keep a copy of it. SIGTERM stops cleanly; nothing acknowledged is lost by SIGKILL.")]
pub struct ServeArgs {
    /// Address and port of S3 [default: 127.0.0.1:9000]
    #[arg(long, value_name = "ADDR:PORT", env = "BEDPLATE_S3_LISTEN")]
    s3_listen: Option<String>,
    /// Address and port of everything else [default: 127.0.0.1:9100]
    #[arg(long, value_name = "ADDR:PORT", env = "BEDPLATE_API_LISTEN")]
    api_listen: Option<String>,
    /// Whether S3 speaks TLS: on (besides plain HTTP, on the same port), off, or only [default: on]
    #[arg(long, value_name = "ON|OFF|ONLY", env = "BEDPLATE_S3_TLS")]
    s3_tls: Option<String>,
    /// The certificate of both ports, in PEM form, and after it those that vouch for it [default: a self-made one]
    #[arg(long, value_name = "FILE", env = "BEDPLATE_TLS_CERT")]
    tls_cert: Option<PathBuf>,
    /// The private key of that certificate, in PEM form
    #[arg(long, value_name = "FILE", env = "BEDPLATE_TLS_KEY")]
    tls_key: Option<PathBuf>,
    /// Host and port by which BMCs and nodes reach the control port [default: that of --api-listen]
    #[arg(long, value_name = "HOST:PORT", env = "BEDPLATE_ADVERTISE")]
    advertise: Option<String>,
    /// The boot image that BMCs mount [default: DIR/boot/agent.iso, where it exists]
    #[arg(long, value_name = "FILE", env = "BEDPLATE_BOOT_IMAGE")]
    boot_image: Option<PathBuf>,
    /// A domain whose sub-domains name buckets; repeatable
    #[arg(long = "s3-domain", value_name = "DOMAIN")]
    s3_domains: Vec<String>,
    /// Between two rounds of garbage collection: 30s, 15m, 6h, 1d or never [default: 1h]
    #[arg(long, value_name = "TIME", env = "BEDPLATE_GC_EVERY")]
    gc_every: Option<String>,
    /// Read every pack again within this time, and compare it; or never [default: 30d]
    #[arg(long, value_name = "TIME", env = "BEDPLATE_SCRUB_WITHIN")]
    scrub_within: Option<String>,
    /// Bytes a second that the scrub reads at most; 0 is no bound [default: 32MiB]
    #[arg(long, value_name = "SIZE", env = "BEDPLATE_SCRUB_RATE")]
    scrub_rate: Option<String>,
    /// How much of the data disk is kept free [default: 256MiB or a hundredth, whichever is more]
    #[arg(long, value_name = "SIZE", env = "BEDPLATE_RESERVE")]
    reserve: Option<String>,
    /// The file that holds the master key, 64 hexadecimal digits [default: DIR/master.key]
    #[arg(long, value_name = "FILE", env = "BEDPLATE_MASTER_KEY_FILE")]
    master_key_file: Option<PathBuf>,
    /// How long the next bytes of an upload are awaited before it is refused [default: 60s]
    #[arg(long, value_name = "TIME", env = "BEDPLATE_BODY_TIMEOUT")]
    body_timeout: Option<String>,
    /// Log one JSON object a line
    #[arg(long)]
    log_json: bool,
}

/// What flags, environment, file and defaults come to.
struct Settings {
    data: PathBuf,
    s3_listen: SocketAddr,
    api_listen: SocketAddr,
    s3_tls: S3Tls,
    certificate: Option<GivenFiles>,
    advertise: Option<String>,
    boot_image: Option<PathBuf>,
    s3_domains: Vec<String>,
    body_timeout: Duration,
    gc_every: Option<Duration>,
    scrub: Option<ScrubSettings>,
    reserve: Reserve,
    ration: Ration,
    master_key_file: Option<PathBuf>,
}

impl Settings {
    fn new(args: ServeArgs, context: &Context) -> Result<Self, CliError> {
        let file = &context.config.serve;
        let address = |flag: Option<String>, file: &Option<String>, default: &str| {
            let text = flag.or_else(|| file.clone()).unwrap_or_else(|| default.to_owned());
            text.parse::<SocketAddr>().map_err(|_| {
                CliError::usage(format!("{text:?} is not an address to listen on: write ADDRESS:PORT, as in {default}"))
            })
        };
        let advertise = args.advertise.or_else(|| file.advertise.clone());
        if let Some(text) = &advertise {
            let good =
                text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
            if !good || text.contains('/') {
                return Err(CliError::usage(format!("{text:?} is not HOST:PORT, as BMCs and nodes are to reach it")));
            }
        }
        let certificate = given_files(
            args.tls_cert.or_else(|| file.tls_cert.clone()),
            args.tls_key.or_else(|| file.tls_key.clone()),
        )?;
        let gc_every = args.gc_every.or_else(|| file.gc_every.clone()).unwrap_or_else(|| GC_EVERY.to_owned());
        let within = args.scrub_within.or_else(|| file.scrub_within.clone()).unwrap_or_else(|| SCRUB_WITHIN.to_owned());
        let rate = args.scrub_rate.or_else(|| file.scrub_rate.clone()).unwrap_or_else(|| SCRUB_RATE.to_owned());
        let rate = size(&rate)?;
        Ok(Self {
            gc_every: period(&gc_every)?,
            scrub: period(&within)?.map(|within| ScrubSettings { within, rate }),
            reserve: match args.reserve {
                Some(text) => Reserve(Some(size(&text)?)),
                None => file.reserve()?,
            },
            ration: file.ration(),
            master_key_file: args.master_key_file.or_else(|| file.master_key_file.clone()),
            s3_tls: s3_tls(args.s3_tls.or_else(|| file.s3_tls.clone()).as_deref())?,
            certificate,
            body_timeout: match args.body_timeout.or_else(|| file.body_timeout.clone()) {
                Some(text) => period(&text)?.ok_or_else(|| CliError::usage("an upload cannot be awaited for ever"))?,
                None => BODY_PATIENCE,
            },
            data: context.data.clone(),
            s3_listen: address(args.s3_listen, &file.s3_listen, S3_LISTEN)?,
            api_listen: address(args.api_listen, &file.api_listen, API_LISTEN)?,
            advertise,
            boot_image: args.boot_image.or_else(|| file.boot_image.clone()),
            s3_domains: if args.s3_domains.is_empty() { file.s3_domains.clone() } else { args.s3_domains },
        })
    }

    /// The boot image that was named, which must be one, or the one in the data folder, where there is one.
    fn boot_media(&self) -> Result<Option<BootMedia>, CliError> {
        let path = match &self.boot_image {
            Some(path) => path.clone(),
            None => Some(self.data.join(BOOT_IMAGE)).filter(|path| path.exists()).unwrap_or_default(),
        };
        if path.as_os_str().is_empty() {
            tracing::warn!("no boot image: racks cannot be applied until `serve` is started with --boot-image");
            return Ok(None);
        }
        let media = BootMedia::open(&path).map_err(|error| {
            CliError::from(error).hint("build one with `cargo xtask image build agent`, and name its agent.iso")
        })?;
        Ok(Some(media))
    }
}

/// Whether S3 speaks TLS.
#[derive(Clone, Copy)]
enum S3Tls {
    Off,
    On,
    Only,
}

fn s3_tls(asked: Option<&str>) -> Result<S3Tls, CliError> {
    match asked {
        None | Some("on") => Ok(S3Tls::On),
        Some("off") => Ok(S3Tls::Off),
        Some("only") => Ok(S3Tls::Only),
        Some(other) => Err(CliError::usage(format!("{other:?} is not what --s3-tls takes: write on, off or only"))),
    }
}

/// A certificate and its key, both or neither.
fn given_files(certificate: Option<PathBuf>, key: Option<PathBuf>) -> Result<Option<GivenFiles>, CliError> {
    match (certificate, key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(GivenFiles { certificate, key })),
        (Some(_), None) => Err(CliError::usage("a certificate needs its key: give --tls-key as well")),
        (None, Some(_)) => Err(CliError::usage("a key needs its certificate: give --tls-cert as well")),
    }
}

/// Runs the appliance until SIGTERM or SIGINT.
pub async fn run(args: ServeArgs, context: &Context) -> Result<Exit, CliError> {
    log::init(LOGGED, args.log_json || context.config.serve.log_json);
    metrics::install();
    wire::install_crypto();
    let files = process::raise_open_files();
    tracing::debug!(files, "files that may be open at once");
    let settings = Settings::new(args, context)?;
    let stop = Stop::listen()?;
    let s3_listener = bind(settings.s3_listen, "S3", "--s3-listen").await?;
    let api_listener = bind(settings.api_listen, "the control API", "--api-listen").await?;
    make_data_folder(&settings.data)?;
    let appliance = Appliance::open(&settings, api_listener.local_addr()?).await?;
    appliance.serve(s3_listener, api_listener).await?;
    stop.asked().await;
    appliance.stop().await;
    Ok(DONE)
}

/// The signals that end the program cleanly.
struct Stop {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Stop {
    fn listen() -> Result<Self, CliError> {
        let listen = |kind| signal(kind).map_err(|error| CliError::because("listen for signals", &error));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn asked(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn bind(address: SocketAddr, what: &str, flag: &str) -> Result<TcpListener, CliError> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!("another program uses the port, perhaps another `bedplate serve`: stop it, or choose another with {flag}")
            }
            _ => format!("choose an address of this machine with {flag}"),
        };
        CliError::because(format!("listen on {address} for {what}"), &error).hint(hint)
    })
}

/// Makes the data folder, which only its owner may enter, and finds out now whether it can be written.
fn make_data_folder(data: &Path) -> Result<(), CliError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let probe = data.join(".writable");
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data);
    made.and_then(|()| std::fs::write(&probe, b"")).and_then(|()| std::fs::remove_file(&probe)).map_err(|error| {
        CliError::because(format!("write to the data folder {}", data.display()), &error)
            .hint("name a folder that this user may write to with --data")
    })
}

/// The control door asks S3's gate who may read and write what.
struct SameGate(SideGate);

#[async_trait::async_trait]
impl Gate for SameGate {
    async fn may_get(&self, caller: &Principal, peer: Option<Peer>, bucket: &str, key: &str) -> Result<bool, BoxError> {
        Ok(self.0.may_get(caller, peer, bucket, key).await?)
    }

    async fn may_list(&self, caller: &Principal, peer: Option<Peer>, bucket: &str) -> Result<bool, BoxError> {
        Ok(self.0.may_list(caller, peer, bucket).await?)
    }

    async fn may_put(
        &self,
        caller: &Principal,
        peer: Option<Peer>,
        bucket: &str,
        key: &str,
    ) -> Result<Leave, BoxError> {
        Ok(match self.0.may_put(caller, peer, bucket, key).await? {
            s3::Leave::Refused => Leave::Refused,
            s3::Leave::Encrypted => Leave::Encrypted,
            s3::Leave::Granted { bucket, headers } => Leave::Granted { bucket, headers },
        })
    }
}

/// Everything that runs, in the order in which it stops.
struct Appliance {
    doors: Workers,
    jobs: Workers,
    engine: Workers,
    store: Store,
    s3: S3Door,
    s3_tls: S3Tls,
    api: ApiState,
    conductor: Conductor,
    identity: ServerIdentity,
    gc_every: Option<Duration>,
    scrub: Option<ScrubSettings>,
}

impl Appliance {
    async fn open(settings: &Settings, api_address: SocketAddr) -> Result<Self, CliError> {
        let (doors, jobs, engine) = (Workers::new(), Workers::new(), Workers::new());
        let meta = Embedded::open_with(&settings.data.join("meta"), settings.reserve)?;
        let packs = PackHome::local(settings.data.join("packs")).with_reserve(settings.reserve);
        let packs = packs.with_ration(settings.ration);
        let store = Store::open(meta.clone(), packs, &engine).await?;
        let master = MasterSource { data: settings.data.clone(), file: settings.master_key_file.clone() };
        let auth = Auth::open(meta.clone(), RootCredentials::establish(&settings.data)?, &master).await?;
        let identity = match &settings.certificate {
            Some(files) => ServerIdentity::given(files.clone())?,
            None => ServerIdentity::load_or_create(&settings.data)?,
        };
        let catalogue = Catalogue::new(store.clone());
        catalogue.prepare().await?;
        let advertise = settings.advertise.clone().unwrap_or_else(|| api_address.to_string());
        if settings.advertise.is_none() && api_address.ip().is_unspecified() {
            tracing::warn!("--advertise is not given: BMCs and nodes cannot reach the control port by {advertise}");
        }
        let public_url = format!("https://{advertise}");
        let pins = Arc::new(PinFile::open(&settings.data.join("known-bmcs.toml"))?);
        let conductor = Conductor::new(
            meta,
            Arc::new(catalogue.clone()),
            Arc::new(crate::rack::redfish::RedfishMachines::new(pins)),
            &jobs,
            ConductorConfig {
                public_url: public_url.clone(),
                media_url: format!("http://{advertise}"),
                certificate_pin: identity.shown_pin(),
                pace: Pace::default(),
                evidence: Some(settings.data.join("evidence")),
            },
        );
        let s3 = S3Config { domains: settings.s3_domains.clone(), body_patience: settings.body_timeout };
        let s3 = S3Door::new(store.clone(), auth.clone(), &s3)?;
        let gate = Arc::new(SameGate(SideGate::new(auth.clone(), store.clone())));
        let api = ApiState::new(ApiParts {
            store: store.clone(),
            catalogue,
            conductor: conductor.clone(),
            auth,
            gate,
            boot: settings.boot_media()?,
            public_url,
            certificate_pin: identity.shown_pin(),
        });
        let (gc_every, scrub, s3_tls) = (settings.gc_every, settings.scrub, settings.s3_tls);
        Ok(Self { doors, jobs, engine, store, s3, s3_tls, api, conductor, identity, gc_every, scrub })
    }

    /// Goes on with the jobs that were under way, and opens the doors.
    async fn serve(&self, s3_listener: TcpListener, api_listener: TcpListener) -> Result<(), CliError> {
        let (s3_address, api_address) = (s3_listener.local_addr()?, api_listener.local_addr()?);
        let token = self.doors.token();
        let (tls, patience) = (self.identity.tls().acceptor(), Patience::default());
        let s3_tls = match self.s3_tls {
            S3Tls::Off => Tls::Off,
            S3Tls::On => Tls::Offered(tls.clone()),
            S3Tls::Only => Tls::Only(tls.clone()),
        };
        self.conductor.resume_all().await?;
        self.doors.spawn("S3 door", wire::serve(s3_listener, s3_tls, self.s3.clone(), patience, token.clone()));
        let router = api::router(self.api.clone());
        self.doors.spawn("control door", wire::serve(api_listener, Tls::Offered(tls), router, patience, token.clone()));
        self.doors.spawn("certificate", self.identity.clone().follow(token));
        self.jobs.spawn("figures", figures(self.store.clone(), self.jobs.token()));
        if let Some(every) = self.gc_every {
            self.jobs.spawn("garbage collection", collect(self.store.clone(), every, self.jobs.token()));
        }
        if let Some(scrub) = self.scrub {
            self.jobs.spawn("scrub", self.store.clone().keep_scrubbing(scrub, self.jobs.token()));
        }
        let lifecycle = Lifecycle::new(self.store.clone());
        self.jobs.spawn("lifecycle", lifecycle.keep_sweeping(LIFECYCLE, self.jobs.token()));
        self.api.set_ready(true);
        tracing::info!(s3 = %s3_address, api = %api_address, pin = self.identity.pin_text(), "ready");
        Ok(())
    }

    /// Stops from the outside in: no new requests, then no job steps, then the store.
    async fn stop(self) {
        tracing::info!("stopping");
        self.api.set_ready(false);
        self.doors.stop().await;
        self.jobs.stop().await;
        self.store.close().await;
        self.engine.stop().await;
        tracing::info!("stopped");
    }
}

/// Keeps the store's figures in /metrics fresh.
async fn figures(store: Store, token: tokio_util::sync::CancellationToken) {
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(FIGURES_EVERY) => {}
        }
        match store.stats(None).await {
            Ok(stats) => {
                metrics::store(stats.objects, stats.logical_bytes, stats.unique_bytes, stats.stored_bytes);
            }
            Err(error) => tracing::warn!(%error, "the store's figures cannot be read"),
        }
    }
}

/// A time as people write it; none for `never`.
pub(super) fn period(text: &str) -> Result<Option<Duration>, CliError> {
    if text == "never" {
        return Ok(None);
    }
    let bad =
        || CliError::usage(format!("{text:?} is not a time: write a number and s, m, h or d, as in 30m, or never"));
    let (at, unit) = text.char_indices().last().ok_or_else(bad)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(bad()),
    };
    let number: u64 = text[..at].parse().map_err(|_| bad())?;
    let seconds = number.checked_mul(seconds).filter(|seconds| *seconds > 0).ok_or_else(bad)?;
    Ok(Some(Duration::from_secs(seconds)))
}

/// Collects garbage from time to time, beside everything else.
async fn collect(store: Store, every: Duration, token: tokio_util::sync::CancellationToken) {
    loop {
        let round = async {
            tokio::time::sleep(every).await;
            store.gc(GcOptions { gentle: true, ..GcOptions::default() }).await
        };
        // A round that is dropped goes on where it was in the next one.
        let outcome = tokio::select! {
            () = token.cancelled() => return,
            outcome = round => outcome,
        };
        match outcome {
            Ok(report) if report.done.deleted + report.done.repacked + report.done.orphans > 0 => {
                let done = &report.done;
                tracing::info!(
                    deleted = done.deleted,
                    freed_bytes = done.freed_bytes,
                    moved_bytes = done.moved_bytes,
                    seconds = report.seconds,
                    "collected garbage"
                );
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "garbage was not collected"),
        }
    }
}

#[cfg(test)]
mod tests {
    //! Times are read as people write them.
    use super::*;

    #[test]
    fn reads_times() {
        for (text, seconds) in [("30s", 30), ("15m", 900), ("6h", 21_600), ("1d", 86_400)] {
            assert_eq!(period(text).unwrap(), Some(Duration::from_secs(seconds)));
        }
        assert_eq!(period("never").unwrap(), None);
        for text in ["", "h", "0s", "1", "1w", "-1h", "1.5h", "99999999999999999999d", "9999999999999999999h", "5µ"] {
            assert!(period(text).is_err(), "{text}");
        }
    }
}
