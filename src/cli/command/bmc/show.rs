//! How what a BMC tells is shown to people.

use serde::Serialize;

use crate::bmc::{
    Account, Acquaintance, Bios, BiosChange, BiosOrder, BootOption, Card, Certificate, CertificateChange, Discovered,
    Fact, Firmware, FirmwareUpdate, Health, Inventory, LogEntry, Mark, Recording, SecureBoot, Subscription, Task,
};
use crate::cli::output;
use crate::model::ByteSize;

/// A known oddity.
#[derive(Serialize)]
pub(super) struct KnownFact {
    name: Fact,
    done: &'static str,
}

/// Every known oddity.
pub(super) fn facts() -> Vec<KnownFact> {
    Fact::ALL.iter().map(|fact| KnownFact { name: *fact, done: fact.words() }).collect()
}

pub(super) fn fact_table(facts: &[KnownFact]) -> String {
    let rows = facts.iter().map(|fact| vec![fact.name.to_string(), fact.done.to_owned()]);
    output::table(&["oddity", "what is done about it"], rows.collect())
}

pub(super) fn health(found: &Health) -> String {
    let mut text = if found.fit { "fit\n" } else { "not fit\n" }.to_owned();
    section(
        &mut text,
        &["not well", "health"],
        found.unwell.iter().map(|part| vec![part.part.clone(), part.health.clone()]).collect(),
    );
    let rows = found.readings.iter().map(|r| vec![r.name.clone(), format!("{:.1}", r.value), r.unit.clone()]);
    section(&mut text, &["measured", "value", "unit"], rows.collect());
    text
}

pub(super) fn log(entries: &[LogEntry]) -> String {
    let row = |e: &LogEntry| vec![or_dash(e.time.as_deref()), e.log.clone(), e.severity.clone(), e.message.clone()];
    output::table(&["time", "log", "severity", "message"], entries.iter().map(row).collect())
}

pub(super) fn tasks(tasks: &[Task]) -> String {
    let row = |task: &Task| {
        let percent = task.percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent} %"));
        vec![task.link.clone(), task.name.clone(), task.said.clone(), percent, task.messages.join(" ")]
    };
    output::table(&["task", "name", "state", "done", "says"], tasks.iter().map(row).collect())
}

pub(super) fn bios(bios: &Bios, filter: Option<&str>) -> String {
    let wanted = |name: &str| filter.is_none_or(|part| name.to_ascii_lowercase().contains(&part.to_ascii_lowercase()));
    let shown = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let rows = bios.attributes.iter().filter(|(name, _)| wanted(name)).map(|(name, value)| {
        let pending = bios.pending.get(name).map_or_else(|| "-".to_owned(), shown);
        vec![name.clone(), shown(value), pending]
    });
    output::table(&["setting", "now", "after the next start"], rows.collect())
}

pub(super) fn bios_order(order: &BiosOrder) -> String {
    if order.changes.is_empty() {
        return "all of it holds already".to_owned();
    }
    let lines: Vec<String> = order.changes.iter().map(BiosChange::words).collect();
    format!("{}\ntakes effect with the next start", lines.join("\n"))
}

pub(super) fn firmware(found: &[Firmware]) -> String {
    let rows = found.iter().map(|part| vec![part.name.clone(), part.version.clone()]);
    output::table(&["firmware", "version"], rows.collect())
}

pub(super) fn subscriptions(found: &[Subscription]) -> String {
    let rows = found.iter().map(|known| vec![known.destination.clone(), known.context.clone()]);
    output::table(&["destination", "context"], rows.collect())
}

pub(super) fn boot_order(options: &[BootOption]) -> String {
    let row = |option: &BootOption| {
        let enabled = if option.enabled { "yes" } else { "no" };
        vec![option.reference.clone(), option.name.clone(), enabled.to_owned()]
    };
    output::table(&["reference", "name", "tried"], options.iter().map(row).collect())
}

pub(super) fn discovered(found: &[Discovered]) -> String {
    let row = |bmc: &Discovered| {
        let certificate = match bmc.certificate {
            Acquaintance::New => "new",
            Acquaintance::Known => "known",
            Acquaintance::Changed => "CHANGED",
        };
        let said = [&bmc.vendor, &bmc.product, &bmc.redfish].map(|text| or_dash(text.as_deref()).to_owned());
        [vec![bmc.url.clone()], said.to_vec(), vec![certificate.to_owned(), or_dash(bmc.uuid.as_deref()).to_owned()]]
            .concat()
    };
    output::table(&["BMC", "vendor", "product", "Redfish", "certificate", "UUID"], found.iter().map(row).collect())
}

pub(super) fn certificate(found: &Certificate) -> String {
    let lines = [
        ("subject", &found.subject),
        ("issuer", &found.issuer),
        ("valid from", &found.valid_from),
        ("valid until", &found.valid_until),
        ("pin", &found.pin),
    ];
    lines.map(|(name, value)| format!("{name:<11}  {}", or_dash(value.as_deref()))).join("\n")
}

pub(super) fn certificate_change(change: &CertificateChange) -> String {
    let mut text = match change.shown {
        true => format!("the BMC shows the new certificate, {}", change.pin),
        false => format!(
            "the BMC has taken the new certificate and does not show it; install it again with --restart-bmc, or restart the BMC and \
             connect with --bmc-pin {}",
            change.pin
        ),
    };
    if !change.names_host {
        text.push_str(
            "\nit does not name the host by which the BMC is reached here: whoever trusts its authority will refuse it",
        );
    }
    text
}

pub(super) fn secure_boot(found: &SecureBoot) -> String {
    let word = |flag: Option<bool>| match flag {
        Some(true) => "on",
        Some(false) => "off",
        None => "not known",
    };
    let mut text = format!(
        "from the next start  {}\nrunning system       {}\nmode                 {}\n",
        word(found.enabled),
        word(found.active),
        or_dash(found.mode.as_deref())
    );
    let rows = found.databases.iter().map(|(name, certificates)| vec![name.clone(), certificates.to_string()]);
    section(&mut text, &["key database", "certificates"], rows.collect());
    text
}

pub(super) fn firmware_update(update: &FirmwareUpdate) -> String {
    let mut text = format!("handed over by {}\n{}\n", update.way, update.messages.join("\n"));
    if update.changed.is_empty() {
        text.push_str("no version has changed yet: it may take effect with the next start of the node or the BMC\n");
    }
    let rows = update.changed.iter().map(|part| vec![part.name.clone(), part.version.clone()]);
    section(&mut text, &["firmware", "version now"], rows.collect());
    text
}

pub(super) fn accounts(accounts: &[Account]) -> String {
    let row = |account: &Account| {
        let state = match account {
            Account { locked: true, .. } => "locked",
            Account { enabled: false, .. } => "disabled",
            Account { must_change: true, .. } => "must change its password",
            _ => "enabled",
        };
        vec![account.username.clone(), account.role.clone(), state.to_owned()]
    };
    output::table(&["account", "role", "state"], accounts.iter().map(row).collect())
}

pub(super) fn or_dash(text: Option<&str>) -> String {
    text.unwrap_or("-").to_owned()
}

pub(super) fn inventory(found: &Inventory) -> String {
    let dash = |text: &Option<String>| or_dash(text.as_deref());
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), |bytes| ByteSize(bytes).to_string());
    let facts = [
        ("vendor", dash(&found.vendor)),
        ("model", dash(&found.model)),
        ("serial", dash(&found.serial)),
        ("uuid", dash(&found.uuid)),
        ("system", found.system_id.clone()),
        ("power", found.power.to_string()),
        ("bios", dash(&found.bios_version)),
        ("memory", size(found.memory_bytes)),
        ("bmc", format!("{} {}", dash(&found.manager.model), dash(&found.manager.firmware_version))),
    ];
    let mut text: String = facts.iter().map(|(name, value)| format!("{name:<8} {value}\n")).collect();
    let number = |n: Option<u64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let cpus = found.cpus.iter().map(|c| vec![c.name.clone(), dash(&c.model), number(c.cores), number(c.threads)]);
    section(&mut text, &["cpu", "model", "cores", "threads"], cpus.collect());
    let gpus = found.gpus.iter().map(|g| vec![g.name.clone(), dash(&g.model), dash(&g.serial)]);
    section(&mut text, &["gpu", "model", "serial"], gpus.collect());
    let drives = found
        .drives
        .iter()
        .map(|d| vec![d.name.clone(), dash(&d.serial), dash(&d.model), size(d.bytes), dash(&d.protocol), dash(&d.wwn)]);
    section(&mut text, &["drive", "serial", "model", "size", "protocol", "wwn"], drives.collect());
    let nics = found.nics.iter().map(|n| vec![n.name.clone(), n.mac.clone()]);
    section(&mut text, &["nic", "mac"], nics.collect());
    let firmware = found.firmware.iter().map(|f| vec![f.name.clone(), f.version.clone()]);
    section(&mut text, &["firmware", "version"], firmware.collect());
    section(&mut text, &["not known"], found.gaps.iter().map(|gap| vec![gap.clone()]).collect());
    text
}

/// A table after a blank line; nothing where there is nothing to show.
pub(super) fn section(text: &mut String, header: &[&str], rows: Vec<Vec<String>>) {
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&output::table(header, rows));
        text.push('\n');
    }
}

pub(super) fn card(card: &Card) -> String {
    let version = or_dash(card.redfish_version.as_deref());
    let mut text = format!("{}: {}, Redfish {version}, system {}\n\n", card.bmc, card.family, card.system_id);
    let mark = |mark: Mark| match mark {
        Mark::Works => "works",
        Mark::WorkedAround => "worked around",
        Mark::Missing => "missing",
        Mark::Unknown => "unknown",
    };
    let rows = card.traits.iter().map(|t| vec![t.name.clone(), mark(t.mark).to_owned(), t.detail.clone()]);
    text.push_str(&output::table(&["what", "how it stands", "detail"], rows.collect()));
    text.push_str(match card.fit {
        true => "\n\nMachines behind this BMC can be imaged through it. (Nothing was changed to find this out.)",
        false => "\n\nMachines behind this BMC cannot be imaged through it as it stands: see what is missing.",
    });
    text
}

pub(super) fn recording(made: &Recording) -> String {
    let mut text = format!("{} resources in {}", made.resources, made.folder.display());
    if !made.gaps.is_empty() {
        text.push_str(&format!("; {} could not be read:\n  {}", made.gaps.len(), made.gaps.join("\n  ")));
    }
    text
}
