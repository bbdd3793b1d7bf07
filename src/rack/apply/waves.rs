//! Which node of a job may begin: canaries first and alone, then as many at a time as the rack and each power feed allow, and none
//! any more once too many failed. What has begun always goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit, watch};

use crate::job::{TaskRow, TaskState};
use crate::model::NodeName;
use crate::rack::spec::{NodeSpec, Spec};

/// The waves of one job.
pub(super) struct Waves {
    progress: Mutex<Progress>,
    stop_after: Option<usize>,
    /// Told when one ended, or the job was paused or goes on.
    news: watch::Sender<()>,
    rack: Semaphore,
    feeds: BTreeMap<String, Semaphore>,
}

/// What the ends so far allow.
struct Progress {
    /// All canaries, and those that are not over.
    canaries: BTreeSet<NodeName>,
    open: BTreeSet<NodeName>,
    failed: Vec<NodeName>,
    stopped: Option<String>,
    paused: bool,
}

/// A place among the nodes that are worked on; it is given back when dropped.
pub(super) struct Turn<'a> {
    _rack: Option<SemaphorePermit<'a>>,
    _feed: Option<SemaphorePermit<'a>>,
}

impl Waves {
    /// The waves of a job with these tasks, some of which may be over: a restarted appliance goes on where it was.
    pub(super) fn new(spec: &Spec, tasks: &[TaskRow], paused: bool) -> Self {
        let of_job: BTreeSet<&NodeName> = tasks.iter().map(|task| &task.node).collect();
        let in_order = spec.nodes.iter().map(|node| &node.name).filter(|node| of_job.contains(node));
        let canaries: BTreeSet<NodeName> = in_order.take(spec.canaries).cloned().collect();
        let feeds = spec.parallel_per_feed.into_iter().flat_map(|parallel| {
            let names: BTreeSet<&String> = spec.nodes.iter().filter_map(|node| node.feed.as_ref()).collect();
            names.into_iter().map(move |feed| (feed.clone(), Semaphore::new(parallel)))
        });
        let progress = Progress { open: canaries.clone(), canaries, failed: vec![], stopped: None, paused };
        let waves = Self {
            progress: Mutex::new(progress),
            stop_after: spec.stop_after,
            news: watch::Sender::new(()),
            rack: Semaphore::new(spec.parallel),
            feeds: feeds.collect(),
        };
        for task in tasks.iter().filter(|task| task.state.is_over()) {
            waves.ended(&task.node, task.state);
        }
        waves
    }

    /// Waits until a node may begin. One that has begun already, before the appliance was restarted, waits for a place
    /// only.
    ///
    /// # Errors
    /// Why it must not begin at all.
    pub(super) async fn turn(&self, node: &NodeSpec, queued: bool) -> Result<Turn<'_>, String> {
        let mut news = self.news.subscribe();
        loop {
            while queued && !self.may_begin(&node.name)? {
                // The sender lives as long as this.
                drop(news.changed().await);
            }
            let feed = match node.feed.as_ref().and_then(|feed| self.feeds.get(feed)) {
                Some(feed) => feed.acquire().await.ok(),
                None => None,
            };
            let rack = self.rack.acquire().await.ok();
            // Others may have failed while it waited for its place, or the job was paused.
            if !queued || self.may_begin(&node.name)? {
                return Ok(Turn { _rack: rack, _feed: feed });
            }
        }
    }

    /// Begins no other node until it is told to go on.
    pub(super) fn pause(&self, paused: bool) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).paused = paused;
        self.news.send_replace(());
    }

    fn may_begin(&self, node: &NodeName) -> Result<bool, String> {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        match &progress.stopped {
            Some(why) => Err(why.clone()),
            None if progress.paused => Ok(false),
            None => Ok(progress.open.is_empty() || progress.canaries.contains(node)),
        }
    }

    /// A node's task is over.
    pub(super) fn ended(&self, node: &NodeName, state: TaskState) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let was_open = progress.open.remove(node);
        if state == TaskState::Failed {
            progress.failed.push(node.clone());
            if was_open {
                progress.stopped.get_or_insert(format!("the canary {node} failed"));
            }
            let most = self.stop_after.unwrap_or(usize::MAX);
            if progress.failed.len() >= most {
                let names: Vec<&str> = progress.failed.iter().map(NodeName::as_str).collect();
                let why = format!("{} nodes failed ({}), and stop-after is {most}", names.len(), names.join(", "));
                progress.stopped.get_or_insert(why);
            }
        } else if was_open && state == TaskState::Cancelled {
            progress.stopped.get_or_insert(format!("the canary {node} was cancelled"));
        }
        drop(progress);
        self.news.send_replace(());
    }
}
