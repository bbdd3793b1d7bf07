//! The one integration binary: a module per area, each driving the real program.

mod bmc;
mod rack;
mod store;
