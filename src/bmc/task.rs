//! What a BMC began and goes on with: tasks, vendors' jobs, and answers that name neither. Followed to their end, whose words are kept.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::exchange::NOTE;
use super::fact::Fact;
use super::{Bmc, BmcError, oem};

/// How often a job that is not found yet is asked for.
const LATE_TRIES: u32 = 3;

/// How something that a BMC began stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskState {
    /// It goes on.
    Going,
    /// It waits for the node's next start.
    Scheduled,
    /// It succeeded.
    Done,
    /// It did not.
    Failed,
}

/// One task or job of a BMC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its link.
    pub link: String,
    /// Its name.
    pub name: String,
    /// How it stands.
    pub state: TaskState,
    /// The BMC's own word for that.
    pub said: String,
    /// How much of it is done, in percent.
    pub percent: Option<u64>,
    /// What it says of itself.
    pub messages: Vec<String>,
}

/// How far something is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// Until it waits for the next start, or is over.
    Scheduled,
    /// Until it is over.
    Over,
}

/// How following ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Followed {
    /// It named a task, which stands so.
    Task(Task),
    /// Nothing was named, or what was named is gone: only what reads back can tell.
    Unknown,
}

impl Task {
    /// Reads a task or a job; none for a document that is neither.
    pub(super) fn read(link: &str, document: &Value, critical_fails: bool) -> Option<Self> {
        let state = document["TaskState"].as_str().or_else(|| document["JobState"].as_str())?;
        let health = document["TaskStatus"].as_str().or_else(|| document["Status"]["Health"].as_str());
        let judged = match state {
            "Completed" | "RebootCompleted" if health == Some("Critical") && critical_fails => TaskState::Failed,
            "Completed" | "RebootCompleted" => TaskState::Done,
            "Exception"
            | "Killed"
            | "Cancelled"
            | "Interrupted"
            | "Failed"
            | "CompletedWithErrors"
            | "RebootFailed" => TaskState::Failed,
            "Scheduled" => TaskState::Scheduled,
            _ => TaskState::Going,
        };
        let list = document["Messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut messages: Vec<String> =
            list.iter().filter_map(|message| message["Message"].as_str()).map(str::to_owned).collect();
        messages.extend(document["Message"].as_str().map(str::to_owned));
        messages.retain(|text| !text.trim().is_empty());
        messages.dedup();
        let name = document["Name"].as_str().or_else(|| document["Id"].as_str()).unwrap_or_default();
        Some(Self {
            link: document["@odata.id"].as_str().unwrap_or(link).to_owned(),
            name: name.to_owned(),
            state: judged,
            said: state.to_owned(),
            percent: document["PercentComplete"].as_u64(),
            messages,
        })
    }

    fn over(&self, until: Until) -> bool {
        match self.state {
            TaskState::Going => false,
            TaskState::Scheduled => until == Until::Scheduled,
            TaskState::Done | TaskState::Failed => true,
        }
    }
}

/// The link of what an accepted request began: the header's, or the body's where it is a task itself.
fn named(taken: &Value) -> Option<String> {
    let is_task =
        |link: &&str| ["/Tasks/", "/TaskMonitor", "/Jobs/", "/JobService/"].iter().any(|part| link.contains(part));
    let header = taken[NOTE]["location"].as_str();
    let body = taken["@odata.id"].as_str().filter(is_task);
    header.or(body).map(str::to_owned)
}

/// The job that a task says it went over into.
fn moved_to(document: &Value) -> Option<String> {
    let messages = document["Messages"].as_array()?;
    let moved = messages
        .iter()
        .find(|message| message["MessageId"].as_str().is_some_and(|id| id.ends_with("OperationTransitionedToJob")))?;
    let named = moved["MessageArgs"].as_array().into_iter().flatten().filter_map(Value::as_str);
    named.map(str::to_owned).find(|text| text.contains("JID_") || text.starts_with('/'))
}

/// The last part of a link.
fn last(link: &str) -> &str {
    link.trim_end_matches('/').rsplit('/').next().unwrap_or(link)
}

impl Bmc {
    /// Follows what an accepted request began. An end that is no success is an error in the BMC's words.
    pub(super) async fn follow(
        &self,
        what: &str,
        taken: &Value,
        until: Until,
        limit: Duration,
    ) -> Result<Followed, BmcError> {
        let Some(mut link) = named(taken) else {
            let accepted = taken[NOTE]["status"] == 202;
            return match accepted && !self.quirks.has(Fact::TaskUnnamed) {
                true => Err(self.failed(what, "it named no task to follow")),
                false => Ok(Followed::Unknown),
            };
        };
        if self.quirks.has(Fact::LenovoMonitorForgets) && link.contains("/TaskMonitor") {
            link = match taken["@odata.id"].as_str().filter(|link| link.contains("/Tasks/")) {
                Some(task) => task.to_owned(),
                None => format!("/redfish/v1/TaskService/Tasks/{}", last(&link)),
            };
        }
        let end = tokio::time::Instant::now() + limit;
        let (mut late, mut seen, mut moved) = (0, false, false);
        loop {
            match self.client.get::<Value>(&link).await {
                Ok(document) => {
                    seen = true;
                    // Once: two that point to each other would be followed for ever.
                    if self.quirks.has(Fact::DellTaskMoves)
                        && !moved
                        && let Some(job) = moved_to(&document)
                    {
                        moved = true;
                        link = self.job_link(&job);
                        continue;
                    }
                    match Task::read(&link, &document, self.quirks.has(Fact::CriticalCompletion)) {
                        Some(task) if task.over(until) => return self.judged(what, task),
                        Some(_) => {}
                        // A monitor that says neither is over, unless it still only accepts.
                        None if document[NOTE]["status"] == 202 => {}
                        None => return Ok(Followed::Unknown),
                    }
                }
                Err(error) if error.status() == Some(404) => {
                    if seen && self.quirks.has(Fact::DellTaskMoves) && !link.contains("/Jobs/") {
                        link = self.job_link(last(&link));
                        continue;
                    }
                    if seen {
                        return Ok(Followed::Unknown);
                    }
                    if late >= LATE_TRIES || !self.quirks.has(Fact::DellJobLate) {
                        return Err(error);
                    }
                    late += 1;
                    tokio::time::sleep(5 * self.timing().look).await;
                }
                Err(error) if error.is_passing() => {}
                Err(error) => return Err(error),
            }
            if tokio::time::Instant::now() >= end {
                return Err(self.failed(what, &format!("{link} did not end within {} s", limit.as_secs())));
            }
            tokio::time::sleep(self.timing().look).await;
        }
    }

    fn judged(&self, what: &str, task: Task) -> Result<Followed, BmcError> {
        if task.state != TaskState::Failed {
            return Ok(Followed::Task(task));
        }
        let why = format!("its task ended as {}: {}", task.said, task.messages.join(" "));
        Err(self.failed(what, &why))
    }

    /// The link of a manager's job, by its number.
    fn job_link(&self, job: &str) -> String {
        if job.starts_with('/') {
            return job.to_owned();
        }
        let manager = self.managers.first().map_or(oem::IDRAC_MANAGER, String::as_str);
        format!("{}/Jobs/{job}", manager.trim_end_matches('/'))
    }

    /// The tasks and jobs that the BMC lists, newest last; those that cannot be read are left out.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] where it lists none.
    pub async fn tasks(&self) -> Result<Vec<Task>, BmcError> {
        let mut lists = vec![];
        for (service, list) in [("Tasks", "Tasks"), ("JobService", "Jobs")] {
            let Some(link) = self.root[service]["@odata.id"].as_str() else { continue };
            let Ok(document) = self.client.get::<Value>(link).await else { continue };
            lists.extend(document[list]["@odata.id"].as_str().map(str::to_owned));
        }
        if lists.is_empty() {
            return Err(self.unsupported("list tasks: it has no task service"));
        }
        let mut tasks: Vec<Task> = vec![];
        for list in lists {
            for link in self.client.members(&list).await? {
                let Ok(document) = self.client.get::<Value>(&link).await else { continue };
                let task = Task::read(&link, &document, self.quirks.has(Fact::CriticalCompletion));
                tasks.extend(task.filter(|task| tasks.iter().all(|known| last(&known.link) != last(&task.link))));
            }
        }
        Ok(tasks)
    }

    pub(super) fn failed(&self, what: &str, why: &str) -> BmcError {
        BmcError::Failed { bmc: self.name().to_owned(), what: what.to_owned(), why: why.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    //! Every word that BMCs have for how a task stands is judged, and what began is found where it is named.
    use serde_json::json;

    use super::*;

    #[test]
    fn states_are_judged() {
        let state = |document: Value| Task::read("/t", &document, true).map(|task| task.state);
        for going in ["New", "Starting", "Running", "Pending", "Suspended", "Service", "Stopping", "Downloading"] {
            assert_eq!(state(json!({ "TaskState": going })), Some(TaskState::Going), "{going}");
        }
        for failed in ["Exception", "Killed", "Cancelled", "Interrupted"] {
            assert_eq!(state(json!({ "TaskState": failed })), Some(TaskState::Failed), "{failed}");
        }
        assert_eq!(state(json!({ "TaskState": "Completed", "TaskStatus": "OK" })), Some(TaskState::Done));
        assert_eq!(state(json!({ "TaskState": "Completed", "TaskStatus": "Critical" })), Some(TaskState::Failed));
        assert_eq!(state(json!({ "JobState": "Scheduled" })), Some(TaskState::Scheduled));
        assert_eq!(state(json!({ "Id": "no task" })), None);
    }

    #[test]
    fn what_began_is_named_in_several_places() {
        let header = json!({ NOTE: { "status": 202, "location": "/redfish/v1/TaskService/TaskMonitors/1" } });
        assert_eq!(named(&header).as_deref(), Some("/redfish/v1/TaskService/TaskMonitors/1"));
        let body = json!({ "@odata.id": "/redfish/v1/TaskService/Tasks/7", NOTE: { "status": 202 } });
        assert_eq!(named(&body).as_deref(), Some("/redfish/v1/TaskService/Tasks/7"));
        assert_eq!(named(&json!({ "@odata.id": "/redfish/v1/Systems/1", NOTE: { "status": 200 } })), None);
        let moved = json!({ "Messages": [{ "MessageId": "Update.1.0.OperationTransitionedToJob",
            "MessageArgs": ["/redfish/v1/JobService/Jobs/JID_9"] }] });
        assert_eq!(moved_to(&moved).as_deref(), Some("/redfish/v1/JobService/Jobs/JID_9"));
    }
}
