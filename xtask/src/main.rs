//! The project's own chores, one file a command.

fn main() {}
