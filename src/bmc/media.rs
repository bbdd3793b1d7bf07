//! Virtual media: an image in the machine's CD drive by URL. BMCs differ here more than anywhere else, so a ladder of
//! forms is climbed, and only what reads back counts.

use serde_json::{Value, json};

use super::fact::Fact;
use super::quirk::Quirks;
use super::{Bmc, BmcError, until};

/// How often an ejection that does not show is ordered.
const EJECTIONS: u32 = 3;

/// One place that takes a CD image.
struct Slot {
    link: String,
    inserted: bool,
    image: Option<String>,
    insert: Option<String>,
    eject: Option<String>,
}

impl Slot {
    fn read(link: &str, document: &Value, quirks: Quirks) -> Self {
        let text = |key: &str| document[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let idle = document["ConnectedVia"] == "NotConnected" && quirks.has(Fact::SupermicroIdleSlot);
        let actions = match quirks.has(Fact::SupermicroOemEject) {
            true => document["Actions"].clone(),
            false => json!({ "#VirtualMedia.EjectMedia": document["Actions"]["#VirtualMedia.EjectMedia"] }),
        };
        Self {
            link: link.to_owned(),
            inserted: document["Inserted"].as_bool().unwrap_or(false) && !idle,
            image: text("Image").filter(|_| !idle),
            insert: action(&document["Actions"], "InsertMedia"),
            eject: action(&actions, "EjectMedia"),
        }
    }

    /// Whether it shows this image. Some BMCs show only the file's name, or nothing.
    fn holds(&self, url: &str) -> bool {
        let name = url.rsplit('/').next();
        self.inserted && self.image.as_deref().is_none_or(|image| image == url || Some(image) == name)
    }

    fn is_empty(&self) -> bool {
        !self.inserted
    }
}

/// An action's target, by the end of its name, also where it is an OEM one.
pub(super) fn action(actions: &Value, name: &str) -> Option<String> {
    let own = actions.as_object()?.iter().find(|(key, _)| key.ends_with(name));
    let found = own.and_then(|(_, action)| action["target"].as_str()).map(str::to_owned);
    found.or_else(|| {
        let oem = actions.get("Oem")?.as_object()?;
        let direct = oem.iter().find(|(key, _)| key.ends_with(name)).and_then(|(_, action)| action["target"].as_str());
        direct.map(str::to_owned).or_else(|| oem.values().find_map(|vendor| action(vendor, name)))
    })
}

/// The forms of an insertion, plainest first: some BMCs reject what others demand.
fn rungs(url: &str, quirks: Quirks) -> Vec<Value> {
    let protocol = if url.starts_with("https:") { "HTTPS" } else { "HTTP" };
    let mut rungs = vec![
        json!({ "Image": url }),
        json!({ "Image": url, "TransferProtocolType": protocol }),
        json!({ "Image": url, "TransferProtocolType": protocol, "TransferMethod": "Stream" }),
        json!({ "Image": url, "Inserted": true, "WriteProtected": true }),
    ];
    if !quirks.has(Fact::InsertParameters) {
        rungs.truncate(1);
    }
    if quirks.has(Fact::NvidiaMediaUser) {
        rungs.push(json!({
            "Image": url, "TransferProtocolType": protocol, "TransferMethod": "Stream",
            "UserName": "none", "Password": "none"
        }));
    }
    rungs
}

impl Bmc {
    /// Puts the image at `url` into the virtual CD drive, ejecting what is in it first, and waits until it shows.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] where no slot takes a URL, [`BmcError::Refused`] in the BMC's words,
    /// [`BmcError::NotObeyed`] where the image does not show.
    pub async fn insert_media(&self, url: &str) -> Result<(), BmcError> {
        let slots = self.slots().await?;
        if slots.iter().any(|slot| slot.image.is_some() && slot.holds(url)) {
            return Ok(());
        }
        let mut last = self.unsupported("take virtual media: it has no CD or DVD slot that takes a URL");
        for slot in slots {
            match self.insert_into(&slot, url).await {
                Ok(()) => return Ok(()),
                // A slot of the console, of the network block device, or without licence: the next may do.
                Err(error @ (BmcError::Refused { .. } | BmcError::NotObeyed { .. } | BmcError::Unsupported { .. }))
                    if self.quirks.has(Fact::SlotRefuses) =>
                {
                    tracing::debug!(bmc = self.name(), slot = slot.link, %error, "the next slot is tried");
                    if !matches!(last, BmcError::Refused { .. }) {
                        last = error;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    async fn insert_into(&self, slot: &Slot, url: &str) -> Result<(), BmcError> {
        if !slot.is_empty() || slot.image.is_some() {
            self.eject(slot).await?;
        }
        let taken = match &slot.insert {
            Some(target) => self.climb(target, url).await?,
            None if !self.quirks.has(Fact::MediaByPatch) => {
                return Err(self.unsupported("insert media: its slot has no such action"));
            }
            None => {
                let body = json!({ "Image": url, "Inserted": true, "WriteProtected": true });
                self.client.patch(&slot.link, &body).await?
            }
        };
        let seen = until(self.timing().look, self.timing().media, || async {
            Ok(Some(self.slot(&slot.link).await?).filter(|slot| slot.holds(url)))
        });
        match seen.await? {
            Some(_) => Ok(()),
            None => {
                let now = self.slot(&slot.link).await?;
                let image = now.image.as_deref().unwrap_or("no image").to_owned();
                let task = self.task_says(&taken).await;
                let shown = format!("{} shows inserted: {}, {image}{task}", slot.link, now.inserted);
                Err(self.not_obeyed("the image", shown))
            }
        }
    }

    /// Tries each form until one is taken. The first refusal is the one to report: later forms are guesses.
    async fn climb(&self, target: &str, url: &str) -> Result<Value, BmcError> {
        let mut first = None;
        for body in rungs(url, self.quirks) {
            let error = match self.post(target, &body).await {
                Ok(taken) => return Ok(taken),
                Err(error) => error,
            };
            let form = matches!(error.status(), Some(400 | 415 | 422 | 500));
            let missing = ["MissingAction", "ActionNotSupported"].iter().any(|id| error.says(id));
            let first = first.get_or_insert(error);
            if !form || missing {
                return Err(first.clone());
            }
        }
        Err(first.unwrap_or_else(|| self.unsupported("take virtual media")))
    }

    /// Takes whatever is in the CD slots out, and waits until they show as empty.
    ///
    /// # Errors
    /// [`BmcError::NotObeyed`] where something stays in.
    pub async fn eject_media(&self) -> Result<(), BmcError> {
        for slot in self.slots().await? {
            if !slot.is_empty() {
                self.eject(&slot).await?;
            }
        }
        Ok(())
    }

    async fn eject(&self, slot: &Slot) -> Result<(), BmcError> {
        let limit = self.timing().media / EJECTIONS;
        let mut refusal = None;
        let ejections = if self.quirks.has(Fact::DellStaleInserted) { EJECTIONS } else { 1 };
        for _ in 0..ejections {
            let sent = match &slot.eject {
                Some(target) => self.client.act(target).await,
                None => self.client.patch(&slot.link, &json!({ "Image": null, "Inserted": false })).await,
            };
            refusal = sent.err();
            // Refused or not: empty is what counts, and a refusal may say that it is empty already.
            let seen = until(self.timing().look, limit, || async {
                Ok(Some(self.slot(&slot.link).await?).filter(Slot::is_empty))
            });
            if seen.await?.is_some() {
                return Ok(());
            }
        }
        Err(refusal.unwrap_or_else(|| self.not_obeyed("the ejection", format!("{} still shows an image", slot.link))))
    }

    /// The URL of the image that is inserted; none when the CD slots are empty. A BMC that hides it answers `""`.
    ///
    /// # Errors
    /// Any [`BmcError`] of reading.
    pub async fn media(&self) -> Result<Option<String>, BmcError> {
        let inserted = self.slots().await?.into_iter().find(|slot| slot.inserted);
        Ok(inserted.map(|slot| slot.image.unwrap_or_default()))
    }

    /// Each slot as it is now: where it is, and what is in it.
    pub(super) async fn shown_media(&self) -> Result<Vec<Value>, BmcError> {
        let shown = |slot: Slot| json!({ "slot": slot.link, "inserted": slot.inserted, "image": slot.image });
        Ok(self.slots().await?.into_iter().map(shown).collect())
    }

    async fn slot(&self, link: &str) -> Result<Slot, BmcError> {
        let document: Value = self.client.get(link).await?;
        Ok(Slot::read(link, &document, self.quirks))
    }

    /// The CD slots of the system, then those of its managers, best first. Where they are is found out once.
    async fn slots(&self) -> Result<Vec<Slot>, BmcError> {
        if let Some(links) = self.slot_links.get() {
            let mut slots = vec![];
            for link in links {
                match self.slot(link).await {
                    Ok(slot) => slots.push(slot),
                    Err(error) if error.is_passing() => return Err(error),
                    Err(_) => {}
                }
            }
            return Ok(slots);
        }
        let slots = self.find_slots().await?;
        // Empty is not kept: a licence or a setting may make slots appear.
        if !slots.is_empty() {
            drop(self.slot_links.set(slots.iter().map(|slot| slot.link.clone()).collect()));
        }
        Ok(slots)
    }

    async fn find_slots(&self) -> Result<Vec<Slot>, BmcError> {
        let mut collections = vec![];
        for owner in std::iter::once(&self.system).chain(&self.managers) {
            let document = self.outline(owner).await?;
            collections.extend(document["VirtualMedia"]["@odata.id"].as_str().map(str::to_owned));
        }
        collections.dedup();
        let mut ranked = vec![];
        for collection in collections {
            let links = match self.client.members(&collection).await {
                Ok(links) => links,
                // A manager may link to what only the system has.
                Err(error) if error.status() == Some(404) => continue,
                Err(error) => return Err(error),
            };
            for link in links {
                let document = match self.client.get::<Value>(&link).await {
                    Ok(document) => document,
                    // Not to be taken for a machine without slots.
                    Err(error) if error.is_passing() => return Err(error),
                    Err(_) => continue,
                };
                let id = document["Id"].as_str().unwrap_or_default();
                let rank = self.quirks.media_rank(id).filter(|_| takes_cd(&document));
                if let Some(rank) = rank {
                    ranked.push((rank, Slot::read(&link, &document, self.quirks)));
                }
            }
        }
        ranked.sort_by_key(|(rank, _)| *rank);
        Ok(ranked.into_iter().map(|(_, slot)| slot).collect())
    }

    /// The CD slots, for the conformance card: how many, and how many of them take a URL by action and not by PATCH.
    pub(super) async fn media_slots(&self) -> Result<(usize, usize), BmcError> {
        let slots = self.slots().await?;
        Ok((slots.len(), slots.iter().filter(|slot| slot.insert.is_some()).count()))
    }
}

fn takes_cd(document: &Value) -> bool {
    match document["MediaTypes"].as_array() {
        Some(types) => types.iter().any(|kind| kind == "CD" || kind == "DVD"),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    //! Actions are found wherever BMCs put them, and an image is known under the names that they show.
    use super::*;

    #[test]
    fn finds_actions_also_under_oem() {
        let plain = json!({ "#VirtualMedia.EjectMedia": { "target": "/a" } });
        assert_eq!(action(&plain, "EjectMedia").as_deref(), Some("/a"));
        let oem = json!({ "Oem": { "#AcmeVirtualMedia.EjectMedia": { "target": "/b" } } });
        assert_eq!(action(&oem, "EjectMedia").as_deref(), Some("/b"));
        let deeper = json!({ "Oem": { "Acme": { "#AcmeVirtualMedia.EjectMedia": { "target": "/c" } } } });
        assert_eq!(action(&deeper, "EjectMedia").as_deref(), Some("/c"));
        assert_eq!(action(&Value::Null, "EjectMedia"), None);
    }

    #[test]
    fn stale_or_other_images_do_not_count() {
        let slot = |document| Slot::read("/s", &document, Quirks::unknown(crate::bmc::Facts::default()));
        let url = "http://10.0.0.1/media/7/boot.iso";
        assert!(slot(json!({ "Inserted": true, "Image": url })).holds(url));
        assert!(slot(json!({ "Inserted": true, "Image": "boot.iso" })).holds(url));
        assert!(slot(json!({ "Inserted": true, "Image": null })).holds(url));
        assert!(!slot(json!({ "Inserted": true, "Image": "http://10.0.0.1/media/6/boot.iso" })).holds(url));
        assert!(!slot(json!({ "Inserted": false, "Image": url })).holds(url));
    }
}
