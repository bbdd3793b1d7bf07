//! Markdown: tables that line up, and a document of parts each of which is measured and replaced alone.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::machine;
use crate::shell;

/// What a subject measures apart from the rest of it.
pub trait Part: Copy + 'static {
    /// All of them, in the order of the document.
    const ALL: &[Self];

    /// Its name on the command line.
    fn name(self) -> &'static str;

    /// Its heading in the document.
    fn heading(self) -> &'static str;
}

/// A document of a subject.
pub struct Document {
    /// Where it lies in the working tree.
    pub file: &'static str,
    /// What it begins with.
    pub title: &'static str,
    /// Whether what is measured is written to it.
    pub write: bool,
}

impl Document {
    /// Measures these parts one after the other, prints each with the command, the machine and the day, and writes it down.
    pub fn make<P: Part>(&self, parts: &[P], work: &Path, measure: impl Fn(P) -> Result<String>) -> Result<()> {
        let busy = machine::busy();
        if let Some(warning) = &busy {
            println!("WARNING: {warning}");
        }
        let names: Vec<&str> = P::ALL.iter().map(|part| part.name()).collect();
        for part in parts {
            let measured = measure(*part)?;
            let mut text = format!("## {}\n\n`{}`  \n{}\n", part.heading(), command_line(), machine::describe(work)?);
            if let Some(warning) = &busy {
                text.push_str(&format!("\n**{warning}**\n"));
            }
            text.push_str(&format!("\n{}", measured.trim_end()));
            println!("\n{text}\n");
            if self.write {
                let document = shell::root().join(self.file);
                write(&document, self.title, &names, part.name(), &text)?;
                println!("written to {}", document.display());
            }
        }
        Ok(())
    }
}

/// A table; every column but the first holds figures.
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(|name| (*name).to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The table in Markdown.
    pub fn markdown(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.chain([&self.head[column]]).map(|cell| cell.chars().count()).max().unwrap_or(3).max(3)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let line = |cells: &[String]| {
            let padded = cells.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
                if column == 0 { format!(" {cell:<width$} |") } else { format!(" {cell:>width$} |") }
            });
            format!("|{}\n", padded.collect::<String>())
        };
        let rule = widths.iter().enumerate().map(|(column, width)| {
            let dashes = "-".repeat(*width);
            if column == 0 { format!(" {dashes} |") } else { format!(" {dashes}:|") }
        });
        let mut text = line(&self.head);
        text.push_str(&format!("|{}\n", rule.collect::<String>()));
        text.extend(self.rows.iter().map(|row| line(row)));
        text
    }
}

/// Replaces the part `name` of the document, or adds it where it belongs in the order `names`; a document that is not
/// there yet begins with `title`.
fn write(document: &Path, title: &str, names: &[&str], name: &str, body: &str) -> Result<()> {
    let before = std::fs::read_to_string(document).unwrap_or_default();
    let mut text = format!("{}\n\n", title.trim_end());
    for each in names {
        let found = if *each == name { Some(body.trim().to_owned()) } else { part(&before, each) };
        if let Some(body) = found {
            text.push_str(&format!("{}\n{body}\n\n{}\n\n", begin(each), end(each)));
        }
    }
    std::fs::write(document, text.trim_end().to_owned() + "\n")
        .with_context(|| format!("cannot write {}", document.display()))
}

fn part(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&begin(name))?;
    Some(rest.split_once(&end(name))?.0.trim().to_owned())
}

fn begin(name: &str) -> String {
    format!("<!-- measured: {name} -->")
}

fn end(name: &str) -> String {
    format!("<!-- end of {name} -->")
}

/// What to type to measure this again; paths of this machine are left out, and so is `--write`.
fn command_line() -> String {
    let mut words = vec!["cargo".to_owned(), "xtask".to_owned()];
    let mut arguments = std::env::args().skip(1);
    while let Some(word) = arguments.next() {
        match word.as_str() {
            "--bedplate" | "--work" => drop(arguments.next()),
            word if word.starts_with("--bedplate=") || word.starts_with("--work=") || word == "--write" => {}
            word => words.push(word.to_owned()),
        }
    }
    words.join(" ")
}

/// Megabytes of `bytes` in `seconds`.
pub fn rate(bytes: u64, seconds: f64) -> f64 {
    bytes as f64 / 1e6 / seconds
}

/// A figure with three meaningful digits, or a dash where there is none.
pub fn figure(value: f64) -> String {
    match value {
        value if !value.is_finite() => "-".into(),
        value if value.abs() >= 99.95 => format!("{value:.0}"),
        value if value.abs() >= 9.995 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    //! A part is replaced without touching the others, whatever the order in which they were measured.
    use super::*;

    #[test]
    fn replaces_one_part() {
        let file = std::env::temp_dir().join(format!("bedplate-bench-report-{}", std::process::id()));
        let names = ["sets", "stages"];
        write(&file, "# Title", &names, "stages", "second").unwrap();
        write(&file, "# Title", &names, "sets", "first").unwrap();
        write(&file, "# Title", &names, "stages", "third").unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(file).unwrap();
        assert!(text.starts_with("# Title\n"), "{text}");
        assert!(!text.contains("second"), "{text}");
        assert!(text.find("first").unwrap() < text.find("third").unwrap(), "{text}");
    }

    #[test]
    fn lines_up() {
        let mut table = Table::new(&["name", "n"]);
        table.row(vec!["a".into(), "12".into()]);
        assert_eq!(table.markdown(), "| name |   n |\n| ---- | ---:|\n| a    |  12 |\n");
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!([1234.5, 99.96, 12.34, 1.234].map(figure), ["1234", "100", "12.3", "1.23"]);
        assert_eq!(figure(f64::NAN), "-");
    }
}
