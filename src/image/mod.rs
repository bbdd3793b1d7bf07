//! The catalogue of images, and the boot media that carries a node's order.

pub mod boot;
pub mod catalogue;
pub mod raw;
pub mod seed;

pub use catalogue::{Catalogue, ImageDiff, ImageError, ImageInfo, Imported};
