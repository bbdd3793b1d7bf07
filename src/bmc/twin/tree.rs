//! The documents of a simulated BMC: a recorded tree, or a small server of no particular make. Read once and shared by all BMCs of the
//! kind; what one of them changes is kept by that one alone.

use std::collections::HashMap;
use std::path::Path;

use bytes::Bytes;
use serde_json::Value;

use super::generic;

use crate::bmc::BmcError;

const ROOT: &str = "/redfish/v1";

/// A kind of machine.
pub struct Tree {
    documents: HashMap<String, Bytes>,
    /// Seconds that the recorded BMC took, by path.
    times: HashMap<String, f64>,
    /// The system that boots.
    pub(super) system: String,
    /// The media slots that take a CD.
    pub(super) slots: Vec<String>,
    /// Where BIOS settings are staged, and the BIOS.
    pub(super) bios: Option<(String, String)>,
    /// The drive whose serial number and model are a node's own, where the kind has none of its own.
    pub(super) drive: Option<String>,
    /// The maker's name, in lower case.
    pub(super) maker: String,
}

impl Tree {
    /// Reads a folder that `bedplate bmc record` wrote, with or without `redfish/v1` at its top.
    ///
    /// # Errors
    /// [`BmcError::NoTree`] where there is none, or none of a machine that boots.
    pub fn load(folder: &Path) -> Result<Self, BmcError> {
        let none = |why: &str| BmcError::NoTree { folder: folder.display().to_string(), why: why.to_owned() };
        let whole = folder.join("redfish/v1");
        let (top, prefix) = if whole.is_dir() { (folder.to_owned(), "") } else { (folder.to_owned(), ROOT) };
        if !whole.join("index.json").is_file() && !folder.join("index.json").is_file() {
            return Err(none("it has no redfish/v1/index.json"));
        }
        let (mut documents, mut times) = (HashMap::new(), HashMap::new());
        let mut waiting = vec![(top, prefix.to_owned())];
        while let Some((folder, path)) = waiting.pop() {
            let entries = std::fs::read_dir(&folder).map_err(|e| none(&e.to_string()))?;
            for entry in entries.filter_map(Result::ok) {
                let name = entry.file_name().to_string_lossy().into_owned();
                let file = entry.path();
                match name.as_str() {
                    "index.json" => {
                        let text = std::fs::read(&file).map_err(|e| none(&e.to_string()))?;
                        documents.insert(path.clone(), Bytes::from(text));
                    }
                    "time.json" => {
                        let text = std::fs::read(&file).unwrap_or_default();
                        let time: Value = serde_json::from_slice(&text).unwrap_or_default();
                        let seconds = time["GET_Time"].as_str().and_then(|time| time.parse().ok());
                        times.extend(seconds.map(|seconds| (path.clone(), seconds)));
                    }
                    _ if file.is_dir() => waiting.push((file, format!("{path}/{name}"))),
                    _ => {}
                }
            }
        }
        Self::of(documents, times).ok_or_else(|| none("no system in it boots"))
    }

    fn of(documents: HashMap<String, Bytes>, times: HashMap<String, f64>) -> Option<Self> {
        let mut tree = Self {
            documents,
            times,
            system: String::new(),
            slots: vec![],
            bios: None,
            drive: None,
            maker: String::new(),
        };
        let root = tree.read(ROOT)?;
        let systems = tree.members(root["Systems"]["@odata.id"].as_str()?);
        let boots = |system: &&(String, Value)| system.1["Boot"].is_object() && system.1["Actions"].is_object();
        let (link, system) = systems.iter().find(boots).or(systems.first())?.clone();
        tree.system = link;
        let maker = [&root["Vendor"], &system["Manufacturer"]].map(|text| text.as_str().unwrap_or_default().to_owned());
        tree.maker = maker.join(" ").to_ascii_lowercase();
        let mut owners = vec![system.clone()];
        let managers = system["Links"]["ManagedBy"].as_array().cloned().unwrap_or_default();
        owners.extend(managers.iter().filter_map(|link| tree.read(link["@odata.id"].as_str()?)));
        for owner in owners {
            let Some(list) = owner["VirtualMedia"]["@odata.id"].as_str() else { continue };
            let takes_cd = |slot: &Value| {
                let kinds = slot["MediaTypes"].as_array().cloned().unwrap_or_default();
                kinds.iter().any(|kind| kind == "CD" || kind == "DVD")
            };
            tree.slots.extend(tree.members(list).into_iter().filter(|(_, slot)| takes_cd(slot)).map(|(link, _)| link));
        }
        if let Some(bios) = system["Bios"]["@odata.id"].as_str() {
            let bios = bare(bios);
            let settings = tree.read(&bios)?["@Redfish.Settings"]["SettingsObject"]["@odata.id"].as_str().map(bare);
            tree.bios = settings.map(|settings| (settings, bios));
        }
        Some(tree)
    }

    /// A server of no particular make: what a rack needs of one, and as many parts as a usual one has.
    #[must_use]
    pub fn generic() -> Self {
        let documents =
            generic::documents().into_iter().map(|(path, value)| (path, Bytes::from(value.to_string()))).collect();
        let mut tree = Self::of(documents, HashMap::new()).expect("the generic server boots");
        tree.drive = Some("/redfish/v1/Systems/1/Storage/1/Drives/0".to_owned());
        tree
    }

    /// The document at a path, as it was recorded.
    pub(super) fn text(&self, path: &str) -> Option<&Bytes> {
        self.documents.get(path)
    }

    /// The document at a path.
    pub(super) fn read(&self, path: &str) -> Option<Value> {
        serde_json::from_slice(self.documents.get(&bare(path))?).ok()
    }

    /// Seconds that the recorded BMC took for it.
    pub(super) fn seconds(&self, path: &str) -> Option<f64> {
        self.times.get(path).copied()
    }

    fn members(&self, list: &str) -> Vec<(String, Value)> {
        let list = self.read(list).unwrap_or_default();
        let links = list["Members"].as_array().cloned().unwrap_or_default();
        let links = links.iter().filter_map(|link| link["@odata.id"].as_str().map(bare));
        links.filter_map(|link| Some((link.clone(), self.read(&link)?))).collect()
    }
}

/// A path without query and closing slash.
pub(super) fn bare(path: &str) -> String {
    path.split(['?', '#']).next().unwrap_or(path).trim_end_matches('/').to_owned()
}
