//! Conditions: what must hold of a request's circumstances for a statement to apply.

use super::pattern::{Fit, Pattern, Scope, Syntax};
use super::request::Request;
use super::value::{self, Range};
use super::{Effect, names};
use crate::auth::base64;

/// How the several values of one key count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quantifier {
    /// `ForAllValues:`; no value at all will do.
    All,
    /// `ForAnyValue:`; there has to be one.
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    fn holds<T: PartialOrd>(self, own: &T, other: &T) -> bool {
        match self {
            Self::Equal => own == other,
            Self::Less => own < other,
            Self::LessOrEqual => own <= other,
            Self::Greater => own > other,
            Self::GreaterOrEqual => own >= other,
        }
    }
}

/// What an operator compares, without its `Not`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text { wild: bool, any_case: bool },
    Number(Order),
    Date(Order),
    Bool,
    Binary,
    Address,
    Arn,
    Null,
}

/// The values of a condition, ready to be compared.
#[derive(Clone, Debug, PartialEq)]
enum Test {
    Text {
        any_case: bool,
        patterns: Vec<Pattern>,
    },
    Number(Order, Vec<f64>),
    Date(Order, Vec<i128>),
    Bool(Vec<bool>),
    Binary(Vec<Vec<u8>>),
    Address(Vec<Range>),
    /// Each has six patterns, one for each field, or one for the whole.
    Arn(Vec<Vec<Pattern>>),
    /// Whether the key must be absent.
    Null(Vec<bool>),
}

/// An operator as a policy names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Operator {
    kind: Kind,
    negated: bool,
    if_exists: bool,
    quantifier: Option<Quantifier>,
}

impl Operator {
    /// Reads an operator's name. The error is what is wrong with it, in words.
    pub(super) fn new(name: &str) -> Result<Self, String> {
        let (quantifier, rest) = if let Some(rest) = name.strip_prefix("ForAllValues:") {
            (Some(Quantifier::All), rest)
        } else if let Some(rest) = name.strip_prefix("ForAnyValue:") {
            (Some(Quantifier::Any), rest)
        } else {
            (None, name)
        };
        let (if_exists, base) = rest.strip_suffix("IfExists").map_or((false, rest), |base| (true, base));
        let text = |wild, any_case| Kind::Text { wild, any_case };
        let (kind, negated) = match base {
            "StringEquals" => (text(false, false), false),
            "StringNotEquals" => (text(false, false), true),
            "StringEqualsIgnoreCase" => (text(false, true), false),
            "StringNotEqualsIgnoreCase" => (text(false, true), true),
            "StringLike" => (text(true, false), false),
            "StringNotLike" => (text(true, false), true),
            "NumericEquals" => (Kind::Number(Order::Equal), false),
            "NumericNotEquals" => (Kind::Number(Order::Equal), true),
            "NumericLessThan" => (Kind::Number(Order::Less), false),
            "NumericLessThanEquals" => (Kind::Number(Order::LessOrEqual), false),
            "NumericGreaterThan" => (Kind::Number(Order::Greater), false),
            "NumericGreaterThanEquals" => (Kind::Number(Order::GreaterOrEqual), false),
            "DateEquals" => (Kind::Date(Order::Equal), false),
            "DateNotEquals" => (Kind::Date(Order::Equal), true),
            "DateLessThan" => (Kind::Date(Order::Less), false),
            "DateLessThanEquals" => (Kind::Date(Order::LessOrEqual), false),
            "DateGreaterThan" => (Kind::Date(Order::Greater), false),
            "DateGreaterThanEquals" => (Kind::Date(Order::GreaterOrEqual), false),
            "Bool" => (Kind::Bool, false),
            "BinaryEquals" => (Kind::Binary, false),
            "IpAddress" => (Kind::Address, false),
            "NotIpAddress" => (Kind::Address, true),
            // The two of each pair do the same.
            "ArnEquals" | "ArnLike" => (Kind::Arn, false),
            "ArnNotEquals" | "ArnNotLike" => (Kind::Arn, true),
            "Null" if !if_exists && quantifier.is_none() => (Kind::Null, false),
            _ => return Err(format!("{name:?} is no condition operator; write one such as StringEquals")),
        };
        Ok(Self { kind, negated, if_exists, quantifier })
    }
}

/// One condition: an operator, a key and the values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Condition {
    /// Lower-case.
    key: String,
    operator: Operator,
    test: Test,
}

/// The text of `true` or `false`, whatever the capitals.
fn truth(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// Reads each value, or says of the first that cannot be read that it is not `what`.
fn each<T>(values: &[String], what: &str, read: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, String> {
    let read = |value: &String| read(value).ok_or_else(|| format!("{value:?} is not {what}"));
    values.iter().map(read).collect()
}

/// Reads an ARN to compare with, field by field.
fn arn(text: &str, variables: bool) -> Result<Vec<Pattern>, String> {
    let syntax = Syntax { wild: true, variables };
    if text == "*" || (variables && text.starts_with("${")) {
        return Ok(vec![Pattern::new(text, syntax)?]);
    }
    // Colons within a variable separate nothing.
    let (mut fields, mut begin, mut inside) = (Vec::new(), 0, false);
    for (place, letter) in text.char_indices() {
        match letter {
            '$' if variables && text[place..].starts_with("${") => inside = true,
            '}' => inside = false,
            ':' if !inside && fields.len() < 5 => {
                fields.push(&text[begin..place]);
                begin = place + 1;
            }
            _ => {}
        }
    }
    fields.push(&text[begin..]);
    if fields.len() != 6 {
        return Err(format!("{text:?} is not an ARN; write six fields, as in arn:aws:iam::TENANT:user/NAME"));
    }
    fields.into_iter().map(|field| Pattern::new(field, syntax)).collect()
}

/// Compares an ARN with its patterns, of which each must fit.
fn arn_fit(patterns: &[Pattern], text: &str, scope: &Scope<'_>) -> Fit {
    let fields: Vec<&str> = if patterns.len() == 1 { vec![text] } else { text.splitn(6, ':').collect() };
    if fields.len() != patterns.len() {
        return Fit::No;
    }
    let mut fit = Fit::Yes;
    for (pattern, field) in patterns.iter().zip(fields) {
        match pattern.fit(field, scope) {
            Fit::Yes => {}
            Fit::No => return Fit::No,
            Fit::Unresolved => fit = Fit::Unresolved,
        }
    }
    fit
}

/// What several comparisons say together, where one that fits is enough.
pub(super) fn first_fit(fits: impl Iterator<Item = Fit>) -> Fit {
    let mut all = Fit::No;
    for fit in fits {
        match fit {
            Fit::Yes => return Fit::Yes,
            Fit::Unresolved => all = Fit::Unresolved,
            Fit::No => {}
        }
    }
    all
}

/// Whether an element that must fit (or, `negated`, must not) does. Where a variable has no value, nothing is allowed
/// by what must not fit, and nothing escapes what is denied by it.
pub(super) fn holds(fit: Fit, negated: bool, effect: Effect) -> bool {
    match fit {
        Fit::Yes => !negated,
        Fit::No => negated,
        Fit::Unresolved => negated && effect == Effect::Deny,
    }
}

impl Test {
    fn new(kind: Kind, values: &[String], variables: bool) -> Result<Self, String> {
        Ok(match kind {
            Kind::Text { wild, any_case } => {
                let read = |value: &String| Pattern::new(value, Syntax { wild, variables });
                Self::Text { any_case, patterns: values.iter().map(read).collect::<Result<_, _>>()? }
            }
            Kind::Number(order) => Self::Number(order, each(values, "a number", value::number)?),
            Kind::Date(order) => {
                let what = "a time; write it as 2026-11-23T22:00:00Z, or in seconds since 1970";
                Self::Date(order, each(values, what, value::moment)?)
            }
            Kind::Bool => Self::Bool(each(values, "true or false", truth)?),
            Kind::Binary => Self::Binary(each(values, "base64", base64::decode)?),
            Kind::Address => {
                let what = "a range of addresses; write one such as 192.0.2.0/24 or 2001:db8::/32";
                Self::Address(each(values, what, Range::new)?)
            }
            Kind::Arn => Self::Arn(values.iter().map(|value| arn(value, variables)).collect::<Result<_, _>>()?),
            Kind::Null => Self::Null(each(values, "true or false", truth)?),
        })
    }

    /// Compares one value of the request with those of the policy; one of these is enough. A value of the wrong kind
    /// fits none.
    fn fit(&self, text: &str, scope: &Scope<'_>) -> Fit {
        let answer = |fits| if fits { Fit::Yes } else { Fit::No };
        match self {
            Self::Text { any_case, patterns } => first_fit(patterns.iter().map(|pattern| match any_case {
                true => pattern.fit_any_case(text, scope),
                false => pattern.fit(text, scope),
            })),
            Self::Number(order, values) => {
                answer(value::number(text).is_some_and(|own| values.iter().any(|value| order.holds(&own, value))))
            }
            Self::Date(order, values) => {
                answer(value::moment(text).is_some_and(|own| values.iter().any(|value| order.holds(&own, value))))
            }
            Self::Bool(values) => answer(truth(text).is_some_and(|own| values.contains(&own))),
            Self::Binary(values) => answer(base64::decode(text).is_some_and(|own| values.contains(&own))),
            Self::Address(ranges) => {
                answer(value::address(text).is_some_and(|own| ranges.iter().any(|range| range.contains(own))))
            }
            Self::Arn(values) => first_fit(values.iter().map(|patterns| arn_fit(patterns, text, scope))),
            // Asked of the key, not of a value.
            Self::Null(_) => Fit::No,
        }
    }

    fn patterns(&self) -> Vec<&Pattern> {
        match self {
            Self::Text { patterns, .. } => patterns.iter().collect(),
            Self::Arn(values) => values.iter().flatten().collect(),
            _ => Vec::new(),
        }
    }
}

impl Condition {
    /// Reads a condition. `variables` says whether `${...}` is one. The error is what is wrong, in words.
    pub(super) fn new(operator: Operator, key: &str, values: &[String], variables: bool) -> Result<Self, String> {
        let key = key.to_ascii_lowercase();
        if !names::is_condition_key(&key) {
            return Err(format!("{key:?} is no condition key; write one such as aws:SourceIp or s3:prefix"));
        }
        let test = Test::new(operator.kind, values, variables)?;
        Ok(Self { key, operator, test })
    }

    /// Whether it holds of `request`, in a statement of this effect.
    pub(super) fn holds(&self, request: &Request<'_>, scope: &Scope<'_>, effect: Effect) -> bool {
        let values = request.values(&self.key);
        let Operator { negated, if_exists, quantifier, .. } = self.operator;
        if let Test::Null(absent) = &self.test {
            return absent.contains(&values.is_empty());
        }
        if values.is_empty() {
            return match quantifier {
                Some(Quantifier::All) => true,
                Some(Quantifier::Any) => false,
                None => if_exists || negated,
            };
        }
        let one = |value: &String| holds(self.test.fit(value, scope), negated, effect);
        match quantifier {
            Some(Quantifier::All) => values.iter().all(one),
            Some(Quantifier::Any) => values.iter().any(one),
            // Several values of a key that should have one: all of them must keep clear of what is excluded.
            None if negated => values.iter().all(one),
            None => values.iter().any(one),
        }
    }

    /// The keys that it looks at, in lower case: its own and its variables'.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        let variables = self.test.patterns().into_iter().flat_map(Pattern::variables);
        std::iter::once(self.key.as_str()).chain(variables)
    }

    /// Whether it keeps a statement that names everyone from being public: it admits only fixed values of a key that
    /// nobody can choose for himself, and never a request without that key.
    pub(super) fn narrows(&self) -> bool {
        let Operator { negated, if_exists, quantifier, .. } = self.operator;
        if negated || if_exists || quantifier == Some(Quantifier::All) {
            return false;
        }
        match &self.test {
            Test::Address(ranges) => self.key == "aws:sourceip" && !ranges.iter().any(Range::is_broad),
            Test::Text { .. } | Test::Arn(_) => {
                names::is_narrowing_key(&self.key) && self.test.patterns().iter().all(|pattern| pattern.is_fixed())
            }
            _ => false,
        }
    }
}
