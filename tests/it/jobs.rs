//! Jobs on a simulated rack, as people and programs see them: the events of `rack apply --output json` tell each step of each node once and end with the job;
//! a paused job begins no other node; the full screen, on a real pseudo-terminal, shows the rack, obeys its keys, and leaves the
//! terminal as it was; what is known of a failed node is kept; BIOS settings go with an image.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bedplate::sys::worker::Workers;
use serde_json::Value;

use crate::support::Server;
use crate::support::simulated::{Nodes, PASSWORD, PASSWORD_ENV, appliance_with_images, rack, write_spec};

/// All that one test needs; what it started ends with it.
struct Scene {
    server: Server,
    spec: String,
    runtime: tokio::runtime::Runtime,
    workers: Option<Workers>,
    nodes: Arc<Nodes>,
}

impl Scene {
    fn of(count: usize) -> Self {
        bedplate::sys::wire::install_crypto();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (nodes, workers) = (Arc::new(Nodes::default()), runtime.block_on(async { Workers::new() }));
        let twins = runtime.block_on(rack(count, &nodes, &workers));
        let server = appliance_with_images();
        write_spec(&server, &twins, "os@1");
        let spec = server.path("rack.toml").display().to_string();
        Self { server, spec, runtime, workers: Some(workers), nodes }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(workers) = self.workers.take() {
            self.runtime.block_on(workers.stop());
        }
    }
}

#[test]
fn events_tell_each_step_once() {
    let scene = Scene::of(3);
    let told = scene.server.run(&["--output", "json", "rack", "apply", &scene.spec, "--yes", "--wait"]);
    let events: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().all(|event| event["version"] == 1 && event["job"] == events[0]["job"]), "{told}");
    assert_eq!((&events[0]["event"], &events[0]["nodes"].as_array().unwrap().len()), (&"job-began".into(), &3));
    let last = events.last().unwrap();
    assert_eq!((&last["event"], &last["state"], &last["imaged"]), (&"job-ended".into(), &"done".into(), &3.into()));
    for node in ["node-00", "node-01", "node-02"] {
        let of = |kind: &str| events.iter().filter(|e| e["node"] == node && e["event"] == kind).collect::<Vec<_>>();
        let steps: Vec<&str> = of("step").iter().map(|event| event["step"].as_str().unwrap()).collect();
        let all = ["power-off", "insert-media", "boot-media", "power-on", "install", "wait-off", "eject-media"];
        assert_eq!(steps, [&all[..], &["boot-disk", "start-disk", "boot"]].concat(), "{node}");
        assert_eq!(of("node-ended")[0]["state"], "imaged");
    }
    // The job is over: the watch tells it again from its begin, and ends.
    let again = scene.server.run(&["--output", "json", "rack", "watch", &scene.spec]);
    assert_eq!(again.lines().count(), 1 + 3 * 11 + 1, "{again}");
    let human = scene.server.program().args(["rack", "watch", &scene.spec]).output().unwrap();
    assert!(human.status.success() && String::from_utf8_lossy(&human.stderr).contains("node-02: imaged"));
}

#[test]
fn bios_settings_go_with_an_image() {
    let scene = Scene::of(2);
    let spec = std::fs::read_to_string(&scene.spec).unwrap();
    // The second node keeps what it has.
    let spec =
        spec.replace("[[node]]\nname = \"node-01\"", "[[node]]\nbios = { BootMode = \"Uefi\" }\nname = \"node-01\"");
    let with = |spec: &str, bios: &str| spec.replace("[install]", &format!("[bios]\n{bios}\n[install]"));
    std::fs::write(&scene.spec, with(&spec, "NoSuchSetting = 7")).unwrap();
    let refused = scene.server.program().args(["rack", "plan", &scene.spec]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("NoSuchSetting: there is none"), "{said}");
    std::fs::write(&scene.spec, with(&spec, "BootMode = \"LegacyBios\"")).unwrap();
    let plan = scene.server.json(&["rack", "plan", &scene.spec]);
    let changes = |node: usize| plan["nodes"][node]["changes"].to_string();
    assert!(changes(0).contains("BIOS BootMode: Uefi -> LegacyBios") && !changes(1).contains("BIOS"), "{plan:#}");
    assert_eq!(plan["nodes"][0]["reboots"], 2);
    let told = scene.server.run(&["--output", "json", "rack", "apply", &scene.spec, "--yes", "--wait"]);
    for step in ["set-bios", "check-bios"] {
        assert_eq!(told.matches(&format!("\"step\":\"{step}\"")).count(), 2, "{told}");
    }
    let url = spec.lines().find_map(|line| line.strip_prefix("bmc = \"")).unwrap().trim_end_matches('"').to_owned();
    let bios = ["bmc", "bios", &url, "--username", "admin", "--password-env", PASSWORD_ENV, "--output", "json"];
    let shown = scene.server.program().env(PASSWORD_ENV, PASSWORD).args(bios).output().unwrap();
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["attributes"]["BootMode"], "LegacyBios", "{shown:#}");
    // What differs on a node that needs nothing else waits for its next image, and is told.
    std::fs::write(&scene.spec, with(&spec, "BootMode = \"Uefi\"")).unwrap();
    let later = scene.server.json(&["rack", "plan", &scene.spec]);
    assert_eq!((&later["changes"], later["nodes"][0]["later"].as_array().unwrap().len()), (&0.into(), 1), "{later:#}");
}

/// User data goes with its job, whatever becomes of the file, and is shown nowhere but in the node's seed.
#[test]
fn user_data_goes_with_its_job_and_is_not_shown() {
    let scene = Scene::of(1);
    let file = scene.server.path("first-start");
    let spec = std::fs::read_to_string(&scene.spec).unwrap();
    let spec = spec.replace("[install]\n", "[install]\nuser-data = \"first-start\"\n");
    std::fs::write(&scene.spec, &spec).unwrap();
    let text = "#!/bin/sh\necho hunter2\n";
    std::fs::write(&file, text).unwrap();
    // What `printf '#!/bin/sh\necho hunter2\n' | sha256sum` prints.
    let sum = "03b9e007c8f75ad7a4012fa23a67d1911ec2920d078be11b60b21dfcf65a9ee3";
    let plan = scene.server.run(&["rack", "plan", &scene.spec]);
    assert!(plan.contains(&format!("first-start (23 bytes, sha256 {sum})")), "{plan}");
    let mut shown = plan + &scene.server.run(&["--output", "json", "rack", "plan", &scene.spec]);
    shown += &scene.server.run(&["--output", "json", "rack", "apply", &scene.spec, "--yes", "--wait"]);
    assert!(scene.nodes.disk("node-00", |disk| disk.was_told(text)), "{shown}");
    for output in ["human", "json"] {
        shown += &scene.server.run(&["--output", output, "rack", "status", &scene.spec]);
    }
    // Another text is told, and waits for the next image.
    std::fs::write(&file, "#!/bin/sh\necho hunter2 again\n").unwrap();
    let later = scene.server.json(&["rack", "plan", &scene.spec]);
    assert_eq!(later["changes"], 0, "{later:#}");
    assert!(later["nodes"][0]["later"].to_string().contains("other user data"), "{later:#}");
    let next = spec.replace("os@1", "os@2") + "[timeouts]\ninstall = \"100ms\"\n";
    std::fs::write(&scene.spec, next).unwrap();
    let apply = ["--output", "json", "rack", "apply", &scene.spec, "--yes", "--wait"];
    let failed = String::from_utf8(scene.server.program().args(apply).output().unwrap().stdout).unwrap();
    let last: Value = serde_json::from_str(failed.lines().last().unwrap()).unwrap();
    assert_eq!(last["failed"], 1, "{failed}");
    let job = last["job"].as_str().unwrap();
    let evidence = scene.server.run(&["--output", "json", "rack", "evidence", job, "node-00"]);
    assert!(evidence.contains("user_data") && evidence.contains("root_digest"), "{evidence}");
    for told in [&shown, &failed, &evidence, &scene.server.log()] {
        assert!(!told.contains("hunter2"), "{told}");
    }
}

#[test]
fn what_is_known_of_a_failed_node_is_kept() {
    let scene = Scene::of(1);
    let spec = std::fs::read_to_string(&scene.spec).unwrap();
    std::fs::write(&scene.spec, format!("{spec}[timeouts]\ninstall = \"100ms\"\n")).unwrap();
    let told =
        scene.server.program().args(["--output", "json", "rack", "apply", &scene.spec, "--yes", "--wait"]).output();
    let told = String::from_utf8(told.unwrap().stdout).unwrap();
    let last: Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
    assert_eq!((&last["event"], &last["failed"]), (&"job-ended".into(), &1.into()), "{told}");
    let job = last["job"].as_str().unwrap();
    let into = scene.server.path("evidence");
    let files = scene.server.run(&["rack", "evidence", job, "node-00", "--into", into.to_str().unwrap()]);
    assert_eq!(files.lines().count(), 6, "{files}");
    let read = |name: &str| std::fs::read_to_string(into.join(name)).unwrap();
    let requests: Value = serde_json::from_str(&read("requests.json")).unwrap();
    let reset =
        |row: &Value| row["request"].as_str().unwrap().ends_with("ComputerSystem.Reset") && row["outcome"] == "204";
    assert!(requests.as_array().unwrap().iter().any(reset), "{requests:#}");
    let system: Value = serde_json::from_str(&read("system.json")).unwrap();
    assert_eq!(system["PowerState"], "On", "what it was like when it failed");
    let all: String = ["requests.json", "task.json", "system.json", "media.json"].map(read).concat();
    assert!(!all.contains(PASSWORD), "a password was written down");
    let nothing = scene.server.program().args(["rack", "evidence", job, "node-07"]).output().unwrap();
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("nothing is kept of node node-07"));
}

/// A program on a pseudo-terminal of its own.
struct Terminal {
    child: Child,
}

impl Terminal {
    /// Starts `bedplate` with these arguments; what it shows goes to `screen`.
    fn start(server: &Server, args: &str, screen: &Path) -> Self {
        let program = env!("CARGO_BIN_EXE_bedplate");
        let mut command = Command::new("script");
        for (name, value) in server.program().get_envs() {
            command.env(name, value.unwrap());
        }
        let line = format!("stty rows 24 cols 120; {program} {args}; echo ended $?; stty -a");
        command.args(["-qefc", &line]).arg(screen).env("TERM", "xterm-256color").env(PASSWORD_ENV, PASSWORD);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { child }
    }

    fn press(&mut self, keys: &str) {
        self.child.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What the screen has been given so far.
fn given(screen: &Path) -> Vec<u8> {
    let all = std::fs::read(screen).unwrap_or_default();
    // `script` writes a line of its own first.
    let start = all.iter().position(|byte| *byte == b'\n').map_or(all.len(), |end| end + 1);
    all[start..].to_vec()
}

/// Waits until the screen shows this, and answers all that it shows.
fn shows(screen: &Path, text: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let mut parser = vt100::Parser::new(24.try_into().unwrap(), 120.try_into().unwrap(), 0);
        parser.process(&given(screen));
        let shown = parser.screen().contents();
        if shown.contains(text) {
            return shown;
        }
        assert!(Instant::now() < deadline, "{text:?} is not shown:\n{shown}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_full_screen_shows_the_rack_and_obeys_its_keys() {
    // One after the other: however slow this machine is, some have not begun when the pause comes.
    let scene = Scene::of(12);
    let screen = scene.server.path("screen");
    let mut terminal = Terminal::start(&scene.server, &format!("rack watch {}", scene.spec), &screen);
    shows(&screen, "no job yet");
    let spec = std::fs::read_to_string(&scene.spec).unwrap().replace("parallel = 12", "parallel = 1");
    std::fs::write(&scene.spec, spec).unwrap();
    scene.server.run(&["rack", "apply", &scene.spec, "--yes"]);
    shows(&screen, "1 running");
    terminal.press("p");
    shows(&screen, "paused: nodes that were begun go on");
    // What was begun goes on, and no other is begun.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let job = scene.server.json(&["rack", "status", &scene.spec])["job"].clone();
        assert_eq!(job["paused"], true, "{job:#}");
        let count = |state: &str| job["nodes"].as_array().unwrap().iter().filter(|node| node["state"] == state).count();
        assert!(count("queued") > 0, "{job:#}");
        if count("queued") + count("imaged") == 12 {
            break;
        }
        assert!(Instant::now() < deadline, "{job:#}");
        std::thread::sleep(Duration::from_millis(100));
    }
    terminal.press("p");
    shows(&screen, "the job goes on");
    terminal.press("i");
    shows(&screen, "the light of node-00 is on");
    terminal.press("/02\r");
    shows(&screen, "(02)");
    terminal.press("\r");
    shows(&screen, "behind it");
    shows(&screen, "BMC: http://127.0.0.1:");
    terminal.press("q");
    let shown = shows(&screen, " icanon");
    assert!(shown.contains("ended 0") && !shown.contains("slot"), "the terminal was not given back:\n{shown}");
}
