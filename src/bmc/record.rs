//! Recording a BMC's tree into a folder, for reports, tests and simulated BMCs. Reads only.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Bmc, BmcError, ROOT};

/// Resources that one recording holds at most.
const RESOURCES_MAX: usize = 20_000;
/// Trees of documentation and logs that tell nothing of the machine.
const PASSED_OVER: [&str; 6] =
    ["/JsonSchemas", "/Schemas", "/Registries", "/LogServices/", "/SessionService/Sessions/", "/SchemaStore"];

/// What a recording came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recording {
    /// The folder.
    pub folder: PathBuf,
    /// Resources written.
    pub resources: usize,
    /// What could not be read, and why.
    pub gaps: Vec<String>,
}

impl Bmc {
    /// Follows every link from the root and writes each resource as `index.json`, with its time in `time.json`.
    ///
    /// # Errors
    /// [`BmcError::Local`] when the folder is not empty or cannot be written.
    pub async fn record(&self, folder: &Path) -> Result<Recording, BmcError> {
        let local = |e: std::io::Error| BmcError::Local {
            what: format!("recording into {}", folder.display()),
            why: e.to_string(),
        };
        std::fs::create_dir_all(folder).map_err(local)?;
        if std::fs::read_dir(folder).map_err(local)?.next().is_some() {
            return Err(local(std::io::Error::other("the folder is not empty")));
        }
        let mut recording = Recording { folder: folder.to_owned(), resources: 0, gaps: vec![] };
        let mut waiting = VecDeque::from([ROOT.trim_end_matches('/').to_owned()]);
        let mut seen = BTreeSet::from([waiting[0].clone()]);
        while let Some(link) = waiting.pop_front() {
            let asked = Instant::now();
            let fetched: Result<Value, _> =
                self.client.get(if waiting.is_empty() && seen.len() == 1 { ROOT } else { &link }).await;
            let document = match fetched {
                Ok(document) => document,
                Err(error @ BmcError::Unreachable { .. }) => return Err(error),
                Err(error) => {
                    recording.gaps.push(error.to_string());
                    continue;
                }
            };
            let place =
                place(folder, &link).ok_or_else(|| local(std::io::Error::other(format!("{link} is no path"))))?;
            write(&place, &document, asked.elapsed().as_secs_f64()).map_err(local)?;
            recording.resources += 1;
            let mut found = vec![];
            gather(&document, &mut found);
            for link in found {
                let new = link.starts_with("/redfish/v1") && !PASSED_OVER.iter().any(|part| link.contains(part));
                if new && seen.len() < RESOURCES_MAX && seen.insert(link.clone()) {
                    waiting.push_back(link);
                }
            }
        }
        Ok(recording)
    }
}

/// The folder of a resource; none for a link that would leave the recording.
fn place(folder: &Path, link: &str) -> Option<PathBuf> {
    let path = Path::new(link.trim_matches('/'));
    let inside = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    inside.then(|| folder.join(path))
}

fn write(place: &Path, document: &Value, seconds: f64) -> std::io::Result<()> {
    std::fs::create_dir_all(place)?;
    std::fs::write(place.join("index.json"), serde_json::to_vec_pretty(document)?)?;
    std::fs::write(place.join("time.json"), json!({ "GET_Time": format!("{seconds:.3}") }).to_string())
}

/// Every link in a document, without fragments and closing slashes.
fn gather(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value.as_str() {
                    Some(link)
                        if key == "@odata.id" || key.ends_with("@odata.nextLink") || key == "@Redfish.ActionInfo" =>
                    {
                        let link = link.split('#').next().unwrap_or(link).trim_end_matches('/');
                        found.push(link.to_owned());
                    }
                    _ => gather(value, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|item| gather(item, found)),
        _ => {}
    }
}
