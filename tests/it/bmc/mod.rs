//! The BMC driver against a scripted service over TLS, against recorded trees of real BMCs, and against OpenStack's
//! emulator.

mod certificate;
mod cli;
mod console;
mod discover;
mod double;
mod emulator;
mod events;
mod facts;
mod malice;
mod recorded;
mod rules;
mod verbs;
