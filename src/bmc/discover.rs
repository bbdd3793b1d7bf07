//! Finding BMCs by asking addresses who they are: the root of the service, which DSP0266 shows to strangers. No credentials are sent, and
//! no certificate is kept.

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _, stream};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::exchange::Ask;
use super::{Address, BmcError, Facts, Gateway, MemoryPins, Pins, ROOT, Target, Timing, Trust, format_pin, open};

/// Addresses that are asked at a time.
const AT_ONCE: usize = 256;
/// Addresses that are asked in all.
const ADDRESSES_MAX: usize = 1 << 16;
/// Characters of what a stranger says of itself that are shown.
const SAID_MAX: usize = 80;

/// A BMC that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovered {
    /// Where it answered.
    pub address: IpAddr,
    /// Its URL.
    pub url: String,
    /// Who made it, where it says so to strangers.
    pub vendor: Option<String>,
    /// What it is.
    pub product: Option<String>,
    /// The version of Redfish that it speaks.
    pub redfish: Option<String>,
    /// The UUID of its service.
    pub uuid: Option<String>,
    /// The pin of its certificate, `sha256:…`.
    pub pin: Option<String>,
    /// Whether that is what is known of it.
    pub certificate: Acquaintance,
}

/// What is known of a certificate that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Acquaintance {
    /// Nothing yet.
    New,
    /// It is the one that is kept.
    Known,
    /// Another one is kept.
    Changed,
}

/// The hosts of networks such as `10.0.0.0/24`, and single addresses; each once, in order.
///
/// # Errors
/// In words, what is no network, and where there are more than 65,536 addresses.
pub fn addresses(networks: &[String]) -> Result<Vec<IpAddr>, String> {
    let mut found = vec![];
    for text in networks {
        let wrong = || format!("{text:?} is neither a network such as 10.0.0.0/24 nor an address");
        let net = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => text.parse::<IpNet>().map_err(|_| wrong())?,
        };
        // A network of the largest size has as many hosts and, in IPv4, two that are none.
        found.extend(net.hosts().take(ADDRESSES_MAX + 1));
        if found.len() > ADDRESSES_MAX {
            return Err(format!(
                "these are more than {ADDRESSES_MAX} addresses; ask smaller networks one after the other"
            ));
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Asks each address at `port` who it is; tells of each, as it answers or does not, whether it is a BMC. `known` says which certificates
/// are known.
///
/// # Errors
/// [`BmcError::Local`] where this machine has no port for it.
pub async fn discover<'a>(
    addresses: &'a [IpAddr],
    port: u16,
    known: &'a dyn Pins,
    timing: &'a Timing,
) -> Result<impl Stream<Item = Option<Discovered>> + 'a, BmcError> {
    let gateway = Gateway::open().await?;
    let asked = stream::iter(addresses).map(move |address| {
        let gateway = gateway.clone();
        async move { who_is(*address, port, known, timing, &gateway).await }
    });
    Ok(asked.buffer_unordered(AT_ONCE))
}

async fn who_is(
    address: IpAddr,
    port: u16,
    known: &dyn Pins,
    timing: &Timing,
    gateway: &Gateway,
) -> Option<Discovered> {
    let host = match address {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let at: Address = format!("https://{host}:{port}").parse().ok()?;
    let authority = at.authority()?;
    let url = at.to_string();
    let target =
        Target { address: at, system: None, credentials: None, trust: Trust::Known, without: Facts::default() };
    let seen = Arc::new(MemoryPins::default());
    let exchange = open(&target, seen.clone(), timing.clone(), gateway).ok()?;
    let root = match exchange.carry(Ask::get(ROOT)).await {
        Ok(root) if is_root(&root) => root,
        _ => return None,
    };
    let text = |key: &str| root[key].as_str().and_then(readable);
    let pin = seen.known(&authority);
    let certificate = match (pin, known.known(&authority)) {
        (seen, Some(kept)) if seen == Some(kept) => Acquaintance::Known,
        (_, Some(_)) => Acquaintance::Changed,
        (_, None) => Acquaintance::New,
    };
    // Older ones name their vendor as the key of what is the vendor's own.
    let oem = || root["Oem"].as_object().and_then(|oem| readable(oem.keys().next()?));
    Some(Discovered {
        address,
        url,
        vendor: text("Vendor").or_else(oem),
        product: text("Product"),
        redfish: text("RedfishVersion"),
        uuid: text("UUID"),
        pin: pin.map(|pin| format_pin(&pin)),
        certificate,
    })
}

/// Whether it is the root of a Redfish service, and not what another web server has there.
fn is_root(document: &Value) -> bool {
    let kind = document["@odata.type"].as_str().unwrap_or_default();
    document["RedfishVersion"].is_string() || kind.starts_with("#ServiceRoot.")
}

/// What a stranger says, without what could do something to a terminal; none where nothing is left.
fn readable(text: &str) -> Option<String> {
    Some(text.chars().filter(|c| !c.is_control()).take(SAID_MAX).collect()).filter(|text: &String| !text.is_empty())
}

#[cfg(test)]
mod tests {
    //! Networks become the addresses that can be hosts, each once, and no endless list.
    use super::*;

    #[test]
    fn networks_become_addresses() {
        let of = |networks: &[&str]| addresses(&networks.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
        let shown = |networks: &[&str]| of(networks).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shown(&["10.0.0.4/30", "10.0.0.5", "fd00::5"]), ["10.0.0.5", "10.0.0.6", "fd00::5"]);
        // Host bits are no mistake: it is how people write the network that their own address is in.
        assert_eq!(shown(&["10.0.0.9/31"]), ["10.0.0.8", "10.0.0.9"]);
        assert_eq!(of(&["10.0.0.0/16"]).unwrap().len(), 65534);
        assert!(of(&["10.0.0.0/15"]).unwrap_err().contains("more than 65536"));
        assert!(of(&["fd00::/64"]).is_err() && of(&["rack-7"]).unwrap_err().contains("rack-7"));
    }
}
