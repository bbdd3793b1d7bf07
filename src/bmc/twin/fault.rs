//! How slowly a simulated BMC answers, and how it fails: drawn from a seed, so that a rehearsal repeats.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Seconds that a BMC takes for a GET, by share of requests: of 1,382 recorded ones of a server with two sockets (xlab-si/redfish-recordings
/// at 99d4e59). The slowest ones of all, whole logs, are not asked for here.
const LATENCY: [(f64, f64); 6] = [(0.0, 0.18), (0.1, 0.21), (0.5, 0.27), (0.9, 0.51), (0.99, 1.40), (1.0, 2.0)];

/// A way in which BMCs fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// It takes twenty times as long.
    Slow,
    /// It drops the connection without an answer.
    Drop,
    /// It answers 503 and says when to ask again.
    Busy,
    /// It answers 500.
    Error,
    /// It says yes and does not do it.
    Lie,
    /// It shows what was before.
    Stale,
    /// It restarts: it is away for some seconds, and its sessions are gone.
    Reboot,
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        serde_json::from_value(serde_json::Value::from(text))
            .map_err(|_| format!("{text:?} is none of slow, drop, busy, error, lie, stale, reboot"))
    }
}

/// How often which fault happens, and how slow the BMC is.
#[derive(Clone, Debug)]
pub struct Temper {
    /// Times the recorded latency; 0 for none.
    pub latency: f64,
    /// Faults, one of which happens to a share of the requests.
    pub faults: Vec<Fault>,
    /// That share, from 0 to 1.
    pub share: f64,
    /// What the draws begin with.
    pub seed: u64,
}

impl Default for Temper {
    fn default() -> Self {
        Self { latency: 0.0, faults: vec![], share: 0.0, seed: 1 }
    }
}

/// A BMC's own draws.
pub(super) struct Draws {
    temper: Temper,
    state: u64,
}

impl Draws {
    pub(super) fn new(temper: &Temper, number: u64) -> Self {
        Self { temper: temper.clone(), state: temper.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number.rotate_left(32) }
    }

    /// A number from 0 to 1 (SplitMix64, Steele and others 2014).
    fn draw(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// How long this answer takes; `recorded` is what the recorded BMC took for it.
    pub(super) fn latency(&mut self, recorded: Option<f64>) -> Duration {
        let at = self.draw();
        let seconds = recorded.unwrap_or_else(|| quantile(at));
        Duration::from_secs_f64((seconds * self.temper.latency).clamp(0.0, 60.0))
    }

    /// What goes wrong with this request.
    pub(super) fn fault(&mut self) -> Option<Fault> {
        if self.temper.faults.is_empty() || self.draw() >= self.temper.share {
            return None;
        }
        let which = (self.draw() * self.temper.faults.len() as f64) as usize;
        self.temper.faults.get(which).copied()
    }
}

fn quantile(at: f64) -> f64 {
    let above = LATENCY.iter().position(|(share, _)| at <= *share).unwrap_or(LATENCY.len() - 1).max(1);
    let ((x0, y0), (x1, y1)) = (LATENCY[above - 1], LATENCY[above]);
    y0 + (y1 - y0) * (at - x0) / (x1 - x0)
}

#[cfg(test)]
mod tests {
    //! Latencies are distributed as recorded, faults come as often as asked for, and both repeat.
    use super::*;

    #[test]
    fn latencies_are_as_recorded() {
        let mut draws = Draws::new(&Temper { latency: 1.0, ..Temper::default() }, 7);
        let mut seconds: Vec<f64> = (0..20_000).map(|_| draws.latency(None).as_secs_f64()).collect();
        seconds.sort_by(f64::total_cmp);
        for (share, wanted) in [(0.1, 0.21), (0.5, 0.27), (0.9, 0.51), (0.99, 1.40)] {
            let found = seconds[(share * seconds.len() as f64) as usize];
            assert!((found - wanted).abs() < wanted / 10.0, "{share}: {found}");
        }
        assert_eq!(draws.latency(Some(0.5)), Duration::from_millis(500));
    }

    #[test]
    fn faults_come_as_often_as_asked_for_and_repeat() {
        let temper = Temper { faults: vec![Fault::Drop, Fault::Lie], share: 0.1, ..Temper::default() };
        let draw = |number| {
            let mut draws = Draws::new(&temper, number);
            (0..10_000).map(|_| draws.fault()).collect::<Vec<_>>()
        };
        let first = draw(1);
        assert_eq!(first, draw(1));
        assert_ne!(first, draw(2));
        let count = first.iter().flatten().count();
        assert!((900..1100).contains(&count), "{count}");
        assert_eq!("reboot".parse(), Ok(Fault::Reboot));
        assert!("explode".parse::<Fault>().is_err());
    }
}
