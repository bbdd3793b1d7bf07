//! The configuration file. Defaults are weaker than the file, the file than the environment, the environment than flags.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::exit::CliError;
use crate::model::ByteSize;
use crate::store::Ration;
use crate::sys::space::Reserve;

/// What `--config FILE` may say; `config/bedplate.toml` documents every key.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// The data folder.
    pub data: Option<PathBuf>,
    /// Base URL of the control API.
    pub url: Option<String>,
    /// Base URL of S3.
    pub s3_url: Option<String>,
    /// SHA-256 of the appliance's certificate.
    pub pin: Option<String>,
    /// `bedplate serve` only.
    pub serve: ServeConfig,
}

/// The `[serve]` table.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ServeConfig {
    /// Address and port of S3.
    pub s3_listen: Option<String>,
    /// Address and port of everything else.
    pub api_listen: Option<String>,
    /// Whether S3 speaks TLS: `on`, `off` or `only`.
    pub s3_tls: Option<String>,
    /// The certificate of both ports.
    pub tls_cert: Option<PathBuf>,
    /// Its key.
    pub tls_key: Option<PathBuf>,
    /// How long the next bytes of an upload are awaited.
    pub body_timeout: Option<String>,
    /// Host and port by which BMCs and nodes reach the control port.
    pub advertise: Option<String>,
    /// The boot image for virtual media.
    pub boot_image: Option<PathBuf>,
    /// Domains for virtual-host-style bucket addresses.
    pub s3_domains: Vec<String>,
    /// Between two rounds of garbage collection.
    pub gc_every: Option<String>,
    /// Every pack is read again within this time, or `never`.
    pub scrub_within: Option<String>,
    /// Bytes a second that the scrub reads at most.
    pub scrub_rate: Option<String>,
    /// Bytes of the data disk that are kept free.
    pub reserve: Option<String>,
    /// Chunks that the terms of an object have on average, at least.
    pub chunks_per_term: Option<u32>,
    /// The file that holds the master key.
    pub master_key_file: Option<PathBuf>,
    /// Log as JSON lines.
    pub log_json: bool,
}

impl ServeConfig {
    /// What of the data disk is kept free.
    pub fn reserve(&self) -> Result<Reserve, CliError> {
        Ok(Reserve(self.reserve.as_deref().map(size).transpose()?))
    }

    /// How far objects share chunks.
    pub fn ration(&self) -> Ration {
        let standard = Ration::default();
        Ration { chunks_per_term: self.chunks_per_term.unwrap_or(standard.chunks_per_term), ..standard }
    }
}

/// Reads a number of bytes.
pub fn size(text: &str) -> Result<u64, CliError> {
    text.parse::<ByteSize>().map(|size| size.0).map_err(|error| CliError::usage(error.to_string()))
}

impl Config {
    /// Reads the file; an unknown key is an error that names it.
    pub fn read(path: &Path) -> Result<Self, CliError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| CliError::because(format!("read the configuration {}", path.display()), &error))?;
        toml::from_str(&text).map_err(|error| {
            CliError::usage(format!("{} is not a configuration: {error}", path.display()))
                .hint("config/bedplate.toml documents every key")
        })
    }
}

#[cfg(test)]
mod tests {
    //! The shipped file parses, with every key that it documents, and a misspelt key is refused by name.
    use super::*;

    /// The shipped file with each documented key switched on.
    fn shipped() -> String {
        let text = include_str!("../../config/bedplate.toml");
        let is_key = |line: &str| line.starts_with('#') && !line.starts_with("# ") && line.contains(" = ");
        text.lines().map(|line| if is_key(line) { &line[1..] } else { line }).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn shipped_file_parses() {
        toml::from_str::<Config>(include_str!("../../config/bedplate.toml")).unwrap();
        let config: Config = toml::from_str(&shipped()).unwrap();
        assert!(config.data.is_some() && config.url.is_some() && config.s3_url.is_some() && config.pin.is_some());
        let serve = config.serve;
        assert!(serve.s3_listen.is_some() && serve.api_listen.is_some() && serve.advertise.is_some());
        assert!(serve.s3_tls.is_some() && serve.tls_cert.is_some() && serve.tls_key.is_some());
        assert!(serve.body_timeout.is_some());
        assert!(serve.boot_image.is_some() && !serve.s3_domains.is_empty() && serve.gc_every.is_some());
        assert!(serve.scrub_within.is_some() && serve.scrub_rate.is_some() && serve.reserve().unwrap().0.is_some());
        assert!(serve.master_key_file.is_some());
        assert_eq!(serve.chunks_per_term, Some(Ration::default().chunks_per_term));
    }

    #[test]
    fn unknown_keys_are_refused() {
        let error = toml::from_str::<Config>("s3-listne = \"x\"").unwrap_err().to_string();
        assert!(error.contains("s3-listne"), "{error}");
    }
}
