//! The plan: what must happen so that a rack is as its spec says. Computed purely from the spec, a survey, what each
//! node last said of itself, and the catalogue; it may be printed, kept or thrown away.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::job::step::steps;
use crate::job::{NodeRow, Step};
use crate::model::{Digest, ImageRef, NodeName};
use crate::rack::check::{self, DiskVerdict};
use crate::rack::machine::{Found, PIN_CHANGED};
use crate::rack::spec::{NodeSpec, UserData, UserDataFacts};
use crate::rack::survey::{Survey, SurveyNode};

/// Seconds that a server takes from power-on to its operating system, until the node has shown how long it takes.
const START_SECONDS: u64 = 8 * 60;
/// Bytes a second that an image is written with, until the node has shown otherwise.
const WRITE_RATE: u64 = 500_000_000;

/// Power cycles of a node that is imaged: once into the agent, once into the installed system.
pub const REBOOTS: u32 = 2;

/// The kind of a [`Problem`]: the BMC answers for another machine than the one that the spec means.
const WRONG_MACHINE: &str = "wrong-machine";

/// What the catalogue knows of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// The image.
    pub image: ImageRef,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its root digest.
    pub root_digest: Digest,
}

/// What must happen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The rack's name.
    pub rack: String,
    /// One entry a node, in the spec's order.
    pub nodes: Vec<NodePlan>,
    /// Nodes that must change.
    pub changes: usize,
    /// Power cycles in all.
    pub reboots: u32,
    /// Predicted minutes of wall time, rounded up.
    pub minutes: u64,
}

/// What must happen to one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodePlan {
    /// The node.
    pub node: NodeName,
    /// The image that the spec wants.
    pub image: ImageRef,
    /// The image that the node last said it runs.
    pub holds: Option<ImageRef>,
    /// What differs, in words; empty where nothing must happen.
    pub changes: Vec<String>,
    /// What differs on a node that needs nothing else, and comes with its next image: BIOS settings, user data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub later: Vec<String>,
    /// What its image is told at the first start; never its text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<UserDataFacts>,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Power cycles.
    pub reboots: u32,
    /// Predicted seconds.
    pub seconds: u64,
    /// Why the node cannot be worked on.
    pub problem: Option<Problem>,
}

/// Why a node cannot be worked on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A stable name of the kind: a BMC's error kind, `wrong-machine`, `unwell`, `ambiguous-disk`, `no-such-image`,
    /// `no-user-data`.
    pub kind: String,
    /// What is wrong.
    pub message: String,
    /// What to do next.
    pub hint: String,
}

impl Problem {
    /// Whether going on would be unsafe, rather than merely impossible.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self.kind.as_str(), PIN_CHANGED | WRONG_MACHINE | "ambiguous-disk")
    }
}

impl Plan {
    /// The nodes that cannot be worked on.
    pub fn problems(&self) -> impl Iterator<Item = (&NodeName, &Problem)> {
        self.nodes.iter().filter_map(|node| node.problem.as_ref().map(|problem| (&node.node, problem)))
    }
}

/// Decides what must happen to these nodes. `known` is what each last said of itself, `images` the catalogue's facts of
/// every image that the nodes want, `user_data` the content of every file of it that they name, `parallel` how many are worked on at a time after so many `canaries` went first.
#[must_use]
pub fn plan(
    nodes: &[&NodeSpec],
    survey: &Survey,
    known: &BTreeMap<NodeName, NodeRow>,
    images: &BTreeMap<ImageRef, ImageFacts>,
    user_data: &BTreeMap<PathBuf, UserData>,
    parallel: usize,
    canaries: usize,
) -> Plan {
    let seen: BTreeMap<&NodeName, &SurveyNode> = survey.nodes.iter().map(|row| (&row.node, row)).collect();
    let nodes: Vec<NodePlan> = nodes
        .iter()
        .map(|node| {
            let user_data = node.user_data.as_ref().and_then(|file| Some(user_data.get(file)?.facts(file)));
            node_plan(node, seen.get(&node.name).copied(), known.get(&node.name), images.get(&node.image), user_data)
        })
        .collect();
    let changing = nodes.iter().filter(|node| !node.steps.is_empty()).count();
    let first = canaries.min(changing);
    let waves = usize::from(first > 0) + (changing - first).div_ceil(parallel.max(1));
    let waves = waves as u64;
    let longest = nodes.iter().map(|node| node.seconds).max().unwrap_or(0);
    Plan {
        rack: survey.rack.clone(),
        changes: nodes.iter().filter(|node| !node.steps.is_empty()).count(),
        reboots: nodes.iter().map(|node| node.reboots).sum(),
        minutes: (waves * longest).div_ceil(60),
        nodes,
    }
}

fn node_plan(
    node: &NodeSpec,
    seen: Option<&SurveyNode>,
    known: Option<&NodeRow>,
    image: Option<&ImageFacts>,
    user_data: Option<UserDataFacts>,
) -> NodePlan {
    let mut plan = NodePlan {
        node: node.name.clone(),
        image: node.image.clone(),
        holds: known.and_then(|row| row.holds.as_ref()).map(|holds| holds.image.clone()),
        changes: Vec::new(),
        later: Vec::new(),
        user_data,
        steps: Vec::new(),
        reboots: 0,
        seconds: 0,
        problem: problem(node, seen, image),
    };
    if let (None, Some(file), None) = (&plan.problem, &node.user_data, &plan.user_data) {
        plan.problem = Some(no_user_data(node, file));
    }
    if let (None, Some(image)) = (&plan.problem, image) {
        plan.changes = changes(node, seen, known, image);
        let bios = seen.into_iter().flat_map(|seen| &seen.bios).map(|change| format!("BIOS {change}"));
        if plan.changes.is_empty() {
            plan.later = bios.chain(other_user_data(&plan, known)).collect();
        } else {
            plan.changes.extend(bios);
            plan.steps = steps(!node.bios.is_empty()).collect();
            plan.reboots = REBOOTS;
            plan.seconds = known
                .and_then(|row| row.last_seconds)
                .unwrap_or_else(|| 2 * START_SECONDS + image.bytes.div_ceil(WRITE_RATE));
        }
    }
    plan
}

/// The content of the file was not sent along.
fn no_user_data(node: &NodeSpec, file: &Path) -> Problem {
    Problem {
        kind: "no-user-data".to_owned(),
        message: format!("{} is to be given the user data {}, whose text did not come with the spec", node.name, file.display()),
        hint: "plan and apply with this version's `bedplate rack`, which reads the file; or give its text in the spec's \"user-data\", \
               by path"
            .to_owned(),
    }
}

/// Whether a node that needs nothing else was imaged with other user data.
fn other_user_data(plan: &NodePlan, known: Option<&NodeRow>) -> Option<String> {
    let had = known?.holds.as_ref()?.user_data;
    let differs = had != plan.user_data.as_ref().map(|given| given.sha256);
    differs.then(|| match had {
        Some(_) => "other user data than it was imaged with".to_owned(),
        None => "user data, which it was imaged without".to_owned(),
    })
}

fn problem(node: &NodeSpec, seen: Option<&SurveyNode>, image: Option<&ImageFacts>) -> Option<Problem> {
    let Some(seen) = seen else {
        return Some(Problem {
            kind: "not-surveyed".to_owned(),
            message: format!("{} is not in the survey", node.name),
            hint: "survey it again".to_owned(),
        });
    };
    if let Some(error) = &seen.error {
        return Some(Problem {
            kind: error.kind.clone(),
            message: format!("{}: {}", node.name, error.message),
            hint: error.hint.clone(),
        });
    }
    if let Some(problem) = seen.found.as_ref().and_then(|found| wrong_machine(node, found)) {
        return Some(problem);
    }
    if let Some(problem) = seen.found.as_ref().and_then(|found| unwell(node, found)) {
        return Some(problem);
    }
    if let Some(problem) = seen.disk.as_ref().and_then(|verdict| disk_problem(node, verdict)) {
        return Some(problem);
    }
    image.is_none().then(|| Problem {
        kind: "no-such-image".to_owned(),
        message: format!("{} is to get {}, which is not in the catalogue", node.name, node.image),
        hint: format!("import it with `bedplate image import {} FILE`, or correct the spec", node.image),
    })
}

/// The BMC answers for another machine than the one that the spec means: cables or addresses are swapped.
fn wrong_machine(node: &NodeSpec, found: &Found) -> Option<Problem> {
    let wanted = node.serial.as_ref()?;
    let same = |seen: &String| seen.trim().eq_ignore_ascii_case(wanted);
    if found.serial.as_ref().is_some_and(same) {
        return None;
    }
    let seen = found.serial.as_deref().map_or("tells no serial number".to_owned(), |seen| format!("is {seen}"));
    Some(Problem {
        kind: WRONG_MACHINE.to_owned(),
        message: format!("{} is to be the machine {wanted}, and the one behind {} {seen}", node.name, node.bmc),
        hint: "look for swapped cables or addresses, and correct the node's bmc or serial in the spec".to_owned(),
    })
}

/// The BMC judges the machine worse than the spec lets through.
fn unwell(node: &NodeSpec, found: &Found) -> Option<Problem> {
    let health = found.health.as_deref();
    (!node.health.lets_through(health)).then(|| Problem {
        kind: "unwell".to_owned(),
        message: format!("{}: its BMC judges it {}", node.name, health.unwrap_or_default()),
        hint: format!(
            "`bedplate bmc health {}` names the part; mend it, or write health = \"any\" for this node to go on all the same",
            node.bmc
        ),
    })
}

fn disk_problem(node: &NodeSpec, verdict: &DiskVerdict) -> Option<Problem> {
    let (fits, drives) = match verdict {
        DiskVerdict::One { .. } | DiskVerdict::Unknown { .. } => return None,
        DiskVerdict::None { drives } => ("no drive fits".to_owned(), drives),
        DiskVerdict::Several { drives } => (format!("{} drives fit", drives.len()), drives),
    };
    let drives: Vec<String> = drives.iter().map(check::describe).collect();
    Some(Problem {
        kind: "ambiguous-disk".to_owned(),
        message: format!(
            "{}: {fits} its disk selector ({}); there is {}",
            node.name,
            check::selector_words(&node.disk),
            drives.join(", ")
        ),
        hint: "write the serial number of the one that may be overwritten, as in disk = { serial = \"…\" }".to_owned(),
    })
}

fn changes(node: &NodeSpec, seen: Option<&SurveyNode>, known: Option<&NodeRow>, image: &ImageFacts) -> Vec<String> {
    let wanted = &image.image;
    let Some(row) = known else { return vec![format!("install {wanted}: the node never reported an image")] };
    if let Some(quarantine) = &row.quarantine {
        return vec![format!("install {wanted}: the last try failed ({})", quarantine.cause.message)];
    }
    if row.bmc != node.identity() {
        return vec![format!("install {wanted}: another BMC had this name before")];
    }
    let machine = seen.and_then(|seen| seen.found.as_ref()).map(Found::machine_id);
    let differs = |was: &Option<String>, is: &Option<String>| matches!((was, is), (Some(was), Some(is)) if was != is);
    if let (Some(was), Some(is)) = (&row.machine, &machine)
        && (differs(&was.uuid, &is.uuid) || differs(&was.serial, &is.serial))
    {
        return vec![format!("install {wanted}: another machine is behind this BMC now")];
    }
    match &row.holds {
        None => vec![format!("install {wanted}: what the disk holds is not known")],
        Some(holds) if holds.image != *wanted => vec![format!("install {wanted} in place of {}", holds.image)],
        Some(holds) if holds.root_digest != image.root_digest => {
            vec![format!("install {wanted} again: its content has changed under the same name")]
        }
        Some(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    //! Every reason to install, and the one reason not to: the node itself said that it runs the very image.
    use super::*;
    use crate::job::{Fault, Holding, MachineId, Quarantine};
    use crate::model::JobId;
    use crate::rack::machine::{MachineError, Power};
    use crate::rack::spec::Spec;
    use crate::sys::clock::Timestamp;

    fn spec() -> Spec {
        let text =
            "name = \"r\"\nimage = \"os@2\"\ndisk = { serial = \"S\" }\n[[node]]\nname = \"n1\"\nbmc = \"https://h\"\n";
        Spec::parse(text, "test", std::path::Path::new("/")).unwrap()
    }

    fn seen(uuid: &str) -> Survey {
        let found = Found {
            vendor: None,
            model: None,
            serial: None,
            uuid: Some(uuid.to_owned()),
            power: Power::On,
            bios: None,
            bmc_firmware: None,
            cpus: None,
            memory_bytes: None,
            gpus: 0,
            drives: Vec::new(),
            health: None,
            gaps: Vec::new(),
        };
        let row = SurveyNode {
            node: "n1".parse().unwrap(),
            slot: None,
            bmc: "https://h".to_owned(),
            seconds: 0.0,
            disk: None,
            found: Some(found),
            error: None,
            bios: Vec::new(),
        };
        Survey { rack: "r".to_owned(), taken: Timestamp(0), nodes: vec![row] }
    }

    /// A node that said that it runs `image`, on the machine that is surveyed.
    fn runs(image: &str) -> NodeRow {
        NodeRow {
            rack: "r".to_owned(),
            node: "n1".parse().unwrap(),
            slot: None,
            bmc: spec().nodes[0].identity(),
            machine: Some(MachineId { serial: None, uuid: Some("u1".to_owned()) }),
            holds: Some(Holding {
                image: image.parse().unwrap(),
                root_digest: Digest([2; 32]),
                since: Timestamp(0),
                job: JobId([0; 16]),
                hostname: "n1".to_owned(),
                root_device: "/dev/sda2".to_owned(),
                boot_id: "b".to_owned(),
                disk: "/dev/sda".to_owned(),
                disk_serial: None,
                user_data: None,
            }),
            quarantine: None,
            last_job: JobId([0; 16]),
            last_seconds: Some(600),
        }
    }

    fn decide(survey: &Survey, known: Option<NodeRow>, bytes: Option<u64>) -> Plan {
        let spec = spec();
        let image: ImageRef = "os@2".parse().unwrap();
        let known = known.into_iter().map(|row| (row.node.clone(), row)).collect();
        let facts = bytes.map(|bytes| ImageFacts { image: image.clone(), bytes, root_digest: Digest([2; 32]) });
        let images = facts.into_iter().map(|facts| (image.clone(), facts)).collect();
        plan(&spec.nodes.iter().collect::<Vec<_>>(), survey, &known, &images, &spec.user_data, 8, 0)
    }

    #[test]
    fn changes_and_their_reasons() {
        let quarantine = Quarantine {
            since: Timestamp(0),
            job: JobId([0; 16]),
            cause: Fault { message: "disk on fire".to_owned(), hint: String::new() },
        };
        let rebuilt = |mut row: NodeRow| {
            row.holds.as_mut().unwrap().root_digest = Digest([3; 32]);
            row
        };
        let steps: Vec<Step> = steps(false).collect();
        for (reason, uuid, known) in [
            ("never reported", "u1", None),
            ("in place of os@1", "u1", Some(runs("os@1"))),
            ("content has changed", "u1", Some(rebuilt(runs("os@2")))),
            ("not known", "u1", Some(NodeRow { holds: None, ..runs("os@2") })),
            ("disk on fire", "u1", Some(NodeRow { quarantine: Some(quarantine.clone()), ..runs("os@2") })),
            ("another BMC", "u1", Some(NodeRow { bmc: "elsewhere#".to_owned(), ..runs("os@2") })),
            ("another machine", "u2", Some(runs("os@2"))),
        ] {
            let plan = decide(&seen(uuid), known, Some(1 << 30));
            assert_eq!((plan.changes, plan.reboots, plan.nodes[0].steps.as_slice()), (1, 2, &steps[..]), "{reason}");
            assert!(plan.nodes[0].changes[0].contains(reason), "{reason}: {:?}", plan.nodes[0].changes);
            assert!(plan.minutes > 0 && plan.problems().next().is_none(), "{reason}");
        }
        let plan = decide(&seen("u1"), Some(runs("os@2")), Some(1 << 30));
        assert_eq!((plan.changes, plan.reboots, plan.minutes), (0, 0, 0));
        assert!(plan.nodes[0].steps.is_empty() && plan.nodes[0].changes.is_empty());
    }

    #[test]
    fn problems_stop_a_node_and_name_the_next_step() {
        let mut dead = seen("u1");
        dead.nodes[0].found = None;
        dead.nodes[0].error = Some(MachineError {
            kind: PIN_CHANGED.to_owned(),
            message: "another certificate".to_owned(),
            hint: "look who it is".to_owned(),
            transient: false,
        });
        let mut crowded = seen("u1");
        crowded.nodes[0].disk = Some(DiskVerdict::Several { drives: vec![Default::default(), Default::default()] });
        let gone = Survey { nodes: Vec::new(), ..seen("u1") };
        for (kind, refusal, survey, bytes) in [
            (PIN_CHANGED, true, dead, Some(1)),
            ("ambiguous-disk", true, crowded, Some(1)),
            ("no-such-image", false, seen("u1"), None),
            ("not-surveyed", false, gone, Some(1)),
        ] {
            let plan = decide(&survey, None, bytes);
            let (_, problem) = plan.problems().next().unwrap();
            assert_eq!((problem.kind.as_str(), problem.is_refusal()), (kind, refusal));
            assert!(problem.message.contains("n1") && !problem.hint.is_empty(), "{problem:?}");
            assert_eq!((plan.changes, plan.nodes[0].steps.len()), (0, 0));
        }
    }

    #[test]
    fn bios_settings_go_with_an_image_or_wait_for_one() {
        let mut spec = spec();
        spec.nodes[0].bios = [("Sriov".to_owned(), "Enabled".to_owned())].into();
        let mut survey = seen("u1");
        survey.nodes[0].bios = vec!["Sriov: Disabled -> Enabled".to_owned()];
        let image = ImageFacts { image: spec.nodes[0].image.clone(), bytes: 1, root_digest: Digest([2; 32]) };
        let decide = |known: Option<NodeRow>| {
            node_plan(&spec.nodes[0], survey.nodes.first(), known.as_ref(), Some(&image), None)
        };
        let fresh = decide(None);
        assert!(fresh.changes.iter().any(|change| change == "BIOS Sriov: Disabled -> Enabled"), "{fresh:?}");
        assert_eq!(
            (fresh.reboots, fresh.steps.as_slice()),
            (REBOOTS, &steps(true).collect::<Vec<_>>()[..]),
            "no reboot of its own"
        );
        let right = decide(Some(runs("os@2")));
        assert!(right.changes.is_empty() && right.steps.is_empty(), "{right:?}");
        assert_eq!(right.later, ["BIOS Sriov: Disabled -> Enabled"]);
    }

    #[test]
    fn user_data_goes_with_an_image_or_waits_for_one() {
        let mut spec = spec();
        spec.nodes[0].user_data = Some("/racks/first-start".into());
        let data = UserData::check(b"#!/bin/sh\nhunter2\n".to_vec()).unwrap();
        let facts = data.facts(Path::new("/racks/first-start"));
        let image = ImageFacts { image: "os@2".parse().unwrap(), bytes: 1, root_digest: Digest([2; 32]) };
        let images = BTreeMap::from([(image.image.clone(), image)]);
        let decide = |known: Option<NodeRow>, texts: &BTreeMap<PathBuf, UserData>| {
            let known = known.into_iter().map(|row| (row.node.clone(), row)).collect();
            plan(&[&spec.nodes[0]], &seen("u1"), &known, &images, texts, 1, 0).nodes.remove(0)
        };
        let with = BTreeMap::from([(PathBuf::from("/racks/first-start"), data)]);
        let fresh = decide(None, &with);
        assert_eq!((fresh.user_data.as_ref(), fresh.reboots), (Some(&facts), REBOOTS));
        assert!(!serde_json::to_string(&fresh).unwrap().contains("hunter2"));
        let imaged_with = |user_data| {
            let mut row = runs("os@2");
            row.holds.as_mut().unwrap().user_data = user_data;
            Some(row)
        };
        let later = |user_data| decide(imaged_with(user_data), &with).later;
        assert!(later(Some(facts.sha256)).is_empty());
        assert!(
            later(None)[0].contains("imaged without") && later(Some(Digest([9; 32])))[0].contains("other user data")
        );
        assert_eq!(decide(None, &BTreeMap::new()).problem.unwrap().kind, "no-user-data");
    }

    #[test]
    fn a_machine_that_is_unwell_waits_where_the_spec_says_so() {
        use crate::rack::spec::HealthGate::{Any, Ok, Warning};
        for (gate, health, stops) in [
            (Any, Some("Critical"), false),
            (Warning, Some("Critical"), true),
            (Warning, Some("Warning"), false),
            (Ok, Some("Warning"), true),
            (Ok, Some("OK"), false),
            (Ok, None, false),
        ] {
            let mut node = spec().nodes[0].clone();
            node.health = gate;
            let mut survey = seen("u1");
            survey.nodes[0].found.as_mut().unwrap().health = health.map(str::to_owned);
            let image = ImageFacts { image: node.image.clone(), bytes: 1, root_digest: Digest([2; 32]) };
            let problem = problem(&node, survey.nodes.first(), Some(&image));
            assert_eq!(problem.map(|problem| problem.kind), stops.then(|| "unwell".to_owned()), "{gate:?} {health:?}");
        }
    }

    #[test]
    fn another_machine_than_the_one_that_is_meant_is_refused() {
        let mut node = spec().nodes[0].clone();
        node.serial = Some("5ABCD01".to_owned());
        for (serial, refused) in
            [(Some("5ABCD01"), false), (Some(" 5abcd01 "), false), (Some("5ABCD02"), true), (None, true)]
        {
            let mut survey = seen("u1");
            survey.nodes[0].found.as_mut().unwrap().serial = serial.map(str::to_owned);
            let image = ImageFacts { image: node.image.clone(), bytes: 1, root_digest: Digest([2; 32]) };
            let problem = problem(&node, survey.nodes.first(), Some(&image));
            let kind = problem.as_ref().map(|problem| problem.kind.as_str());
            assert_eq!(kind, refused.then_some(WRONG_MACHINE), "{serial:?}: {problem:?}");
            assert!(problem.is_none_or(|problem| problem.is_refusal() && problem.message.contains("5ABCD01")));
        }
    }

    #[test]
    fn predicts_by_what_the_node_took_before_and_by_waves() {
        let plan = decide(&seen("u1"), Some(runs("os@1")), Some(1 << 30));
        assert_eq!((plan.nodes[0].seconds, plan.minutes), (600, 10));
        let fresh = decide(&seen("u1"), None, Some(50_000_000_000));
        assert_eq!(fresh.nodes[0].seconds, 2 * START_SECONDS + 100);
    }
}
