//! The certificate that a BMC shows: what it says, a request for another that an authority signs, and putting that one in (DSP0268,
//! CertificateService). What is put in counts once the BMC shows it.

use std::str::FromStr;

use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::exchange::NOTE;
use super::fact::Fact;
use super::task::Until;
use super::{Bmc, BmcError, format_pin, oem, until};
use crate::sys::wire::pin_of;

/// The certificate of a BMC's web server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Whose it is, where the BMC tells.
    pub subject: Option<String>,
    /// Who signed it.
    pub issuer: Option<String>,
    /// From when it holds, as the BMC writes it.
    pub valid_from: Option<String>,
    /// Until when it holds, as the BMC writes it.
    pub valid_until: Option<String>,
    /// The pin of what the BMC shows on the wire, `sha256:…`; none over plain HTTP.
    pub pin: Option<String>,
}

/// Whose a certificate is to be: `C=…,ST=…,L=…,O=…,OU=…`, which BMCs demand all, and `CN=…`, which is the BMC's host where it is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    country: String,
    state: String,
    city: String,
    organization: String,
    unit: String,
    common_name: Option<String>,
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut subject = Self::default();
        for part in text.split(',') {
            let (key, value) = part.trim().split_once('=').ok_or_else(|| format!("{part:?} is not KEY=VALUE"))?;
            let value = value.trim().to_owned();
            match key.trim().to_ascii_uppercase().as_str() {
                "C" => subject.country = value,
                "ST" => subject.state = value,
                "L" => subject.city = value,
                "O" => subject.organization = value,
                "OU" => subject.unit = value,
                "CN" => subject.common_name = Some(value).filter(|name| !name.is_empty()),
                _ => return Err(format!("{key:?} is none of C, ST, L, O, OU and CN")),
            }
        }
        let Self { country, state, city, organization, unit, .. } = &subject;
        let parts = [("C", country), ("ST", state), ("L", city), ("O", organization), ("OU", unit)];
        let missing: Vec<&str> = parts.iter().filter(|(_, value)| value.is_empty()).map(|(key, _)| *key).collect();
        match missing.is_empty() {
            true => Ok(subject),
            false => Err(format!("{} must be given too: BMCs demand it", missing.join(", "))),
        }
    }
}

/// What came of putting a certificate in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateChange {
    /// The pin of the new certificate, `sha256:…`.
    pub pin: String,
    /// Whether the BMC shows it; if not, it may want to be restarted first.
    pub shown: bool,
    /// Whether it is made out to the host by which the BMC is reached here, which who trusts its authority demands.
    pub names_host: bool,
}

/// Where a BMC keeps the certificate of its web server.
enum Place {
    /// As DSP0268 has it: the service, the collection, and the certificate in it.
    Service { service: Value, collection: String, certificate: String },
    /// A resource of the vendor's own.
    Own(Value),
}

fn target<'a>(document: &'a Value, action: &str) -> Option<&'a str> {
    document["Actions"][action]["target"].as_str()
}

fn is_pem(text: &&str, what: &str) -> bool {
    text.contains(&format!("-----BEGIN {what}"))
}

impl Bmc {
    /// The certificate of its web server.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] where the BMC does not tell.
    pub async fn certificate(&self) -> Result<Certificate, BmcError> {
        let found = match self.certificate_place().await? {
            Place::Own(document) => {
                let about = &document["X509CertificateInformation"];
                let text = |key: &str| about[key].as_str().map(str::to_owned);
                (text("Subject"), text("Issuer"), text("ValidNotBefore"), text("ValidNotAfter"))
            }
            Place::Service { certificate, .. } => {
                let document: Value = self.client.get(&certificate).await?;
                let text = |key: &str| document[key].as_str().map(str::to_owned);
                let whole = |key| distinguished(&document[key]);
                (whole("Subject"), whole("Issuer"), text("ValidNotBefore"), text("ValidNotAfter"))
            }
        };
        let (subject, issuer, valid_from, valid_until) = found;
        let pin = self.exchange.shown_pin().await?.map(|pin| format_pin(&pin));
        Ok(Certificate { subject, issuer, valid_from, valid_until, pin })
    }

    /// Lets the BMC make a key of its own and a request, in PEM, that an authority can sign. `others` are further names.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] where it makes none, [`BmcError::NotObeyed`] where none came.
    pub async fn request_certificate(&self, subject: &Subject, others: &[String]) -> Result<String, BmcError> {
        let common_name = subject.common_name.clone().unwrap_or_else(|| self.host());
        let Subject { country, state, city, organization, unit, .. } = subject;
        let none = || self.unsupported("request a certificate");
        let made = match self.certificate_place().await? {
            Place::Own(document) => {
                let generate = target(&document, oem::HPE_GENERATE).ok_or_else(none)?;
                let body = json!({ "CommonName": common_name, "Country": country, "State": state, "City": city,
                    "OrgName": organization, "OrgUnit": unit });
                self.post(generate, &body).await?;
                let link = document["@odata.id"].as_str().unwrap_or_default();
                let before = &document["CertificateSigningRequest"];
                let look = || async {
                    let now: Value = self.client.get(link).await?;
                    let fresh = now["CertificateSigningRequest"].as_str().filter(|text| Some(*text) != before.as_str());
                    Ok(fresh.filter(|text| is_pem(text, "CERTIFICATE REQUEST")).map(str::to_owned))
                };
                until(self.timing().look, self.timing().controller, look).await?
            }
            Place::Service { service, collection, .. } => {
                let generate = target(&service, "#CertificateService.GenerateCSR").ok_or_else(none)?;
                let mut body = json!({ "CertificateCollection": { "@odata.id": collection }, "CommonName": common_name,
                    "Country": country, "State": state, "City": city, "Organization": organization,
                    "OrganizationalUnit": unit });
                if !others.is_empty() {
                    body["AlternativeNames"] = json!(others);
                }
                let answer = self.post(generate, &body).await?;
                let made = answer["CSRString"].as_str().filter(|text| is_pem(text, "CERTIFICATE REQUEST"));
                made.map(str::to_owned)
            }
        };
        made.ok_or_else(|| self.not_obeyed("the request for a certificate", "it has made none"))
    }

    /// Puts a certificate in, in PEM, with those that vouch for it after it, whose key the BMC made with the last request; with `restart`,
    /// restarts the BMC for it, which some demand. Once it is shown, it is the BMC's pin.
    ///
    /// # Errors
    /// [`BmcError::Local`] for what is no certificate, and any [`BmcError`] of the BMC.
    pub async fn exchange_certificate(&self, pem: &str, restart: bool) -> Result<CertificateChange, BmcError> {
        let unfit = |why: String| BmcError::Local { what: "reading the certificate".to_owned(), why };
        let first = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| unfit(error.to_string()))?;
        let parsed = ParsedCertificate::try_from(&first).map_err(|error| unfit(error.to_string()))?;
        let fresh = pin_of(&first);
        let host = ServerName::try_from(self.host());
        let names_host = host.is_ok_and(|host| verify_server_name(&parsed, &host).is_ok());
        let place = self.certificate_place().await?;
        let none = || self.unsupported("take another certificate");
        let taken = match &place {
            Place::Own(document) => {
                let import = target(document, oem::HPE_IMPORT).ok_or_else(none)?;
                self.post(import, &json!({ "Certificate": pem })).await
            }
            Place::Service { service, certificate, .. } => {
                let replace = target(service, "#CertificateService.ReplaceCertificate").ok_or_else(none)?;
                let body = json!({ "CertificateString": pem, "CertificateType": "PEM",
                    "CertificateUri": { "@odata.id": certificate } });
                self.post(replace, &body).await
            }
        };
        // Many start their web server anew for it, and some before they have answered: what they show tells.
        let (taken, lost) = match taken {
            Err(error) if error.is_passing() => (Value::Null, Some(error)),
            other => (other?, None),
        };
        // Else a place in the answer is the new certificate's, and no task's.
        if taken[NOTE]["status"] == 202 {
            self.follow("the new certificate", &taken, Until::Scheduled, self.timing().task).await?;
        }
        if restart {
            self.restart_bmc().await?;
        }
        let restarts = restart || matches!(place, Place::Own(_));
        let limit = if restarts { self.timing().task } else { self.timing().setting };
        let look = || async { Ok((self.exchange.shown_pin().await? == Some(fresh)).then_some(())) };
        let shown = match until(self.timing().look, limit, look).await {
            Ok(shown) => shown.is_some(),
            Err(error) if error.is_passing() => false,
            Err(error) => return Err(error),
        };
        match (shown, lost) {
            (true, _) => self.exchange.keep_pin(fresh)?,
            (false, Some(error)) => return Err(error),
            (false, None) => {}
        }
        Ok(CertificateChange { pin: format_pin(&fresh), shown, names_host })
    }

    async fn restart_bmc(&self) -> Result<(), BmcError> {
        let manager = self.outline(self.manager_link()?).await?;
        let reset = target(&manager, "#Manager.Reset").ok_or_else(|| self.unsupported("restart itself"))?;
        let offered = &manager["Actions"]["#Manager.Reset"]["ResetType@Redfish.AllowableValues"];
        let offers = |how: &str| offered.as_array().is_none_or(|all| all.iter().any(|one| one == how));
        let how = if offers("GracefulRestart") { "GracefulRestart" } else { "ForceRestart" };
        match self.post(reset, &json!({ "ResetType": how })).await {
            // It may be gone before it has answered.
            Err(error) if !error.is_passing() => Err(error),
            _ => Ok(()),
        }
    }

    async fn certificate_place(&self) -> Result<Place, BmcError> {
        let manager = self.outline(self.manager_link()?).await?;
        if self.quirks.has(Fact::HpeCertificateApart)
            && let Some(security) = manager.pointer(oem::HPE_SECURITY).and_then(Value::as_str)
        {
            let security = self.outline(security).await?;
            if let Some(own) = security.pointer(oem::HPE_CERTIFICATE).and_then(Value::as_str) {
                return Ok(Place::Own(self.client.get(own).await?));
            }
        }
        let none = || self.unsupported("show the certificate of its web server");
        let protocol = manager["NetworkProtocol"]["@odata.id"].as_str().ok_or_else(none)?;
        let protocol: Value = self.client.get(protocol).await?;
        let collection = protocol["HTTPS"]["Certificates"]["@odata.id"].as_str().ok_or_else(none)?.to_owned();
        let certificate = self.client.members(&collection).await?.into_iter().next().ok_or_else(none)?;
        let service = match self.root["CertificateService"]["@odata.id"].as_str() {
            Some(service) => self.outline(service).await?,
            None => Value::Null,
        };
        Ok(Place::Service { service, collection, certificate })
    }

    fn manager_link(&self) -> Result<&str, BmcError> {
        self.managers.first().map(String::as_str).ok_or_else(|| self.unsupported("show its manager"))
    }

    /// The host by which it is reached, without the port.
    fn host(&self) -> String {
        let name = self.name();
        name.rsplit_once(':').map_or(name, |(host, _)| host).trim_matches(['[', ']']).to_owned()
    }
}

/// A name as certificates have it: `CN=…, O=…`.
fn distinguished(name: &Value) -> Option<String> {
    let parts = [
        ("CN", "CommonName"),
        ("OU", "OrganizationalUnit"),
        ("O", "Organization"),
        ("L", "City"),
        ("ST", "State"),
        ("C", "Country"),
    ];
    let said = parts.iter().filter_map(|(key, long)| Some(format!("{key}={}", name[*long].as_str()?)));
    Some(said.collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    //! A subject that a BMC would refuse is refused before anything is asked.
    use super::*;

    #[test]
    fn subjects_are_whole() {
        let subject: Subject = "C=DE, ST=Hessen,L=Frankfurt,O=Example,OU=Racks,cn=bmc-1".parse().unwrap();
        assert_eq!((subject.country.as_str(), subject.common_name.as_deref()), ("DE", Some("bmc-1")));
        assert!("C=DE,L=x,O=y,OU=z".parse::<Subject>().unwrap_err().starts_with("ST must"));
        assert!("C=DE,X=1".parse::<Subject>().is_err() && "Frankfurt".parse::<Subject>().is_err());
    }

    #[test]
    fn names_are_written_as_certificates_have_them() {
        let name = json!({ "Organization": "Dell Inc.", "CommonName": "idrac-1", "Email": null });
        assert_eq!(distinguished(&name).unwrap(), "CN=idrac-1, O=Dell Inc.");
        assert_eq!(distinguished(&Value::Null), None);
    }
}
