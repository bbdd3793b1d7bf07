//! What the node tells the appliance while it works and when it is done.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::console;
use crate::format::order::{Order, Phase, Progress, Report, VERSION};
use crate::model::ByteSize;
use crate::pull::{Appliance, Patience, PullError};

/// Asks for the order until the appliance answers; an error means that it refused.
pub async fn fetch_order(appliance: &Appliance) -> Result<Order, PullError> {
    let ask = || appliance.get_json::<Order>("/agent/v1/order");
    let order = Patience::Endless.keep_trying("asking for the order", ask).await?;
    if order.version > VERSION {
        return Err(PullError::BadAnswer {
            path: "/agent/v1/order".to_owned(),
            what: format!("version {} and this agent knows {VERSION}", order.version),
        });
    }
    Ok(order)
}

/// Delivers the report, for as long as it takes; an error means that the appliance refused it.
pub async fn deliver(appliance: &Appliance, report: &Report) -> Result<(), PullError> {
    let send = || appliance.post_json("/agent/v1/report", report);
    Patience::Endless.keep_trying("reporting", send).await
}

/// How far a phase has come; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Gauge {
    inner: Arc<Mutex<Option<Progress>>>,
}

impl Gauge {
    /// Begins a phase of `total` bytes.
    pub fn begin(&self, phase: Phase, total: u64) {
        *self.lock() = Some(Progress { phase, bytes_done: 0, bytes_total: total });
    }

    /// Counts bytes of the present phase.
    pub fn advance(&self, bytes: u64) {
        if let Some(progress) = &mut *self.lock() {
            progress.bytes_done += bytes;
        }
    }

    /// Where it stands; `None` before the first phase.
    #[must_use]
    pub fn read(&self) -> Option<Progress> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Progress>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the appliance, where one is given, and the console about once a second where the gauge stands, until the token is cancelled.
/// Nothing waits for it: a lost message is made up for by the next.
pub async fn keep_telling(appliance: Option<Appliance>, gauge: Gauge, stop: CancellationToken) {
    let mut told = None;
    let mut said = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        let Some(now) = gauge.read() else { continue };
        if let Some(appliance) = appliance.as_ref().filter(|_| told.as_ref() != Some(&now)) {
            let sent = appliance.post_json("/agent/v1/progress", &now);
            // Best effort by design; the appliance may be restarting.
            drop(tokio::time::timeout(Duration::from_secs(5), sent).await);
            told = Some(now.clone());
        }
        let tenth = (now.phase, now.bytes_done * 10 / now.bytes_total.max(1));
        if said != Some(tenth) {
            said = Some(tenth);
            let (done, total) = (ByteSize(now.bytes_done), ByteSize(now.bytes_total));
            console::say(phase_name(now.phase), format!("{:3} %  {done} of {total}", tenth.1 * 10));
        }
    }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Disk => "disk",
        Phase::Write => "write",
        Phase::Verify => "verify",
        Phase::Finish => "finish",
    }
}
