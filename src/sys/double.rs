//! What a simulation puts in place of clock, randomness and threads, for the one thread that it runs on. Nothing is in
//! place outside of a simulation.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::clock::Timestamp;

/// A simulation's own clock, randomness and delays.
pub trait Double {
    /// The present moment.
    fn now(&self) -> Timestamp;

    /// Fills `bytes` with numbers that follow from the simulation's seed.
    fn fill(&self, bytes: &mut [u8]);

    /// How long the next piece of blocking work seems to take.
    fn delay(&self) -> Duration;
}

thread_local! {
    static PLACED: RefCell<Option<Rc<dyn Double>>> = const { RefCell::new(None) };
}

/// Takes the double away again when it is dropped.
#[must_use = "the double is in place only as long as this lives"]
pub struct Placed(());

impl Drop for Placed {
    fn drop(&mut self) {
        PLACED.with_borrow_mut(Option::take);
    }
}

/// Puts a double in place for this thread.
pub fn place(double: Rc<dyn Double>) -> Placed {
    PLACED.with_borrow_mut(|placed| *placed = Some(double));
    Placed(())
}

/// This thread's double, in a simulation.
pub(super) fn placed() -> Option<Rc<dyn Double>> {
    PLACED.with_borrow(Clone::clone)
}
