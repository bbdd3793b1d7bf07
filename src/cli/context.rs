//! What every command is given: the printer, the addresses, and the credentials.

use std::path::PathBuf;

use super::api_client::ApiClient;
use super::args::GlobalArgs;
use super::config::Config;
use super::exit::CliError;
use super::output::Output;
use crate::auth::RootCredentials;
use crate::model::Secret;

/// Default address of the control API.
const URL: &str = "http://127.0.0.1:9100";
/// Default address of S3.
const S3_URL: &str = "http://127.0.0.1:9000";
/// Default data folder.
const DATA: &str = "./bedplate-data";

/// A key and its secret.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The access key.
    pub access_key: String,
    /// The secret key.
    pub secret_key: Secret,
}

/// What a command works with.
#[derive(Clone, Debug)]
pub struct Context {
    /// The printer.
    pub output: Output,
    /// Base URL of the control API, without a slash at its end.
    pub url: String,
    /// Base URL of S3, without a slash at its end.
    pub s3_url: String,
    /// The data folder.
    pub data: PathBuf,
    /// The pin of the appliance's certificate, for https.
    pub pin: Option<[u8; 32]>,
    /// The configuration file, or an empty one.
    pub config: Config,
    /// The key of a credentials file, where one was named; it comes before all others.
    pub given: Option<Credentials>,
}

impl Context {
    /// Merges flags and environment over the configuration file over the defaults.
    pub fn new(global: GlobalArgs) -> Result<Self, CliError> {
        let config = global.config.as_deref().map(Config::read).transpose()?.unwrap_or_default();
        let url = global.url.or_else(|| config.url.clone()).unwrap_or_else(|| URL.to_owned());
        let s3_url = global.s3_url.or_else(|| config.s3_url.clone()).unwrap_or_else(|| S3_URL.to_owned());
        let data = global.data.or_else(|| config.data.clone()).unwrap_or_else(|| PathBuf::from(DATA));
        let pin = global.pin.or_else(|| config.pin.clone()).map(|text| parse_pin(&text)).transpose()?;
        for url in [&url, &s3_url] {
            check_url(url)?;
        }
        let trimmed = |url: String| url.trim_end_matches('/').to_owned();
        let output = Output::new(global.output);
        Ok(Self { output, url: trimmed(url), s3_url: trimmed(s3_url), data, pin, config, given: None })
    }

    /// The key that commands sign with: `BEDPLATE_ACCESS_KEY` and `BEDPLATE_SECRET_KEY`, else the root key in the
    /// data folder.
    pub fn credentials(&self) -> Result<Credentials, CliError> {
        if let Some(given) = &self.given {
            return Ok(given.clone());
        }
        let from_env = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        match (from_env("BEDPLATE_ACCESS_KEY"), from_env("BEDPLATE_SECRET_KEY")) {
            (Some(access_key), Some(secret_key)) => Ok(Credentials { access_key, secret_key: Secret::new(secret_key) }),
            (None, None) => {
                let root = RootCredentials::read(&self.data).map_err(|error| {
                    CliError::from(error).hint(
                        "set BEDPLATE_ACCESS_KEY and BEDPLATE_SECRET_KEY, or name the appliance's data folder with --data",
                    )
                })?;
                Ok(Credentials { access_key: root.access_key, secret_key: root.secret_key })
            }
            _ => Err(CliError::usage("BEDPLATE_ACCESS_KEY and BEDPLATE_SECRET_KEY are set together or not at all")),
        }
    }

    /// Whether both addresses probably lead to one appliance: they name the same machine, or that of the control API was given.
    #[must_use]
    pub fn is_one_appliance(&self) -> bool {
        let host = |url: &str| url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
        self.url != URL || host(&self.url) == host(&self.s3_url)
    }

    /// A client of the control API.
    pub fn api(&self) -> Result<ApiClient, CliError> {
        ApiClient::new(&self.url, self.pin, &self.credentials()?)
    }
}

/// Reads a pin: 64 hexadecimal digits, with or without `sha256:` before them.
pub fn parse_pin(text: &str) -> Result<[u8; 32], CliError> {
    let mut pin = [0; 32];
    hex::decode_to_slice(text.strip_prefix("sha256:").unwrap_or(text), &mut pin)
        .map_err(|_| CliError::usage(format!("{text:?} is not a pin: it has 64 hexadecimal digits")))?;
    Ok(pin)
}

fn check_url(text: &str) -> Result<(), CliError> {
    let good = url::Url::parse(text)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none());
    if good { Ok(()) } else { Err(CliError::usage(format!("{text:?} is not an address: write http://HOST:PORT"))) }
}
