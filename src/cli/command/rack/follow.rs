//! Following a job until it is over: lines on standard error for people, versioned events on standard output for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::cli::exit::CliError;
use crate::cli::{ApiClient, Context};
use crate::job::{JobState, JobView};
use crate::model::{JobId, NodeName};
use crate::rack::event::{self, Event, Happening};
use crate::rack::show;
use crate::sys::clock;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// How long an appliance may be away while a job is followed: it is restarted, and the job goes on.
const AWAY: Duration = Duration::from_secs(120);

/// Follows a job until it is over.
pub(super) async fn follow(api: &ApiClient, id: JobId, context: &Context) -> Result<JobView, CliError> {
    let mut teller = Teller { context, id, said: BTreeMap::new(), seen: None };
    let mut away: Option<Instant> = None;
    loop {
        match api.get_json::<JobView>(&format!("/api/v1/jobs/{id}")).await {
            Ok(job) => {
                if away.take().is_some() {
                    teller.back()?;
                }
                teller.look(&job)?;
                if job.state != JobState::Running {
                    return Ok(job);
                }
            }
            Err(error) => {
                if away.is_none() {
                    teller.away(&error.message)?;
                }
                if away.get_or_insert_with(Instant::now).elapsed() > AWAY {
                    let hint = "the job goes on when the appliance is started again; `bedplate rack status` shows it";
                    return Err(CliError { hint: Some(hint.to_owned()), ..error });
                }
            }
        }
        sleep(EVERY).await;
    }
}

/// Who tells what happens.
struct Teller<'a> {
    context: &'a Context,
    id: JobId,
    /// The last line on each node.
    said: BTreeMap<NodeName, String>,
    /// The last look.
    seen: Option<JobView>,
}

impl Teller<'_> {
    fn look(&mut self, job: &JobView) -> Result<(), CliError> {
        if self.context.output.is_json() {
            for event in event::between(self.seen.as_ref(), job, clock::now()) {
                self.tell(&event)?;
            }
            self.seen = Some(job.clone());
            return Ok(());
        }
        for node in &job.nodes {
            let line = show::node_line(node);
            if self.said.get(&node.node) != Some(&line) {
                self.context.output.say(&line);
                self.said.insert(node.node.clone(), line);
            }
        }
        Ok(())
    }

    fn away(&self, why: &str) -> Result<(), CliError> {
        self.context.output.say(&format!("the appliance does not answer ({why}); waiting for it"));
        self.happened(Happening::ApplianceAway { message: why.to_owned() })
    }

    fn back(&self) -> Result<(), CliError> {
        self.context.output.say("the appliance is back");
        self.happened(Happening::ApplianceBack)
    }

    fn happened(&self, what: Happening) -> Result<(), CliError> {
        self.tell(&Event { version: event::VERSION, at: clock::now(), job: self.id, what })
    }

    fn tell(&self, event: &Event) -> Result<(), CliError> {
        if self.context.output.is_json() && self.context.output.line(event, |_| String::new())?.is_break() {
            let hint = "the job goes on; `bedplate rack status` shows it";
            return Err(CliError::failed("nobody reads the events any more").hint(hint));
        }
        Ok(())
    }
}
