//! Events as they happen: from a stream, which is opened again when it ends or the session does, and from the logs where there is none.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bedplate::bmc::{BmcEvent, MemoryPins};
use serde_json::json;

use super::double::{Double, Reply, SYSTEM};

const SERVICE: &str = "/redfish/v1/EventService";
const STREAM: &str = "/redfish/v1/EventService/SSE";
const LOG: &str = "/redfish/v1/Systems/1/LogServices/Log";

/// Follows until there are so many events.
async fn follow(double: &Double, count: usize) -> Vec<BmcEvent> {
    let bmc = double.connect(&Arc::new(MemoryPins::default())).await.unwrap();
    let told = Mutex::new(vec![]);
    let enough = async {
        while told.lock().unwrap().len() < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        ended = bmc.follow_events(|event| told.lock().unwrap().push(event)) => panic!("it ended: {ended:?}"),
        () = enough => {}
        () = tokio::time::sleep(Duration::from_secs(60)) => panic!("only {:?}", told.lock().unwrap()),
    }
    bmc.close().await;
    told.into_inner().unwrap()
}

fn said(events: &[BmcEvent]) -> Vec<(&str, &str)> {
    events.iter().map(|event| (event.source.as_str(), event.message.as_str())).collect()
}

#[tokio::test]
async fn a_stream_is_read_and_opened_again() {
    let double = Double::start(|seen, world| {
        if !seen.is("GET", STREAM) {
            return None;
        }
        let opened = world.count("GET", STREAM);
        if opened == 1 {
            // The session has ended meanwhile.
            return Some(Reply::json(401, &json!({ "error": { "code": "Base.1.0.NoValidSession" } })));
        }
        let event = json!({ "Events": [{ "Message": format!("event {opened}"), "MessageSeverity": "Critical",
            "EventTimestamp": "2026-11-27T08:00:00Z", "MessageId": "X.1.0.Y" }] });
        let telemetry = json!({ "MetricValues": [] });
        let body = format!(": hello\n\nid: 1\ndata: {event}\n\ndata: {telemetry}\n\n").into_bytes();
        Some(Reply::Say { status: 200, headers: vec![("content-type", "text/event-stream".to_owned())], body })
    })
    .await;
    let link = json!({ "ServerSentEventUri": STREAM });
    double.world.lock().unwrap().tree.insert(SERVICE.to_owned(), link);
    double.world.lock().unwrap().tree.get_mut("/redfish/v1").unwrap()["EventService"] = json!({ "@odata.id": SERVICE });
    let events = follow(&double, 2).await;
    assert_eq!(said(&events), [("stream", "event 2"), ("stream", "event 3")]);
    assert_eq!((events[0].severity.as_str(), events[0].id.as_deref()), ("Critical", Some("X.1.0.Y")));
    let asked = double.world.lock().unwrap().seen.iter().find(|seen| seen.is("GET", STREAM)).unwrap().headers.clone();
    assert_eq!(asked["accept"], "text/event-stream");
}

#[tokio::test]
async fn logs_tell_where_there_is_no_stream() {
    let double = Double::start(|seen, world| {
        if !seen.is("GET", &format!("{LOG}/Entries")) {
            return None;
        }
        let looks = world.count("GET", &format!("{LOG}/Entries"));
        let entry = |n: usize| json!({ "Message": format!("entry {n}"), "Severity": "Warning", "Created": format!("2026-11-27T08:00:0{n}Z") });
        Some(Reply::json(200, &json!({ "Members": (1..=looks.min(9)).map(entry).collect::<Vec<_>>() })))
    })
    .await;
    {
        let mut world = double.world.lock().unwrap();
        let list = LOG.rsplit_once('/').unwrap().0;
        world.tree.get_mut(SYSTEM).unwrap()["LogServices"] = json!({ "@odata.id": list });
        world.tree.insert(list.to_owned(), json!({ "Members": [{ "@odata.id": LOG }] }));
        world.tree.insert(LOG.to_owned(), json!({ "Entries": { "@odata.id": format!("{LOG}/Entries") } }));
    }
    // What was there before is not told.
    assert_eq!(said(&follow(&double, 1).await), [("Log", "entry 2")]);
}
