//! The node's agent: PID 1 in the boot image, or a command on a running system.

use std::process::ExitCode;

use bedplate::node;
use bedplate::sys::process;

fn main() -> ExitCode {
    // The kernel hands unknown words of its command line to the first process: they are not ours to parse.
    if process::is_first() {
        node::run::as_first_process();
    }
    let words: Vec<String> = std::env::args().collect();
    if let [_, quiet, rest @ .., name] = words.as_slice()
        && quiet == "-q"
        && rest.len() < 2
    {
        return if node::modules::answer_kernel(name).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    ExitCode::FAILURE
}
