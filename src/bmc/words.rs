//! What a BMC says of an answer in its own words (DSP0266, "Error responses"): often they are all there is.

use serde_json::Value;

use super::exchange::Answer;

/// Bytes of an unreadable answer that are quoted.
const QUOTE_MAX: usize = 300;

/// What a BMC says of its answer, in its own words.
pub(super) struct Words {
    pub(super) message: String,
    /// Its advice; empty where it gives none.
    pub(super) resolution: String,
    /// Message ids, such as `Base.1.8.ActionParameterMissing`.
    pub(super) ids: Vec<String>,
    /// What the messages are about.
    pub(super) arguments: Vec<String>,
}

impl Words {
    /// Reads them. The list may be an object, and the wrapper may be missing.
    pub(super) fn read(answer: &Answer, objects: bool) -> Self {
        let Some(body) = answer.json() else {
            let message = quote(&answer.body);
            return Self { message, resolution: String::new(), ids: vec![], arguments: vec![] };
        };
        let error = body.get("error").unwrap_or(&body);
        let info = &error["@Message.ExtendedInfo"];
        let items = match info {
            Value::Array(items) => items.clone(),
            Value::Object(_) if objects => vec![info.clone()],
            _ => vec![],
        };
        let texts = |key: &str| -> Vec<String> {
            let texts =
                items.iter().filter_map(|item| item[key].as_str()).map(str::trim).filter(|text| !text.is_empty());
            texts.map(str::to_owned).collect()
        };
        let mut ids = texts("MessageId");
        ids.extend(error["code"].as_str().map(str::to_owned));
        let mut messages = texts("Message");
        messages.dedup();
        let message = match messages.is_empty() {
            false => messages.join(" "),
            true => error["message"].as_str().map_or_else(|| quote(&answer.body), str::to_owned),
        };
        let resolution = texts("Resolution").into_iter().find(|text| !text.eq_ignore_ascii_case("none"));
        let arguments = items.iter().filter_map(|item| item["MessageArgs"].as_array()).flatten();
        let arguments = arguments.filter_map(Value::as_str).map(str::to_owned).collect();
        Self { message, resolution: resolution.unwrap_or_default(), ids, arguments }
    }
}

/// The beginning of an answer that cannot be read, on one line.
pub(super) fn quote(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * QUOTE_MAX)]);
    let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.chars().take(QUOTE_MAX).collect()
}
