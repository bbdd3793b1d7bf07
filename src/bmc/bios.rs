//! BIOS settings: attributes by name, checked against the BIOS's own registry, written where they are staged, and read back.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::fact::Fact;
use super::registry::{Registry, shown};
use super::task::{Followed, TaskState, Until};
use super::{Bmc, BmcError, oem, until};

/// A machine's BIOS settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bios {
    /// What holds now, by attribute.
    pub attributes: BTreeMap<String, Value>,
    /// What waits for the next start, by attribute; only what differs.
    pub pending: BTreeMap<String, Value>,
    /// The registry's name.
    pub registry: Option<String>,
}

/// One setting that changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BiosChange {
    /// The attribute, as this BIOS calls it.
    pub name: String,
    /// What it is.
    pub from: Value,
    /// What it is to be.
    pub to: Value,
}

/// What a change of settings came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BiosOrder {
    /// What changes with the next start; empty where all is so already.
    pub changes: Vec<BiosChange>,
    /// The vendor's job that carries it out; none where the BIOS itself does.
    pub job: Option<String>,
}

/// Where settings are read and written.
struct Place {
    link: String,
    settings: Option<String>,
    document: Value,
}

impl Bmc {
    /// The BIOS settings, and what waits for the next start.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] where the BMC shows none.
    pub async fn bios(&self) -> Result<Bios, BmcError> {
        let place = self.bios_place().await?;
        self.bios_at(&place).await
    }

    async fn bios_at(&self, place: &Place) -> Result<Bios, BmcError> {
        let attributes = map(&place.document["Attributes"]);
        let pending = match &place.settings {
            Some(link) => map(&self.client.get::<Value>(link).await?["Attributes"]),
            None => BTreeMap::new(),
        };
        let pending = pending.into_iter().filter(|(name, value)| attributes.get(name) != Some(value)).collect();
        let registry = place.document["AttributeRegistry"].as_str().map(str::to_owned);
        Ok(Bios { attributes, pending, registry })
    }

    async fn bios_place(&self) -> Result<Place, BmcError> {
        let system = self.system().await?;
        let link = system["Bios"]["@odata.id"].as_str();
        let link = link.ok_or_else(|| self.unsupported("show BIOS settings: its system has none"))?.to_owned();
        let document: Value = self.client.get(&link).await?;
        let settings = document["@Redfish.Settings"]["SettingsObject"]["@odata.id"].as_str().map(str::to_owned);
        Ok(Place { link, settings, document })
    }

    /// Orders BIOS settings for the next start, all in one change, and reads back that they wait there. What holds
    /// already is left out.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] for an attribute or a value that the BIOS does not have or does not take now,
    /// [`BmcError::NotObeyed`] where the change does not read back.
    pub async fn set_bios(&self, wanted: &[(String, String)]) -> Result<BiosOrder, BmcError> {
        let place = self.bios_place().await?;
        let now = self.bios_at(&place).await?;
        let registry = self.bios_registry(now.registry.as_deref()).await;
        let changes = self.bios_changes(wanted, &now, &registry)?;
        if changes.is_empty() {
            return Ok(BiosOrder { changes, job: None });
        }
        self.controller_ready().await?;
        let attributes: Map<String, Value> = changes.iter().map(|c| (c.name.clone(), c.to.clone())).collect();
        let mut body = json!({ "Attributes": attributes });
        if self.quirks.has(Fact::DellBiosAtReset) {
            body["@Redfish.SettingsApplyTime"] = json!({ "ApplyTime": "OnReset" });
        }
        let target = match &place.settings {
            Some(settings) if !self.quirks.has(Fact::SupermicroBiosInPlace) => settings,
            _ => &place.link,
        };
        let taken = self.patch(target, &body).await?;
        let job = match self.follow("the BIOS settings", &taken, Until::Scheduled, self.timing().task).await? {
            Followed::Task(task) => Some(task.link),
            Followed::Unknown => None,
        };
        self.bios_waits(&place, &changes, job.is_some()).await?;
        Ok(BiosOrder { changes, job })
    }

    /// Which of these settings do not hold now, whatever waits for the next start.
    ///
    /// # Errors
    /// As [`Bmc::set_bios`].
    pub async fn bios_differs(&self, wanted: &[(String, String)]) -> Result<Vec<BiosChange>, BmcError> {
        let place = self.bios_place().await?;
        let attributes = map(&place.document["Attributes"]);
        let registry = place.document["AttributeRegistry"].as_str().map(str::to_owned);
        let now = Bios { attributes, pending: BTreeMap::new(), registry };
        let registry = self.bios_registry(now.registry.as_deref()).await;
        self.bios_changes(wanted, &now, &registry)
    }

    /// Which settings differ, by the names that this BIOS has for them.
    fn bios_changes(
        &self,
        wanted: &[(String, String)],
        now: &Bios,
        registry: &Registry,
    ) -> Result<Vec<BiosChange>, BmcError> {
        let mut changes = vec![];
        let mut then = now.attributes.clone();
        then.extend(now.pending.clone());
        for (name, text) in wanted {
            let found = self.attribute(name, &now.attributes);
            let found =
                found.ok_or_else(|| self.unsupported(format!("set the BIOS attribute {name}: there is none")))?;
            let is = &now.attributes[&found];
            let to = registry.value(&found, text, is).map_err(|why| self.unsupported(format!("do that: {why}")))?;
            then.insert(found.clone(), to.clone());
            changes.push(BiosChange { name: found, from: is.clone(), to });
        }
        changes.retain(|change| now.pending.get(&change.name).unwrap_or(&change.from) != &change.to);
        if let Some(why) = changes.iter().find_map(|change| registry.blocked(&change.name, &then)) {
            return Err(self.unsupported(format!("do that: {why}")));
        }
        Ok(changes)
    }

    /// The name that this BIOS has for an attribute.
    fn attribute(&self, name: &str, all: &BTreeMap<String, Value>) -> Option<String> {
        if all.contains_key(name) {
            return Some(name.to_owned());
        }
        let suffixed = |known: &&String| {
            let rest = known.strip_prefix(name).and_then(|rest| rest.strip_prefix(['_', '#']));
            rest.is_some_and(|code| code.len() == 4 && code.chars().all(|c| c.is_ascii_hexdigit()))
        };
        let unspaced = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
        let by_suffix = all.keys().find(|key| self.quirks.has(Fact::SupermicroAttributeSuffix) && suffixed(key));
        let by_space =
            || all.keys().find(|key| self.quirks.has(Fact::NvidiaAttributeSpaces) && unspaced(key) == unspaced(name));
        by_suffix.or_else(by_space).cloned()
    }

    /// The BIOS's registry, as far as it can be read.
    async fn bios_registry(&self, name: Option<&str>) -> Registry {
        let Some(name) = name else { return Registry::default() };
        let found = async {
            let list = self.client.members(self.root["Registries"]["@odata.id"].as_str()?).await.ok()?;
            // Lists have a hundred members: the one whose link says its name is read, else that of any BIOS.
            let last = |link: &str| link.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
            let exact = list.iter().find(|link| last(link) == name);
            let link = exact.or_else(|| list.iter().find(|link| last(link).starts_with("BiosAttributeRegistry")))?;
            let file: Value = self.client.get(link).await.ok()?;
            let places = file["Location"].as_array()?;
            let english = places.iter().find(|place| place["Language"].as_str().is_some_and(|l| l.starts_with("en")));
            let uri = english.or_else(|| places.first())?["Uri"].as_str()?.to_owned();
            self.client.get::<Value>(&uri).await.ok()
        };
        found.await.map(|document| Registry::read(&document)).unwrap_or_default()
    }

    /// How many attributes the BIOS's registry knows, for the conformance card.
    pub(super) async fn bios_registry_len(&self, name: Option<&str>) -> usize {
        self.bios_registry(name).await.len()
    }

    /// Waits until the settings show as pending, or hold already; where a job carries them out, its acceptance is enough.
    async fn bios_waits(&self, place: &Place, changes: &[BiosChange], by_job: bool) -> Result<(), BmcError> {
        if by_job {
            return Ok(());
        }
        let look = || async {
            let mut shown = map(&self.client.get::<Value>(&place.link).await?["Attributes"]);
            if let Some(link) = &place.settings {
                shown.extend(map(&self.client.get::<Value>(link).await?["Attributes"]));
            }
            Ok(changes.iter().all(|c| shown.get(&c.name) == Some(&c.to)).then_some(()))
        };
        match until(self.timing().look, self.timing().setting, look).await? {
            Some(()) => Ok(()),
            None => Err(self.not_obeyed("the BIOS settings", "they do not show as pending")),
        }
    }

    /// Which ordered settings do not hold: after the next start there is none. Where a job carries them out, values
    /// that read back count only once it has completed.
    ///
    /// # Errors
    /// [`BmcError::Failed`] when the job failed.
    pub async fn bios_open(&self, order: &BiosOrder) -> Result<Vec<BiosChange>, BmcError> {
        if let Some(job) = order.job.as_deref().filter(|_| self.quirks.has(Fact::DellBiosPendingShown)) {
            let document = self.client.get::<Value>(job).await?;
            let task = super::task::Task::read(job, &document, self.quirks.has(Fact::CriticalCompletion));
            match task {
                Some(task) if task.state == TaskState::Failed => {
                    let why = format!("its job ended as {}: {}", task.said, task.messages.join(" "));
                    return Err(self.failed("the BIOS settings", &why));
                }
                Some(task) if task.state != TaskState::Done => return Ok(order.changes.clone()),
                _ => {}
            }
        }
        let place = self.bios_place().await?;
        let now = map(&place.document["Attributes"]);
        Ok(order.changes.iter().filter(|change| now.get(&change.name) != Some(&change.to)).cloned().collect())
    }

    /// Sets every BIOS setting back to its default at the next start.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] where the BMC offers no such action.
    pub async fn reset_bios(&self) -> Result<(), BmcError> {
        let place = self.bios_place().await?;
        let target = place.document["Actions"]["#Bios.ResetBios"]["target"].as_str();
        let target = target.ok_or_else(|| self.unsupported("reset the BIOS: it offers no such action"))?.to_owned();
        self.controller_ready().await?;
        let taken = self.act(&target).await?;
        self.follow("the reset of the BIOS", &taken, Until::Scheduled, self.timing().task).await.map(drop)
    }

    /// Waits until the controller that carries out settings and updates says that it is ready.
    pub(super) async fn controller_ready(&self) -> Result<(), BmcError> {
        if !self.quirks.has(Fact::DellControllerBusy) {
            return Ok(());
        }
        let Some(manager) = self.managers.first() else { return Ok(()) };
        let target = format!("{}{}", manager.trim_end_matches('/'), oem::DELL_CONTROLLER_STATUS);
        let look = || async {
            match self.client.post(&target, &json!({})).await {
                Ok(status) => Ok((status["LCStatus"] == "Ready").then_some(())),
                // Firmware without the question is not asked.
                Err(error) if matches!(error.status(), Some(404 | 405)) => Ok(Some(())),
                Err(error) => Err(error),
            }
        };
        let pause = (5 * self.timing().look).min(Duration::from_secs(10));
        match until(pause, self.timing().controller, look).await? {
            Some(()) => Ok(()),
            None => {
                let request = format!("POST {target}");
                let message = "its lifecycle controller is not ready".to_owned();
                let seconds = self.timing().controller.as_secs();
                Err(BmcError::Busy { bmc: self.name().to_owned(), request, seconds, message })
            }
        }
    }
}

impl BiosChange {
    /// `name: from -> to`.
    #[must_use]
    pub fn words(&self) -> String {
        format!("{}: {} -> {}", self.name, shown(&self.from), shown(&self.to))
    }
}

fn map(value: &Value) -> BTreeMap<String, Value> {
    value.as_object().map(|map| map.iter().map(|(k, v)| (k.clone(), v.clone())).collect()).unwrap_or_default()
}
