//! The catalogue of images, and the boot media that carries a node's order.
