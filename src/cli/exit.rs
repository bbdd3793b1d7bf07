//! Exit codes, documented in `bedplate --help`, and the one error that every command ends in.

use std::error::Error;

/// How a command ended, as the process's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit(pub u8);

/// What was asked is done.
pub const DONE: Exit = Exit(0);
/// It failed; the message says why and what to do.
pub const FAILED: Exit = Exit(1);
/// The command line or a file that it names is not understood. (clap ends with the same code.)
pub const USAGE: Exit = Exit(2);
/// The plan has changes to make (`plan --detailed-exitcode`).
pub const CHANGES: Exit = Exit(3);
/// Refused for safety: going on might destroy or betray something.
pub const REFUSED: Exit = Exit(4);

/// Why a command did not do what was asked: one paragraph, and where there is one, the next step.
#[derive(Clone, Debug)]
pub struct CliError {
    /// The exit code.
    pub exit: Exit,
    /// What failed.
    pub message: String,
    /// What to do next, printed as `hint:`.
    pub hint: Option<String>,
}

impl CliError {
    /// A failure (exit code 1).
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self { exit: FAILED, message: message.into(), hint: None }
    }

    /// A misunderstanding (exit code 2).
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: USAGE, message: message.into(), hint: None }
    }

    /// A refusal for safety (exit code 4).
    #[must_use]
    pub fn refused(message: impl Into<String>) -> Self {
        Self { exit: REFUSED, message: message.into(), hint: None }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A failure of `action`, as in `"read rack.toml"`, with its causes.
    #[must_use]
    pub fn because(action: impl std::fmt::Display, cause: &(dyn Error + 'static)) -> Self {
        Self::failed(format!("cannot {action}: {}", chain(cause)))
    }
}

/// Any error fails the command with its causes, each said once.
impl<E: Error + 'static> From<E> for CliError {
    fn from(error: E) -> Self {
        Self::failed(chain(&error))
    }
}

/// An error and its causes in one line; a cause that the text before it already says is left out.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(current) = cause {
        let said = current.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = current.source();
    }
    text
}

#[cfg(test)]
mod tests {
    //! Causes are printed once, outermost first.
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open the store")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn names_each_cause_once() {
        let error = CliError::from(Outer(std::io::Error::other("disk on fire")));
        assert_eq!(error.message, "cannot open the store: disk on fire");
        assert_eq!(error.exit, FAILED);
    }
}
