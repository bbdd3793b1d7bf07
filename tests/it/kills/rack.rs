//! An appliance is killed while it images twenty simulated nodes, whose agents and systems talk to its real ports: every job ends
//! right, no node is started, given its medium, or imaged more often than without kills, each is told the user data that its job began
//! with, whatever becomes of the file, and no session stays open at a BMC.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bedplate::bmc::twin::{Tally, Twin};
use bedplate::sys::worker::Workers;
use serde_json::Value;

use super::{chance, kills};
use crate::support::Server;
use crate::support::simulated::{Nodes, appliance_with_images, rack, write_spec};

const NODES: usize = 20;
/// How long one job may take, with all its kills.
const JOB_LIMIT: Duration = Duration::from_secs(600);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// For the answer to a report to reach its node.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The file of user data, beside the spec.
const USER_DATA: &str = "first-start";

/// What stands in it for one round's job.
fn user_data(round: u64) -> String {
    format!("#!/bin/sh\n# of round {round}\n")
}

/// One appliance that is killed, so often.
struct Killed {
    server: Server,
    left: u64,
    starts: Vec<Duration>,
}

impl Killed {
    /// Kills it after a while, and starts it again.
    fn kill(&mut self) {
        std::thread::sleep(Duration::from_millis(chance(2_500)));
        self.left -= 1;
        self.server.kill();
        std::thread::sleep(Duration::from_millis(chance(300)));
        let began = Instant::now();
        self.server.restart();
        self.starts.push(began.elapsed());
    }

    /// Applies the spec, and answers the job when it is over.
    fn play(&mut self, deadline: Instant) -> Value {
        let before: Value = self.server.json(&["rack", "jobs"]);
        let before = before.as_array().unwrap().len();
        let spec = self.server.path("rack.toml");
        let spec = spec.to_str().unwrap();
        loop {
            let mut apply = self.server.program();
            apply
                .args(["rack", "apply", spec, "--yes"])
                .stdout(Stdio::null())
                .stderr(std::fs::File::create(self.server.path("apply.log")).unwrap());
            let mut apply = Background(apply.spawn().unwrap());
            // One time in a few the appliance dies over the request itself.
            let over = self.left > 0 && chance(3) == 0;
            if over {
                self.kill();
            }
            drop(apply.0.wait());
            loop {
                assert!(Instant::now() < deadline, "the job is not over: {}", self.server.log());
                let jobs = self.server.json(&["rack", "jobs"]);
                let jobs = jobs.as_array().unwrap();
                if jobs.len() == before {
                    break;
                }
                assert_eq!(jobs.len(), before + 1, "two jobs for one request");
                // What the job began with is its own.
                std::fs::write(self.server.path(USER_DATA), "#!/bin/sh\n# of another job\n").unwrap();
                if jobs[0]["state"] != "running" {
                    return jobs[0].clone();
                }
                match self.left {
                    0 => std::thread::sleep(Duration::from_millis(200)),
                    _ => self.kill(),
                }
            }
            // The request was lost before the job was journalled.
            assert!(
                over || self.left > 0,
                "apply began no job: {:?} {}",
                std::fs::read_to_string(self.server.path("apply.log")),
                self.server.log()
            );
        }
    }
}

/// A child that is ended whatever happens.
struct Background(std::process::Child);

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Waits until no session is open at any BMC.
fn no_session_stays(server: &Server, twins: &[Twin], why: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let open: usize = twins.iter().map(|twin| twin.tally().sessions).sum();
        if open == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{open} sessions are open {why}: {}", server.log());
        std::thread::sleep(PAUSE);
    }
}

fn judge(job: &Value, image: &str, twins: &[Twin], before: &[Tally], nodes: &Nodes, round: u64) {
    assert_eq!(job["state"], "done", "{job:#}");
    let tasks = job["nodes"].as_array().unwrap();
    assert_eq!(tasks.len(), NODES, "{job:#}");
    for (task, (twin, before)) in tasks.iter().zip(twins.iter().zip(before)) {
        let name = task["node"].as_str().unwrap();
        let tally = twin.tally();
        assert_eq!((&task["state"], &task["restarts"]), (&"imaged".into(), &0.into()), "{task:#}");
        assert_eq!(tally.starts - before.starts, 2, "{name} was started more or less than twice: {task:#}");
        assert_eq!(tally.inserts - before.inserts, 1, "{name} was given its medium again: {task:#}");
        assert!(tally.connections_peak <= 2, "{} connections to {name}", tally.connections_peak);
        // A system counts its start when its report is answered, and the job ends when that is journalled: a little earlier.
        let deadline = Instant::now() + ANSWER_LIMIT;
        while nodes.disk(name, |disk| disk.boots) < round && Instant::now() < deadline {
            std::thread::sleep(PAUSE);
        }
        let disk = nodes.disk(name, |disk| disk.clone());
        assert_eq!((disk.writes, disk.boots), (round, round), "{name} was imaged or started more than once");
        assert!(disk.was_told(&user_data(round)), "{name} was not told the user data of its job");
        assert_eq!(disk.image.unwrap().to_string(), image, "{name}");
    }
}

#[test]
fn a_rack_is_imaged_once_however_often_the_appliance_dies() {
    bedplate::sys::wire::install_crypto();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (nodes, workers) = (Arc::new(Nodes::default()), runtime.block_on(async { Workers::new() }));
    let twins = runtime.block_on(rack(NODES, &nodes, &workers));
    let mut killed = Killed { server: appliance_with_images(), left: kills(), starts: vec![] };
    let mut round = 0;
    while killed.left > 0 {
        round += 1;
        let image = format!("os@{}", 1 + round % 2);
        write_spec(&killed.server, &twins, &image);
        let spec = std::fs::read_to_string(killed.server.path("rack.toml")).unwrap();
        let spec = spec.replace("[install]\n", &format!("[install]\nuser-data = \"{USER_DATA}\"\n"));
        std::fs::write(killed.server.path("rack.toml"), spec).unwrap();
        std::fs::write(killed.server.path(USER_DATA), user_data(round)).unwrap();
        let before: Vec<Tally> = twins.iter().map(Twin::tally).collect();
        let job = killed.play(Instant::now() + JOB_LIMIT);
        judge(&job, &image, &twins, &before, &nodes, round);
        no_session_stays(&killed.server, &twins, "after a job");
    }
    assert_eq!(killed.server.stop(), Some(0));
    no_session_stays(&killed.server, &twins, "after the last stop");
    let requests: u64 = twins.iter().map(|twin| twin.tally().requests).sum();
    let slowest = killed.starts.iter().max().unwrap();
    eprintln!(
        "{} kills over {round} jobs of {NODES} nodes; {requests} requests; the slowest start took {:.2} s",
        killed.starts.len(),
        slowest.as_secs_f64()
    );
    runtime.block_on(workers.stop());
}
