//! The job engine in one process, on real metadata, against doubles of machines: it images nodes, survives a death of
//! the appliance at every instant, believes nothing but proof, and leaves what failed safe.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::double::{Fuse, Oddity, OneVersion, Room, name};
use super::*;
use crate::format::order::{Booted, Phase, Progress};
use crate::job::retry::Backoff;
use crate::job::{JobState, JobView, Step, TaskState};
use crate::meta::{Embedded, Meta};
use crate::rack::spec::Timeouts;
use crate::sys::worker::Workers;

const NEVER: i64 = i64::MAX;

/// A room of machines, one rack, and the appliance of the moment.
struct World {
    room: Room,
    spec: Spec,
    meta: Arc<dyn Meta>,
    fuse: Arc<Fuse>,
    workers: Workers,
    conductor: Conductor,
    _folder: Option<tempfile::TempDir>,
}

/// A spec whose time-outs no good machine meets, on however slow a computer.
fn spec(rack: &str, nodes: &[&str], image: &str) -> Spec {
    let mut text = format!("name = \"{rack}\"\nimage = \"{image}\"\ndisk = {{ serial = \"S1\" }}\n");
    for node in nodes {
        text.push_str(&format!("[[node]]\nname = \"{node}\"\nbmc = \"https://{node}.{rack}\"\n"));
    }
    let mut spec = Spec::parse(&text, "test", Path::new("/")).unwrap();
    let long = Duration::from_secs(15);
    spec.timeouts = Timeouts { bmc: long, post: long, stall: long, install: long * 2, off: long, boot: long };
    spec
}

/// Shortens the time-out that a machine of this kind runs into.
fn hurry(spec: &mut Spec, odd: &Oddity) {
    let short = Duration::from_millis(700);
    let timeouts = &mut spec.timeouts;
    for (hit, timeout) in [
        (odd.no_agent > 0, &mut timeouts.post),
        (odd.silent, &mut timeouts.stall),
        (odd.no_boot > 0, &mut timeouts.boot),
        (odd.stays_on, &mut timeouts.off),
        (odd.flaky > 100, &mut timeouts.bmc),
    ] {
        if hit {
            *timeout = short;
        }
    }
}

fn conductor(room: &Room, meta: Arc<Fuse>, workers: &Workers) -> Conductor {
    let millis = Duration::from_millis;
    let pace = Pace { poll: millis(4), watch: millis(8), backoff: Backoff { first: millis(4), longest: millis(30) } };
    let desk = ConductorConfig {
        public_url: "https://appliance".to_owned(),
        media_url: "http://media".to_owned(),
        certificate_pin: crate::sys::wire::ShownPin::new([0xab; 32]),
        pace,
        evidence: Some(room.evidence.path().to_owned()),
    };
    let conductor = Conductor::new(meta, Arc::new(OneVersion), Arc::new(room.clone()), workers, desk);
    *room.desk.lock().unwrap() = Some(conductor.clone());
    conductor
}

impl World {
    async fn new(nodes: &[(&str, Oddity)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let meta = Embedded::open(folder.path()).unwrap();
        Self { _folder: Some(folder), ..Self::on(meta, "rack", nodes, NEVER, true).await }
    }

    async fn on(meta: Arc<dyn Meta>, rack: &str, nodes: &[(&str, Oddity)], commits: i64, last_is_kept: bool) -> Self {
        let room = Room::new();
        for (node, odd) in nodes {
            room.add(node, odd.clone());
        }
        let names: Vec<&str> = nodes.iter().map(|(node, _)| *node).collect();
        let workers = Workers::new();
        let fuse = Fuse::new(meta.clone(), commits, last_is_kept);
        let conductor = conductor(&room, fuse.clone(), &workers);
        conductor.resume_all().await.unwrap();
        Self { spec: spec(rack, &names, "node@1"), room, meta, fuse, workers, conductor, _folder: None }
    }

    /// The appliance dies, and is started again.
    async fn restart(&mut self) {
        *self.room.desk.lock().unwrap() = None;
        self.fuse.blow();
        std::mem::take(&mut self.workers).stop().await;
        sleep(Duration::from_millis(5)).await;
        self.fuse = Fuse::new(self.meta.clone(), NEVER, true);
        self.conductor = conductor(&self.room, self.fuse.clone(), &self.workers);
        self.conductor.resume_all().await.unwrap();
    }

    async fn over(&self, job: JobId) -> JobView {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let view = self.conductor.job(job).await.unwrap();
            if view.state != JobState::Running && view.ended.is_some() {
                return view;
            }
            assert!(Instant::now() < deadline, "the job is stuck: {view:#?}");
            sleep(Duration::from_millis(3)).await;
        }
    }

    async fn apply(&self) -> JobView {
        let job = self.conductor.apply(self.spec.clone(), &[]).await.unwrap();
        self.over(job).await
    }

    async fn stop(self) {
        self.workers.stop().await;
        self.room.stop().await;
    }
}

fn good() -> Oddity {
    Oddity::default()
}

/// Where the spec asks for it, a console is recorded from before the first start, so that not a line of it is missed.
#[tokio::test]
async fn a_console_is_recorded_from_the_start() {
    let mut world = World::new(&[("n1", good())]).await;
    world.spec.nodes[0].record_console = true;
    assert_eq!(world.apply().await.state, JobState::Done);
    world.room.with("n1", |metal| assert_eq!(metal.verbs[..5], ["off", "insert", "boot Media", "record", "on"]));
    world.stop().await;
}

#[tokio::test]
async fn images_a_rack_and_then_has_nothing_to_do() {
    let world = World::new(&[("n1", good()), ("n2", good())]).await;
    let plan = world.conductor.plan(&world.spec, &[]).await.unwrap();
    assert_eq!((plan.changes, plan.reboots), (2, 4));
    let view = world.apply().await;
    assert_eq!(view.state, JobState::Done, "{view:#?}");
    let verbs = ["off", "insert", "boot Media", "on", "eject", "boot Disk", "on"];
    for node in ["n1", "n2"] {
        world.room.with(node, |metal| assert_eq!(metal.verbs, verbs));
        let row = world.conductor.journal().node("rack", &name(node)).await.unwrap().unwrap();
        assert_eq!(row.holds.unwrap().image, "node@1".parse().unwrap());
    }
    let plan = world.conductor.plan(&world.spec, &[]).await.unwrap();
    assert_eq!((plan.changes, plan.reboots, plan.minutes), (0, 0, 0));
    let again = world.apply().await;
    assert_eq!((again.state, again.nodes.len(), again.unchanged.len()), (JobState::Done, 0, 2));
    world.room.with("n1", |metal| assert_eq!(metal.verbs.len(), verbs.len()));
    world.stop().await;
}

/// When the appliance dies.
struct Death {
    /// After so many commits, and whether the last of them is kept.
    commits: i64,
    last_is_kept: bool,
    /// Or right after this verb.
    verb: Option<u32>,
    /// How slow the BMCs are.
    slow: Duration,
}

/// Lets the appliance die once, and checks that the job ends well all the same.
/// Says whether it died at all.
async fn dies_once(meta: &Arc<dyn Meta>, rack: String, death: Death) -> bool {
    let Death { commits, last_is_kept, verb, slow } = death;
    let odd = || Oddity { slow, ..good() };
    let mut world = World::on(meta.clone(), &rack, &[("n1", odd()), ("n2", odd())], commits, last_is_kept).await;
    // An agent that asks for a second order in the wink between its report and its power-off is refused, and stays on.
    world.spec.timeouts.off = Duration::from_millis(300);
    if let Some(verb) = verb {
        world.room.arm(verb, world.fuse.clone());
    }
    let mut job = world.conductor.apply(world.spec.clone(), &[]).await.ok();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut died = false;
    loop {
        if world.fuse.is_blown() {
            died = true;
            world.restart().await;
            // A job that died with its first commit may or may not have been begun: whoever applied it looks, or tries
            // again.
            if job.is_none() {
                let begun = world.conductor.jobs(None, 100).await.unwrap().into_iter().find(|view| view.rack == rack);
                job = match begun {
                    Some(view) => Some(view.id),
                    None => Some(world.conductor.apply(world.spec.clone(), &[]).await.unwrap()),
                };
            }
        }
        let view = world.conductor.job(job.unwrap()).await;
        if let Ok(view) = view
            && view.ended.is_some()
        {
            assert_eq!(view.state, JobState::Done, "{rack}: {view:#?}");
            break;
        }
        assert!(Instant::now() < deadline, "{rack}: the job is stuck");
        sleep(Duration::from_millis(2)).await;
    }
    for node in ["n1", "n2"] {
        world.room.with(node, |metal| {
            assert_eq!(metal.cut_while_writing, 0, "{rack} {node}: {:?}", metal.verbs);
            assert_eq!(metal.orders, 1, "{rack} {node}: the disk was written twice: {:?}", metal.verbs);
            assert_eq!(metal.media, None, "{rack} {node}");
            let starts = metal.verbs.iter().filter(|verb| *verb == "on").count();
            assert_eq!(starts, 2, "{rack} {node}: started more often than needed: {:?}", metal.verbs);
            assert!(metal.on, "{rack} {node}");
        });
        let row = world.conductor.journal().node(&rack, &name(node)).await.unwrap().unwrap();
        assert!(row.holds.is_some() && row.quarantine.is_none(), "{rack} {node}: {row:?}");
        let holder = world.conductor.journal().holder(&world.spec.node(&name(node)).unwrap().identity()).await;
        assert_eq!(holder.unwrap(), None);
    }
    world.stop().await;
    died
}

#[tokio::test]
async fn survives_death_at_every_commit() {
    let folder = tempfile::tempdir().unwrap();
    let meta = Embedded::open(folder.path()).unwrap();
    for last_is_kept in [false, true] {
        let mut commit = 0;
        let death = |commits| Death { commits, last_is_kept, verb: None, slow: Duration::ZERO };
        while dies_once(&meta, format!("c{commit}-{last_is_kept}"), death(commit)).await {
            commit += 1;
        }
        assert!(commit > 20, "the job has only {commit} commits: the crash points do not cover it");
    }
}

#[tokio::test]
async fn survives_death_after_every_verb() {
    let folder = tempfile::tempdir().unwrap();
    let meta = Embedded::open(folder.path()).unwrap();
    // With slow BMCs, the agent has done its work and is gone before the new appliance has looked at the node's power.
    for slow in [Duration::ZERO, Duration::from_millis(150)] {
        let mut verb = 0;
        let death = |verb| Death { commits: NEVER, last_is_kept: true, verb: Some(verb), slow };
        while dies_once(&meta, format!("v{verb}-{}", slow.as_millis()), death(verb)).await {
            verb += 1;
        }
        assert!(verb >= 14, "two nodes take 14 verbs, not {verb}");
    }
}

#[tokio::test]
async fn fails_with_a_cause_and_leaves_the_node_safe() {
    for (odd, cause, on) in [
        (Oddity { agent_fails: Some(("chunk 7 of pack ab is damaged", false)), ..good() }, "chunk 7 of pack ab", false),
        (Oddity { wrong_digest: true, ..good() }, "reads back as", false),
        (Oddity { no_agent: 9, ..good() }, "never asked for its order", false),
        (Oddity { silent: true, ..good() }, "has been silent", false),
        (Oddity { stale_system: true, ..good() }, "it runs old@0", true),
        (Oddity { no_boot: 9, ..good() }, "did not report in", true),
        (Oddity { no_media: true, ..good() }, "BMC: unsupported", false),
        (Oddity { flaky: 900, ..good() }, "the last error: BMC: unreachable", true),
    ] {
        let mut world = World::new(&[("n1", odd.clone()), ("n2", good())]).await;
        hurry(&mut world.spec, &odd);
        let view = world.apply().await;
        assert_eq!(view.state, JobState::Failed, "{odd:?}");
        let failed = &view.nodes[0];
        assert_eq!((failed.state, view.nodes[1].state), (TaskState::Failed, TaskState::Imaged), "{odd:?}");
        let error = failed.error.as_ref().unwrap();
        assert!(error.message.contains(cause), "{cause}: {error:?}");
        assert!(!error.hint.is_empty());
        world.room.with("n1", |metal| {
            assert_eq!(metal.on, on, "{odd:?} {:?}", metal.verbs);
            assert_eq!((&metal.media, metal.led), (&None, odd.flaky == 0), "{odd:?}");
        });
        let kept = world.conductor.evidence(view.id, &name("n1")).await.unwrap().unwrap();
        assert!(kept["requests"].is_array() && kept["task"]["error"].is_object(), "{odd:?}: {kept:?}");
        assert!(kept["task"]["secret"].is_null(), "what tokens are made from was written down");
        assert!(failed.notes.iter().any(|note| note.contains("what is known of it is in")), "{failed:#?}");
        assert!(world.conductor.evidence(view.id, &name("n2")).await.unwrap().is_none());
        let row = world.conductor.journal().node("rack", &name("n1")).await.unwrap().unwrap();
        assert!(row.holds.is_none() && row.quarantine.unwrap().cause.message.contains(cause), "{odd:?}");
        // Mended, it is imaged by the next job, and no longer set aside.
        world.room.with("n1", |metal| metal.odd = good());
        let view = world.apply().await;
        assert_eq!((view.state, view.nodes.len()), (JobState::Done, 1), "{view:#?}");
        let row = world.conductor.journal().node("rack", &name("n1")).await.unwrap().unwrap();
        assert!(row.holds.is_some() && row.quarantine.is_none());
        world.stop().await;
    }
}

#[tokio::test]
async fn who_has_spoken_is_not_waited_for() {
    let world = World::new(&[("n1", Oddity { blind: true, ..good() }), ("n2", good())]).await;
    let view = world.apply().await;
    assert_eq!(view.state, JobState::Done, "{view:#?}");
    world.room.with("n1", |metal| assert_eq!(metal.verbs.iter().filter(|verb| *verb == "on").count(), 2));
    world.stop().await;
}

#[tokio::test]
async fn bios_settings_are_made_with_the_image() {
    let wanted: BTreeMap<String, String> = [("Sriov".to_owned(), "Enabled".to_owned())].into();
    for deaf in [false, true] {
        let mut world = World::new(&[("n1", Oddity { deaf_bios: deaf, ..good() })]).await;
        world.spec.nodes[0].bios.clone_from(&wanted);
        world.spec.timeouts.bmc = Duration::from_millis(700);
        let view = world.apply().await;
        let node = &view.nodes[0];
        let (verbs, bios) = world.room.with("n1", |metal| (metal.verbs.clone(), metal.bios.clone()));
        assert_eq!(verbs[..2], ["off", "bios"], "ordered before the start that the image needs");
        if deaf {
            assert_eq!(node.state, TaskState::Failed, "{node:#?}");
            assert!(node.error.as_ref().unwrap().message.contains("did not take what it was told: Sriov"), "{node:#?}");
        } else {
            assert_eq!((node.state, bios), (TaskState::Imaged, wanted.clone()), "{node:#?}");
            assert_eq!(verbs.iter().filter(|verb| *verb == "on").count(), 2, "no start of its own");
        }
        world.stop().await;
    }
}

#[tokio::test]
async fn gets_over_what_passes() {
    for (odd, restarts) in [
        (Oddity { flaky: 3, ..good() }, 0),
        (Oddity { power_cut: true, ..good() }, 1),
        (Oddity { no_agent: 1, ..good() }, 1),
        (Oddity { no_boot: 1, ..good() }, 1),
        (Oddity { stays_on: true, ..good() }, 0),
    ] {
        let mut world = World::new(&[("n1", odd.clone())]).await;
        hurry(&mut world.spec, &odd);
        let view = world.apply().await;
        assert_eq!(view.state, JobState::Done, "{odd:?}: {view:#?}");
        assert_eq!((view.nodes[0].restarts, view.nodes[0].notes.len()), (restarts, restarts as usize), "{odd:?}");
        world.stop().await;
    }
}

#[tokio::test]
async fn an_untouched_disk_still_holds_what_it_held() {
    let mut world = World::new(&[("n1", good())]).await;
    assert_eq!(world.apply().await.state, JobState::Done);
    world.spec = spec("rack", &["n1"], "other@1");
    world.room.with("n1", |metal| metal.odd.agent_fails = Some(("no disk fits", true)));
    assert_eq!(world.apply().await.state, JobState::Failed);
    let row = world.conductor.journal().node("rack", &name("n1")).await.unwrap().unwrap();
    assert_eq!(row.holds.unwrap().image, "node@1".parse().unwrap());
    assert!(row.quarantine.is_some());
    world.stop().await;
}

#[tokio::test]
async fn one_job_a_machine_and_cancelling_frees_it() {
    let world = World::new(&[("n1", Oddity { silent: true, ..good() }), ("n2", good())]).await;
    let job = world.conductor.apply(world.spec.clone(), &[name("n1")]).await.unwrap();
    // The same machine under another name, in another rack.
    let mut other = spec("other", &["n1"], "node@1");
    other.nodes[0].bmc = world.spec.nodes[0].bmc.clone();
    for spec in [&world.spec, &other] {
        let refused = world.conductor.apply(spec.clone(), &[]).await.unwrap_err();
        assert_eq!(refused.kind(), "busy");
        assert!(refused.to_string().contains(&job.to_string()), "{refused}");
    }
    while world.room.with("n1", |metal| metal.orders) == 0 {
        sleep(Duration::from_millis(2)).await;
    }
    world.conductor.cancel(job).await.unwrap();
    let view = world.over(job).await;
    assert_eq!((view.state, view.nodes[0].state), (JobState::Cancelled, TaskState::Cancelled));
    world.room.with("n1", |metal| {
        assert!(!metal.on && metal.media.is_none() && !metal.led);
        metal.odd = good();
    });
    let row = world.conductor.journal().node("rack", &name("n1")).await.unwrap().unwrap();
    assert!(row.quarantine.is_none() && row.holds.is_none());
    assert_eq!(world.apply().await.state, JobState::Done);
    world.stop().await;
}

#[tokio::test]
async fn believes_only_what_fits() {
    // Its agent never comes up: the test speaks for it.
    let mut world = World::new(&[("n1", Oddity { no_agent: 1, ..good() })]).await;
    world.spec.timeouts.off = Duration::from_millis(300);
    let desk = &world.conductor;
    let job = desk.apply(world.spec.clone(), &[]).await.unwrap();
    while world.room.with("n1", |metal| metal.verbs.len()) < 4 {
        sleep(Duration::from_millis(2)).await;
    }
    let url = world.room.with("n1", |metal| metal.media.clone()).unwrap();
    let id = url.rsplit('/').nth(1).unwrap().to_owned();
    let region = desk.boot_region(&id).await.unwrap();
    let token = region.token.as_str();
    let booted = Booted {
        image: "node@1".parse().unwrap(),
        hostname: "n1".to_owned(),
        root_device: "/dev/sda2".to_owned(),
        boot_id: "x".to_owned(),
    };
    // No token opens another door than its own.
    for wrong in [id.as_str(), token, "", &"0".repeat(64)] {
        assert!(matches!(desk.booted(wrong, booted.clone()).await, Err(AgentError::Unknown)));
    }
    assert!(matches!(desk.order(&id).await, Err(AgentError::Unknown)));
    assert!(matches!(desk.boot_region(token).await, Err(AgentError::Unknown)));
    // The order may be fetched again; a boot is not believed before the installation.
    let order = desk.order(token).await.unwrap();
    assert_eq!(desk.order(token).await.unwrap(), order);
    assert_eq!(desk.pull_image(token).await.unwrap(), order.image);
    assert!(desk.pull_image(&order.boot_token).await.is_err());
    assert!(matches!(desk.booted(&order.boot_token, booted.clone()).await, Err(AgentError::Refused(_))));
    let progress = Progress { phase: Phase::Write, bytes_done: 5, bytes_total: 9 };
    desk.progress(token, progress.clone()).await.unwrap();
    let seen = desk.job(job).await.unwrap();
    assert_eq!((seen.nodes[0].bytes_done, seen.nodes[0].bytes_total), (5, 9));
    let installed = crate::format::order::Installed {
        disk: "/dev/sda".to_owned(),
        disk_serial: None,
        bytes_fetched: 1,
        bytes_reused: 0,
        bytes_written: 1,
        bytes_zero: 0,
        seconds: 1.0,
        root_digest: order.root_digest,
    };
    let report = crate::format::order::Report::Installed(installed);
    desk.report(token, report.clone()).await.unwrap();
    desk.report(token, report).await.unwrap();
    // After the report nothing of the installation is open any more.
    assert!(matches!(desk.order(token).await, Err(AgentError::Refused(_))));
    assert!(matches!(desk.progress(token, progress).await, Err(AgentError::Refused(_))));
    assert!(desk.pull_image(token).await.is_err());
    world.room.with("n1", |metal| metal.disk = Some(("node@1".parse().unwrap(), order.boot_token.clone())));
    assert_eq!(world.over(job).await.state, JobState::Done);
    // With the job its tokens are gone; only the very same last word is still answered.
    assert!(matches!(desk.order(token).await, Err(AgentError::Unknown)));
    assert!(matches!(desk.boot_region(&id).await, Err(AgentError::Unknown)));
    assert!(matches!(desk.booted(&order.boot_token, booted).await, Err(AgentError::Unknown)));
    let said = desk.job(job).await.unwrap().nodes[0].booted.clone().unwrap();
    desk.booted(&order.boot_token, said).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn touches_nothing_where_a_node_has_a_problem() {
    for (odd, image, kind, words) in [
        (Oddity { refuses: Some("pin-changed"), ..good() }, "node@1", "pin-changed", "BMC: pin-changed"),
        (Oddity { refuses: Some("wrong-password"), ..good() }, "node@1", "node-problem", "BMC: wrong-password"),
        (Oddity { refuses: Some("unreachable"), ..good() }, "node@1", "node-problem", "BMC: unreachable"),
        (Oddity { drives: vec!["S1", "S1"], ..good() }, "node@1", "refused", "2 drives fit"),
        (Oddity { drives: vec!["S2"], ..good() }, "node@1", "refused", "no drive fits"),
        (good(), "node@2", "node-problem", "not in the catalogue"),
    ] {
        let mut world = World::new(&[("n1", good()), ("n2", odd)]).await;
        world.spec = spec("rack", &["n1", "n2"], image);
        let planned = world.conductor.plan(&world.spec, &[]).await.unwrap_err();
        let applied = world.conductor.apply(world.spec.clone(), &[]).await.unwrap_err();
        for error in [planned, applied] {
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(words) && !error.hint().is_empty(), "{error}");
        }
        assert!(world.conductor.jobs(None, 100).await.unwrap().is_empty());
        for node in ["n1", "n2"] {
            world.room.with(node, |metal| assert!(metal.verbs.is_empty()));
        }
        world.stop().await;
    }
}

#[tokio::test]
async fn a_failed_canary_leaves_the_others_as_they_were() {
    let silent = Oddity { agent_fails: Some(("the disk is gone", false)), ..good() };
    let mut world = World::new(&[("n1", silent), ("n2", good()), ("n3", good())]).await;
    world.spec.canaries = 1;
    let view = world.apply().await;
    assert_eq!(view.state, JobState::Failed, "{view:#?}");
    let states: Vec<TaskState> = view.nodes.iter().map(|node| node.state).collect();
    assert_eq!(states, [TaskState::Failed, TaskState::Cancelled, TaskState::Cancelled]);
    for (index, node) in ["n2", "n3"].into_iter().enumerate() {
        world.room.with(node, |metal| assert!(metal.verbs.is_empty() && metal.on, "{node} was touched"));
        assert!(view.nodes[index + 1].notes.iter().any(|note| note.contains("canary n1 failed")), "{view:#?}");
    }
    // What was left alone is worked on by the next job.
    world.room.with("n1", |metal| metal.odd = good());
    assert_eq!(world.apply().await.state, JobState::Done);
    world.stop().await;
}

#[tokio::test]
async fn the_others_begin_when_the_canaries_run_their_image() {
    let mut world = World::new(&[("n1", Oddity { no_agent: 1, ..good() }), ("n2", good()), ("n3", good())]).await;
    world.spec.canaries = 1;
    world.spec.timeouts.post = Duration::from_millis(700);
    let job = world.conductor.apply(world.spec.clone(), &[]).await.unwrap();
    while world.room.with("n1", |metal| metal.orders) == 0 {
        for node in ["n2", "n3"] {
            world.room.with(node, |metal| assert!(metal.verbs.is_empty(), "{node} did not wait"));
        }
        sleep(Duration::from_millis(2)).await;
    }
    // It waits again after the appliance died.
    world.restart().await;
    assert_eq!(world.over(job).await.state, JobState::Done);
    world.stop().await;
}

#[tokio::test]
async fn too_many_failures_stop_the_job_and_feeds_are_not_overloaded() {
    let bad = || Oddity { agent_fails: Some(("the disk is gone", false)), ..good() };
    let mut world = World::new(&[("n1", bad()), ("n2", bad()), ("n3", bad()), ("n4", bad())]).await;
    (world.spec.parallel, world.spec.stop_after) = (1, Some(2));
    let view = world.apply().await;
    let of = |state: TaskState| view.nodes.iter().filter(move |node| node.state == state);
    assert_eq!((of(TaskState::Failed).count(), of(TaskState::Cancelled).count()), (2, 2), "{view:#?}");
    for node in of(TaskState::Cancelled) {
        assert!(node.notes.iter().any(|note| note.contains("stop-after is 2")), "{node:#?}");
        world.room.with(node.node.as_str(), |metal| assert!(metal.verbs.is_empty(), "it was touched"));
    }
    world.stop().await;

    let mut world = World::new(&[("n1", good()), ("n2", good()), ("n3", good())]).await;
    world.spec.parallel_per_feed = Some(1);
    for node in &mut world.spec.nodes {
        node.feed = Some("A".to_owned());
    }
    let job = world.conductor.apply(world.spec.clone(), &[]).await.unwrap();
    loop {
        let view = world.conductor.job(job).await.unwrap();
        let busy =
            view.nodes.iter().filter(|node| node.state == TaskState::Running && node.step > Step::PowerOff).count();
        assert!(busy <= 1, "{view:#?}");
        if view.state != JobState::Running {
            assert_eq!(view.state, JobState::Done);
            break;
        }
        sleep(Duration::from_millis(2)).await;
    }
    world.stop().await;
}

#[tokio::test]
async fn a_paused_job_begins_no_other_node_until_it_goes_on() {
    let mut world = World::new(&[("n1", good()), ("n2", good())]).await;
    world.spec.parallel = 1;
    let job = world.conductor.apply(world.spec.clone(), &[]).await.unwrap();
    assert!(world.conductor.pause(job, true).await.unwrap().paused);
    let began = |world: &World| world.room.with("n2", |metal| !metal.verbs.is_empty());
    // An appliance that is started again keeps the pause; what was begun goes on.
    world.restart().await;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let view = world.conductor.job(job).await.unwrap();
        assert!(view.paused && view.state == JobState::Running, "{view:#?}");
        // Which of the two had begun when it was paused is chance: none, or one.
        let queued = view.nodes.iter().filter(|node| node.state == TaskState::Queued).count();
        let busy = view.nodes.iter().any(|node| node.state == TaskState::Running);
        assert!(queued >= 1 && !began(&world) || view.nodes[1].state != TaskState::Queued, "{view:#?}");
        if !busy {
            break;
        }
        assert!(Instant::now() < deadline, "{view:#?}");
        sleep(Duration::from_millis(5)).await;
    }
    sleep(Duration::from_millis(50)).await;
    assert!(world.conductor.job(job).await.unwrap().nodes.iter().any(|node| node.state == TaskState::Queued));
    assert!(!world.conductor.pause(job, false).await.unwrap().paused);
    assert_eq!(world.over(job).await.state, JobState::Done);
    // One that is cancelled while it is paused is over, and nobody waits for a turn any more.
    world.spec = spec("other", &["n1", "n2"], "node@1");
    for node in &mut world.spec.nodes {
        node.bmc = crate::rack::spec::BmcAddress::Url(format!("https://{}.other", node.name));
    }
    world.spec.parallel = 1;
    let second = world.conductor.apply(world.spec.clone(), &[]).await.unwrap();
    world.conductor.pause(second, true).await.unwrap();
    world.conductor.cancel(second).await.unwrap();
    assert!(!world.over(second).await.paused);
    let deadline = Instant::now() + Duration::from_secs(30);
    while ["n1", "n2"].iter().any(|node| world.conductor.is_taken_up(second, &name(node))) {
        assert!(Instant::now() < deadline, "somebody waits for ever");
        sleep(Duration::from_millis(5)).await;
    }
    let refused = world.conductor.pause(job, true).await.unwrap_err();
    assert_eq!(refused.kind(), "conflict", "{refused}");
    world.stop().await;
}
