//! What a BMC tells of its machine at the moment that something failed: read only, and whatever can be read.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Bmc;

/// Entries of the BMC's logs.
const LOG_ENTRIES: usize = 100;

impl Bmc {
    /// Everything that helps to find out why a machine failed, by name: `system` and `media` as the BMC shows them now, `log`, `health`,
    /// and under `not-read` what could not be read.
    pub async fn evidence(&self) -> BTreeMap<String, Value> {
        let mut found = BTreeMap::new();
        let mut missing = vec![];
        let mut keep = |name: &str, read: Result<Value, super::BmcError>| match read {
            Ok(value) => drop(found.insert(name.to_owned(), value)),
            Err(error) => missing.push(format!("{name}: {error}")),
        };
        keep("system", self.system().await);
        keep("media", self.shown_media().await.map(Value::Array));
        keep("log", self.log(None, LOG_ENTRIES).await.map(|log| json!(log)));
        keep("health", self.health().await.map(|health| json!(health)));
        if !missing.is_empty() {
            found.insert("not-read".to_owned(), json!(missing));
        }
        found
    }
}
