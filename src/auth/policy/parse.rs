//! From a policy's text to its statements. Whatever is not understood in full is refused.

use std::collections::HashSet;

use super::condition::{Condition, Operator};
use super::json::Json;
use super::pattern::{Pattern, Syntax};
use super::principal::Principal;
use super::{Effect, Patterns, PolicyError, Principals, Statement, names};

/// Before every bucket's name in a resource.
pub(super) const ARN: &str = "arn:aws:s3:::";

/// Where a policy stands.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// At the bucket of this name: statements name principals, and resources are the bucket's.
    Bucket(&'a str),
    /// In a session's credentials: statements are about the session's holder.
    Session,
}

/// What may stand in a statement.
const ELEMENTS: [&str; 9] =
    ["Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition"];

type Members = Vec<(String, Json)>;

fn wrong<T>(at: &str, what: impl Into<String>) -> Result<T, PolicyError> {
    Err(PolicyError::Invalid { at: at.to_owned(), what: what.into() })
}

/// Takes a member out, so that what is left at the end was not expected.
fn take(members: &mut Members, name: &str) -> Option<Json> {
    let place = members.iter().position(|(own, _)| own == name)?;
    Some(members.swap_remove(place).1)
}

/// A string, where there is a member at all.
fn text(members: &mut Members, name: &str, at: &str) -> Result<Option<String>, PolicyError> {
    match take(members, name) {
        None => Ok(None),
        Some(Json::Text(text)) => Ok(Some(text)),
        Some(other) => wrong(at, format!("{name} is {}; it has to be a string", other.kind())),
    }
}

/// A string or a list of at least one.
fn texts(json: Json, at: &str) -> Result<Vec<String>, PolicyError> {
    let list = match json {
        Json::List(list) if list.is_empty() => {
            return wrong(at, "the list is empty; name at least one, or leave it out");
        }
        Json::List(list) => list,
        one => vec![one],
    };
    let one = |json| match json {
        Json::Text(text) => Ok(text),
        other => wrong(at, format!("{} stands where a string is expected", other.kind())),
    };
    list.into_iter().map(one).collect()
}

/// Reads a whole policy.
pub(super) fn statements(text_given: &str, place: Place<'_>) -> Result<Vec<Statement>, PolicyError> {
    let json: Json = serde_json::from_str(text_given).map_err(|error| PolicyError::Json(error.to_string()))?;
    let at = "the policy";
    let Json::Map(mut members) = json else { return wrong(at, format!("it is {}, not an object", json.kind())) };
    let variables = match text(&mut members, "Version", at)?.as_deref() {
        None | Some("2008-10-17") => false,
        Some("2012-10-17") => true,
        Some(other) => return wrong(at, format!("Version is {other:?}; write 2012-10-17, or 2008-10-17")),
    };
    text(&mut members, "Id", at)?;
    let Some(given) = take(&mut members, "Statement") else { return wrong(at, "there is no Statement") };
    if let Some((name, _)) = members.first() {
        return wrong(at, format!("{name:?} is no element of a policy; there are Version, Id and Statement"));
    }
    let given = match given {
        Json::List(list) => list,
        one => vec![one],
    };
    if given.is_empty() {
        return wrong(at, "Statement is an empty list; write at least one");
    }
    let mut sids = HashSet::new();
    let mut statements = Vec::with_capacity(given.len());
    for (place_in_list, json) in given.into_iter().enumerate() {
        let at = format!("statement {}", place_in_list + 1);
        let Json::Map(members) = json else { return wrong(&at, format!("it is {}, not an object", json.kind())) };
        statements.push(statement(members, &at, place, variables, &mut sids)?);
    }
    Ok(statements)
}

fn statement(
    mut members: Members,
    at: &str,
    place: Place<'_>,
    variables: bool,
    sids: &mut HashSet<String>,
) -> Result<Statement, PolicyError> {
    if let Some((name, _)) = members.iter().find(|(name, _)| !ELEMENTS.contains(&name.as_str())) {
        return wrong(at, format!("{name:?} is no element of a statement; there are {}", ELEMENTS.join(", ")));
    }
    if let Some(sid) = text(&mut members, "Sid", at)?.filter(|sid| !sid.is_empty()) {
        if sids.contains(&sid) {
            return wrong(at, format!("Sid {sid:?} stands twice; every statement needs its own"));
        }
        sids.insert(sid);
    }
    let effect = match text(&mut members, "Effect", at)?.as_deref() {
        Some("Allow") => Effect::Allow,
        Some("Deny") => Effect::Deny,
        Some(other) => return wrong(at, format!("Effect is {other:?}; write Allow or Deny")),
        None => return wrong(at, "there is no Effect"),
    };
    let principals = principals(&mut members, at, place, effect)?;
    let actions = actions(&mut members, at)?;
    let resources = resources(&mut members, at, place, variables)?;
    let conditions = match take(&mut members, "Condition") {
        None => Vec::new(),
        Some(json) => conditions(json, at, variables)?,
    };
    Ok(Statement { effect, principals, actions, resources, conditions })
}

/// Takes `name` or `Not` + `name`, of which there has to be exactly one; says whether it was the second.
fn either(members: &mut Members, name: &str, at: &str) -> Result<(bool, Json), PolicyError> {
    let not = format!("Not{name}");
    match (take(members, name), take(members, &not)) {
        (Some(json), None) => Ok((false, json)),
        (None, Some(json)) => Ok((true, json)),
        (None, None) => wrong(at, format!("there is neither {name} nor {not}")),
        (Some(_), Some(_)) => wrong(at, format!("there are both {name} and {not}; write one of them")),
    }
}

fn principals(members: &mut Members, at: &str, place: Place<'_>, effect: Effect) -> Result<Principals, PolicyError> {
    if matches!(place, Place::Session) {
        if take(members, "Principal").or_else(|| take(members, "NotPrincipal")).is_some() {
            return wrong(at, "a session's policy is about its holder; leave Principal and NotPrincipal out");
        }
        return Ok(Principals { negated: false, list: vec![Principal::Anyone] });
    }
    let (negated, json) = either(members, "Principal", at)?;
    let name = if negated { "NotPrincipal" } else { "Principal" };
    if negated && effect == Effect::Allow {
        return wrong(at, "NotPrincipal does not go with Allow, which would let nearly everyone in; name Principal");
    }
    let at = format!("{at}, {name}");
    let list = match json {
        Json::Text(text) if text == "*" => vec![Principal::Anyone],
        Json::Text(text) => {
            return wrong(&at, format!("{text:?} is neither \"*\" nor an object such as {{\"AWS\": ..}}"));
        }
        Json::Map(kinds) if kinds.is_empty() => return wrong(&at, "the object is empty; name somebody"),
        Json::Map(kinds) => {
            let mut list = Vec::new();
            for (kind, json) in kinds {
                let read = match kind.as_str() {
                    "AWS" => Principal::new,
                    "CanonicalUser" => Principal::account,
                    other => {
                        return wrong(
                            &at,
                            format!("principals of kind {other:?} do not exist here; use AWS, CanonicalUser"),
                        );
                    }
                };
                for text in texts(json, &at)? {
                    list.push(read(&text).or_else(|what| wrong(&at, what))?);
                }
            }
            list
        }
        other => return wrong(&at, format!("it is {}, neither \"*\" nor an object", other.kind())),
    };
    if negated && list.contains(&Principal::Anyone) {
        return wrong(&at, "\"*\" leaves nobody; name whom the statement spares");
    }
    Ok(Principals { negated, list })
}

fn actions(members: &mut Members, at: &str) -> Result<Patterns, PolicyError> {
    let (negated, json) = either(members, "Action", at)?;
    let at = format!("{at}, {}", if negated { "NotAction" } else { "Action" });
    let mut list = Vec::new();
    for text in texts(json, &at)? {
        let ours = text == "*" || text.get(..3).is_some_and(|service| service.eq_ignore_ascii_case("s3:"));
        let pattern = Pattern::new(&text, Syntax { wild: true, variables: false }).or_else(|what| wrong(&at, what))?;
        if !ours || !names::has_action(&pattern) {
            return wrong(&at, format!("{text:?} is no action of S3; write one such as s3:GetObject, s3:* or *"));
        }
        list.push(pattern);
    }
    Ok(Patterns { negated, list })
}

fn resources(members: &mut Members, at: &str, place: Place<'_>, variables: bool) -> Result<Patterns, PolicyError> {
    let (negated, json) = either(members, "Resource", at)?;
    let at = format!("{at}, {}", if negated { "NotResource" } else { "Resource" });
    let syntax = Syntax { wild: true, variables };
    let mut list = Vec::new();
    for text in texts(json, &at)? {
        let pattern = Pattern::new(&text, syntax).or_else(|what| wrong(&at, what))?;
        if text != "*" && !text.starts_with(ARN) {
            return wrong(&at, format!("{text:?} is no resource of S3; write {ARN}BUCKET or {ARN}BUCKET/KEY"));
        }
        if let Place::Bucket(bucket) = place {
            let whole = format!("{ARN}{bucket}");
            // Variables aside, which can stand for anything.
            let within = pattern.fits_alone(&whole, false) || pattern.may_begin(&format!("{whole}/"));
            let open = pattern.variables().next().is_some() && pattern.may_begin(&whole);
            if !within && !open {
                return wrong(&at, format!("{text:?} is not within the bucket; write {whole} or {whole}/KEY"));
            }
        }
        list.push(pattern);
    }
    Ok(Patterns { negated, list })
}

fn conditions(json: Json, at: &str, variables: bool) -> Result<Vec<Condition>, PolicyError> {
    let at = format!("{at}, Condition");
    let Json::Map(operators) = json else { return wrong(&at, format!("it is {}, not an object", json.kind())) };
    let mut list = Vec::new();
    for (name, json) in operators {
        let operator = Operator::new(&name).or_else(|what| wrong(&at, what))?;
        let at = format!("{at}, {name}");
        let Json::Map(keys) = json else { return wrong(&at, format!("it is {}, not an object", json.kind())) };
        if keys.is_empty() {
            return wrong(&at, "the object is empty; name a key, or leave the operator out");
        }
        let mut seen = HashSet::new();
        for (key, json) in keys {
            if !seen.insert(key.to_ascii_lowercase()) {
                return wrong(&at, format!("{key:?} stands twice, for keys are the same whatever their capitals"));
            }
            let values = texts(plain(json), &format!("{at}, {key}"))?;
            list.push(Condition::new(operator, &key, &values, variables).or_else(|what| wrong(&at, what))?);
        }
    }
    Ok(list)
}

/// Truths and numbers may stand without quotes in a condition.
fn plain(json: Json) -> Json {
    match json {
        Json::Bool(truth) => Json::Text(truth.to_string()),
        Json::Number(number) => Json::Text(number),
        Json::List(list) => Json::List(
            list.into_iter().map(|json| if matches!(json, Json::List(_)) { json } else { plain(json) }).collect(),
        ),
        other => other,
    }
}
