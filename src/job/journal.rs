//! The journal: rows of jobs, tasks and nodes in the metadata, and the few transactions that change them.
//!
//! ```text
//! j/r/JOB          one job
//! j/o/JOB          present while the job is not over
//! j/t/JOB/NODE     one node's part of it
//! j/u/JOB/SHA256   user data of its nodes; present while the job is not over
//! j/l/BMC          the job that works on the machine behind this BMC; present while its task is not over
//! n/RACK/NODE      what is known of a node over all jobs
//! ```
//!
//! Every change of a task is a compare-and-swap on its row, so a late report and the loop that drives the task never
//! overwrite each other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::job::record::{ROW_VERSION, decode, encode};
use crate::job::{JobRow, NodeRow, TaskRow};
use crate::meta::{Meta, MetaError, Transaction};
use crate::model::{Digest, JobId, NodeName, Secret};
use crate::sys::clock::Timestamp;

/// Why the journal could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Another job works on the same machine.
    #[error("job {job} is still working on {node}; wait for it, or cancel it, then apply again")]
    Busy {
        /// The node that is taken.
        node: NodeName,
        /// The job that has it.
        job: JobId,
    },
    /// There is no such job.
    #[error("there is no job {0}; list them with GET /api/v1/jobs")]
    NoSuchJob(JobId),
    /// The job does not work on that node.
    #[error("job {job} does not work on {node}")]
    NoSuchTask {
        /// The job.
        job: JobId,
        /// The node.
        node: NodeName,
    },
    /// The task is not in a state in which this may happen.
    #[error("{0}")]
    Refused(String),
    /// A row does not decode.
    #[error("the row {key} does not decode: it was written by a newer version, or is damaged; run `store fsck`")]
    Damaged {
        /// The row's key.
        key: String,
    },
    /// The metadata failed.
    #[error("the journal cannot be reached: the metadata failed")]
    Meta(#[source] MetaError),
}

/// Longest page of a scan.
const PAGE: usize = 512;
/// Rows that are read at once where one may do.
const FEW: usize = 32;

/// The rows of jobs and nodes.
#[derive(Clone)]
pub struct Journal {
    meta: Arc<dyn Meta>,
    /// For each job, a node whose task was open when last looked: it is looked at first, so that the end of one task does
    /// not read all others.
    open: Arc<Mutex<BTreeMap<JobId, NodeName>>>,
}

/// A change of a task that also changes what is known of its node.
pub type NodeChange<'a> = &'a (dyn Fn(&TaskRow, &mut NodeRow) + Send + Sync);

impl Journal {
    /// The journal in this metadata.
    #[must_use]
    pub fn new(meta: Arc<dyn Meta>) -> Self {
        Self { meta, open: Arc::default() }
    }

    /// Writes a new job, its tasks and their user data by digest, all or nothing; refuses when another job has one of the
    /// machines.
    pub async fn begin(
        &self,
        job: &JobRow,
        tasks: &[TaskRow],
        user_data: &BTreeMap<Digest, Secret>,
    ) -> Result<(), JobError> {
        let mut tx = Transaction::new();
        tx = tx.expect(job_key(job.id), None).put(job_key(job.id), Bytes::from(encode(job)));
        if !tasks.is_empty() {
            tx = tx.put(open_key(job.id), Bytes::new());
        }
        for (digest, text) in user_data {
            let row = [&[ROW_VERSION], text.reveal().as_bytes()].concat();
            tx = tx.put(user_data_key(job.id, digest), Bytes::from(row));
        }
        for task in tasks {
            tx = tx
                .expect(lock_key(&task.bmc), None)
                .put(lock_key(&task.bmc), Bytes::from(job.id.to_string()))
                .put(task_key(job.id, &task.node), Bytes::from(encode(task)));
        }
        match self.meta.commit(tx).await {
            Ok(()) => Ok(()),
            Err(MetaError::Conflict) => Err(self.who_is_busy(tasks).await?),
            Err(error) => Err(JobError::Meta(error)),
        }
    }

    async fn who_is_busy(&self, tasks: &[TaskRow]) -> Result<JobError, JobError> {
        for task in tasks {
            if let Some(job) = self.holder(&task.bmc).await? {
                return Ok(JobError::Busy { node: task.node.clone(), job });
            }
        }
        Ok(JobError::Refused("another job has just ended on one of these nodes; apply again".to_owned()))
    }

    /// The job that works on the machine with this identity.
    pub async fn holder(&self, bmc: &str) -> Result<Option<JobId>, JobError> {
        let key = lock_key(bmc);
        let Some(value) = self.get(&key).await? else { return Ok(None) };
        let text = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
        text.map(Some).ok_or_else(|| damaged(&key))
    }

    /// One job.
    pub async fn job(&self, id: JobId) -> Result<JobRow, JobError> {
        let key = job_key(id);
        let value = self.get(&key).await?.ok_or(JobError::NoSuchJob(id))?;
        decode(&value).ok_or_else(|| damaged(&key))
    }

    /// The last `limit` jobs, of one rack or of all, newest first.
    pub async fn jobs(&self, rack: Option<&str>, limit: usize) -> Result<Vec<JobRow>, JobError> {
        let mut rows = self.scan::<JobRow>(b"j/r/").await?;
        rows.retain(|row| rack.is_none_or(|rack| row.rack == rack));
        rows.reverse();
        rows.truncate(limit);
        Ok(rows)
    }

    /// The jobs that are not over, oldest first.
    pub async fn open_jobs(&self) -> Result<Vec<JobId>, JobError> {
        let rows = self.scan_raw(b"j/o/").await?;
        rows.iter()
            .map(|(key, _)| {
                let text = std::str::from_utf8(&key[4..]).ok().and_then(|text| text.parse().ok());
                text.ok_or_else(|| damaged(key))
            })
            .collect()
    }

    /// One task.
    pub async fn task(&self, job: JobId, node: &NodeName) -> Result<TaskRow, JobError> {
        Ok(self.task_and_bytes(job, node).await?.0)
    }

    async fn task_and_bytes(&self, job: JobId, node: &NodeName) -> Result<(TaskRow, Bytes), JobError> {
        let key = task_key(job, node);
        let value = self.get(&key).await?.ok_or_else(|| JobError::NoSuchTask { job, node: node.clone() })?;
        let task = decode(&value).ok_or_else(|| damaged(&key))?;
        Ok((task, value))
    }

    /// The tasks of a job, by node name.
    pub async fn tasks(&self, job: JobId) -> Result<Vec<TaskRow>, JobError> {
        self.scan(format!("j/t/{job}/").as_bytes()).await
    }

    /// The user data that a task's node is given at its first start; `None` where it has none. Only of a job that is not over.
    pub async fn user_data(&self, task: &TaskRow) -> Result<Option<Secret>, JobError> {
        let Some(digest) = &task.work.user_data else { return Ok(None) };
        let key = user_data_key(task.job, digest);
        let row = self.get(&key).await?.ok_or_else(|| damaged(&key))?;
        let text = row.split_first().filter(|(version, _)| **version == ROW_VERSION).map(|(_, text)| text.to_vec());
        let text = text.and_then(|text| String::from_utf8(text).ok()).ok_or_else(|| damaged(&key))?;
        Ok(Some(Secret::new(text)))
    }

    /// What is known of one node.
    pub async fn node(&self, rack: &str, node: &NodeName) -> Result<Option<NodeRow>, JobError> {
        let key = node_key(rack, node);
        let Some(value) = self.get(&key).await? else { return Ok(None) };
        decode(&value).map(Some).ok_or_else(|| damaged(&key))
    }

    /// What is known of every node, by rack and name.
    pub async fn nodes(&self) -> Result<Vec<NodeRow>, JobError> {
        self.scan(b"n/").await
    }

    /// Changes a task in one transaction; `change` is called again when the row moved meanwhile, and may refuse.
    pub async fn change(
        &self,
        job: JobId,
        node: &NodeName,
        change: impl Fn(&mut TaskRow) -> Result<(), JobError> + Send + Sync,
    ) -> Result<TaskRow, JobError> {
        self.change_with_node(job, node, change, None).await
    }

    /// Changes a task and what is known of its node in one transaction. When the task ends by it, its secret and its
    /// hold on the machine end in the same transaction.
    pub async fn change_with_node(
        &self,
        job: JobId,
        node: &NodeName,
        change: impl Fn(&mut TaskRow) -> Result<(), JobError> + Send + Sync,
        of_node: Option<NodeChange<'_>>,
    ) -> Result<TaskRow, JobError> {
        loop {
            let (mut task, before) = self.task_and_bytes(job, node).await?;
            let was_over = task.state.is_over();
            change(&mut task)?;
            let ends = task.state.is_over() && !was_over;
            if ends {
                task.secret = None;
            }
            let key = task_key(job, node);
            let mut tx = Transaction::new().expect(key.clone(), Some(before)).put(key, Bytes::from(encode(&task)));
            if let Some(of_node) = of_node {
                let key = node_key(&task.rack, node);
                let old = self.get(&key).await?;
                let mut row = match &old {
                    Some(bytes) => decode(bytes).ok_or_else(|| damaged(&key))?,
                    None => blank_node(&task),
                };
                of_node(&task, &mut row);
                tx = tx.expect(key.clone(), old).put(key, Bytes::from(encode(&row)));
            }
            if ends {
                tx = tx.delete(lock_key(&task.bmc));
            }
            match self.meta.commit(tx).await {
                Ok(()) => return Ok(task),
                Err(MetaError::Conflict) => {}
                Err(error) => return Err(JobError::Meta(error)),
            }
        }
    }

    /// Pauses a job that is not over, or lets it go on.
    pub async fn pause(&self, id: JobId, paused: bool) -> Result<(), JobError> {
        loop {
            let key = job_key(id);
            let before = self.get(&key).await?.ok_or(JobError::NoSuchJob(id))?;
            let mut row: JobRow = decode(&before).ok_or_else(|| damaged(&key))?;
            if row.ended.is_some() {
                return Err(JobError::Refused(format!("job {id} is over")));
            }
            row.paused = paused;
            let tx = Transaction::new().expect(key.clone(), Some(before)).put(key, Bytes::from(encode(&row)));
            match self.meta.commit(tx).await {
                Ok(()) => return Ok(()),
                Err(MetaError::Conflict) => {}
                Err(error) => return Err(JobError::Meta(error)),
            }
        }
    }

    /// Closes a job once all its tasks are over, and forgets its user data; says whether it is closed.
    pub async fn close_if_over(&self, id: JobId, now: Timestamp) -> Result<bool, JobError> {
        loop {
            if self.has_open_task(id).await? {
                return Ok(false);
            }
            let key = job_key(id);
            let before = self.get(&key).await?.ok_or(JobError::NoSuchJob(id))?;
            let mut row: JobRow = decode(&before).ok_or_else(|| damaged(&key))?;
            if row.ended.is_some() {
                return Ok(true);
            }
            row.ended = Some(now);
            let mut tx = Transaction::new()
                .expect(key.clone(), Some(before))
                .put(key, Bytes::from(encode(&row)))
                .delete(open_key(id));
            for (key, _) in self.scan_raw(format!("j/u/{id}/").as_bytes()).await? {
                tx = tx.delete(key);
            }
            match self.meta.commit(tx).await {
                Ok(()) => return Ok(true),
                Err(MetaError::Conflict) => {}
                Err(error) => return Err(JobError::Meta(error)),
            }
        }
    }

    /// Whether a task of the job is not over. Reads few rows: many tasks may end at once.
    async fn has_open_task(&self, id: JobId) -> Result<bool, JobError> {
        let open = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let last = open().get(&id).cloned();
        if let Some(node) = last
            && !self.task(id, &node).await?.state.is_over()
        {
            return Ok(true);
        }
        let prefix = format!("j/t/{id}/").into_bytes();
        let (mut from, end) = (prefix.clone(), after(&prefix));
        loop {
            let page = self.meta.scan(&from, &end, FEW).await.map_err(JobError::Meta)?;
            for (key, value) in &page {
                let task: TaskRow = decode(value).ok_or_else(|| damaged(key))?;
                if !task.state.is_over() {
                    open().insert(id, task.node);
                    return Ok(true);
                }
            }
            match page.last() {
                Some((key, _)) if page.len() == FEW => from = [&key[..], &[0]].concat(),
                _ => break,
            }
        }
        open().remove(&id);
        Ok(false)
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, JobError> {
        self.meta.get(key).await.map_err(JobError::Meta)
    }

    async fn scan<T: serde::de::DeserializeOwned>(&self, prefix: &[u8]) -> Result<Vec<T>, JobError> {
        let rows = self.scan_raw(prefix).await?;
        rows.iter().map(|(key, value)| decode(value).ok_or_else(|| damaged(key))).collect()
    }

    async fn scan_raw(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, JobError> {
        let mut rows = Vec::new();
        let mut start = prefix.to_vec();
        let end = after(prefix);
        loop {
            let page = self.meta.scan(&start, &end, PAGE).await.map_err(JobError::Meta)?;
            let full = page.len() == PAGE;
            if let Some((last, _)) = page.last() {
                start = last.to_vec();
                start.push(0);
            }
            rows.extend(page);
            if !full {
                return Ok(rows);
            }
        }
    }
}

/// The key behind all that begin so: every prefix here ends in '/', and '0' is the byte after it.
fn after(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    end.pop();
    end.push(b'0');
    end
}

fn blank_node(task: &TaskRow) -> NodeRow {
    NodeRow {
        rack: task.rack.clone(),
        node: task.node.clone(),
        slot: task.slot,
        bmc: task.bmc.clone(),
        machine: task.machine.clone(),
        holds: None,
        quarantine: None,
        last_job: task.job,
        last_seconds: None,
    }
}

fn damaged(key: &[u8]) -> JobError {
    JobError::Damaged { key: String::from_utf8_lossy(key).into_owned() }
}

fn job_key(id: JobId) -> Vec<u8> {
    format!("j/r/{id}").into_bytes()
}

fn open_key(id: JobId) -> Vec<u8> {
    format!("j/o/{id}").into_bytes()
}

fn task_key(job: JobId, node: &NodeName) -> Vec<u8> {
    format!("j/t/{job}/{node}").into_bytes()
}

fn user_data_key(id: JobId, digest: &Digest) -> Vec<u8> {
    format!("j/u/{id}/{digest}").into_bytes()
}

fn lock_key(bmc: &str) -> Vec<u8> {
    format!("j/l/{bmc}").into_bytes()
}

fn node_key(rack: &str, node: &NodeName) -> Vec<u8> {
    format!("n/{rack}/{node}").into_bytes()
}
