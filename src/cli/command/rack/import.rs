//! `bedplate rack import`: the list that came with the rack becomes a spec, and the passwords on its labels become files.

use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::parse_spec;
use crate::cli::Context;
use crate::cli::exit::{CliError, DONE, Exit, USAGE};
use crate::model::{ImageRef, NodeName, Secret};
use crate::rack::import::{Import, PASSWORDS, import};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The first line names the columns: BMC address, and as far as there are any name, serial number, MAC, user, password, \
                        slot, power feed and model, under the names that integrators give them. Passwords go into files of their own beside \
                        the spec, which only you can read. `rack plan` refuses a node whose BMC tells another serial number than the list."
)]
pub(super) struct ImportArgs {
    /// The list, with comma, semicolon or tab between its columns
    list: PathBuf,
    /// The image that the nodes are to get
    #[arg(long, value_name = "NAME@VERSION")]
    image: ImageRef,
    /// The rack's name [default: that of the list's file]
    #[arg(long)]
    name: Option<String>,
    /// Who logs in to the BMCs where a row does not say
    #[arg(long, default_value = "admin")]
    username: String,
    /// The spec to write [default: the list's path with .toml]
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
}

/// What was written: the JSON of `rack import`.
#[derive(serde::Serialize)]
struct Written {
    spec: PathBuf,
    nodes: usize,
    /// Files with passwords.
    passwords: usize,
    /// Columns that were of no use.
    ignored_columns: Vec<String>,
}

pub(super) fn run(args: ImportArgs, context: &Context) -> Result<Exit, CliError> {
    let usage = |message: String| CliError { exit: USAGE, message, hint: None };
    let list = std::fs::read_to_string(&args.list)
        .map_err(|error| usage(format!("cannot read the list {}: {error}", args.list.display())))?;
    let spec = args.into.unwrap_or_else(|| args.list.with_extension("toml"));
    if spec.exists() {
        let message = format!("{} exists already; name another file with --into, or remove it", spec.display());
        return Err(CliError::failed(message));
    }
    let named = args.name.is_some();
    let stem = args.list.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let name = args.name.unwrap_or(stem);
    let origin = args.list.display().to_string();
    let what = Import { origin: &origin, name: &name, image: &args.image, username: &args.username };
    let unnamed = |error: CliError| match named || name.parse::<NodeName>().is_ok() {
        true => error,
        false => {
            error.hint(format!("{name:?} is no good name for a rack; give it one with --name, such as --name row-7"))
        }
    };
    let imported = import(&list, &what).map_err(|error| unnamed(usage(error.to_string())))?;
    let folder = spec.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    parse_spec(&imported.spec, &spec).map_err(unnamed)?;
    // Passwords first: a spec that is there can be used.
    for (node, password) in &imported.passwords {
        keep(&folder.join(PASSWORDS), node, password)?;
    }
    put(&spec, imported.spec.as_bytes(), 0o644)
        .map_err(|error| CliError::because(format!("write {}", spec.display()), &error))?;
    let (nodes, passwords) = (imported.nodes, imported.passwords.len());
    let written = Written { spec, nodes, passwords, ignored_columns: imported.ignored };
    context.output.value(&written, |written| {
        let mut text = format!("{}: {} nodes", written.spec.display(), written.nodes);
        if written.passwords > 0 {
            text.push_str(&format!("; {} passwords in {}/", written.passwords, folder.join(PASSWORDS).display()));
        }
        if !written.ignored_columns.is_empty() {
            text.push_str(&format!("\nnot used: the columns {}", written.ignored_columns.join(", ")));
        }
        text.push_str(&format!("\nnext: bedplate rack survey {}", written.spec.display()));
        text
    })?;
    Ok(DONE)
}

/// Writes a node's password into a file that only its owner can read; the same one may be there already.
fn keep(folder: &Path, node: &NodeName, password: &Secret) -> Result<(), CliError> {
    let file = folder.join(node.as_str());
    let failed = |error: io::Error| CliError::because(format!("write {}", file.display()), &error);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let text = format!("{}\n", password.reveal());
    match put(&file, text.as_bytes(), 0o600) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            match std::fs::read_to_string(&file).map_err(failed)? == text {
                true => Ok(()),
                false => Err(CliError::failed(format!("{} holds another password", file.display()))
                    .hint("remove it if it is of an older list, or name another folder with --into")),
            }
        }
        Err(error) => Err(failed(error)),
    }
}

/// Writes a new file, whole or not at all; one that is there stays as it is.
fn put(file: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let fresh = file.with_added_extension(format!("new-{}", std::process::id()));
    let written = (|| {
        let mut new = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        new.write_all(bytes)?;
        new.sync_all()?;
        // A link, unlike a renaming, never takes another file's place.
        std::fs::hard_link(&fresh, file)
    })();
    let removed = std::fs::remove_file(&fresh);
    written.and(removed)
}
