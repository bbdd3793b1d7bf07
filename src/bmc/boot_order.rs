//! The order in which a machine looks for something to boot: shown as it holds, changed where its BMC takes the change, read back.
//! And booting over HTTP, which every vendor sets differently.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::fact::Fact;
use super::task::Until;
use super::{Bmc, BmcError, BootTarget, oem, until};

/// One thing that a machine can boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootOption {
    /// Its reference, such as `Boot0003`; a vendor's name where the order is the vendor's own.
    pub reference: String,
    /// Its name, for people.
    pub name: String,
    /// Whether it is tried.
    pub enabled: bool,
}

/// A boot order and where it is changed.
struct Order {
    /// The resource that takes the change.
    link: String,
    /// The property that holds the order.
    property: &'static str,
    /// Whether the property stands under `Boot`.
    under_boot: bool,
    options: Vec<BootOption>,
}

impl Order {
    fn body(&self, order: &[String]) -> Value {
        match self.under_boot {
            true => json!({ "Boot": { self.property: order } }),
            false => json!({ self.property: order }),
        }
    }

    fn shown(&self, document: &Value) -> Vec<String> {
        let list = if self.under_boot { &document["Boot"][self.property] } else { &document[self.property] };
        texts(list)
    }

    /// The order with what `first` means before the rest; the text that means nothing is the error.
    fn with_first(&self, first: &[String]) -> Result<Vec<String>, String> {
        let mut order: Vec<String> = vec![];
        for text in first {
            let exact = self.options.iter().find(|option| &option.reference == text);
            let lower = text.to_ascii_lowercase();
            let part = || self.options.iter().find(|option| option.name.to_ascii_lowercase().contains(&lower));
            let found = exact.or_else(part).ok_or_else(|| text.clone())?;
            if !order.contains(&found.reference) {
                order.push(found.reference.clone());
            }
        }
        let rest = self.options.iter().map(|option| &option.reference).filter(|known| !order.contains(known));
        let rest: Vec<String> = rest.cloned().collect();
        order.extend(rest);
        Ok(order)
    }
}

impl Bmc {
    /// What the machine boots, first to last. The order of the collection of boot options says nothing.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] where the BMC shows no order.
    pub async fn boot_order(&self) -> Result<Vec<BootOption>, BmcError> {
        Ok(self.order().await?.options)
    }

    /// Puts these first, by reference or by a part of their names; what else there is follows as it stood.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] where there is no such option, [`BmcError::NotObeyed`] where it does not read back.
    pub async fn set_boot_order(&self, first: &[String]) -> Result<Vec<BootOption>, BmcError> {
        let mut order = self.order().await?;
        let wanted = |order: &Order| {
            order
                .with_first(first)
                .map_err(|text| self.unsupported(format!("boot {text:?} first: it lists no such option")))
        };
        let mut list = wanted(&order)?;
        let mut sent = self.patch(&order.link, &order.body(&list)).await;
        if sent.as_ref().is_err_and(|error| error.says("PropertyUnknown") || error.says("PropertyNotWritable"))
            && self.quirks.has(Fact::SupermicroFixedBootOrder)
        {
            let place = format!("{}{}", self.system.trim_end_matches('/'), oem::SUPERMICRO_BOOT_ORDER);
            order = self.named_order(&place, "FixedBootOrder").await?;
            list = wanted(&order)?;
            sent = self.patch(&order.link, &order.body(&list)).await;
        }
        let taken = sent?;
        self.follow("the boot order", &taken, Until::Scheduled, self.timing().task).await?;
        let look = || async {
            let settings: Value = self.client.get(&order.link).await?;
            let now = self.system().await?;
            let holds = order.shown(&settings) == list || (order.under_boot && order.shown(&now) == list);
            // A job that waits for the next start shows nothing before it.
            Ok((holds || taken[super::exchange::NOTE]["location"].is_string()).then_some(()))
        };
        if until(self.timing().look, self.timing().setting, look).await?.is_none() {
            return Err(self.not_obeyed("the boot order", "it reads back otherwise"));
        }
        let find = |reference: &String| order.options.iter().find(|option| &option.reference == reference).cloned();
        Ok(list.iter().filter_map(find).collect())
    }

    /// The order that this BMC takes changes of.
    async fn order(&self) -> Result<Order, BmcError> {
        if self.quirks.has(Fact::HpeBootOrderOem)
            && let Some(order) = self.hpe_order().await?
        {
            return Ok(order);
        }
        let system = self.system().await?;
        if self.quirks.has(Fact::LenovoBootOrderOem)
            && let Some(list) = system.pointer(oem::LENOVO_BOOT_SETTINGS).and_then(Value::as_str)
        {
            // Its members are not there before their list was read.
            let members = self.client.members(list).await?;
            if let Some(link) = members.iter().find(|link| link.ends_with("/BootOrder.BootOrder")) {
                return self.named_order(link, "BootOrderNext").await;
            }
        }
        let references = texts(&system["Boot"]["BootOrder"]);
        if references.is_empty() {
            return Err(self.unsupported("show a boot order"));
        }
        let settings = system["@Redfish.Settings"]["SettingsObject"]["@odata.id"].as_str();
        let staged = settings.filter(|_| self.quirks.has(Fact::NvidiaBootStaged));
        let link = staged.map_or_else(|| self.system.clone(), str::to_owned);
        let options = self.boot_options(&system, &references).await;
        Ok(Order { link, property: "BootOrder", under_boot: true, options })
    }

    /// The options that the references mean, in the references' order.
    async fn boot_options(&self, system: &Value, references: &[String]) -> Vec<BootOption> {
        let list = system["Boot"]["BootOptions"]["@odata.id"].as_str();
        let links = match list {
            Some(list) => self.client.members(list).await.unwrap_or_default(),
            None => vec![],
        };
        let mut known = vec![];
        for link in links {
            let Ok(document) = self.client.get::<Value>(&link).await else { continue };
            let text = |key: &str| document[key].as_str().unwrap_or_default().to_owned();
            let name = if text("DisplayName").is_empty() { text("Name") } else { text("DisplayName") };
            let enabled = document["BootOptionEnabled"].as_bool().unwrap_or(true);
            known.push(BootOption { reference: text("BootOptionReference"), name, enabled });
        }
        let of = |reference: &String| {
            let found = known.iter().find(|option| &option.reference == reference).cloned();
            found.unwrap_or_else(|| BootOption { reference: reference.clone(), name: reference.clone(), enabled: true })
        };
        references.iter().map(of).collect()
    }

    /// An order whose entries are names.
    async fn named_order(&self, link: &str, property: &'static str) -> Result<Order, BmcError> {
        let document: Value = self.client.get(link).await?;
        let options = texts(&document[property]).into_iter();
        let options = options.map(|name| BootOption { reference: name.clone(), name, enabled: true }).collect();
        Ok(Order { link: link.to_owned(), property, under_boot: false, options })
    }

    async fn hpe_order(&self) -> Result<Option<Order>, BmcError> {
        let system = self.system().await?;
        let Some(bios) = system["Bios"]["@odata.id"].as_str() else { return Ok(None) };
        let bios: Value = self.client.get(bios).await?;
        let Some(boot) = bios.pointer(oem::HPE_BOOT).and_then(Value::as_str) else { return Ok(None) };
        let document: Value = self.client.get(boot).await?;
        let settings = document["@Redfish.Settings"]["SettingsObject"]["@odata.id"].as_str();
        let settings = settings.map_or_else(|| format!("{}/settings/", boot.trim_end_matches('/')), str::to_owned);
        let sources = document["BootSources"].as_array().map(Vec::as_slice).unwrap_or_default();
        let option = |reference: String| {
            let source = sources.iter().find(|source| source["StructuredBootString"] == reference.as_str());
            let name = source.and_then(|source| source["BootString"].as_str()).unwrap_or(&reference).to_owned();
            BootOption { reference, name, enabled: true }
        };
        let options = texts(&document["PersistentBootConfigOrder"]).into_iter().map(option).collect();
        Ok(Some(Order { link: settings, property: "PersistentBootConfigOrder", under_boot: false, options }))
    }

    /// Boots from this address over HTTP next: by the standard's property, or as the BMC's vendor has it. What the
    /// BIOS must be set to first is ordered, and takes effect with the start that boots.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] where the BMC has no way to it.
    pub async fn set_http_boot(&self, url: &str) -> Result<(), BmcError> {
        let system = self.system().await?;
        if system["Boot"].get("HttpBootUri").is_some() {
            let body = json!({ "Boot": { "HttpBootUri": url } });
            let staged = system["@Redfish.Settings"]["SettingsObject"]["@odata.id"].as_str();
            let link = staged.filter(|_| self.quirks.has(Fact::BootStaged)).unwrap_or(&self.system);
            self.patch(link, &body).await?;
            return self.set_boot(BootTarget::Http).await.map(drop);
        }
        if self.quirks.has(Fact::DellHttpBootInBios) {
            let settings = [
                ("HttpDev1EnDis", "Enabled"),
                ("HttpDev1Protocol", "IPv4"),
                ("HttpDev1Uri", url),
                ("HttpDev1TlsMode", "None"),
            ];
            let bios = self.bios().await?;
            let known = settings.iter().filter(|(name, _)| bios.attributes.contains_key(*name));
            let known: Vec<(String, String)> = known.map(|(name, to)| ((*name).to_owned(), (*to).to_owned())).collect();
            if known.iter().any(|(name, _)| name == "HttpDev1Uri") {
                self.set_bios(&known).await?;
                return self.set_boot(BootTarget::Http).await.map(drop);
            }
        }
        Err(self.unsupported("be told an address to boot from over HTTP; the network must offer it (DHCP option 67)"))
    }
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    //! What is wanted first comes first, by reference or by a part of its name, and nothing is lost.
    use super::*;

    #[test]
    fn the_rest_follows_as_it_stood() {
        let option = |reference: &str, name: &str| BootOption {
            reference: reference.to_owned(),
            name: name.to_owned(),
            enabled: true,
        };
        let options =
            vec![option("Boot0001", "Disk"), option("Boot0002", "HTTP IPv4 Mellanox"), option("Boot0003", "Shell")];
        let order = Order { link: String::new(), property: "BootOrder", under_boot: true, options };
        let first = |texts: &[&str]| order.with_first(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
        assert_eq!(first(&["http ipv4"]).unwrap(), ["Boot0002", "Boot0001", "Boot0003"]);
        assert_eq!(first(&["Boot0003", "Boot0003"]).unwrap(), ["Boot0003", "Boot0001", "Boot0002"]);
        assert_eq!(first(&["floppy"]).unwrap_err(), "floppy");
        assert_eq!(order.body(&["Boot0001".to_owned()]), json!({ "Boot": { "BootOrder": ["Boot0001"] } }));
    }
}
