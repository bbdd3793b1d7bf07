//! The node's agent: PID 1 in the boot image, or a command on a running system.

fn main() {}
