//! Files of which only new chunks travel.

use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use indicatif::ProgressBar;

use super::{Fresh, Load};
use crate::cli::Context;
use crate::cli::exit::CliError;
use crate::cli::files::FileBelow;
use crate::cli::remote::Place;
use crate::model::ByteSize;
use crate::pull::{Appliance, Login, Patience, PullError, with_causes};
use crate::push::{GROUP_BYTES, GroupFile, PART_BYTES, PushDoor, PushError, PushFile, Pusher, Tally};
use crate::sys::{entropy, wire};

/// Shorter files travel whole: there is little to save, and a question costs as much as an answer.
const WHOLE_BELOW: u64 = 64 * 1024;
/// Longest file of a group.
const GROUPED_BELOW: u64 = 2 * 1024 * 1024;
/// Files of a group at most.
const GROUP_FILES: usize = 64;
/// How long an appliance that is away is waited for.
const PATIENCE: Patience = Patience::For(Duration::from_secs(60));

/// A key that is put as chunks, if there is one: who may put one of them may ask about chunks.
pub(super) fn example<'a>(items: &[Fresh<'a>]) -> Option<&'a str> {
    items.iter().find(|Fresh { item, .. }| item.bytes >= WHOLE_BELOW).map(|Fresh { item, .. }| item.key.as_str())
}

/// What sends chunks to the bucket; nothing where no file needs it, or where the appliance does not take them, which is said.
pub(super) async fn open(
    context: &Context,
    target: &Place,
    example: Option<&str>,
    bar: &ProgressBar,
) -> Result<Option<Pusher>, CliError> {
    let Some(key) = example else { return Ok(None) };
    if !context.is_one_appliance() {
        let (url, s3_url) = (&context.url, &context.s3_url);
        context.output.say(&format!(
            "note: files travel whole, because --url was not given, and {url} and {s3_url} may be two appliances"
        ));
        return Ok(None);
    }
    wire::install_crypto();
    let credentials = context.credentials()?;
    let login = Login::Key { access_key: credentials.access_key, secret_key: credentials.secret_key };
    let appliance = Appliance::new(&context.url, context.pin, &login)?;
    match PushDoor::open(appliance, target.bucket.as_str(), key, PATIENCE).await {
        Ok(door) => {
            let (bar, counted) = (bar.clone(), door.clone());
            let told = move |tally: &Tally, done| {
                let (sent, known) = (ByteSize(counted.bytes_sent()), ByteSize(tally.known()));
                bar.set_message(format!("put, {sent} sent, {known} known"));
                bar.inc(done);
            };
            Ok(Some(Pusher::new(door, told)))
        }
        Err(error @ (PullError::Address(_) | PullError::BadAnswer { .. })) => Err(failed(&error.into())),
        Err(error) => {
            // Where S3 refuses too, it says so itself.
            context.output.say(&format!("note: files travel whole, over S3: {}", with_causes(&error)));
            Ok(None)
        }
    }
}

/// How the files travel: small ones in groups.
pub(super) fn loads<'a>(items: &[Fresh<'a>], pushes: bool) -> Vec<Load<'a>> {
    let (mut loads, mut group, mut bytes) = (Vec::new(), Vec::new(), 0);
    for Fresh { item, old } in items {
        match item.bytes {
            _ if !pushes => loads.push(Load::Whole(item)),
            ..WHOLE_BELOW => loads.push(Load::Whole(item)),
            GROUPED_BELOW.. => loads.push(Load::Chunks(item, *old)),
            _ => {
                if group.len() == GROUP_FILES || bytes + item.bytes > GROUP_BYTES {
                    loads.push(Load::Group(std::mem::take(&mut group)));
                    bytes = 0;
                }
                bytes += item.bytes;
                group.push(GroupFile { file: item.file.clone(), key: item.key.clone(), bytes: item.bytes });
            }
        }
    }
    if !group.is_empty() {
        loads.push(Load::Group(group));
    }
    loads
}

/// Sends a file's new chunks.
pub(super) async fn file(pusher: &Pusher, item: &FileBelow, old: Option<u64>) -> Result<(), CliError> {
    let what = item.file.display().to_string();
    let input = File::open(&item.file).map_err(|error| CliError::because(format!("read {what}"), &error))?;
    let name = if item.bytes > PART_BYTES { name_of(item) } else { String::new() };
    let file = PushFile { key: &item.key, what: &what, bytes: item.bytes, name: &name, old };
    pusher.push(input, &file).await.map_err(|error| failed(&error))
}

/// What an upload of this file is found again by: the machine and the file's place on it. What of the upload is still true of the
/// file is found out by the parts' digests.
fn name_of(item: &FileBelow) -> String {
    let mut hasher = blake3::Hasher::new();
    // Without either, two machines that put files of one place under one key at the same time would disturb each other.
    let machine = std::fs::read("/etc/machine-id").or_else(|_| std::fs::read("/proc/sys/kernel/hostname"));
    hasher.update(&machine.unwrap_or_default()).update(b"\0");
    let place = std::fs::canonicalize(&item.file).unwrap_or_else(|_| item.file.clone());
    hasher.update(place.as_os_str().as_bytes());
    hasher.finalize().to_hex()[..32].to_owned()
}

/// A name that no other upload has.
pub(super) fn fresh_name() -> String {
    hex::encode(entropy::fresh_id())
}

/// Why a push failed, in people's words.
pub(super) fn failed(error: &PushError) -> CliError {
    let hint = match error {
        PushError::Appliance(_) => "put it again: what was stored does not travel again; --url names the appliance",
        PushError::Read { .. } => "what was put before it is stored, and does not travel again",
        PushError::Losing | PushError::Step(_) => "put it again",
    };
    CliError::failed(with_causes(error)).hint(hint)
}

#[cfg(test)]
mod tests {
    //! Files travel as their length says.
    use super::*;

    #[test]
    fn files_are_grouped_by_length() {
        let item = |bytes| FileBelow { file: "f".into(), key: format!("k{bytes}"), bytes };
        let mut items: Vec<FileBelow> = [0, 65_535, 65_536, 100_000, 3_000_000].map(item).into();
        items.extend((0..100).map(|_| item(1_000_000)));
        let items: Vec<Fresh<'_>> = items.iter().map(|item| Fresh { item, old: None }).collect();
        let shape = |pushes| {
            loads(&items, pushes)
                .iter()
                .map(|load| match load {
                    Load::Whole(_) => (1, 'w'),
                    Load::Chunks(..) => (1, 'c'),
                    Load::Group(files) => (files.len(), 'g'),
                })
                .collect::<Vec<_>>()
        };
        let found = shape(true);
        assert_eq!(found[..3], [(1, 'w'), (1, 'w'), (1, 'c')]);
        assert!(found[3..].iter().all(|(files, kind)| *kind == 'g' && *files <= GROUP_FILES));
        assert_eq!(found.iter().map(|(files, _)| files).sum::<usize>(), items.len());
        assert!(shape(false).iter().all(|(_, kind)| *kind == 'w'));
        assert_eq!(example(&items), Some("k65536"));
    }
}
