//! What happened to a job between two looks at it, for programs: the lines of `rack apply --output json` and of
//! `rack watch --output json`. Computed purely from the two views; steps that were passed between them are told with their own times.

use serde::{Deserialize, Serialize};

use crate::format::order::Phase;
use crate::job::{Fault, JobState, JobView, NodeView, Step, TaskState};
use crate::model::{ImageRef, JobId, NodeName};
use crate::sys::clock::Timestamp;

/// The version of these lines. Fields and events may be added within one version; nothing is renamed or changes its meaning.
pub const VERSION: u8 = 1;
/// Progress is told when it has grown by this share of the whole.
const PROGRESS_PARTS: u64 = 20;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// [`VERSION`].
    pub version: u8,
    /// When it happened; for what is only known since the last look, when that look was.
    pub at: Timestamp,
    /// The job.
    pub job: JobId,
    /// What happened.
    #[serde(flatten)]
    pub what: Happening,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Happening {
    /// The job is followed from here on.
    JobBegan {
        /// The rack.
        rack: String,
        /// The nodes that it works on.
        nodes: Vec<NodeName>,
        /// The nodes that needed nothing.
        unchanged: Vec<NodeName>,
    },
    /// The job was paused: no other node is begun.
    JobPaused,
    /// It goes on.
    JobResumed,
    /// A node entered a step.
    Step {
        /// The node.
        node: NodeName,
        /// The step.
        step: Step,
        /// Goings back to an earlier step, so far.
        restarts: u32,
    },
    /// An agent came further.
    Progress {
        /// The node.
        node: NodeName,
        /// What it does.
        phase: Phase,
        /// Bytes done.
        bytes_done: u64,
        /// Of so many.
        bytes_total: u64,
    },
    /// Something goes wrong and is being tried again.
    Trouble {
        /// The node.
        node: NodeName,
        /// What.
        message: String,
    },
    /// Something worth knowing happened.
    Note {
        /// The node.
        node: NodeName,
        /// What.
        message: String,
    },
    /// A node's part is over.
    NodeEnded {
        /// The node.
        node: NodeName,
        /// How: `imaged`, `failed` or `cancelled`.
        state: TaskState,
        /// The image that it was to get.
        image: ImageRef,
        /// Seconds from its first step.
        seconds: u64,
        /// Why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<Fault>,
    },
    /// The appliance does not answer; its jobs go on when it is back.
    ApplianceAway {
        /// What was tried, and what came of it.
        message: String,
    },
    /// It answers again.
    ApplianceBack,
    /// The job is over.
    JobEnded {
        /// How.
        state: JobState,
        /// Nodes that run their image.
        imaged: usize,
        /// Nodes that failed.
        failed: usize,
        /// Nodes that were left as they were, or were broken off.
        cancelled: usize,
        /// Seconds from its begin.
        seconds: u64,
    },
}

/// What happened from `before`, the last look if there was one, to `view`, the look at `now`.
#[must_use]
pub fn between(before: Option<&JobView>, view: &JobView, now: Timestamp) -> Vec<Event> {
    let mut events = vec![];
    let mut tell = |at, what| events.push(Event { version: VERSION, at, job: view.id, what });
    if before.is_none() {
        let nodes = view.nodes.iter().map(|node| node.node.clone()).collect();
        let (rack, unchanged) = (view.rack.clone(), view.unchanged.clone());
        tell(view.created, Happening::JobBegan { rack, nodes, unchanged });
    }
    match (before.is_some_and(|before| before.paused), view.paused) {
        (false, true) => tell(now, Happening::JobPaused),
        // What has ended is not paused any more, and does not go on either.
        (true, false) if view.state == JobState::Running => tell(now, Happening::JobResumed),
        _ => {}
    }
    for node in &view.nodes {
        let earlier = before.and_then(|before| before.nodes.iter().find(|earlier| earlier.node == node.node));
        of_node(earlier, node, now, &mut tell);
    }
    if view.state != JobState::Running && before.is_none_or(|before| before.state == JobState::Running) {
        let count = |state| view.nodes.iter().filter(|node| node.state == state).count();
        let ended = view.ended.unwrap_or(now);
        let what = Happening::JobEnded {
            state: view.state,
            imaged: count(TaskState::Imaged),
            failed: count(TaskState::Failed),
            cancelled: count(TaskState::Cancelled),
            seconds: ended.since(view.created).as_secs(),
        };
        tell(ended, what);
    }
    events
}

fn of_node(earlier: Option<&NodeView>, node: &NodeView, now: Timestamp, tell: &mut impl FnMut(Timestamp, Happening)) {
    let name = || node.node.clone();
    let known = earlier.map_or(0, |earlier| earlier.passed.len());
    // The step that was under way at the last look was told then; it is the first of those that were passed since.
    let told = earlier.is_some_and(|earlier| earlier.state != TaskState::Queued);
    for passed in node.passed.iter().skip(known + usize::from(told)) {
        tell(passed.since, Happening::Step { node: name(), step: passed.step, restarts: node.restarts });
    }
    let under_way = node.state == TaskState::Running;
    let moved = earlier.is_none_or(|earlier| earlier.state != node.state || node.passed.len() > known);
    if under_way && moved {
        tell(node.since, Happening::Step { node: name(), step: node.step, restarts: node.restarts });
    }
    let notes = earlier.map_or(0, |earlier| earlier.notes.len());
    for message in node.notes.iter().skip(notes) {
        tell(now, Happening::Note { node: name(), message: message.clone() });
    }
    if let Some(message) = node.trouble.as_ref().filter(|_| earlier.is_none_or(|e| e.trouble != node.trouble)) {
        tell(now, Happening::Trouble { node: name(), message: message.clone() });
    }
    if let Some(phase) = node.phase.filter(|_| under_way) {
        let part = |node: &NodeView| node.bytes_done * PROGRESS_PARTS / node.bytes_total.max(1);
        if earlier.is_none_or(|earlier| earlier.phase != node.phase || part(earlier) != part(node)) {
            let (bytes_done, bytes_total) = (node.bytes_done, node.bytes_total);
            tell(now, Happening::Progress { node: name(), phase, bytes_done, bytes_total });
        }
    }
    if node.state.is_over() && earlier.is_none_or(|earlier| !earlier.state.is_over()) {
        let began = node.passed.first().map_or(node.since, |first| first.since);
        let what = Happening::NodeEnded {
            node: name(),
            state: node.state,
            image: node.image.clone(),
            seconds: node.since.since(began).as_secs(),
            error: node.error.clone(),
        };
        tell(node.since, what);
    }
}

#[cfg(test)]
mod tests {
    //! Nothing that was passed between two looks is missed, nothing is told twice, and the lines are what docs/operating.md shows.
    use super::*;
    use crate::job::Passed;

    fn node(state: TaskState, step: Step, since: u64, passed: &[(Step, u64)]) -> NodeView {
        let ends = passed.iter().skip(1).map(|(_, at)| *at).chain([since]);
        let passed = passed.iter().zip(ends);
        let passed =
            passed.map(|((step, at), until)| Passed { step: *step, since: Timestamp(*at), until: Timestamp(until) });
        let example = NodeView::example("gpu-01", state, step, Timestamp(since));
        NodeView { slot: Some(12), bytes_total: 1000, passed: passed.collect(), ..example }
    }

    fn job(node: NodeView) -> JobView {
        let state = if node.state.is_over() { JobState::Done } else { JobState::Running };
        JobView {
            id: JobId([7; 16]),
            rack: "r1".to_owned(),
            state,
            paused: false,
            created: Timestamp(1_000),
            ended: node.state.is_over().then_some(node.since),
            nodes: vec![node],
            unchanged: vec![],
        }
    }

    fn told(before: Option<&JobView>, view: &JobView) -> Vec<String> {
        let events = between(before, view, Timestamp(99_000));
        events.iter().map(|event| serde_json::to_string(event).unwrap()).collect()
    }

    fn names(lines: &[String]) -> Vec<String> {
        let name = |line: &String| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            format!("{} {}", line["event"].as_str().unwrap(), line["step"].as_str().unwrap_or_default())
        };
        lines.iter().map(name).collect()
    }

    #[test]
    fn each_step_is_told_once() {
        use Step::{BootMedia, InsertMedia, Install, PowerOff, PowerOn};
        let queued = job(node(TaskState::Queued, PowerOff, 1_000, &[]));
        assert_eq!(names(&told(None, &queued)), ["job-began "]);
        let off = job(node(TaskState::Running, PowerOff, 2_000, &[]));
        assert_eq!(names(&told(Some(&queued), &off)), ["step power-off"]);
        assert!(told(Some(&off), &off).is_empty(), "nothing happened");
        let passed = [(PowerOff, 2_000), (InsertMedia, 3_000), (BootMedia, 4_000), (PowerOn, 5_000)];
        let mut install = job(node(TaskState::Running, Install, 6_000, &passed));
        let all = ["step insert-media", "step boot-media", "step power-on", "step install"];
        assert_eq!(names(&told(Some(&off), &install)), all);
        let from_queued = told(Some(&queued), &install);
        assert_eq!(names(&from_queued)[0], "step power-off");
        assert_eq!(from_queued.len(), 5);
        let quiet = install.clone();
        (install.nodes[0].phase, install.nodes[0].bytes_done) = (Some(Phase::Write), 500);
        assert_eq!(names(&told(Some(&quiet), &install)), ["progress "]);
        let mut little = install.clone();
        little.nodes[0].bytes_done += 1;
        assert!(told(Some(&install), &little).is_empty(), "a little progress is no news");
        little.paused = true;
        assert_eq!(names(&told(Some(&install), &little)), ["job-paused "]);
        assert_eq!(names(&told(Some(&little), &install)), ["job-resumed "]);
        let over = job(node(TaskState::Cancelled, Install, 7_000, &passed));
        assert_eq!(names(&told(Some(&little), &over)), ["node-ended ", "job-ended "], "it does not go on");
    }

    #[test]
    fn ends_are_told() {
        use Step::{Boot, StartDisk};
        let running = job(node(TaskState::Running, StartDisk, 8_000, &[]));
        let over = job(node(TaskState::Imaged, Boot, 10_000, &[(StartDisk, 8_000), (Boot, 9_000)]));
        insta::assert_snapshot!(told(Some(&running), &over).join("\n"), @r#"
        {"version":1,"at":"1970-01-01T00:00:09.000Z","job":"07070707070707070707070707070707","event":"step","node":"gpu-01","step":"boot","restarts":0}
        {"version":1,"at":"1970-01-01T00:00:10.000Z","job":"07070707070707070707070707070707","event":"node-ended","node":"gpu-01","state":"imaged","image":"os@1","seconds":2}
        {"version":1,"at":"1970-01-01T00:00:10.000Z","job":"07070707070707070707070707070707","event":"job-ended","state":"done","imaged":1,"failed":0,"cancelled":0,"seconds":9}
        "#);
        assert!(told(Some(&over), &over).is_empty(), "an end is told once");
    }
}
