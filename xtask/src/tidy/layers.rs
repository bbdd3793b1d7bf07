//! The layers: a module imports only from a lower level, and the tree has no module that the table lacks.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::{Breach, Source};

/// What the agent may see: it must stay small enough for the boot image.
const NODE_SEES: [&str; 6] = ["model", "sys", "telemetry", "format", "pull", "node"];

/// Level of every top-level module, as `src/lib.rs` tells it.
pub(super) struct Table(BTreeMap<String, u32>);

impl Table {
    /// Reads the lines `//! LEVEL name  purpose` out of the crate's front page.
    pub(super) fn read(lib: &str) -> Result<Self> {
        let mut levels = BTreeMap::new();
        for line in lib.lines().filter_map(|line| line.strip_prefix("//! ")) {
            let mut words = line.split_whitespace();
            if let (Some(level), Some(name), Some(_purpose)) = (words.next(), words.next(), words.next())
                && let Ok(level) = level.parse()
            {
                levels.insert(name.to_owned(), level);
            }
        }
        if levels.len() < 2 {
            bail!("src/lib.rs has no layer table: lines of the form `//! 3 format  purpose`");
        }
        Ok(Self(levels))
    }
}

/// Checks every `crate::` path of one file.
pub(super) fn check(source: &Source, table: &Table, breaches: &mut Vec<Breach>) {
    let mut parts = source.path.iter().filter_map(|part| part.to_str());
    if parts.next() != Some("src") {
        return;
    }
    let Some(own) = parts.next().filter(|part| !part.ends_with(".rs") && *part != "bin") else { return };
    let Some(level) = table.0.get(own) else {
        breaches.push(source.breach(1, format!("module {own:?} is missing from the layer table in src/lib.rs")));
        return;
    };
    for (index, _) in source.code.match_indices("crate::") {
        let line = source.code[..index].lines().count().max(1);
        for name in names_after(&source.code[index + "crate::".len()..]) {
            let Some(other) = table.0.get(name) else { continue };
            let visible = if own == "node" { NODE_SEES.contains(&name) } else { other < level };
            if name != own && !visible {
                breaches.push(source.breach(line, format!("{own} (level {level}) imports {name} (level {other})")));
            }
        }
    }
    for (index, _) in source.code.match_indices("super::super::") {
        let line = source.code[..index].lines().count().max(1);
        // A test module is one level deeper, so there two steps up still end in the file's own room.
        if line > source.product_lines {
            continue;
        }
        breaches.push(source.breach(line, "write a crate:: path, so that its level can be checked"));
    }
}

/// The first path segments after `crate::`: one word, or each word at the top of a braced list.
fn names_after(rest: &str) -> Vec<&str> {
    let Some(list) = rest.strip_prefix('{') else {
        return vec![word(rest)];
    };
    let (mut names, mut depth, mut at_start) = (Vec::new(), 0u32, true);
    for (index, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_start = true,
            c if at_start && depth == 0 && !c.is_whitespace() => {
                names.push(word(&list[index..]));
                at_start = false;
            }
            _ => {}
        }
    }
    names
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    //! An upward and a sideways import are found, alone and inside a braced list; a downward one is not.
    use super::*;

    fn breaches(path: &str, code: &str) -> usize {
        let table = Table::read("//! 7 rack  x y\n//! 6 bmc  x y\n//! 6 job  x\n//! 1 sys  x\n//! 6 node x").unwrap();
        let source = Source { path: path.into(), text: code.into(), code: code.into(), product_lines: 1 };
        let mut found = Vec::new();
        check(&source, &table, &mut found);
        found.len()
    }

    #[test]
    fn finds_upward_imports() {
        assert_eq!(breaches("src/bmc/mod.rs", "use crate::sys::clock;"), 0);
        assert_eq!(breaches("src/bmc/mod.rs", "use crate::rack::plan;"), 1);
        assert_eq!(breaches("src/bmc/mod.rs", "use crate::{sys::{a, rack}, job::b};"), 1);
        assert_eq!(breaches("src/node/mod.rs", "use crate::{sys::a, job};"), 1);
        assert_eq!(breaches("src/attic/mod.rs", ""), 1);
    }
}
