//! The documents: short enough to be read, and every link in them leads somewhere.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Breach;

const README_LINES_MAX: usize = 200;

pub(super) fn check(root: &Path, breaches: &mut Vec<Breach>) -> Result<()> {
    let mut documents = vec![PathBuf::from("README.md"), PathBuf::from("CHANGELOG.md")];
    markdown(root, Path::new("docs"), &mut documents)?;
    markdown(root, Path::new("images"), &mut documents)?;
    for document in documents {
        let Ok(text) = std::fs::read_to_string(root.join(&document)) else {
            breaches.push(Breach { file: document, line: 1, what: "the file is missing".into() });
            continue;
        };
        if document == Path::new("README.md") && text.lines().count() > README_LINES_MAX {
            let what = format!("{README_LINES_MAX} lines at most");
            breaches.push(Breach { file: document.clone(), line: README_LINES_MAX, what });
        }
        for (index, line) in text.lines().enumerate() {
            for target in links(line) {
                let folder = document.parent().unwrap_or(Path::new(""));
                if !root.join(folder).join(target).exists() {
                    let what = format!("the link {target:?} leads nowhere");
                    breaches.push(Breach { file: document.clone(), line: index + 1, what });
                }
            }
        }
    }
    let cargo = std::fs::read_to_string(root.join("Cargo.toml"))?;
    let version = cargo.lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"')).unwrap_or("?");
    let changelog = std::fs::read_to_string(root.join("CHANGELOG.md")).unwrap_or_default();
    if !changelog.contains("## Unreleased") && !changelog.contains(&format!("## {version}")) {
        let what = format!("no entry for {version}, nor for what is unreleased");
        breaches.push(Breach { file: "CHANGELOG.md".into(), line: 1, what });
    }
    Ok(())
}

fn markdown(root: &Path, folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(root.join(folder)) else { return Ok(()) };
    for entry in entries {
        let path = folder.join(entry?.file_name());
        if root.join(&path).is_dir() {
            markdown(root, &path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    Ok(())
}

/// Targets of Markdown links in a line that point into the repository.
fn links(line: &str) -> Vec<&str> {
    line.match_indices("](")
        .filter_map(|(index, _)| {
            let rest = &line[index + 2..];
            let target = rest[..rest.find(')')?].split('#').next()?;
            (!target.is_empty() && !target.contains("://") && !target.contains(' ')).then_some(target)
        })
        .collect()
}
