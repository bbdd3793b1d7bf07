//! `bedplate rack watch`: the rack from top to bottom while a job works on it, until `q`.

mod board;
mod draw;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use self::board::{Action, Board, Key};
use super::follow::follow;
use super::{machines, read_spec, with_user_data};
use crate::cli::command::bmc::console::{Parting, attend, size};
use crate::cli::exit::{CliError, DONE, Exit, FAILED};
use crate::cli::{ApiClient, Context, Output};
use crate::job::{JobState, JobView, NodeRow};
use crate::model::NodeName;
use crate::rack::{JobRequest, MachineError, Machines, Spec, Started};
use crate::sys::clock;
use crate::sys::worker::Workers;

/// Between two looks at the appliance.
const EVERY: Duration = Duration::from_secs(1);
/// The last jobs of the rack, among which each node's newest part is found.
const JOBS_SHOWN: usize = 20;
/// How long a key is waited for before the picture is drawn anew.
const BLINK: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Keys: arrows or j and k choose a node, Enter shows what is behind it, / filters by name, state or step, i switches the \
                        node's light and c shows its serial console (with the spec's credentials, from this machine), r applies the spec to a failed node again, p pauses the \
                        job or lets it go on, q quits. Where standard output is no terminal, the newest job is followed line by line."
)]
pub(super) struct WatchArgs {
    /// The spec
    spec: PathBuf,
}

pub(super) async fn run(args: WatchArgs, context: &Context) -> Result<Exit, CliError> {
    let spec = read_spec(&args.spec, &[])?;
    let api = context.api()?;
    if context.output.is_json() || !std::io::stdout().is_terminal() {
        return follow_newest(&spec, &api, context).await;
    }
    let workers = Workers::new();
    let ended = watch(&spec, &api, &workers, &context.output).await;
    ratatui::restore();
    workers.stop().await;
    ended.map(|()| DONE)
}

async fn follow_newest(spec: &Spec, api: &ApiClient, context: &Context) -> Result<Exit, CliError> {
    let jobs: Vec<JobView> = api.get_json(&format!("/api/v1/jobs?rack={}&limit=1", spec.name)).await?;
    let Some(job) = jobs.into_iter().next() else {
        let message = format!("no job has worked on rack {} yet", spec.name);
        return Err(CliError::failed(message).hint("begin one with `bedplate rack apply`"));
    };
    let job = follow(api, job.id, context).await?;
    Ok(if job.state == JobState::Done { DONE } else { FAILED })
}

/// What an action changed.
enum Changed {
    Nothing,
    Light(NodeName, bool),
    Job(Box<JobView>),
}

/// What comes from outside.
enum News {
    Look(Vec<JobView>, Vec<NodeRow>),
    NoAnswer(String),
    /// What an action came to, and what it changed.
    Acted(String, Changed),
}

async fn watch(spec: &Spec, api: &ApiClient, workers: &Workers, output: &Output) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::because("show the rack on this terminal", &error);
    let (tell, mut news) = mpsc::channel(64);
    let (rack, asks, teller, stop) = (spec.name.clone(), api.clone(), tell.clone(), workers.token());
    workers.spawn("look", async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = keep_looking(&rack, &asks, &teller) => {}
        }
    });
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let mut board = Board::new(spec);
    let mut drawn: Option<Instant> = None;
    loop {
        while let Ok(news) = news.try_recv() {
            drawn = None;
            match news {
                News::Look(jobs, known) => board.look(&jobs, &known),
                News::NoAnswer(why) => board.no_answer(clock::now(), why),
                News::Acted(message, changed) => {
                    board.message = Some(message);
                    match changed {
                        Changed::Nothing => {}
                        Changed::Light(node, on) => board.lit(&node, on),
                        Changed::Job(job) => board.job = Some(*job),
                    }
                }
            }
        }
        // Its clocks tick.
        if drawn.is_none_or(|drawn| drawn.elapsed() >= EVERY) {
            terminal.draw(|frame| draw::draw(frame, &board, clock::now())).map_err(failed)?;
            drawn = Some(Instant::now());
        }
        let pressed = tokio::task::block_in_place(|| if event::poll(BLINK)? { read_key() } else { Ok(None) });
        let Some(key) = pressed.map_err(failed)? else { continue };
        drawn = None;
        match board.key(key) {
            None => {}
            Some(Action::Quit) => return Ok(()),
            Some(Action::Console(node)) => {
                // The screen is the machine's until the console is left.
                ratatui::restore();
                board.message = Some(console(spec, &node, output).await);
                terminal = ratatui::try_init().map_err(failed)?;
            }
            Some(action) => {
                board.message = Some("...".to_owned());
                let (spec, api, tell, stop) = (spec.clone(), api.clone(), tell.clone(), workers.token());
                workers.spawn("act", async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        // Nobody is left to tell when the watch has ended.
                        acted = act(&spec, &api, action) => drop(tell.send(acted).await),
                    }
                });
            }
        }
    }
}

fn read_key() -> std::io::Result<Option<Key>> {
    let Event::Key(pressed) = event::read()? else { return Ok(None) };
    if pressed.kind != KeyEventKind::Press {
        return Ok(None);
    }
    let control = pressed.modifiers.contains(KeyModifiers::CONTROL);
    Ok(match pressed.code {
        // The terminal is in raw mode: Ctrl-C is a key.
        KeyCode::Char('c') if control => Some(Key::Char('q')),
        KeyCode::Char(letter) if !control => Some(Key::Char(letter)),
        KeyCode::Up => Some(Key::Up),
        KeyCode::Down => Some(Key::Down),
        KeyCode::PageUp => Some(Key::PageUp),
        KeyCode::PageDown => Some(Key::PageDown),
        KeyCode::Home => Some(Key::Home),
        KeyCode::End => Some(Key::End),
        KeyCode::Enter => Some(Key::Enter),
        KeyCode::Esc => Some(Key::Escape),
        KeyCode::Backspace => Some(Key::Backspace),
        _ => None,
    })
}

async fn keep_looking(rack: &str, api: &ApiClient, tell: &mpsc::Sender<News>) {
    let path = format!("/api/v1/jobs?rack={rack}&limit={JOBS_SHOWN}");
    loop {
        let look = async {
            let jobs: Vec<JobView> = api.get_json(&path).await?;
            let known: Vec<NodeRow> = api.get_json("/api/v1/nodes").await?;
            Ok::<_, CliError>(News::Look(jobs, known))
        };
        let news = look.await.unwrap_or_else(|error| News::NoAnswer(error.message));
        if tell.send(news).await.is_err() {
            return;
        }
        sleep(EVERY).await;
    }
}

async fn act(spec: &Spec, api: &ApiClient, action: Action) -> News {
    match action {
        Action::Quit | Action::Console(_) => News::Acted(String::new(), Changed::Nothing),
        Action::Identify(node, on) => match identify(spec, &node, on).await {
            Ok(()) => {
                let message = format!("the light of {node} is {}", if on { "on" } else { "off" });
                News::Acted(message, Changed::Light(node, on))
            }
            Err(why) => News::Acted(format!("the light of {node} stays as it is: {why}"), Changed::Nothing),
        },
        Action::Retry(node) => {
            let begun = async {
                let request = JobRequest { spec: with_user_data(spec.clone())?, only: vec![node.clone()] };
                api.post_json::<_, Started>("/api/v1/jobs", &request).await
            };
            let begun = begun.await;
            News::Acted(
                match begun {
                    Ok(started) => format!("job {} works on {node}", started.job),
                    Err(error) => format!("{node} is left as it is: {}", error.message),
                },
                Changed::Nothing,
            )
        }
        Action::Pause(job, paused) => {
            let what = if paused { "pause" } else { "resume" };
            let told = api.post_json::<_, JobView>(&format!("/api/v1/jobs/{job}/{what}"), &serde_json::json!({})).await;
            let message = match paused {
                true => "paused: nodes that were begun go on, no other is begun",
                false => "the job goes on",
            };
            match told {
                Ok(job) => News::Acted(message.to_owned(), Changed::Job(Box::new(job))),
                Err(error) => News::Acted(error.message, Changed::Nothing),
            }
        }
    }
}

/// Shows a node's serial console until it is left; answers how that came.
async fn console(spec: &Spec, node: &NodeName, output: &Output) -> String {
    let Some(wanted) = spec.node(node) else { return format!("{node} is not in the spec") };
    let shown = async {
        let opened = machines(spec)?.console(wanted, size()).await;
        let mut console = opened.map_err(|error| CliError::failed(error.message))?;
        output.say(&format!("the console of {node} is open; ~. at the beginning of a line goes back to the rack"));
        let parted = attend(&mut console, true).await;
        console.close().await;
        parted
    };
    match Box::pin(shown).await {
        Ok(Parting::Left) => format!("the console of {node} is closed"),
        Ok(Parting::Ended) => format!("the BMC has closed the console of {node}"),
        Err(error) => format!("the console of {node} is not there: {}", error.message),
    }
}

async fn identify(spec: &Spec, node: &NodeName, on: bool) -> Result<(), String> {
    let Some(node) = spec.node(node) else { return Err("it is not in the spec".to_owned()) };
    let machines = machines(spec).map_err(|error| error.message)?;
    let words = |error: MachineError| error.message;
    let machine = machines.connect(node).await.map_err(words)?;
    let switched = machine.identify(on).await.map_err(words);
    machine.close().await;
    switched
}
