//! What is known of open tasks in memory only: progress, signs of life, and trouble that is being tried again. Losing it
//! loses nothing that matters; the agent speaks again within seconds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::format::order::Progress;
use crate::model::{JobId, NodeName};

/// One open task.
pub(super) struct Live {
    /// Rung when something was heard from the node, or its task was cancelled.
    pub(super) wake: Arc<Notify>,
    state: Mutex<State>,
}

struct State {
    progress: Option<Progress>,
    heard: Instant,
    /// Whether anything was heard at all.
    spoke: bool,
    trouble: Option<String>,
}

impl Live {
    fn new() -> Self {
        let state = State { progress: None, heard: Instant::now(), spoke: false, trouble: None };
        Self { wake: Arc::new(Notify::new()), state: Mutex::new(state) }
    }

    /// Notes a sign of life.
    pub(super) fn hear(&self, progress: Option<Progress>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.heard, state.spoke) = (Instant::now(), true);
        if progress.is_some() {
            state.progress = progress;
        }
    }

    /// When something was last heard; when this process took the task up, if nothing was.
    pub(super) fn heard(&self) -> Instant {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).heard
    }

    /// Whether the node has spoken since this process took the task up, or since [`Live::start`].
    pub(super) fn spoke(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).spoke
    }

    /// The node is off and begins anew: what it said before says nothing about what comes.
    pub(super) fn start(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).spoke = false;
    }

    /// The last progress.
    pub(super) fn progress(&self) -> Option<Progress> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).progress.clone()
    }

    /// Notes what went wrong and is being tried again; `None` when it is over.
    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).trouble = trouble;
    }

    /// What went wrong and is being tried again.
    pub(super) fn trouble(&self) -> Option<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).trouble.clone()
    }
}

/// All open tasks.
#[derive(Default)]
pub(super) struct LiveTasks {
    tasks: RwLock<HashMap<(JobId, NodeName), Arc<Live>>>,
}

impl LiveTasks {
    /// Takes a task up; `None` where it is taken up already.
    pub(super) fn take_up(&self, job: JobId, node: &NodeName) -> Option<Arc<Live>> {
        let mut tasks = self.tasks.write().unwrap_or_else(PoisonError::into_inner);
        match tasks.entry((job, node.clone())) {
            std::collections::hash_map::Entry::Occupied(_) => None,
            std::collections::hash_map::Entry::Vacant(place) => Some(place.insert(Arc::new(Live::new())).clone()),
        }
    }

    /// The task, while it is open.
    pub(super) fn find(&self, job: JobId, node: &NodeName) -> Option<Arc<Live>> {
        self.tasks.read().unwrap_or_else(PoisonError::into_inner).get(&(job, node.clone())).cloned()
    }

    /// Lets a task go.
    pub(super) fn let_go(&self, job: JobId, node: &NodeName) {
        self.tasks.write().unwrap_or_else(PoisonError::into_inner).remove(&(job, node.clone()));
    }
}
