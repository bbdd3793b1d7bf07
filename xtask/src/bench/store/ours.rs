//! Our own program: `bedplate store import` and `export`, which open the store in their own process.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::contender::{Contender, Role};
use crate::shell;

/// Our own program as a contender; `None` where it cannot import.
pub fn find(given: Option<&Path>) -> Result<Option<Box<dyn Contender>>> {
    let program = crate::served::program(given)?;
    let help = Command::new(&program).args(["store", "import", "--help"]).output();
    if !help.with_context(|| format!("cannot start {}", program.display()))?.status.success() {
        println!("SKIPPED: this bedplate has no `store import`");
        return Ok(None);
    }
    Ok(Some(Box::new(Bedplate { program, config: None })))
}

/// Our own program, with the configuration that is given, if any.
pub struct Bedplate {
    pub program: PathBuf,
    pub config: Option<PathBuf>,
}

impl Bedplate {
    fn command(&self, home: &Path, verb: &str, name: &str) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        command.args(["store", verb, "--output", "json", "--data"]).arg(self.repository(home));
        command.arg(format!("bench/{name}/"));
        command
    }
}

impl Contender for Bedplate {
    fn name(&self) -> &str {
        "bedplate"
    }

    fn role(&self) -> Role {
        Role::Ours
    }

    fn version(&self) -> Result<String> {
        let version = shell::output(Command::new(&self.program).arg("--version"))?;
        let mut git = shell::command("git", &["describe", "--always", "--dirty", "--abbrev=9"]);
        let commit = shell::output(git.current_dir(shell::root())).unwrap_or_default();
        Ok(format!("{} ({})", version.trim(), commit.trim()))
    }

    fn prepare(&self, _home: &Path) -> Result<()> {
        Ok(())
    }

    fn keep(&self, home: &Path, name: &str, folder: &Path) -> Command {
        let mut command = self.command(home, "import", name);
        command.arg(folder);
        command
    }

    fn give_back(&self, home: &Path, name: &str, into: &Path) -> Command {
        let mut command = self.command(home, "export", name);
        command.arg(into);
        command
    }
}
