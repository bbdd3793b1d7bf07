//! The OpenAPI document, made from the table of endpoints; only the schemas of bodies are written by hand.

use serde_json::{Map, Value, json};

use super::endpoint::{Content, Endpoint, Who};

const SCHEMAS: &str = include_str!("schemas.json");

/// The document.
pub(super) fn document(endpoints: &[Endpoint]) -> Value {
    let mut paths = Map::new();
    for endpoint in endpoints {
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        path[endpoint.method.as_str().to_ascii_lowercase()] = operation(endpoint);
    }
    let schemas: Value = serde_json::from_str(SCHEMAS).expect("schemas.json is part of the program and tested");
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "bedplate control API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Racks, jobs, images, and what agents ask. Errors are JSON: {\"error\":{\"kind\",\"message\",\"hint\"}}.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"}
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "basic", "description": "Access key and secret key of the root key."},
                "token": {"type": "http", "scheme": "bearer", "description": "A node's token, over TLS only."}
            }
        }
    })
}

fn operation(endpoint: &Endpoint) -> Value {
    let mut responses = Map::new();
    let mut success = json!({"description": "Done."});
    if let Some(content) = content(endpoint.gives) {
        success["content"] = content;
    }
    responses.insert(endpoint.status.to_string(), success);
    for status in refusals(endpoint) {
        let body = json!({"description": reason(status), "content": content(Content::Json("Error"))});
        responses.insert(status.to_string(), body);
    }
    let mut operation = json!({
        "operationId": operation_id(endpoint),
        "summary": endpoint.about,
        "security": security(endpoint.who),
        "parameters": parameters(endpoint),
        "responses": responses,
    });
    if let Some(content) = content(endpoint.takes) {
        operation["requestBody"] = json!({"required": true, "content": content});
    }
    operation
}

/// What this endpoint may refuse with: its own reasons, and those that follow from who may call and what it takes.
fn refusals(endpoint: &Endpoint) -> Vec<u16> {
    let mut statuses = endpoint.refusals.to_vec();
    match endpoint.who {
        Who::Anyone => {}
        Who::Agent | Who::Puller | Who::Holder => statuses.extend([401, 403]),
        Who::Admin => statuses.push(401),
    }
    if endpoint.takes != Content::Empty || !endpoint.query.is_empty() || endpoint.path.contains("/{") {
        statuses.push(400);
    }
    statuses.sort_unstable();
    statuses.dedup();
    statuses
}

fn reason(status: u16) -> &'static str {
    match status {
        400 => "The request cannot be understood.",
        401 => "No key or token, or not a good one.",
        403 => "Not over plain HTTP, or not for this caller.",
        404 => "No such thing.",
        409 => "In conflict with what is there.",
        412 => "What was seen before is no longer so.",
        416 => "No such range.",
        503 => "Not able to now.",
        _ => "Refused.",
    }
}

fn security(who: Who) -> Value {
    match who {
        Who::Anyone => json!([]),
        Who::Agent => json!([{"token": []}]),
        Who::Puller => json!([{"token": []}, {"key": []}]),
        Who::Holder | Who::Admin => json!([{"key": []}]),
    }
}

fn parameters(endpoint: &Endpoint) -> Vec<Value> {
    let in_path = endpoint.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = in_path
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    parameters.extend(
        endpoint.query.iter().map(
            |(name, about)| json!({"name": name, "in": "query", "description": about, "schema": {"type": "string"}}),
        ),
    );
    parameters
}

fn content(content: Content) -> Option<Value> {
    let schema = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    match content {
        Content::Empty => None,
        Content::Json(name) => Some(json!({"application/json": {"schema": schema(name)}})),
        Content::JsonList(name) => {
            Some(json!({"application/json": {"schema": {"type": "array", "items": schema(name)}}}))
        }
        Content::Bytes(media_type) => Some(json!({media_type: {}})),
    }
}

/// `get /api/v1/jobs/{id}` becomes `get_jobs_id`.
fn operation_id(endpoint: &Endpoint) -> String {
    let words =
        endpoint.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !matches!(*word, "" | "api" | "v1"));
    let mut id = endpoint.method.as_str().to_ascii_lowercase();
    for word in words {
        id.push('_');
        id.push_str(word);
    }
    id
}
