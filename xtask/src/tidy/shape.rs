//! The shape of one file: its opening, its length, its functions, its words.

use super::{Breach, Source};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
/// Names that belong in the files of vendor oddities, as whole words in any case.
const VENDORS: [&str; 13] = [
    "dell",
    "idrac",
    "hpe",
    "ilo",
    "lenovo",
    "xcc",
    "supermicro",
    "megarac",
    "asrockrack",
    "gigabyte",
    "nvidia",
    "bluefield",
    "openbmc",
];
const QUIRKS: [&str; 4] = ["src/bmc/quirk.rs", "src/bmc/fact.rs", "src/bmc/oem.rs", "src/bmc/twin/manner.rs"];
/// Names that say nothing about what a file owns.
const EMPTY_NAMES: [&str; 6] = ["utils", "util", "helpers", "helper", "common", "misc"];

pub(super) fn check(source: &Source, breaches: &mut Vec<Breach>) {
    if !source.text.starts_with("//!") {
        breaches.push(source.breach(1, "open the file with `//!`: what it owns, what it refuses"));
    }
    if source.product_lines > FILE_LINES_MAX {
        let what = format!("{} lines, {FILE_LINES_MAX} at most: find the missing noun", source.product_lines);
        breaches.push(source.breach(FILE_LINES_MAX, what));
    }
    if source.path.file_stem().and_then(|s| s.to_str()).is_some_and(|stem| EMPTY_NAMES.contains(&stem)) {
        breaches.push(source.breach(1, "name the file after what it owns"));
    }
    functions(source, breaches);
    let product = source.path.starts_with("src");
    for (index, (text, code)) in source.text.lines().zip(source.code.lines()).enumerate() {
        let line = index + 1;
        if text.trim_end() != text {
            breaches.push(source.breach(line, "blank at the line's end"));
        }
        for mark in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")] {
            if text.contains(mark) {
                breaches.push(source.breach(line, format!("{mark}: do it, or write it in an issue")));
            }
        }
        if product && word_in(code, "unsafe") && !source.path.starts_with("src/sys") {
            breaches.push(source.breach(line, "unsafe belongs in src/sys"));
        }
        if product && line <= source.product_lines && !QUIRKS.iter().any(|file| source.path.ends_with(file)) {
            let lower = text.to_lowercase();
            for vendor in VENDORS.iter().filter(|vendor| word_in(&lower, vendor)) {
                breaches.push(
                    source
                        .breach(line, format!("{vendor:?}: vendor oddities are named facts in {}", QUIRKS.join(", "))),
                );
            }
        }
    }
}

fn word_in(text: &str, word: &str) -> bool {
    let boundary = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
    text.match_indices(word).any(|(index, _)| {
        boundary(text[..index].chars().next_back()) && boundary(text[index + word.len()..].chars().next())
    })
}

/// Measures each `fn` from its own line to its closing brace.
fn functions(source: &Source, breaches: &mut Vec<Breach>) {
    let lines: Vec<&str> = source.code.lines().collect();
    for (start, line) in lines.iter().enumerate() {
        if !word_in(line, "fn") || line.contains("fn(") {
            continue;
        }
        let mut depth = 0i64;
        let mut opened = false;
        for (end, body) in lines.iter().enumerate().skip(start) {
            let from = if end == start { body.find("fn").unwrap_or(0) } else { 0 };
            for byte in body[from..].bytes() {
                match byte {
                    b'{' => (depth, opened) = (depth + 1, true),
                    b'}' => depth -= 1,
                    _ => {}
                }
            }
            if !opened && body[from..].contains(';') {
                break;
            }
            if opened && depth <= 0 {
                let length = end - start + 1;
                if length > FUNCTION_LINES_MAX {
                    let what = format!("a function of {length} lines, {FUNCTION_LINES_MAX} at most");
                    breaches.push(source.breach(start + 1, what));
                }
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! A long function, a vendor's name, a missing front line and stray unsafe are each found.
    use super::*;
    use crate::tidy::lexer;

    fn breaches(path: &str, text: &str) -> Vec<String> {
        let code = lexer::blank(text);
        let product_lines = code.lines().count();
        let source = Source { path: path.into(), text: text.into(), code, product_lines };
        let mut found = Vec::new();
        check(&source, &mut found);
        found.into_iter().map(|breach| breach.what).collect()
    }

    #[test]
    fn finds_each() {
        assert!(breaches("src/a/b.rs", "//! Good.\nfn a() {\n}\n").is_empty());
        assert_eq!(breaches("src/a/b.rs", "fn a() {}\n").len(), 1);
        let long = format!("//! Good.\nfn a() {{\n{}}}\n", "x();\n".repeat(70));
        assert_eq!(breaches("src/a/b.rs", &long).len(), 1);
        assert_eq!(breaches("src/a/b.rs", "//! Good.\nfn a() { b(\"Dell Inc.\") }\n").len(), 1);
        assert!(breaches("src/bmc/quirk.rs", "//! Good.\nfn a() { b(\"Dell Inc.\") }\n").is_empty());
        assert!(breaches("src/a/b.rs", "//! A silo of modelling.\n").is_empty());
        assert_eq!(breaches("src/a/b.rs", "//! Good.\nfn a() { unsafe { b() } }\n").len(), 1);
        assert_eq!(breaches("src/a/utils.rs", "//! Good.\n").len(), 1);
    }
}
