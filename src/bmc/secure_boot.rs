//! Secure boot: whether it is on, which keys it trusts, and changing both.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::fact::Fact;
use super::task::Until;
use super::{Bmc, BmcError, until};

/// How secure boot stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecureBoot {
    /// Whether it is on from the next start; none where the BMC does not tell without a licence.
    pub enabled: Option<bool>,
    /// Whether the running system was started with it.
    pub active: Option<bool>,
    /// `SetupMode`, `UserMode`, `AuditMode` or `DeployedMode`.
    pub mode: Option<String>,
    /// Its key databases: name, and how many certificates are in it.
    pub databases: Vec<(String, usize)>,
}

impl Bmc {
    async fn secure_boot_link(&self) -> Result<String, BmcError> {
        let system = self.system().await?;
        let link = system["SecureBoot"]["@odata.id"].as_str();
        link.map(str::to_owned).ok_or_else(|| self.unsupported("show secure boot"))
    }

    /// How secure boot stands.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] where the BMC does not show it.
    pub async fn secure_boot(&self) -> Result<SecureBoot, BmcError> {
        let link = self.secure_boot_link().await?;
        let document: Value = match self.client.get(&link).await {
            Err(BmcError::Licence { .. }) if self.quirks.has(Fact::SupermicroLicence) => {
                return Ok(SecureBoot::default());
            }
            other => other?,
        };
        let mut databases = vec![];
        if let Some(list) = document["SecureBootDatabases"]["@odata.id"].as_str() {
            for link in self.client.members(list).await.unwrap_or_default() {
                let Ok(database) = self.client.get::<Value>(&link).await else { continue };
                let name = database["Id"].as_str().unwrap_or_default().to_owned();
                let certificates = match database["Certificates"]["@odata.id"].as_str() {
                    Some(list) => self.client.members(list).await.unwrap_or_default().len(),
                    None => 0,
                };
                databases.push((name, certificates));
            }
        }
        Ok(SecureBoot {
            enabled: document["SecureBootEnable"].as_bool(),
            active: document["SecureBootCurrentBoot"].as_str().map(|state| state == "Enabled"),
            mode: document["SecureBootMode"].as_str().map(str::to_owned),
            databases,
        })
    }

    /// Switches secure boot on or off from the next start, and reads it back.
    ///
    /// # Errors
    /// [`BmcError::NotObeyed`] where it reads back otherwise.
    pub async fn set_secure_boot(&self, on: bool) -> Result<(), BmcError> {
        let link = self.secure_boot_link().await?;
        let taken = self.patch(&link, &json!({ "SecureBootEnable": on })).await?;
        self.follow("secure boot", &taken, Until::Scheduled, self.timing().task).await?;
        let look = || async {
            let document: Value = self.client.get(&link).await?;
            Ok((document["SecureBootEnable"] == on || taken[super::exchange::NOTE]["location"].is_string())
                .then_some(()))
        };
        match until(self.timing().look, self.timing().setting, look).await? {
            Some(()) => Ok(()),
            None => Err(self.not_obeyed("secure boot", "it reads back unchanged")),
        }
    }

    /// Resets all keys: `ResetAllKeysToDefault`, `DeleteAllKeys` or `DeletePK`.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] where the BMC offers no such action.
    pub async fn reset_secure_boot_keys(&self, how: &str) -> Result<(), BmcError> {
        let document: Value = self.client.get(&self.secure_boot_link().await?).await?;
        let target = document["Actions"]["#SecureBoot.ResetKeys"]["target"].as_str();
        let target = target.ok_or_else(|| self.unsupported("reset the keys of secure boot"))?;
        let taken = self.post(target, &json!({ "ResetKeysType": how })).await?;
        self.follow("the reset of the keys", &taken, Until::Scheduled, self.timing().task).await.map(drop)
    }

    /// Adds a certificate (PEM) to a key database (`db`, `KEK`, `PK`, `dbx`), and sees that it is there.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] where there is no such database, [`BmcError::NotObeyed`] where it does not show.
    pub async fn add_secure_boot_certificate(&self, database: &str, pem: &str) -> Result<(), BmcError> {
        let document: Value = self.client.get(&self.secure_boot_link().await?).await?;
        let list = document["SecureBootDatabases"]["@odata.id"].as_str();
        let list = list.ok_or_else(|| self.unsupported("show the key databases of secure boot"))?;
        let links = self.client.members(list).await?;
        let named = |link: &&String| {
            link.trim_end_matches('/').rsplit('/').next().is_some_and(|id| id.eq_ignore_ascii_case(database))
        };
        let link =
            links.iter().find(named).ok_or_else(|| self.unsupported(format!("show a key database {database}")))?;
        let found: Value = self.client.get(link).await?;
        let certificates = found["Certificates"]["@odata.id"].as_str();
        let certificates = certificates.ok_or_else(|| self.unsupported(format!("add a certificate to {database}")))?;
        let before = self.client.members(certificates).await?.len();
        let body = json!({ "CertificateString": pem, "CertificateType": "PEM" });
        self.post(certificates, &body).await?;
        match self.client.members(certificates).await?.len() > before {
            true => Ok(()),
            false => Err(self.not_obeyed("the certificate", format!("{database} still has {before}"))),
        }
    }
}
