//! From the raw shape to the checked spec.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use crate::format::order::{DiskSelector, Wipe};
use crate::model::{ByteSize, ImageRef, NodeName};
use crate::rack::spec::keys::Lines;
use crate::rack::spec::raw::{RawLogin, RawNode, RawRole, RawSpec, RawTimeouts};
use crate::rack::spec::{
    BiosSettings, BmcAddress, Login, NODES_MAX, NodeSpec, PasswordSource, Spec, SpecError, Timeouts,
};

/// Nodes that are worked on at a time unless the spec says otherwise: a whole rack.
const PARALLEL: usize = 72;

/// Longest time-out; beyond it a node is forgotten rather than slow.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// Where messages say that a mistake is, and where relative paths begin.
pub(super) struct Places<'a> {
    pub(super) origin: &'a str,
    pub(super) lines: Option<&'a Lines>,
    pub(super) base: Option<&'a Path>,
}

impl Places<'_> {
    fn node(&self, index: usize, name: &str) -> String {
        match self.lines.and_then(|lines| lines.nodes.get(index)) {
            Some(line) => format!("{}, line {line}, node {name:?}", self.origin),
            None => format!("{}, node {name:?}", self.origin),
        }
    }

    fn path(&self, text: &str) -> PathBuf {
        let path = self.base.map_or_else(|| PathBuf::from(text), |base| base.join(text));
        // Lexically, because the folder may be on another machine's disk.
        let mut clean = PathBuf::new();
        for part in path.components() {
            match part {
                Component::CurDir => {}
                Component::ParentDir if clean.file_name().is_some() => {
                    clean.pop();
                }
                part => clean.push(part),
            }
        }
        clean
    }
}

pub(super) fn checked(raw: &RawSpec, places: &Places<'_>) -> Result<Spec, SpecError> {
    let whole = |problem: String| SpecError::Mistake { place: places.origin.to_owned(), problem };
    if raw.name.is_empty() || raw.name.len() > 64 || !raw.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(whole(format!(
            "{:?} is not a rack's name; write name = \"…\" at the top, with at most 64 letters, digits and hyphens",
            raw.name
        )));
    }
    if raw.node.is_empty() {
        return Err(whole("the spec has no node; add one [[node]] with a name and a bmc for each machine".to_owned()));
    }
    if raw.node.len() > NODES_MAX {
        return Err(whole(format!(
            "the spec has {} nodes and at most {NODES_MAX} are possible; split it into one spec a rack",
            raw.node.len()
        )));
    }
    let parallel = raw.install.parallel.unwrap_or(PARALLEL);
    if parallel == 0 {
        return Err(whole("parallel = 0 in [install] would never work on a node; write at least 1".to_owned()));
    }
    for (key, value) in [("parallel-per-feed", raw.install.parallel_per_feed), ("stop-after", raw.install.stop_after)] {
        if value == Some(0) {
            return Err(whole(format!(
                "{key} = 0 in [install] would never work on a node; write at least 1, or leave it out"
            )));
        }
    }
    let timeouts = timeouts(&raw.timeouts).map_err(whole)?;
    let mut nodes = Vec::with_capacity(raw.node.len());
    for (index, node) in raw.node.iter().enumerate() {
        nodes.push(checked_node(node, raw, places, &places.node(index, &node.name))?);
    }
    unique(&nodes, places)?;
    let spec = Spec {
        name: raw.name.clone(),
        nodes,
        parallel,
        parallel_per_feed: raw.install.parallel_per_feed,
        canaries: raw.install.canaries.unwrap_or(0),
        stop_after: raw.install.stop_after,
        timeouts,
        user_data: raw.user_data.clone(),
    };
    spec.check_user_data()?;
    Ok(spec)
}

fn checked_node(node: &RawNode, raw: &RawSpec, places: &Places<'_>, place: &str) -> Result<NodeSpec, SpecError> {
    let mistake = |problem: String| SpecError::Mistake { place: place.to_owned(), problem };
    let name: NodeName = node.name.parse().map_err(|error| mistake(format!("{error}")))?;
    let bmc = node.bmc.as_deref().ok_or_else(|| {
        mistake("it has no BMC; write bmc = \"https://ADDRESS\", or the folder of a recorded tree".to_owned())
    })?;
    let none = RawRole::default();
    let role = match node.role.as_deref() {
        None => &none,
        Some(name) => raw.role.get(name).ok_or_else(|| mistake(no_role(name, raw)))?,
    };
    let image = node.image.as_deref().or(role.image.as_deref()).or(raw.image.as_deref()).ok_or_else(|| {
        mistake(
            "it has no image; write image = \"NAME@VERSION\" at the top of the spec for all nodes, in its role, or in this node"
                .to_owned(),
        )
    })?;
    let image: ImageRef = image.parse().map_err(|error| mistake(format!("{error}")))?;
    let system = node.system.as_deref().map(str::trim);
    if system == Some("") {
        return Err(mistake("system = \"\" names no system; leave it out where the BMC has only one".to_owned()));
    }
    let feed = node.feed.as_deref().map(str::trim);
    if feed == Some("") {
        return Err(mistake("feed = \"\" names no power feed; leave it out, or name it, as in \"A\"".to_owned()));
    }
    let serial = node.serial.as_deref().map(str::trim);
    if serial == Some("") {
        return Err(mistake("serial = \"\" is no serial number; leave it out, or write the machine's".to_owned()));
    }
    let user_data = node.user_data.as_ref().or(role.user_data.as_ref()).or(raw.install.user_data.as_ref());
    if user_data.is_some_and(|file| file.trim().is_empty()) {
        return Err(mistake("user-data = \"\" names no file; leave it out, or write the path of one".to_owned()));
    }
    // Each overrules what stands above it, setting by setting.
    let layers = [&raw.bios, &role.bios, &node.bios].into_iter().flatten();
    let bios: BiosSettings = layers.map(|(name, value)| (name.clone(), value.text())).collect();
    if let Some(name) = bios.iter().find_map(|(name, value)| value.trim().is_empty().then_some(name)) {
        return Err(mistake(format!("the BIOS setting {name:?} is empty; write its value, or leave it out")));
    }
    if let Some(name) = bios.keys().find(|name| name.to_lowercase().contains("password")) {
        return Err(mistake(format!(
            "the BIOS setting {name:?} would put a password into the spec; set it with the BMC's own tools, and leave it out"
        )));
    }
    Ok(NodeSpec {
        health: node.health.or(raw.install.health).unwrap_or_default(),
        record_console: node.record_console.or(raw.install.record_console).unwrap_or(false),
        bios,
        serial: serial.map(str::to_owned),
        feed: feed.map(str::to_owned),
        name,
        bmc: address(bmc, places).map_err(mistake)?,
        system: system.map(str::to_owned),
        pin: node.pin.as_deref().map(pin).transpose().map_err(mistake)?,
        ca_file: node
            .ca_file
            .as_ref()
            .or(role.ca_file.as_ref())
            .or(raw.bmc.ca_file.as_ref())
            .map(|file| places.path(file)),
        login: login(node, role, &raw.bmc, places).map_err(mistake)?,
        disk: disk(node.disk.as_ref().or(role.disk.as_ref()).or(raw.disk.as_ref()), place)?,
        wipe: node.wipe.or(role.wipe).or(raw.install.wipe).unwrap_or(Wipe::Blank),
        image,
        slot: node.slot,
        user_data: user_data.map(|file| places.path(file)),
    })
}

/// The address in one spelling: lower-case host, no standard port, no path.
fn address(text: &str, places: &Places<'_>) -> Result<BmcAddress, String> {
    let text = text.trim();
    let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        None if text.is_empty() => Err("bmc = \"\" names no BMC; write its address, as in https://10.0.0.5".to_owned()),
        None => Ok(BmcAddress::Folder(places.path(text))),
        Some("http" | "https") => {
            let url = url::Url::parse(text)
                .map_err(|error| format!("{text:?} is not a BMC's address ({error}); write it as https://10.0.0.5"))?;
            if !url.username().is_empty() || url.password().is_some() {
                return Err("the BMC's address holds a user or password; write username and password-env instead, so \
                            that the secret stays out of the spec"
                    .to_owned());
            }
            let path = url.path().trim_end_matches('/');
            if !matches!(path, "" | "/redfish" | "/redfish/v1") || url.query().is_some() || url.fragment().is_some() {
                return Err(format!("{text:?} has a path; write only the BMC's address, as in https://10.0.0.5"));
            }
            let host = url.host_str().ok_or_else(|| format!("{text:?} has no host; write it as https://10.0.0.5"))?;
            let host = host.trim_end_matches('.');
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            Ok(BmcAddress::Url(format!("{}://{host}{port}", url.scheme())))
        }
        Some(other) => Err(format!("a BMC is reached by https, http or a folder, not {other:?}")),
    }
}

fn pin(text: &str) -> Result<[u8; 32], String> {
    let bad = || {
        format!(
            "{text:?} is not a pin; write pin = \"sha256:…\" with the 64 hexadecimal digits of the SHA-256 of the BMC's \
             certificate, or leave it out to trust the first one seen"
        )
    };
    let digits = text.strip_prefix("sha256:").ok_or_else(bad)?.replace(':', "");
    let mut bytes = [0; 32];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| bad())?;
    Ok(bytes)
}

fn no_role(name: &str, raw: &RawSpec) -> String {
    let known: Vec<&str> = raw.role.keys().map(String::as_str).collect();
    match known.is_empty() {
        true => format!("there is no role {name:?}; describe it in a table [role.{name}], or leave role out"),
        false => format!("there is no role {name:?}; the spec has {}", known.join(", ")),
    }
}

fn login(node: &RawNode, role: &RawRole, defaults: &RawLogin, places: &Places<'_>) -> Result<Option<Login>, String> {
    let username = node.username.as_ref().or(role.username.as_ref()).or(defaults.username.as_ref());
    // Whoever says where the password is overrules both ways in which what stands above it may say so.
    let ways = [
        (node.password_env.as_deref(), node.password_file.as_deref()),
        (role.password_env.as_deref(), role.password_file.as_deref()),
        (defaults.password_env.as_deref(), defaults.password_file.as_deref()),
    ];
    let (env, file) = ways.into_iter().find(|(env, file)| env.is_some() || file.is_some()).unwrap_or_default();
    let password = match (env, file) {
        (Some(_), Some(_)) => {
            return Err("both password-env and password-file are given; keep one of them".to_owned());
        }
        (Some(""), _) | (_, Some("")) => {
            return Err(
                "the password's source is empty; write password-env = \"NAME\" or password-file = \"PATH\"".to_owned()
            );
        }
        (Some(name), None) => Some(PasswordSource::Env(name.to_owned())),
        (None, Some(path)) => Some(PasswordSource::File(places.path(path))),
        (None, None) => None,
    };
    match (username, password) {
        (None, None) => Ok(None),
        (Some(username), Some(password)) => Ok(Some(Login { username: username.clone(), password })),
        (Some(username), None) => Err(format!(
            "user {username:?} has no password; write password-env = \"NAME\" (an environment variable) or \
             password-file = \"PATH\""
        )),
        (None, Some(_)) => Err("there is a password but no user; write username = \"…\" beside it".to_owned()),
    }
}

fn disk(selector: Option<&DiskSelector>, place: &str) -> Result<DiskSelector, SpecError> {
    let selector = selector.cloned().unwrap_or_default();
    let mistake = |problem: String| SpecError::Mistake { place: place.to_owned(), problem };
    let texts = [&selector.serial, &selector.wwn, &selector.model, &selector.slot];
    if texts.iter().any(|text| text.as_deref().is_some_and(|text| text.trim().is_empty())) {
        return Err(mistake("a disk's criterion is empty text; write what the disk has, or leave it out".to_owned()));
    }
    if selector == DiskSelector::default() {
        let problem = "it does not say which disk may be overwritten, so none will be; write for example disk = { serial = \
                       \"…\" } (`bedplate rack survey` lists the drives), or use wwn, slot, model, size-min and size-max, so \
                       that exactly one disk fits";
        return Err(SpecError::AmbiguousDisk { place: place.to_owned(), problem: problem.to_owned() });
    }
    let size = |text: &Option<String>| -> Result<Option<ByteSize>, SpecError> {
        text.as_deref().map(str::parse::<ByteSize>).transpose().map_err(|error| mistake(format!("{error}")))
    };
    let (min, max) = (size(&selector.size_min)?, size(&selector.size_max)?);
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        return Err(mistake(format!("size-min ({min}) is above size-max ({max}), so no disk can fit; swap them")));
    }
    Ok(selector)
}

fn unique(nodes: &[NodeSpec], places: &Places<'_>) -> Result<(), SpecError> {
    let mut names = HashSet::new();
    let mut slots = HashMap::new();
    let mut machines: HashMap<String, Vec<&NodeSpec>> = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        let mistake =
            |problem: String| Err(SpecError::Mistake { place: places.node(index, node.name.as_str()), problem });
        if !names.insert(node.name.as_str().to_ascii_lowercase()) {
            return mistake("another node has the same name; names are host names, so give each its own".to_owned());
        }
        if let Some(slot) = node.slot
            && let Some(first) = slots.insert(slot, &node.name)
        {
            return mistake(format!("it is in slot {slot}, and so is {first}; correct one of them"));
        }
        let others = machines.entry(node.bmc.identity()).or_default();
        for first in others.iter() {
            let same = match (&first.system, &node.system) {
                (Some(one), Some(other)) => one.eq_ignore_ascii_case(other),
                _ => true,
            };
            if same {
                return mistake(format!(
                    "its BMC {} is also that of {}; two nodes cannot be one machine. Correct the address of one, or, if \
                     this BMC has several systems, give each of the two its own system = \"…\"",
                    node.bmc, first.name
                ));
            }
        }
        others.push(node);
    }
    Ok(())
}

fn timeouts(raw: &RawTimeouts) -> Result<Timeouts, String> {
    let mut timeouts = Timeouts::default();
    for (name, text, slot) in [
        ("bmc", &raw.bmc, &mut timeouts.bmc),
        ("post", &raw.post, &mut timeouts.post),
        ("stall", &raw.stall, &mut timeouts.stall),
        ("install", &raw.install, &mut timeouts.install),
        ("off", &raw.off, &mut timeouts.off),
        ("boot", &raw.boot, &mut timeouts.boot),
    ] {
        if let Some(text) = text {
            *slot = duration(text)
                .ok_or_else(|| format!("{name} = {text:?} in [timeouts] is not a time; write 90s, 20m or 2h"))?;
        }
    }
    Ok(timeouts)
}

/// A positive time with its unit.
fn duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..split].parse().ok()?;
    let milliseconds = match text[split..].trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let duration = Duration::from_millis(number.checked_mul(milliseconds)?);
    (Duration::ZERO < duration && duration <= LONGEST).then_some(duration)
}
