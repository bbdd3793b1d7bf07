//! The operator's and the appliance's binary: parse, build, run, exit code.

fn main() {}
