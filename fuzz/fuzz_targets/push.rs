//! Fuzzes what `checks::TARGETS` has under this name.
#![no_main]

bedplate_fuzz::target!();
