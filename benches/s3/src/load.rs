//! Load: so many connections, each with one request under way, in one thread, until so many requests are done or the time
//! is up. The thread's own work is kept small: keys and bodies lie ready, and signing takes two hashes.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future;

use crate::fetch::{Answer, Connection};
use crate::sign::{Signer, encode};
use crate::words::Words;
use crate::{Error, meter};

/// Of two numbers that are drawn one after the other, each tells little of the other.
const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;

/// What to ask for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Objects `from=`, `from=`+1 and so on, of `size=` bytes each.
    Put,
    /// Objects below `objects=`, in turn.
    Get,
    /// `span=` bytes somewhere in an object below `objects=`.
    Range,
    /// The pages of a listing: `delimiter=`, `page=` keys each, `after=` a key; one page only where `pages=1`.
    List,
    /// One bucket.
    Bucket,
}

/// Everything that all connections share.
struct Plan {
    kind: Kind,
    host: String,
    bucket: String,
    prefix: String,
    signer: Option<Signer>,
    from: u64,
    objects: u64,
    size: usize,
    span: usize,
    folders: u64,
    source: Bytes,
    check: bool,
    delimiter: Option<String>,
    page: u32,
    after: Option<String>,
    pages: u64,
    requests: u64,
    deadline: Instant,
}

#[derive(Default)]
struct Done {
    next: Cell<u64>,
    requests: Cell<u64>,
    bytes: Cell<u64>,
    keys: Cell<u64>,
    microseconds: RefCell<Vec<u32>>,
}

/// Puts the load on `url=` and prints what it came to.
pub fn run(words: &Words) -> Result<(), Error> {
    let plan = Plan::read(words)?;
    let connections: usize = words.number("connections", 1)?;
    let done = Done::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (began, cpu) = (Instant::now(), meter::thread_time()?);
    runtime.block_on(future::try_join_all((0..connections).map(|_| connection(&plan, &done))))?;
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), meter::thread_time()? - cpu);
    let times = done.microseconds.borrow();
    let mut sorted = times.clone();
    sorted.sort_unstable();
    let at = |share: f64| {
        let place = (sorted.len() as f64 * share) as usize;
        sorted.get(place).or(sorted.last()).map_or(0.0, |time| f64::from(*time) / 1e3)
    };
    let (p50, p99) = (at(0.5), at(0.99));
    let (requests, bytes, keys) = (done.requests.get(), done.bytes.get(), done.keys.get());
    let all = if plan.kind == Kind::List { times.as_slice() } else { &[] };
    println!(
        "{{\"requests\":{requests},\"bytes\":{bytes},\"keys\":{keys},\"seconds\":{seconds},\"cpu\":{cpu},\
         \"p50\":{p50},\"p99\":{p99},\"microseconds\":{all:?}}}"
    );
    Ok(())
}

impl Plan {
    fn read(words: &Words) -> Result<Self, Error> {
        let kind = match words.text("op")? {
            "put" => Kind::Put,
            "get" => Kind::Get,
            "range" => Kind::Range,
            "list" => Kind::List,
            "bucket" => Kind::Bucket,
            other => return Err(format!("op={other} is not known").into()),
        };
        let host = words.text("url")?.trim_start_matches("http://").to_owned();
        let signer = match words.maybe("access") {
            None => None,
            Some(access) => Some(Signer::new(access, words.text("secret")?, &host)?),
        };
        let size = words.number("size", 4096)?;
        let source = match words.maybe("source") {
            None => Bytes::from(vec![0x5a; size]),
            Some(path) => Bytes::from(std::fs::read(path)?),
        };
        if source.len() < size {
            return Err("the source is shorter than an object".into());
        }
        let seconds: f64 = words.number("seconds", 3600.0)?;
        Ok(Self {
            kind,
            host,
            bucket: words.text("bucket")?.to_owned(),
            prefix: words.maybe("prefix").unwrap_or_default().to_owned(),
            signer,
            from: words.number("from", 0)?,
            objects: words.number("objects", 1)?,
            size,
            span: words.number("span", 1 << 20)?,
            folders: words.number("folders", 0)?,
            source,
            check: words.number("check", 0u8)? == 1,
            delimiter: words.maybe("delimiter").map(str::to_owned),
            page: words.number("page", 1000)?,
            after: words.maybe("after").map(str::to_owned),
            pages: words.number("pages", u64::MAX)?,
            requests: words.number("requests", u64::MAX)?,
            deadline: Instant::now() + Duration::from_secs_f64(seconds),
        })
    }

    fn path(&self, number: u64) -> String {
        let Self { bucket, prefix, folders, .. } = self;
        match number.checked_rem(*folders) {
            None => format!("/{bucket}/{prefix}{number:08}"),
            Some(folder) => format!("/{bucket}/{prefix}{folder:03}/{number:08}"),
        }
    }

    /// What object `number` holds: large ones are a piece of the source; small ones are told apart by their number, so that
    /// no two are alike.
    fn body(&self, number: u64) -> Bytes {
        let pieces = (self.source.len() / self.size) as u64;
        let start = (number % pieces) as usize * self.size;
        let piece = self.source.slice(start..start + self.size);
        if number < pieces || self.size < 16 {
            return piece;
        }
        let mut own = piece.to_vec();
        own[..8].copy_from_slice(&number.to_be_bytes());
        Bytes::from(own)
    }

    fn headers(&self, method: &str, path: &str, query: &str) -> Vec<(&'static str, String)> {
        let mut headers = vec![("host", self.host.clone())];
        if let Some(signer) = &self.signer {
            headers.extend(signer.headers(method, path, query));
        }
        headers
    }
}

/// One connection's share of the load.
async fn connection(plan: &Plan, done: &Done) -> Result<(), Error> {
    let (mut connection, driver) = Connection::open(&plan.host).await?;
    let work = async {
        while done.next.get() < plan.requests && Instant::now() < plan.deadline {
            let number = done.next.replace(done.next.get() + 1);
            match plan.kind {
                Kind::List => list(plan, done, &mut connection).await?,
                _ => one(plan, done, &mut connection, number).await?,
            }
        }
        drop(connection);
        Ok(())
    };
    let (outcome, _) = future::join(work, driver).await;
    outcome
}

async fn one(plan: &Plan, done: &Done, connection: &mut Connection, number: u64) -> Result<(), Error> {
    let began = Instant::now();
    let answer = match plan.kind {
        Kind::Put => {
            let (path, body) = (plan.path(plan.from + number), plan.body(plan.from + number));
            let sent = body.len() as u64;
            let answer = connection.ask("PUT", &path, plan.headers("PUT", &path, ""), body, None).await?;
            Answer { bytes: sent, ..answer }
        }
        Kind::Bucket => {
            let path = format!("/{}", plan.bucket);
            connection.ask("PUT", &path, plan.headers("PUT", &path, ""), Bytes::new(), None).await?
        }
        _ => {
            let object = plan.from + number % plan.objects;
            let path = plan.path(object);
            let mut headers = plan.headers("GET", &path, "");
            let mut expected = if plan.check { Some(plan.body(object)) } else { None };
            if plan.kind == Kind::Range {
                let room = (plan.size.saturating_sub(plan.span)) as u64;
                let start = (number.wrapping_mul(STRIDE) >> 16) % (room + 1);
                headers.push(("range", format!("bytes={start}-{}", start + plan.span as u64 - 1)));
                expected = expected.map(|body| body.slice(start as usize..start as usize + plan.span));
            }
            connection.ask("GET", &path, headers, Bytes::new(), expected.as_ref()).await?
        }
    };
    note(done, &answer, began);
    Ok(())
}

fn note(done: &Done, answer: &Answer, began: Instant) {
    done.requests.set(done.requests.get() + 1);
    done.bytes.set(done.bytes.get() + answer.bytes);
    let time = u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX);
    done.microseconds.borrow_mut().push(time);
}

/// All pages of a listing, or the first so many.
async fn list(plan: &Plan, done: &Done, connection: &mut Connection) -> Result<(), Error> {
    let path = format!("/{}", plan.bucket);
    let mut token: Option<String> = None;
    for _ in 0..plan.pages {
        let mut pairs = vec![("list-type", "2".to_owned()), ("max-keys", plan.page.to_string())];
        pairs.extend(token.take().map(|token| ("continuation-token", token)));
        pairs.extend(plan.delimiter.clone().map(|delimiter| ("delimiter", delimiter)));
        pairs.extend(plan.after.clone().map(|after| ("start-after", after)));
        pairs.push(("prefix", plan.prefix.clone()));
        pairs.sort();
        let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
        let query = pairs.join("&");
        let headers = plan.headers("GET", &path, &query);
        let began = Instant::now();
        let answer = connection.ask("GET", &format!("{path}?{query}"), headers, Bytes::new(), None).await?;
        note(done, &answer, began);
        let text = String::from_utf8_lossy(&answer.text);
        let found = text.matches("<Key>").count() + text.matches("<CommonPrefixes>").count();
        done.keys.set(done.keys.get() + found as u64);
        let next = text.split_once("<NextContinuationToken>").and_then(|(_, rest)| rest.split_once('<'));
        token = next.map(|(token, _)| token.replace("&quot;", "\"").replace("&amp;", "&"));
        if token.is_none() {
            break;
        }
    }
    Ok(())
}
