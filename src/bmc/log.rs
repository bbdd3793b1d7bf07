//! A BMC's own logs: what it noted of its machine and of itself, newest first.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fact::Fact;
use super::{Bmc, BmcError};

/// Entries that are read of one log at most.
const ENTRIES_MAX: usize = 2000;

/// One entry of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Which log it is in.
    pub log: String,
    /// When it was made, as the BMC writes it (RFC 3339); none where the BMC's clock did not know.
    pub time: Option<String>,
    /// `OK`, `Warning` or `Critical`.
    pub severity: String,
    /// What happened.
    pub message: String,
}

impl Bmc {
    /// The logs of the system and its managers: name and link.
    async fn log_links(&self) -> Vec<(String, String)> {
        let mut lists = vec![];
        for owner in std::iter::once(&self.system).chain(&self.managers) {
            let Ok(document) = self.client.get::<Value>(owner).await else { continue };
            lists.extend(document["LogServices"]["@odata.id"].as_str().map(str::to_owned));
        }
        lists.dedup();
        let mut logs: Vec<(String, String)> = vec![];
        for list in lists {
            for link in self.client.members(&list).await.unwrap_or_default() {
                let name = link.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
                if logs.iter().all(|(_, known)| *known != link) {
                    logs.push((name, link));
                }
            }
        }
        logs
    }

    /// The newest entries of every log, newest first; `log` narrows them to one.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] where there is no log, or none of that name.
    pub async fn log(&self, log: Option<&str>, most: usize) -> Result<Vec<LogEntry>, BmcError> {
        let mut logs = self.log_links().await;
        logs.retain(|(name, _)| log.is_none_or(|wanted| name.eq_ignore_ascii_case(wanted)));
        if logs.is_empty() {
            return Err(self.unsupported(format!("show the log {}", log.unwrap_or_default())));
        }
        let mut entries = vec![];
        let mut refusal = None;
        for (name, link) in &logs {
            match self.log_entries(name, link).await {
                Ok(found) => entries.extend(found),
                Err(error) => refusal = Some(error),
            }
        }
        if let (true, Some(error)) = (entries.is_empty(), refusal) {
            return Err(error);
        }
        entries.sort_by(|a, b| b.time.cmp(&a.time));
        entries.truncate(most);
        Ok(entries)
    }

    async fn log_entries(&self, name: &str, link: &str) -> Result<Vec<LogEntry>, BmcError> {
        let service: Value = self.client.get(link).await?;
        let Some(list) = service["Entries"]["@odata.id"].as_str() else { return Ok(vec![]) };
        // Most BMCs give entries whole in their list, which saves asking for each.
        let (members, _) = self.client.pages(list, ENTRIES_MAX).await?;
        let mut entries = vec![];
        for member in &members {
            let whole = member.get("Message").is_some() || member.get("Created").is_some();
            match (whole, member["@odata.id"].as_str()) {
                (true, _) => entries.push(self.log_entry(name, member)),
                (false, Some(link)) if entries.len() < ENTRIES_MAX => {
                    if let Ok(entry) = self.client.get::<Value>(link).await {
                        entries.push(self.log_entry(name, &entry));
                    }
                }
                (false, _) => {}
            }
        }
        Ok(entries)
    }

    fn log_entry(&self, log: &str, document: &Value) -> LogEntry {
        let text = |key: &str| document[key].as_str().unwrap_or_default().trim().to_owned();
        let none = |time: &&str| {
            time.is_empty()
                || (self.quirks.has(Fact::DellNoDate) && (time.starts_with("0000") || time.starts_with("00:00:00")))
        };
        let time = document["Created"].as_str().map(str::trim).filter(|time| !none(time)).map(str::to_owned);
        LogEntry { log: log.to_owned(), time, severity: text("Severity"), message: text("Message") }
    }

    /// Empties one log.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] where there is no such log or it cannot be emptied.
    pub async fn clear_log(&self, log: &str) -> Result<(), BmcError> {
        let logs = self.log_links().await;
        let found = logs.iter().find(|(name, _)| name.eq_ignore_ascii_case(log));
        let (_, link) = found.ok_or_else(|| self.unsupported(format!("show a log {log}")))?;
        let service: Value = self.client.get(link).await?;
        let target = service["Actions"]["#LogService.ClearLog"]["target"].as_str();
        let target = target.ok_or_else(|| self.unsupported(format!("empty the log {log}")))?;
        self.act(target).await.map(drop)
    }
}
