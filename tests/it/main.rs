//! The one integration binary: a module per area, each driving the real program.

mod agent;
mod bmc;
mod lab;
mod rack;
mod store;
