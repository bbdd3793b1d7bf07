//! Firmware: uploading it or naming where it lies, as each BMC takes it, and following the update to its end.

use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::fact::Fact;
use super::inventory::Firmware;
use super::payload::{Field, Upload};
use super::task::{Followed, Until};
use super::{Bmc, BmcError, oem, until};

/// The upload address that some BMCs have without saying so.
const UNLISTED_UPLOAD: &str = "/redfish/v1/UpdateService/upload";

/// Where firmware comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirmwareSource {
    /// A file of this machine.
    File(PathBuf),
    /// An address that the BMC fetches it from.
    Url(String),
}

/// What an update came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FirmwareUpdate {
    /// How it was handed over: `upload`, `push` or `fetch`.
    pub way: String,
    /// What the BMC's task said at its end.
    pub messages: Vec<String>,
    /// What reads back with another version now; empty where the update waits for a restart of the node or the BMC.
    pub changed: Vec<Firmware>,
}

impl Bmc {
    /// What a firmware list's entry says runs; none for an older or a waiting version.
    pub(super) fn running(&self, part: &redfish::SoftwareInventory) -> Option<Firmware> {
        let id = part.id.as_deref().unwrap_or_default();
        let aside = ["Previous-", "Available-"].iter().any(|prefix| id.starts_with(prefix));
        if aside && self.quirks.has(Fact::DellOldFirmwareListed) {
            return None;
        }
        let said = super::inventory::said;
        let name = said(part.name.as_deref()).or(said(part.id.as_deref()))?;
        let version = said(part.version.as_deref())?;
        Some(Firmware { name, version: self.quirks.version(&version).to_owned() })
    }

    /// The ways in which the BMC takes firmware, for the conformance card.
    pub(super) async fn firmware_ways(&self) -> Result<Vec<&'static str>, BmcError> {
        let service = self.update_service().await?;
        let unlisted = self.quirks.has(Fact::AmiUploadUnlisted);
        let ways = [
            ("upload of a form", service["MultipartHttpPushUri"].is_string() || unlisted),
            ("push of a file", service["HttpPushUri"].is_string()),
            ("fetch from an address", service["Actions"].get("#UpdateService.SimpleUpdate").is_some()),
        ];
        Ok(ways.into_iter().filter(|(_, offered)| *offered).map(|(way, _)| way).collect())
    }

    pub(super) async fn update_service(&self) -> Result<Value, BmcError> {
        let link = self.root["UpdateService"]["@odata.id"].as_str();
        self.client.get(link.ok_or_else(|| self.unsupported("update firmware: it has no update service"))?).await
    }

    /// Updates firmware and follows the update to its end. `targets` are links of what is to be updated; without any,
    /// the BMC finds that out from the file.
    ///
    /// # Errors
    /// [`BmcError::Failed`] in the BMC's words where the update failed, [`BmcError::Unsupported`] where it has no such
    /// way in.
    pub async fn update_firmware(
        &self,
        source: &FirmwareSource,
        targets: &[String],
    ) -> Result<FirmwareUpdate, BmcError> {
        let before = self.firmware().await.unwrap_or_default();
        let service = self.update_service().await?;
        self.controller_ready().await?;
        let (way, followed) = match source {
            FirmwareSource::Url(url) => ("fetch", self.fetch(&service, url, targets).await?),
            FirmwareSource::File(file) => {
                Box::pin(self.claimed(&service, self.hand_over(&service, file, targets))).await?
            }
        };
        let messages = match followed {
            Followed::Task(task) => task.messages,
            Followed::Unknown => vec![],
        };
        let mut changed = self.firmware().await.unwrap_or_default();
        changed.retain(|part| !before.contains(part));
        Ok(FirmwareUpdate { way: way.to_owned(), messages, changed })
    }

    async fn fetch(&self, service: &Value, url: &str, targets: &[String]) -> Result<Followed, BmcError> {
        let target = service["Actions"]["#UpdateService.SimpleUpdate"]["target"].as_str();
        let target = target.ok_or_else(|| self.unsupported("fetch firmware from an address: give a file"))?;
        let mut body = json!({ "ImageURI": url });
        if !targets.is_empty() {
            body["Targets"] = json!(targets);
        }
        let taken = self.post(target, &body).await?;
        self.follow("the firmware update", &taken, Until::Over, self.timing().firmware).await
    }

    async fn hand_over(
        &self,
        service: &Value,
        file: &std::path::Path,
        targets: &[String],
    ) -> Result<(&'static str, Followed), BmcError> {
        let local =
            |e: std::io::Error| BmcError::Local { what: format!("reading {}", file.display()), why: e.to_string() };
        let listed = service["MultipartHttpPushUri"].as_str();
        let unlisted = Some(UNLISTED_UPLOAD).filter(|_| self.quirks.has(Fact::AmiUploadUnlisted));
        if let Some(place) = listed.or(unlisted) {
            let started = self.starts_by_itself(service);
            let parameters = self.parameters(targets, started);
            let form = Upload::update(file, &parameters).await.map_err(local)?;
            let taken = self.exchange.upload(place, form).await?;
            let taken = match service["Actions"]["#UpdateService.StartUpdate"]["target"].as_str() {
                Some(start) if !started => self.act(start).await?,
                _ => taken,
            };
            let followed = self.follow("the firmware update", &taken, Until::Over, self.timing().firmware).await?;
            return Ok(("upload", followed));
        }
        let place = service["HttpPushUri"].as_str();
        let place =
            place.ok_or_else(|| self.unsupported("take a firmware file: give an address that it can fetch from"))?;
        let key = self.exchange.session_key().await.filter(|_| self.quirks.has(Fact::HpePushForm));
        let pushed = match key {
            Some(key) => {
                let field = Field { name: "sessionKey", kind: None, text: key.clone() };
                let mut form = Upload::form(file, &[field], "file").await.map_err(local)?;
                form.cookie = Some(format!("sessionKey={key}"));
                form
            }
            None => Upload::plain(file).await.map_err(local)?,
        };
        let taken = self.exchange.upload(place, pushed).await?;
        if self.quirks.has(Fact::HpePushState) {
            self.await_push().await?;
        }
        let followed = self.follow("the firmware update", &taken, Until::Over, self.timing().firmware).await?;
        Ok(("push", followed))
    }

    /// Whether an upload begins its update without being told to.
    fn starts_by_itself(&self, service: &Value) -> bool {
        let support = &service["MultipartHttpPushUri@Redfish.OperationApplyTimeSupport"]["SupportedValues"];
        let offers = |time: &str| support.as_array().is_some_and(|list| list.iter().any(|value| value == time));
        let waits = offers("OnStartUpdateRequest") && !offers("Immediate");
        !(waits && self.quirks.has(Fact::SupermicroUpdateStarted))
    }

    fn parameters(&self, targets: &[String], started: bool) -> Value {
        let time = if started { "Immediate" } else { "OnStartUpdateRequest" };
        let mut parameters = json!({ "Targets": targets, "@Redfish.OperationApplyTime": time });
        if self.quirks.has(Fact::DellOemInUpload) {
            parameters["Oem"] = json!({});
        }
        if self.quirks.has(Fact::SupermicroKeepsSettings) {
            parameters["Oem"] = oem::supermicro_keeps(targets.iter().any(|target| target.contains("/Managers/")));
        }
        parameters
    }

    /// Does the work while the upload address is ours, and gives it back whatever comes of it.
    async fn claimed<T>(
        &self,
        service: &Value,
        work: impl Future<Output = Result<T, BmcError>>,
    ) -> Result<T, BmcError> {
        let link = service["@odata.id"].as_str().unwrap_or("/redfish/v1/UpdateService");
        let Some(busy) =
            service["HttpPushUriTargetsBusy"].as_bool().filter(|_| self.quirks.has(Fact::LenovoUploadClaimed))
        else {
            return work.await;
        };
        if busy {
            let why = "somebody else uploads firmware, or an upload broke off; a reset of the BMC (not of the node) ends that";
            let (request, message) = (format!("POST {link}"), why.to_owned());
            return Err(BmcError::Busy { bmc: self.name().to_owned(), request, seconds: 0, message });
        }
        self.client.patch(link, &json!({ "HttpPushUriTargetsBusy": true })).await?;
        // Should this be dropped halfway, the end of the connection gives it back.
        *self.claimed.lock().unwrap_or_else(PoisonError::into_inner) = Some(link.to_owned());
        let outcome = work.await;
        self.give_back().await;
        outcome
    }

    /// Gives the upload address back, if it is claimed.
    pub(super) async fn give_back(&self) {
        let Some(link) = self.claimed.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        if let Err(error) = self.client.patch(&link, &json!({ "HttpPushUriTargetsBusy": false })).await {
            tracing::warn!(bmc = self.name(), %error, "the upload address was not given back");
        }
    }

    /// Waits until the update service itself says that a pushed file was dealt with.
    async fn await_push(&self) -> Result<(), BmcError> {
        let look = || async {
            let service = self.update_service().await?;
            let said = |place: &str| service.pointer(place).and_then(Value::as_str);
            match said(oem::HPE_PUSH_STATE) {
                Some("Error") => {
                    let why = said(oem::HPE_PUSH_RESULT).unwrap_or("it gives no reason");
                    Err(self.failed("the firmware update", &format!("it ended with an error: {why}")))
                }
                Some("Uploading" | "Verifying" | "Writing" | "Updating") => Ok(None),
                _ => Ok(Some(())),
            }
        };
        let limit: Duration = self.timing().firmware;
        match until(self.timing().look, limit, look).await? {
            Some(()) => Ok(()),
            None => Err(self.failed("the firmware update", &format!("it did not end within {} s", limit.as_secs()))),
        }
    }
}
