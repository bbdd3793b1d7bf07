//! The last requests to one BMC and what came of them, kept in memory for the day when somebody asks why: evidence, not a log.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::BmcError;
use super::exchange::{Answer, Ask, Body, veil};
use super::words::Words;
use crate::sys::clock::{self, Timestamp};

/// Requests that are kept of one BMC.
const MOST: usize = 100;
/// Letters that are kept of a body, and of what a BMC said.
const LETTERS: usize = 500;

/// One request and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced {
    /// When it was sent.
    pub at: Timestamp,
    /// Method and path.
    pub request: String,
    /// What was sent with it, without secrets; its beginning where it is long.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// The status, or why there is none.
    pub outcome: String,
    /// What the BMC said where it refused.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub said: String,
    /// Milliseconds until the whole answer was there.
    pub millis: u64,
}

fn shortened(text: &str) -> String {
    text.chars().take(LETTERS).collect()
}

/// The last requests to one BMC.
#[derive(Default)]
pub(super) struct Trace(Mutex<VecDeque<Traced>>);

impl Trace {
    /// Notes a request.
    pub(super) fn note(&self, ask: &Ask, answer: &Result<Answer, BmcError>, took: Duration) {
        let body = match &ask.body {
            Body::Json(body) if body.is_empty() => String::new(),
            Body::Json(body) => {
                serde_json::from_slice(body).map_or_else(|_| String::new(), |body| veil(body).to_string())
            }
            Body::Upload(upload) => upload.name(),
        };
        let (outcome, said) = match answer {
            Ok(answer) if answer.status.is_success() => (answer.status.as_u16().to_string(), String::new()),
            Ok(answer) => (answer.status.as_u16().to_string(), Words::read(answer, true).message),
            Err(error) => (error.to_string(), String::new()),
        };
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let traced = Traced {
            at: Timestamp(clock::now().0.saturating_sub(millis)),
            request: ask.name(),
            body: shortened(&body),
            outcome: shortened(&outcome),
            said: shortened(&said),
            millis,
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST {
            all.pop_front();
        }
        all.push_back(traced);
    }

    /// All that is kept, oldest first.
    pub(super) fn all(&self) -> Vec<Traced> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
