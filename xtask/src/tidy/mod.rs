//! `cargo xtask tidy`: the rules of the tree that no compiler checks. It prints every breach and fails on any.
//!
//! It reads `src/lib.rs` for the layer table, so the map that people read is the map that is enforced.

mod documents;
mod layers;
mod lexer;
mod shape;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// One breach of one rule.
struct Breach {
    file: PathBuf,
    line: usize,
    what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

/// One Rust file, read once: its text, and the same text with comments and strings blanked out.
struct Source {
    /// Path relative to the repository's root.
    path: PathBuf,
    text: String,
    code: String,
    /// Lines before the first `#[cfg(test)]`.
    product_lines: usize,
}

impl Source {
    fn read(root: &Path, path: PathBuf) -> Result<Self> {
        let text = std::fs::read_to_string(root.join(&path)).with_context(|| format!("read {}", path.display()))?;
        let code = lexer::blank(&text);
        let product_lines = code
            .lines()
            .position(|line| line.trim_start().starts_with("#[cfg(test)]"))
            .unwrap_or_else(|| code.lines().count());
        Ok(Self { path, text, code, product_lines })
    }

    fn breach(&self, line: usize, what: impl Into<String>) -> Breach {
        Breach { file: self.path.clone(), line, what: what.into() }
    }
}

/// Runs every rule over the tree at `root`.
pub fn run(root: &Path) -> Result<()> {
    let mut paths = Vec::new();
    for folder in ["src", "xtask/src", "tests", "benches", "fuzz"] {
        rust_files(root, Path::new(folder), &mut paths)?;
    }
    paths.sort();
    let mut breaches = Vec::new();
    let mut sources = Vec::new();
    for path in paths {
        sources.push(Source::read(root, path)?);
    }
    let table = layers::Table::read(&std::fs::read_to_string(root.join("src/lib.rs"))?)?;
    for source in &sources {
        shape::check(source, &mut breaches);
        layers::check(source, &table, &mut breaches);
    }
    documents::check(root, &mut breaches)?;
    if breaches.is_empty() {
        println!("tidy: {} files in order", sources.len());
        return Ok(());
    }
    for breach in &breaches {
        println!("{breach}");
    }
    bail!("tidy: {} to put in order", breaches.len())
}

fn rust_files(root: &Path, folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(root.join(folder)) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            if entry.file_name() != "target" {
                rust_files(root, &path, found)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}
