//! Unknown keys, found before anything is decoded: a typing error must not silently become a default.

use toml::de::{DeTable, DeValue};

use crate::rack::spec::SpecError;

/// One table's known keys, and the tables under them.
struct Table {
    name: &'static str,
    keys: &'static [&'static str],
    tables: &'static [(&'static str, Table)],
    /// What every key of a table of names holds.
    each: Option<&'static Table>,
}

impl Table {
    const fn new(name: &'static str, keys: &'static [&'static str]) -> Self {
        Self { name, keys, tables: &[], each: None }
    }
}

const DISK: Table = Table::new("disk", &["serial", "wwn", "model", "slot", "size-min", "size-max"]);

/// Every BIOS has names of its own.
const BIOS: Table = Table { each: Some(&Table::new("[bios]", &[])), ..Table::new("[bios]", &[]) };

const ROLE: Table = Table {
    tables: &[("disk", DISK), ("bios", BIOS)],
    ..Table::new(
        "[role.NAME]",
        &["username", "password-env", "password-file", "ca-file", "disk", "wipe", "image", "bios", "user-data"],
    )
};

const NODE: Table = Table {
    tables: &[("disk", DISK), ("bios", BIOS)],
    ..Table::new(
        "[[node]]",
        &[
            "name",
            "role",
            "serial",
            "bmc",
            "system",
            "pin",
            "ca-file",
            "username",
            "password-env",
            "password-file",
            "disk",
            "wipe",
            "image",
            "slot",
            "feed",
            "bios",
            "health",
            "record-console",
            "user-data",
        ],
    )
};

const SPEC: Table = Table {
    tables: &[
        ("bmc", Table::new("[bmc]", &["username", "password-env", "password-file", "ca-file"])),
        ("disk", DISK),
        ("bios", BIOS),
        (
            "install",
            Table::new(
                "[install]",
                &[
                    "wipe",
                    "health",
                    "record-console",
                    "user-data",
                    "parallel",
                    "parallel-per-feed",
                    "canaries",
                    "stop-after",
                ],
            ),
        ),
        ("timeouts", Table::new("[timeouts]", &["bmc", "post", "stall", "install", "off", "boot"])),
        ("role", Table { each: Some(&ROLE), ..Table::new("[role]", &[]) }),
        ("node", NODE),
    ],
    ..Table::new("the spec", &["name", "image", "bmc", "disk", "bios", "install", "timeouts", "role", "node"])
};

/// Where things stand in the text, for messages.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The line of each `[[node]]`.
    pub(super) nodes: Vec<usize>,
}

/// Refuses text that is not TOML, and unknown keys; says where the nodes begin.
pub(super) fn check(text: &str, origin: &str) -> Result<Lines, SpecError> {
    let document = DeTable::parse(text).map_err(|error| mistake(text, origin, &error))?;
    walk(text, origin, document.get_ref(), &SPEC)?;
    let nodes = document.get_ref().get("node").and_then(|node| node.get_ref().as_array());
    let nodes = nodes.map(|nodes| nodes.iter().map(|node| line_of(text, node.span().start)).collect());
    Ok(Lines { nodes: nodes.unwrap_or_default() })
}

fn walk(text: &str, origin: &str, table: &DeTable<'_>, known: &Table) -> Result<(), SpecError> {
    for (key, value) in table {
        let name: &str = key.get_ref();
        if let Some(each) = known.each {
            if let Some(table) = value.get_ref().as_table() {
                walk(text, origin, table, each)?;
            }
            continue;
        }
        if !known.keys.contains(&name) {
            let place = format!("{origin}, line {}", line_of(text, key.span().start));
            return Err(SpecError::Mistake { place, problem: unknown(name, known) });
        }
        let Some((_, below)) = known.tables.iter().find(|(table, _)| *table == name) else { continue };
        match value.get_ref() {
            DeValue::Table(table) => walk(text, origin, table, below)?,
            DeValue::Array(array) => {
                for item in array {
                    if let Some(table) = item.get_ref().as_table() {
                        walk(text, origin, table, below)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn unknown(name: &str, known: &Table) -> String {
    if matches!(name, "password" | "passwd") && known.keys.contains(&"password-env") {
        return format!(
            "{name:?} in {} would put a password into the spec; put it into an environment variable or a file, and \
             write password-env = \"NAME\" or password-file = \"PATH\"",
            known.name
        );
    }
    let nearest = known.keys.iter().map(|key| (distance(name, key), *key)).min();
    let guess = match nearest {
        Some((far, key)) if far <= 2 + key.len() / 4 => format!("did you mean {key:?}? "),
        _ => String::new(),
    };
    format!("unknown key {name:?} in {}; {guess}the keys here are {}", known.name, known.keys.join(", "))
}

/// What is wrong by the TOML reader's word, with its line.
pub(super) fn mistake(text: &str, origin: &str, error: &toml::de::Error) -> SpecError {
    let place = match error.span() {
        Some(span) => format!("{origin}, line {}", line_of(text, span.start)),
        None => origin.to_owned(),
    };
    let problem = error.message().lines().collect::<Vec<_>>().join("; ");
    let problem =
        problem.replace("expected u16", "expected a whole number").replace("expected usize", "expected a whole number");
    SpecError::Mistake { place, problem: format!("{problem}; config/racks/example.toml shows every key") }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
}

/// How many letters must be added, removed or changed to make one word the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let change = corner + usize::from(a != *b);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    //! The edit distance is the textbook's.
    use super::distance;

    #[test]
    fn distances() {
        for (one, other, wanted) in
            [("", "", 0), ("a", "", 1), ("usernam", "username", 1), ("kitten", "sitting", 3), ("slto", "slot", 2)]
        {
            assert_eq!(distance(one, other), wanted, "{one} {other}");
            assert_eq!(distance(other, one), wanted, "{other} {one}");
        }
    }
}
