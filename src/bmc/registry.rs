//! The attribute registry of a BIOS (DSP0266, AttributeRegistry): which attributes there are, which values they take, and which cannot be
//! changed while others stand as they do. Pure: what is wrong is said before anything is sent.

use std::collections::BTreeMap;

use serde_json::Value;

/// What is known of one BIOS's attributes.
#[derive(Clone, Debug, Default)]
pub(super) struct Registry {
    attributes: BTreeMap<String, Value>,
    dependencies: Vec<Value>,
}

impl Registry {
    /// Reads a registry; a document that is none gives one that knows nothing.
    pub(super) fn read(document: &Value) -> Self {
        let entries = &document["RegistryEntries"];
        let list = |key: &str| entries[key].as_array().cloned().unwrap_or_default();
        let named = list("Attributes").into_iter().filter_map(|entry| {
            let name = entry["AttributeName"].as_str()?.to_owned();
            Some((name, entry))
        });
        Self { attributes: named.collect(), dependencies: list("Dependencies") }
    }

    /// How many attributes it knows.
    pub(super) fn len(&self) -> usize {
        self.attributes.len()
    }

    /// The value that a person's text means for an attribute whose present value is `now`.
    pub(super) fn value(&self, name: &str, text: &str, now: &Value) -> Result<Value, String> {
        let entry = self.attributes.get(name).unwrap_or(&Value::Null);
        if entry["ReadOnly"] == true || entry["Immutable"] == true {
            return Err(format!("{name} cannot be changed"));
        }
        let kind = entry["Type"].as_str().unwrap_or(match now {
            Value::Bool(_) => "Boolean",
            Value::Number(_) => "Integer",
            _ => "String",
        });
        match kind {
            "Boolean" => {
                text.to_ascii_lowercase().parse().map(Value::Bool).map_err(|_| format!("{name} is true or false"))
            }
            "Integer" => integer(name, text, entry),
            "Enumeration" => enumerated(name, text, entry),
            _ => string(name, text, entry),
        }
    }

    /// Why an attribute cannot be changed when all attributes stand as in `values`; none where it can.
    pub(super) fn blocked(&self, name: &str, values: &BTreeMap<String, Value>) -> Option<String> {
        let of_it = self.dependencies.iter().map(|entry| &entry["Dependency"]).filter(|rule| {
            rule["MapToAttribute"] == name
                && matches!(rule["MapToProperty"].as_str(), Some("ReadOnly" | "GrayOut" | "Hidden"))
        });
        // The last rule that holds for a property decides; a rule may also lift what another says.
        let mut says: BTreeMap<&str, Option<String>> = BTreeMap::new();
        for rule in of_it {
            let conditions = rule["MapFrom"].as_array().map(Vec::as_slice).unwrap_or_default();
            if conditions.is_empty() || !holds(conditions, values) {
                continue;
            }
            let because = conditions.iter().filter_map(|from| from["MapFromAttribute"].as_str()).map(|from| {
                let value = values.get(from).map_or_else(|| "unknown".to_owned(), shown);
                format!("{from} is {value}")
            });
            let why = (rule["MapToValue"] == true).then(|| because.collect::<Vec<_>>().join(" and "));
            says.insert(rule["MapToProperty"].as_str().unwrap_or_default(), why);
        }
        says.into_values().flatten().next().map(|why| format!("{name} cannot be changed while {why}"))
    }
}

/// A value as people write it.
pub(super) fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn integer(name: &str, text: &str, entry: &Value) -> Result<Value, String> {
    let number: i64 = text.trim().parse().map_err(|_| format!("{name} is a whole number, not {text:?}"))?;
    let (low, high) = (entry["LowerBound"].as_i64(), entry["UpperBound"].as_i64());
    if low.is_some_and(|low| number < low) || high.is_some_and(|high| number > high) {
        let bound = |bound: Option<i64>| bound.map_or_else(|| "any".to_owned(), |bound| bound.to_string());
        return Err(format!("{name} is from {} to {}", bound(low), bound(high)));
    }
    Ok(Value::from(number))
}

fn enumerated(name: &str, text: &str, entry: &Value) -> Result<Value, String> {
    let values = entry["Value"].as_array().map(Vec::as_slice).unwrap_or_default();
    let texts = |key: &str| values.iter().filter_map(|value| value[key].as_str()).collect::<Vec<_>>();
    let names = texts("ValueName");
    let exact = names.iter().find(|value| **value == text);
    let loose = || names.iter().find(|value| value.eq_ignore_ascii_case(text));
    let by_display = || {
        let of =
            |value: &&Value| value["ValueDisplayName"].as_str().is_some_and(|shown| shown.eq_ignore_ascii_case(text));
        values.iter().find(of).and_then(|value| value["ValueName"].as_str())
    };
    match exact.or_else(loose).copied().or_else(by_display) {
        Some(value) => Ok(Value::from(value)),
        None if names.is_empty() => Ok(Value::from(text)),
        None => Err(format!("{name} is one of {}", names.join(", "))),
    }
}

fn string(name: &str, text: &str, entry: &Value) -> Result<Value, String> {
    let length = text.chars().count() as u64;
    let (least, most) = (entry["MinLength"].as_u64().unwrap_or(0), entry["MaxLength"].as_u64().unwrap_or(u64::MAX));
    match (least..=most).contains(&length) {
        true => Ok(Value::from(text)),
        false => Err(format!("{name} takes {least} to {most} characters")),
    }
}

/// Whether the conditions hold, joined by their `MapTerms` from left to right.
fn holds(conditions: &[Value], values: &BTreeMap<String, Value>) -> bool {
    let mut all = None;
    for condition in conditions {
        let now = condition["MapFromAttribute"].as_str().and_then(|name| values.get(name)).unwrap_or(&Value::Null);
        let wanted = &condition["MapFromValue"];
        let of_value = condition["MapFromProperty"].as_str().is_none_or(|property| property == "CurrentValue");
        let compare = |test: fn(f64, f64) -> bool| now.as_f64().zip(wanted.as_f64()).is_some_and(|(a, b)| test(a, b));
        let here = of_value
            && match condition["MapFromCondition"].as_str() {
                Some("EQU") | None => now == wanted,
                Some("NEQ") => now != wanted,
                Some("GTR") => compare(|a, b| a > b),
                Some("GEQ") => compare(|a, b| a >= b),
                Some("LSS") => compare(|a, b| a < b),
                Some("LEQ") => compare(|a, b| a <= b),
                Some(_) => false,
            };
        all = Some(match (all, condition["MapTerms"].as_str()) {
            (None, _) => here,
            (Some(before), Some("OR")) => before || here,
            (Some(before), _) => before && here,
        });
    }
    all.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    //! Values are checked against what the registry says, and dependencies against what stands.
    use serde_json::json;

    use super::*;

    fn registry() -> Registry {
        Registry::read(&json!({ "RegistryEntries": {
            "Attributes": [
                { "AttributeName": "Boot", "Type": "Enumeration", "Value": [
                    { "ValueName": "Uefi", "ValueDisplayName": "UEFI mode" }, { "ValueName": "Bios" }] },
                { "AttributeName": "Cores", "Type": "Integer", "LowerBound": 0, "UpperBound": 64 },
                { "AttributeName": "Serial", "Type": "String", "ReadOnly": true },
                { "AttributeName": "Quiet", "Type": "Boolean" },
                { "AttributeName": "HttpUri", "Type": "String", "MaxLength": 8 }],
            "Dependencies": [
                { "DependencyFor": "HttpUri", "Dependency": { "MapFrom": [
                    { "MapFromAttribute": "Boot", "MapFromProperty": "CurrentValue", "MapFromCondition": "NEQ", "MapFromValue": "Uefi" }],
                    "MapToAttribute": "HttpUri", "MapToProperty": "ReadOnly", "MapToValue": true } }] } }))
    }

    #[test]
    fn values_are_checked() {
        let registry = registry();
        let value = |name: &str, text: &str| registry.value(name, text, &Value::Null);
        assert_eq!(value("Boot", "uefi"), Ok(json!("Uefi")));
        assert_eq!(value("Boot", "UEFI mode"), Ok(json!("Uefi")));
        assert!(value("Boot", "Both").unwrap_err().contains("Uefi, Bios"));
        assert_eq!(value("Cores", "12"), Ok(json!(12)));
        assert!(value("Cores", "65").unwrap_err().contains("0 to 64"));
        assert!(value("Serial", "x").is_err() && value("HttpUri", "too long a text").is_err());
        assert_eq!(value("Quiet", "True"), Ok(json!(true)));
        assert_eq!(registry.value("Unlisted", "5", &json!(4)), Ok(json!(5)), "as the present value is");
    }

    #[test]
    fn dependencies_are_named() {
        let stand = |boot: &str| BTreeMap::from([("Boot".to_owned(), json!(boot))]);
        assert_eq!(registry().blocked("HttpUri", &stand("Uefi")), None);
        let why = registry().blocked("HttpUri", &stand("Bios")).unwrap();
        assert!(why.contains("while Boot is Bios"), "{why}");
    }
}
