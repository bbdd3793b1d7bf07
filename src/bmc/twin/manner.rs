//! How simulated BMCs behave where makes differ, as `fact` and the recordings tell of real ones.

use std::time::Duration;

use super::Tree;

/// How BMCs of one make behave where makes differ.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Sessions that it holds at once.
    pub sessions_max: usize,
    /// Its ETags are weak, and must be sent back strong.
    pub weak_etags: bool,
    /// It changes nothing without an ETag.
    pub etag_required: bool,
    /// It keeps an override that was set for one boot.
    pub keeps_boot: bool,
    /// From an order to switch to the other power state.
    pub turns_after: Duration,
    /// From power-on until something runs.
    pub post: Duration,
}

impl Manner {
    /// As the maker of a tree has it: iDRAC holds 8 sessions, XClarity 16 and wants ETags, whose own are weak.
    #[must_use]
    pub fn of(tree: &Tree) -> Self {
        let is = |name: &str| tree.maker.contains(name);
        Self {
            sessions_max: if is("dell") { 8 } else { 16 },
            weak_etags: is("lenovo"),
            etag_required: is("lenovo"),
            keeps_boot: is("sushy"),
            turns_after: Duration::from_millis(50),
            post: Duration::from_millis(200),
        }
    }
}
