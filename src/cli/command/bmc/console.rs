//! `bedplate bmc console`: the machine's serial console on this terminal.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use ratatui::crossterm::terminal;
use tokio::signal::unix::{SignalKind, signal};

use super::args::TargetArgs;
use super::{connect, ended, known_bmcs, target};
use crate::bmc::{Bmc, BmcError, Console, PinFile, Pins, TerminalSize};
use crate::cli::Context;
use crate::cli::exit::{CliError, DONE, Exit};
use crate::sys::keyboard::Keyboard;

/// Where nothing tells how large the terminal is.
const SIZE: TerminalSize = (80, 24);
/// Longer than any session.
const EVER: Duration = Duration::from_secs(365 * 24 * 3600);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "What is typed goes to the machine, Ctrl-C too. ~. at the beginning of a line closes the console, ~~ types one ~.\n\
                  Where standard input is no terminal, nothing is typed: the console is only shown."
)]
pub(super) struct ConsoleArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// End after so many seconds
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
}

pub(super) async fn run(args: ConsoleArgs, context: &Context) -> Result<Exit, CliError> {
    let wanted = target(&args.target)?;
    let known = args.target.known_bmcs.clone().map_or_else(known_bmcs, Ok)?;
    let pins: Arc<dyn Pins> = Arc::new(PinFile::open(&known).map_err(|error| super::explain(&error))?);
    let bmc = Box::pin(connect(&args.target, context)).await?;
    let opened = async |bmc: &Bmc| bmc.console(&wanted, pins, size()).await;
    // The session at the BMC is not needed beside the console, and BMCs have few.
    let mut console = ended(&bmc, Box::pin(opened(&bmc))).await?;
    let typing = std::io::stdin().is_terminal();
    let leave = console.leave.as_deref().map(|words| format!("; the BMC's own: {words}")).unwrap_or_default();
    context.output.say(&match typing {
        true => format!("the console is open; ~. at the beginning of a line closes it{leave}"),
        false => "the console is open, to be read only".to_owned(),
    });
    let lasts = args.seconds.map_or(EVER, Duration::from_secs);
    let attended = match tokio::time::timeout(lasts, attend(&mut console, typing)).await {
        Ok(attended) => attended,
        Err(_) => Ok(Parting::Left),
    };
    console.close().await;
    if let Parting::Ended = attended? {
        context.output.say("\nthe BMC has closed the console");
    }
    Ok(DONE)
}

/// How a console was left.
pub(crate) enum Parting {
    /// By whoever sat before it.
    Left,
    /// By the BMC.
    Ended,
}

/// The size of this terminal.
pub(crate) fn size() -> TerminalSize {
    terminal::size().unwrap_or(SIZE)
}

/// Gives the terminal back as it was.
struct Raw;

impl Raw {
    fn begin() -> Result<Self, CliError> {
        terminal::enable_raw_mode().map_err(|error| CliError::because("read the keyboard key by key", &error))?;
        Ok(Self)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        drop(terminal::disable_raw_mode());
    }
}

/// Shows the console and, where `typing`, sends what is typed, until someone ends it.
pub(crate) async fn attend(console: &mut Console, typing: bool) -> Result<Parting, CliError> {
    let _raw = if typing { Some(Raw::begin()?) } else { None };
    let mut keyboard = typing.then(Keyboard::listen);
    let mut escape = Escape::default();
    let mut resized = signal(SignalKind::window_change())?;
    loop {
        tokio::select! {
            read = console.read() => match read.map_err(|error: BmcError| super::explain(&error))? {
                None => return Ok(Parting::Ended),
                Some(bytes) => if !show(&bytes)? {
                    return Ok(Parting::Left);
                },
            },
            typed = next(&mut keyboard) => {
                let Some(typed) = typed else { return Ok(Parting::Left) };
                let (bytes, left) = escape.sift(&typed);
                if !bytes.is_empty() {
                    console.write(&bytes).await.map_err(|error| super::explain(&error))?;
                }
                if left {
                    return Ok(Parting::Left);
                }
            }
            _ = resized.recv() => console.resize(size()).await,
            interrupted = tokio::signal::ctrl_c(), if !typing => return Ok(interrupted.map(|()| Parting::Left)?),
        }
    }
}

async fn next(keyboard: &mut Option<Keyboard>) -> Option<bytes::Bytes> {
    match keyboard {
        Some(keyboard) => keyboard.read().await,
        None => std::future::pending().await,
    }
}

/// Prints what the machine wrote; false where nobody reads it any more.
fn show(bytes: &[u8]) -> Result<bool, CliError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(CliError::because("write to standard output", &error)),
    }
}

/// Finds `~.` at the beginning of a line in what is typed, as terminals on serial lines have it.
#[derive(Default)]
struct Escape {
    /// In the middle of a line.
    inside: bool,
    tilde: bool,
}

impl Escape {
    /// What of the typed goes to the machine, and whether the console is to be left after it.
    fn sift(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut sent = Vec::with_capacity(typed.len());
        for &byte in typed {
            match (std::mem::take(&mut self.tilde), byte) {
                (true, b'.') => return (sent, true),
                (true, b'~') => sent.push(b'~'),
                (true, other) => sent.extend([b'~', other]),
                (false, b'~') if !self.inside => {
                    self.tilde = true;
                    continue;
                }
                (false, other) => sent.push(other),
            }
            self.inside = !matches!(byte, b'\r' | b'\n');
        }
        (sent, false)
    }
}

#[cfg(test)]
mod tests {
    //! Only `~.` at the beginning of a line leaves the console; everything else arrives as it was typed.
    use super::*;

    #[test]
    fn leaves_at_the_beginning_of_a_line_only() {
        let typed = |text: &str| Escape::default().sift(text.as_bytes());
        assert_eq!(typed("~."), (b"".to_vec(), true));
        assert_eq!(typed("ls ~.\r"), (b"ls ~.\r".to_vec(), false));
        assert_eq!(typed("ls\r~.rest"), (b"ls\r".to_vec(), true));
        assert_eq!(typed("~~.\r~x"), (b"~.\r~x".to_vec(), false));
        let mut slowly = Escape::default();
        assert_eq!(slowly.sift(b"~"), (b"".to_vec(), false));
        assert_eq!(slowly.sift(b"."), (b"".to_vec(), true));
    }
}
