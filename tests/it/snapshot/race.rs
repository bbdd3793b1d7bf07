//! Writers that race snapshots: each write is wholly before a snapshot or wholly after it.

use super::*;
use crate::support::stepped::{Call, Stepped};

#[expect(clippy::disallowed_methods, reason = "a test waits for each of them")]
fn go(work: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
    tokio::spawn(work)
}

/// Each writer writes its round number to its first key and then to its second, so that no snapshot may show the second ahead of the first,
/// nor either behind what was acknowledged before the snapshot was asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_snapshot_shows_half_of_a_write() {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    const WRITERS: usize = 4;
    let dir = tempfile::tempdir().unwrap();
    let (store, _, workers) = open(dir.path()).await;
    store.create_bucket(&bucket("race"), "root").await.unwrap();
    let (done, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new([const { AtomicU64::new(0) }; WRITERS]));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (store, done, acknowledged) = (store.clone(), done.clone(), acknowledged.clone());
            go(async move {
                let mut round = 0u64;
                while !done.load(Ordering::Relaxed) {
                    round += 1;
                    for part in ["1", "2"] {
                        let name = format!("{writer}-{part}");
                        if round.is_multiple_of(5) {
                            store.delete(&bucket("race"), &key(&name)).await.unwrap();
                        }
                        put(&store, "race", &name, round.to_string().as_bytes()).await.unwrap();
                    }
                    acknowledged[writer].store(round, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let number = |bytes: Result<Vec<u8>, StoreError>| match bytes {
        Ok(bytes) => Some(String::from_utf8(bytes).unwrap().parse::<u64>().unwrap()),
        Err(StoreError::NoSuchKey(_)) => None,
        Err(error) => panic!("{error:?}"),
    };
    let mut seen = Vec::new();
    for turn in 0..40 {
        let before: Vec<u64> = acknowledged.iter().map(|round| round.load(Ordering::SeqCst)).collect();
        let name = format!("s{turn}");
        store.create_snapshot(&bucket("race"), &snap(&name), None).await.unwrap();
        let place = format!("race@{name}");
        let mut shown = Vec::new();
        for (writer, before) in before.iter().enumerate() {
            let first = number(read(&store, &place, &format!("{writer}-1")).await);
            let second = number(read(&store, &place, &format!("{writer}-2")).await);
            // Between a delete and the put after it there is nothing; else nothing acknowledged is missing.
            assert!(first.is_none_or(|first| first >= *before), "{place}: {first:?} after {before}");
            assert!(second.is_none_or(|second| second >= *before), "{place}: {second:?} after {before}");
            if let (Some(first), Some(second)) = (first, second) {
                assert!(first == second || first == second + 1, "{place}: {first} and {second}");
            }
            shown.push((first, second));
        }
        seen.push((place, shown));
        if turn % 4 == 3 {
            let (gone, _) = seen.remove(0);
            store.remove_snapshot(&bucket("race"), &bucket(&gone).snapshot().unwrap().1).await.unwrap();
        }
        if turn % 10 == 9 {
            collect(&store).await;
        }
    }
    done.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    for (place, shown) in seen {
        for (writer, (first, second)) in shown.into_iter().enumerate() {
            assert_eq!(number(read(&store, &place, &format!("{writer}-1")).await), first, "{place} has changed");
            assert_eq!(number(read(&store, &place, &format!("{writer}-2")).await), second, "{place} has changed");
        }
    }
    end(store, workers).await;
}

/// A list of a snapshot misses nothing and says nothing twice, while what it lists is overwritten and deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lists_are_whole_while_rows_move() {
    use bedplate::store::ListRequest;
    let dir = tempfile::tempdir().unwrap();
    let (store, _, workers) = open(dir.path()).await;
    store.create_bucket(&bucket("race"), "root").await.unwrap();
    let names: Vec<String> = (0..600).map(|number| format!("key-{number:04}")).collect();
    for some in names.chunks(50) {
        futures_util::future::join_all(some.iter().map(|name| put(&store, "race", name, b"before"))).await;
    }
    store.create_snapshot(&bucket("race"), &snap("s"), None).await.unwrap();
    let (writer_store, writer_names) = (store.clone(), names.clone());
    let writer = go(async move {
        for some in writer_names.chunks(20) {
            let each = some.iter().enumerate().map(|(number, name)| {
                let store = writer_store.clone();
                async move {
                    match number % 2 {
                        0 => put(&store, "race", name, b"after").await.unwrap(),
                        _ => drop(store.delete(&bucket("race"), &key(name)).await.unwrap()),
                    }
                }
            });
            futures_util::future::join_all(each).await;
        }
    });
    let mut rounds = 0;
    while !writer.is_finished() || rounds == 0 {
        let request = ListRequest { limit: 10_000, ..ListRequest::default() };
        let page = store.list(&bucket("race@s"), &request).await.unwrap();
        let found: Vec<String> = page.objects.iter().map(|object| object.key.to_string()).collect();
        assert!(found == names, "{} of {} are listed", found.len(), names.len());
        rounds += 1;
    }
    writer.await.unwrap();
    end(store, workers).await;
}

/// A snapshot whose time is over is removed and made anew while the sweep is busy with another: the new one stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_leaves_a_snapshot_that_was_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (stepped, meta) = Stepped::over(rows_of(dir.path()).await);
    let (store, _, workers) = open_over(meta, dir.path()).await;
    store.create_bucket(&bucket("data"), "root").await.unwrap();
    put(&store, "data", "key", b"one").await.unwrap();
    let over = Some(Duration::from_millis(1));
    for name in ["first", "latest"] {
        store.create_snapshot(&bucket("data"), &snap(name), over).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    put(&store, "data", "key", b"two").await.unwrap();
    let user = store.clone();
    // The sweep has listed both by then, and drops what only the first showed.
    stepped.at(Call::Scan, "h/data", 0, async move {
        user.remove_snapshot(&bucket("data"), &snap("latest")).await.unwrap();
        user.create_snapshot(&bucket("data"), &snap("latest"), None).await.unwrap();
    });
    let removed = store.expire_snapshots(bedplate::sys::clock::now()).await.unwrap();
    assert!(stepped.is_taken());
    assert_eq!(removed, 1, "the first");
    assert_eq!(read(&store, "data@latest", "key").await.unwrap(), b"two");
    end(store, workers).await;
}

/// Lets a snapshot and what it kept go while somebody reads it, and answers what the reader was told.
async fn read_while_it_goes<T, F: Future<Output = Result<T, StoreError>>>(
    call: Call,
    made_anew: bool,
    work: impl FnOnce(Store) -> F,
) -> Result<T, StoreError> {
    let dir = tempfile::tempdir().unwrap();
    let (stepped, meta) = Stepped::over(rows_of(dir.path()).await);
    let (store, _, workers) = open_over(meta, dir.path()).await;
    store.create_bucket(&bucket("data"), "root").await.unwrap();
    for name in ["1", "2", "3"] {
        put(&store, "data", name, b"before").await.unwrap();
    }
    store.create_snapshot(&bucket("data"), &snap("s"), None).await.unwrap();
    let user = store.clone();
    stepped.at(call, "o/data", 0, async move {
        user.remove_snapshot(&bucket("data"), &snap("s")).await.unwrap();
        put(&user, "data", "1", b"after").await.unwrap();
        user.delete(&bucket("data"), &key("2")).await.unwrap();
        if made_anew {
            user.create_snapshot(&bucket("data"), &snap("s"), None).await.unwrap();
        }
    });
    let told = work(store.clone()).await;
    assert!(stepped.is_taken());
    end(store, workers).await;
    told
}

/// Whoever reads a snapshot that goes meanwhile is told so: no list is short, no object missing and no change false because of that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_a_snapshot_that_goes_are_told_so() {
    use bedplate::store::{ListRequest, VersionListRequest};
    for anew in [false, true] {
        let list = |store: Store| async move {
            store.list(&bucket("data@s"), &ListRequest { limit: 10, ..ListRequest::default() }).await
        };
        let told = read_while_it_goes(Call::Scan, anew, list).await;
        assert!(matches!(told, Err(StoreError::NoSuchSnapshot(_))), "list: {told:?}");
        let versions = |store: Store| async move {
            let request = VersionListRequest { limit: 10, ..VersionListRequest::default() };
            store.list_versions(&bucket("data@s"), &request).await
        };
        let told = read_while_it_goes(Call::Scan, anew, versions).await;
        assert!(matches!(told, Err(StoreError::NoSuchSnapshot(_))), "versions: {told:?}");
        let diff = |store: Store| async move { store.snapshot_diff(&bucket("data@s"), &bucket("data"), 10).await };
        let told = read_while_it_goes(Call::Scan, anew, diff).await;
        assert!(matches!(told, Err(StoreError::NoSuchSnapshot(_))), "diff: {told:?}");
        for name in ["1", "2"] {
            let told = read_while_it_goes(Call::Get, anew, |store| async move { read(&store, "data@s", name).await });
            let told = told.await;
            assert!(matches!(told, Err(StoreError::NoSuchSnapshot(_))), "{name}: {told:?}");
        }
    }
    // What is still as the snapshot had it is read for what it was.
    let kept = read_while_it_goes(Call::Get, false, |store| async move { read(&store, "data@s", "3").await }).await;
    assert_eq!(kept.unwrap(), b"before");
}

/// So is whoever reads a branch that goes, and the snapshot that it began with after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_a_branch_that_goes_are_told_so() {
    use bedplate::store::ListRequest;
    for call in [Call::Scan, Call::Get] {
        let dir = tempfile::tempdir().unwrap();
        let (stepped, meta) = Stepped::over(rows_of(dir.path()).await);
        let (store, _, workers) = open_over(meta, dir.path()).await;
        store.create_bucket(&bucket("data"), "root").await.unwrap();
        put(&store, "data", "1", b"before").await.unwrap();
        store.create_snapshot(&bucket("data"), &snap("s"), None).await.unwrap();
        store.branch_snapshot(&bucket("data"), &snap("s"), &bucket("branch")).await.unwrap();
        let user = store.clone();
        stepped.at(call, "o/data", 0, async move {
            user.delete_bucket(&bucket("branch")).await.unwrap();
            user.remove_snapshot(&bucket("data"), &snap("s")).await.unwrap();
            put(&user, "data", "1", b"after").await.unwrap();
        });
        let told = match call {
            Call::Get => read(&store, "branch", "1").await.map(drop),
            _ => store.list(&bucket("branch"), &ListRequest { limit: 10, ..ListRequest::default() }).await.map(drop),
        };
        assert!(stepped.is_taken());
        assert!(matches!(told, Err(StoreError::NoSuchBucket(_))), "{told:?}");
        end(store, workers).await;
    }
}
