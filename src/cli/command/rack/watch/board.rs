//! What the watch shows, and what keys do to it. Pure: looks and keys come in, a picture and actions go out.

use std::collections::BTreeMap;

use crate::job::{JobView, NodeRow, NodeView, TaskState};
use crate::model::{JobId, NodeName};
use crate::rack::{Spec, show};
use crate::sys::clock::Timestamp;

/// Rows that a page key moves by.
const PAGE: isize = 10;

/// One node as it is shown.
pub(super) struct Row {
    pub(super) node: NodeName,
    pub(super) slot: Option<u16>,
    pub(super) bmc: String,
    /// Its part of the newest job that it is in.
    pub(super) task: Option<(JobId, NodeView)>,
    /// What is known of it over all jobs.
    pub(super) known: Option<NodeRow>,
    /// Whether its light was switched on from here.
    pub(super) lit: bool,
}

/// What is asked of whoever sits at the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Nothing: keys move and act.
    Look,
    /// A filter is being typed.
    Filter,
    /// An action waits for a yes.
    Sure(Action),
}

/// What must be done outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Switch a node's light.
    Identify(NodeName, bool),
    /// Show a node's serial console.
    Console(NodeName),
    /// Apply the spec to one node again.
    Retry(NodeName),
    /// Pause a job, or let it go on.
    Pause(JobId, bool),
    /// End the watch.
    Quit,
}

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Escape,
    Backspace,
}

/// The board.
pub(super) struct Board {
    pub(super) rack: String,
    /// From the top of the rack down; nodes without a slot come last.
    rows: Vec<Row>,
    /// The newest job that is under way, else the newest.
    pub(super) job: Option<JobView>,
    cursor: usize,
    pub(super) filter: String,
    pub(super) mode: Mode,
    pub(super) detail: bool,
    /// What the last action came to.
    pub(super) message: Option<String>,
    /// Why the appliance does not answer, and since when.
    pub(super) away: Option<(Timestamp, String)>,
}

impl Board {
    pub(super) fn new(spec: &Spec) -> Self {
        let mut rows: Vec<Row> = spec
            .nodes
            .iter()
            .map(|node| Row {
                node: node.name.clone(),
                slot: node.slot,
                bmc: node.bmc.to_string(),
                task: None,
                known: None,
                lit: false,
            })
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.slot));
        Self {
            rack: spec.name.clone(),
            rows,
            job: None,
            cursor: 0,
            filter: String::new(),
            mode: Mode::Look,
            detail: false,
            message: None,
            away: None,
        }
    }

    /// Takes in a look: jobs of any rack, newest first, and what is known of nodes.
    pub(super) fn look(&mut self, jobs: &[JobView], known: &[NodeRow]) {
        self.away = None;
        let ours: Vec<&JobView> = jobs.iter().filter(|job| job.rack == self.rack).collect();
        let open = ours.iter().find(|job| job.ended.is_none());
        self.job = open.or(ours.first()).map(|job| (*job).clone());
        let mut tasks: BTreeMap<&NodeName, (JobId, &NodeView)> = BTreeMap::new();
        for job in &ours {
            for node in &job.nodes {
                tasks.entry(&node.node).or_insert((job.id, node));
            }
        }
        for row in &mut self.rows {
            row.task = tasks.get(&row.node).map(|(job, view)| (*job, (*view).clone()));
            row.known = known.iter().find(|known| known.rack == self.rack && known.node == row.node).cloned();
        }
    }

    /// The appliance does not answer.
    pub(super) fn no_answer(&mut self, now: Timestamp, why: String) {
        let since = self.away.as_ref().map_or(now, |(since, _)| *since);
        self.away = Some((since, why));
    }

    /// The rows that the filter lets through.
    pub(super) fn shown(&self) -> Vec<&Row> {
        let wanted = self.filter.to_lowercase();
        let fits = |row: &&Row| {
            wanted.is_empty() || [row.node.as_str(), row.state(), &row.step()].iter().any(|text| text.contains(&wanted))
        };
        self.rows.iter().filter(fits).collect()
    }

    pub(super) fn all(&self) -> &[Row] {
        &self.rows
    }

    /// Where the cursor is among the shown rows.
    pub(super) fn cursor(&self) -> usize {
        self.cursor.min(self.shown().len().saturating_sub(1))
    }

    /// The row under the cursor.
    pub(super) fn chosen(&self) -> Option<&Row> {
        self.shown().get(self.cursor()).copied()
    }

    /// What a light was switched to.
    pub(super) fn lit(&mut self, node: &NodeName, on: bool) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.node == *node) {
            row.lit = on;
        }
    }

    fn go(&mut self, by: isize) {
        let last = self.shown().len().saturating_sub(1);
        self.cursor = self.cursor().saturating_add_signed(by).min(last);
    }

    /// What a key does.
    pub(super) fn key(&mut self, key: Key) -> Option<Action> {
        match self.mode.clone() {
            Mode::Filter => {
                self.type_filter(key);
                None
            }
            Mode::Sure(action) => {
                self.mode = Mode::Look;
                (key == Key::Char('y')).then_some(action)
            }
            Mode::Look => self.act(key),
        }
    }

    fn type_filter(&mut self, key: Key) {
        match key {
            Key::Char(letter) => self.filter.push(letter),
            Key::Backspace => drop(self.filter.pop()),
            Key::Enter => self.mode = Mode::Look,
            Key::Escape => {
                self.filter.clear();
                self.mode = Mode::Look;
            }
            _ => {}
        }
        self.cursor = 0;
    }

    fn act(&mut self, key: Key) -> Option<Action> {
        self.message = None;
        match key {
            Key::Up | Key::Char('k') => self.go(-1),
            Key::Down | Key::Char('j') => self.go(1),
            Key::PageUp => self.go(-PAGE),
            Key::PageDown => self.go(PAGE),
            Key::Home => self.cursor = 0,
            Key::End => self.go(isize::MAX),
            Key::Enter => self.detail = !self.detail,
            Key::Char('/') => self.mode = Mode::Filter,
            Key::Escape if self.detail => self.detail = false,
            Key::Escape => self.filter.clear(),
            Key::Char('q') => return Some(Action::Quit),
            Key::Char('c') => return Some(Action::Console(self.chosen()?.node.clone())),
            Key::Char('i') => {
                let row = self.chosen()?;
                return Some(Action::Identify(row.node.clone(), !row.lit));
            }
            Key::Char('r') => self.ask_retry(),
            Key::Char('p') => {
                let job = self.job.as_ref().filter(|job| job.ended.is_none())?;
                return Some(Action::Pause(job.id, !job.paused));
            }
            _ => {}
        }
        None
    }

    fn ask_retry(&mut self) {
        let Some(row) = self.chosen() else { return };
        match row.task.as_ref().map(|(_, view)| view.state) {
            Some(TaskState::Failed | TaskState::Cancelled) => {
                self.mode = Mode::Sure(Action::Retry(row.node.clone()));
            }
            _ => self.message = Some(format!("{} has not failed: there is nothing to try again", row.node)),
        }
    }
}

impl Row {
    /// Where it stands, in a word.
    pub(super) fn state(&self) -> &'static str {
        match (&self.task, &self.known) {
            (Some((_, view)), _) => show::state(view.state),
            (None, Some(known)) if known.quarantine.is_some() => "quarantined",
            (None, Some(known)) if known.holds.is_some() => "imaged",
            _ => "unknown",
        }
    }

    /// The step that it is in.
    pub(super) fn step(&self) -> String {
        match &self.task {
            Some((_, view)) if view.state == TaskState::Running => view.step.to_string(),
            _ => String::new(),
        }
    }

    /// How much of the image is done, from 0 to 1, where that says anything.
    pub(super) fn done(&self) -> Option<f64> {
        let view = &self.task.as_ref()?.1;
        let writing = view.state == TaskState::Running && view.bytes_done > 0 && view.bytes_total > 0;
        writing.then(|| (view.bytes_done as f64 / view.bytes_total as f64).min(1.0))
    }

    /// What goes wrong, or went.
    pub(super) fn trouble(&self) -> Option<&str> {
        let view = &self.task.as_ref()?.1;
        view.error.as_ref().map(|error| error.message.as_str()).or(view.trouble.as_deref())
    }
}
