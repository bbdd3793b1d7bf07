//! A step that a test takes between two of the store's own: right before the store reads what the test names, or right after.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bedplate::meta::Meta;
use futures_util::future::BoxFuture;

use super::rows::{Meddle, Meddled};

/// What the store does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// It is about to read a row.
    Get,
    /// It has read a row, and does not know it yet.
    Got,
    /// It is about to read a range.
    Scan,
}

struct Step {
    call: Call,
    begins: Vec<u8>,
    skip: usize,
    act: BoxFuture<'static, ()>,
}

/// Takes one step at a time, once; what the step itself reads goes through.
#[derive(Clone, Default)]
pub(crate) struct Stepped(Arc<Mutex<Option<Step>>>);

impl Stepped {
    /// Rows whose users are stepped in between.
    pub(crate) fn over(meta: Arc<dyn Meta>) -> (Self, Arc<dyn Meta>) {
        let stepped = Self::default();
        (stepped.clone(), Arc::new(Meddled(meta, stepped)))
    }

    /// Does `act` at the call of this kind, about a key that begins so, that comes after `skip` others.
    pub(crate) fn at(
        &self,
        call: Call,
        begins: impl Into<Vec<u8>>,
        skip: usize,
        act: impl Future<Output = ()> + Send + 'static,
    ) {
        let step = Step { call, begins: begins.into(), skip, act: Box::pin(act) };
        assert!(self.lock().replace(step).is_none(), "the step before was never taken");
    }

    /// Whether the step was taken.
    pub(crate) fn is_taken(&self) -> bool {
        self.lock().is_none()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Step>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pass(&self, call: Call, key: &[u8]) {
        let act = {
            let mut step = self.lock();
            match step.as_mut() {
                Some(next) if next.call == call && key.starts_with(&next.begins) => {
                    if next.skip == 0 {
                        step.take().map(|step| step.act)
                    } else {
                        next.skip -= 1;
                        None
                    }
                }
                _ => None,
            }
        };
        if let Some(act) = act {
            act.await;
        }
    }
}

#[async_trait]
impl Meddle for Stepped {
    async fn before_get(&self, key: &[u8]) {
        self.pass(Call::Get, key).await;
    }

    async fn after_get(&self, key: &[u8]) {
        self.pass(Call::Got, key).await;
    }

    async fn before_scan(&self, start: &[u8]) {
        self.pass(Call::Scan, start).await;
    }
}
