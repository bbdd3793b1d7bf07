//! Which other sites' pages may call a bucket: CORS rules as S3 documents them, and the headers that tell browsers.
//!
//! A browser names the page's site in `Origin`; the first rule that admits the site, the method and (before a request
//! that needs it) the headers decides. What no rule admits is answered without these headers, and the browser keeps the
//! answer from the page. The rules grant nothing: who may call is decided as ever.

use hyper::HeaderMap;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, HeaderName, HeaderValue, VARY,
};
use s3s::dto::{CORSConfiguration, CORSRule};
use s3s::{S3Error, S3ErrorCode};
use serde::{Deserialize, Serialize};

/// Most rules of a bucket.
const RULES_MAX: usize = 100;
/// Most bytes of a bucket's rules, counted over their texts.
const BYTES_MAX: usize = 64 * 1_024;
/// Most characters of a rule's id.
const ID_MAX: usize = 255;
/// The methods that a rule can admit.
const METHODS: [&str; 5] = ["GET", "PUT", "HEAD", "POST", "DELETE"];
/// What an answer of a bucket with rules depends on, whether or not one of them matched.
pub(super) const VARIES: &str = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method";

/// Why rules are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CorsError {
    /// Too few or too many rules.
    #[error("there are {0} CORS rules; write 1 to {RULES_MAX}")]
    Count(usize),
    /// The rules are too long.
    #[error("the CORS rules have {0} bytes; at most {BYTES_MAX} are allowed, so join rules or use wildcards")]
    TooLarge(usize),
    /// A rule without a necessary element.
    #[error("CORS rule {rule} has no {element}; write at least one")]
    Missing {
        /// Which rule, from 1.
        rule: usize,
        /// What is missing.
        element: &'static str,
    },
    /// A method that no rule can admit.
    #[error("CORS rule {rule} names the unsupported method {method:?}; use GET, PUT, HEAD, POST or DELETE")]
    Method {
        /// Which rule, from 1.
        rule: usize,
        /// The method.
        method: String,
    },
    /// A text that its element cannot have.
    #[error("CORS rule {rule} has {element} {text:?}, which {problem}")]
    Text {
        /// Which rule, from 1.
        rule: usize,
        /// Of which element.
        element: &'static str,
        /// The text.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A time below zero.
    #[error("CORS rule {rule} has a MaxAgeSeconds below zero; write 0 or more")]
    MaxAge {
        /// Which rule, from 1.
        rule: usize,
    },
}

impl From<CorsError> for S3Error {
    fn from(error: CorsError) -> Self {
        let code = match error {
            CorsError::Count(_) | CorsError::Missing { .. } => S3ErrorCode::MalformedXML,
            _ => S3ErrorCode::InvalidRequest,
        };
        Self::with_message(code, error.to_string())
    }
}

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Rule {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    origins: Vec<String>,
    methods: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    expose: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_age_seconds: Option<u32>,
}

/// A bucket's rules, checked; at least one. Serialised as a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<Rule>", try_from = "Vec<Rule>")]
pub(super) struct Rules {
    rules: Vec<Rule>,
}

impl From<Rules> for Vec<Rule> {
    fn from(rules: Rules) -> Self {
        rules.rules
    }
}

impl TryFrom<Vec<Rule>> for Rules {
    type Error = CorsError;

    fn try_from(rules: Vec<Rule>) -> Result<Self, CorsError> {
        if rules.is_empty() || rules.len() > RULES_MAX {
            return Err(CorsError::Count(rules.len()));
        }
        let bytes = rules.iter().flat_map(Rule::texts).map(str::len).sum();
        if bytes > BYTES_MAX {
            return Err(CorsError::TooLarge(bytes));
        }
        for (place, rule) in rules.iter().enumerate() {
            rule.check(place + 1)?;
        }
        Ok(Self { rules })
    }
}

impl TryFrom<CORSConfiguration> for Rules {
    type Error = CorsError;

    fn try_from(configuration: CORSConfiguration) -> Result<Self, CorsError> {
        let read = |(place, rule): (usize, CORSRule)| {
            let max_age_seconds = rule.max_age_seconds.map(u32::try_from).transpose();
            Ok(Rule {
                id: rule.id,
                origins: rule.allowed_origins,
                methods: rule.allowed_methods,
                headers: rule.allowed_headers.unwrap_or_default(),
                expose: rule.expose_headers.unwrap_or_default(),
                max_age_seconds: max_age_seconds.map_err(|_| CorsError::MaxAge { rule: place + 1 })?,
            })
        };
        configuration.cors_rules.into_iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?.try_into()
    }
}

impl From<Rules> for CORSConfiguration {
    fn from(rules: Rules) -> Self {
        let some = |list: Vec<String>| Some(list).filter(|list| !list.is_empty());
        let write = |rule: Rule| CORSRule {
            id: rule.id,
            allowed_origins: rule.origins,
            allowed_methods: rule.methods,
            allowed_headers: some(rule.headers),
            expose_headers: some(rule.expose),
            max_age_seconds: rule.max_age_seconds.and_then(|seconds| i32::try_from(seconds).ok()),
        };
        Self { cors_rules: rules.rules.into_iter().map(write).collect() }
    }
}

impl Rule {
    fn texts(&self) -> impl Iterator<Item = &str> {
        let lists = [&self.origins, &self.methods, &self.headers, &self.expose];
        lists.into_iter().flatten().chain(&self.id).map(String::as_str)
    }

    fn check(&self, rule: usize) -> Result<(), CorsError> {
        let wrong =
            |element, text: &str, problem| Err(CorsError::Text { rule, element, text: text.to_owned(), problem });
        for (element, list) in [("AllowedOrigin", &self.origins), ("AllowedMethod", &self.methods)] {
            if list.is_empty() {
                return Err(CorsError::Missing { rule, element });
            }
        }
        if let Some(method) = self.methods.iter().find(|method| !METHODS.contains(&method.as_str())) {
            return Err(CorsError::Method { rule, method: method.clone() });
        }
        for (element, list) in [("AllowedOrigin", &self.origins), ("AllowedHeader", &self.headers)] {
            for text in list {
                if text.matches('*').count() > 1 {
                    return wrong(element, text, "has more than one wildcard; write one at most");
                }
                if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return wrong(element, text, "no browser sends; write visible ASCII without spaces");
                }
            }
        }
        for text in &self.expose {
            if text.contains('*') {
                return wrong("ExposeHeader", text, "has a wildcard; name each header");
            }
            if HeaderName::from_bytes(text.as_bytes()).is_err() {
                return wrong("ExposeHeader", text, "is no header's name");
            }
        }
        match &self.id {
            Some(id) if id.chars().count() > ID_MAX => wrong("ID", id, "is longer than 255 characters; shorten it"),
            _ => Ok(()),
        }
    }

    /// How the rule admits `origin`: `Some(true)` where it does so only by admitting every site.
    fn admits(&self, origin: &str) -> Option<bool> {
        let mut fits = self.origins.iter().filter(|own| fits(own, origin)).peekable();
        fits.peek()?;
        Some(fits.all(|own| own == "*"))
    }
}

/// Whether `text` fits a pattern with at most one wildcard.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((begin, end)) => text.len() >= begin.len() + end.len() && text.starts_with(begin) && text.ends_with(end),
    }
}

impl Rules {
    /// The first rule that admits a request from a page of `origin`, as the headers to answer with.
    ///
    /// `method` is the request's or, before one, what `Access-Control-Request-Method` says. `asked` is the value of
    /// `Access-Control-Request-Headers`, a list with commas, of which every header has to be admitted; `None` where the
    /// request has none.
    pub(super) fn matching<'a>(&'a self, origin: &str, method: &str, asked: Option<&str>) -> Option<Match<'a>> {
        let asked: Vec<String> = asked
            .unwrap_or_default()
            .split(',')
            .map(|header| header.trim().to_ascii_lowercase())
            .filter(|header| !header.is_empty())
            .collect();
        let origin_value = HeaderValue::from_str(origin).ok()?;
        self.rules.iter().find_map(|rule| {
            let every_site = rule.admits(origin)?;
            let admitted = |header: &String| rule.headers.iter().any(|own| fits(&own.to_ascii_lowercase(), header));
            if !rule.methods.iter().any(|own| own == method) || !asked.iter().all(admitted) {
                return None;
            }
            let origin = if every_site { HeaderValue::from_static("*") } else { origin_value.clone() };
            Some(Match { rule, origin, every_site, asked: asked.clone() })
        })
    }
}

/// A rule that admits a request.
#[derive(Clone, Debug)]
pub(super) struct Match<'a> {
    rule: &'a Rule,
    /// As it is answered.
    origin: HeaderValue,
    every_site: bool,
    /// In lower case.
    asked: Vec<String>,
}

impl Match<'_> {
    /// The headers for the answer to the request itself.
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut set = |name, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        set(ACCESS_CONTROL_ALLOW_METHODS, &self.rule.methods.join(", "));
        if !self.rule.expose.is_empty() {
            set(ACCESS_CONTROL_EXPOSE_HEADERS, &self.rule.expose.join(", "));
        }
        if let Some(seconds) = self.rule.max_age_seconds {
            set(ACCESS_CONTROL_MAX_AGE, &seconds.to_string());
        }
        // Browsers take no credentials together with every site.
        if !self.every_site {
            set(ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
        }
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.origin.clone());
        headers.insert(VARY, HeaderValue::from_static(VARIES));
        headers
    }

    /// The headers for the answer to the `OPTIONS` request before it.
    pub(super) fn preflight_headers(&self) -> HeaderMap {
        let mut headers = self.headers();
        if let Ok(asked) = HeaderValue::from_str(&self.asked.join(", "))
            && !asked.is_empty()
        {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked);
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    //! The first rule that admits origin, method and headers decides, and nothing else is admitted; the headers say so;
    //! rules that S3 refuses are refused; and rules survive both ways of writing them down.
    use proptest::prelude::*;

    use super::*;

    fn rule(origins: &[&str], methods: &[&str], headers: &[&str]) -> Rule {
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Rule { origins: own(origins), methods: own(methods), headers: own(headers), ..Rule::default() }
    }

    fn rules(list: Vec<Rule>) -> Rules {
        Rules::try_from(list).unwrap()
    }

    fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
        headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[test]
    fn admits_what_the_rules_say() {
        let rules = rules(vec![
            rule(&["https://a.example", "https://*.b.example"], &["GET", "PUT"], &["x-amz-*", "Content-Type"]),
            rule(&["http*"], &["HEAD"], &[]),
        ]);
        for (origin, method, asked, expected) in [
            ("https://a.example", "GET", None, true),
            ("https://a.example", "PUT", Some("X-Amz-Date,  content-type"), true),
            ("https://a.example", "PUT", Some(" , "), true),
            ("https://x.b.example", "GET", None, true),
            ("https://x.y.b.example", "GET", None, true),
            ("https://b.example", "GET", None, false),
            ("https://.b.example", "GET", None, true),
            ("http://x.b.example", "GET", None, false),
            ("https://a.example.evil", "GET", None, false),
            ("https://A.example", "GET", None, false),
            ("https://a.example", "DELETE", None, false),
            ("https://a.example", "get", None, false),
            ("https://a.example", "PUT", Some("authorization"), false),
            ("https://a.example", "PUT", Some("x-amz-date, authorization"), false),
            ("https://a.example", "PUT", Some("x-am"), false),
            ("https://other.example", "HEAD", None, true),
            ("https://other.example", "HEAD", Some("x-amz-date"), false),
            ("ftp://other.example", "HEAD", None, false),
            ("", "GET", None, false),
            ("null", "GET", None, false),
            ("https://a.\n", "HEAD", None, false),
        ] {
            assert_eq!(rules.matching(origin, method, asked).is_some(), expected, "{origin} {method} {asked:?}");
        }
    }

    #[test]
    fn the_first_rule_that_admits_decides() {
        let (mut first, mut second, mut third) = (
            rule(&["https://a.example"], &["GET"], &[]),
            rule(&["https://a.example"], &["GET", "PUT"], &["*"]),
            rule(&["*"], &["GET"], &["*"]),
        );
        (first.max_age_seconds, second.max_age_seconds, third.max_age_seconds) = (Some(1), Some(2), Some(3));
        let rules = rules(vec![first, second, third]);
        let age = |origin, method, asked| {
            let headers = rules.matching(origin, method, asked)?.headers();
            value(&headers, "access-control-max-age").map(str::to_owned)
        };
        assert_eq!(age("https://a.example", "GET", None).as_deref(), Some("1"));
        assert_eq!(age("https://a.example", "PUT", None).as_deref(), Some("2"));
        assert_eq!(age("https://a.example", "GET", Some("x")).as_deref(), Some("2"));
        assert_eq!(age("https://b.example", "GET", Some("x")).as_deref(), Some("3"));
        assert_eq!(age("https://b.example", "PUT", None), None);
    }

    #[test]
    fn headers_of_a_named_site() {
        let mut own = rule(&["https://*.example"], &["GET", "PUT"], &["*"]);
        own.expose = vec!["ETag".to_owned(), "x-amz-request-id".to_owned()];
        own.max_age_seconds = Some(3_000);
        let rules = rules(vec![own]);
        let matched = rules.matching("https://a.example", "GET", Some("X-Amz-Date,Content-MD5")).unwrap();
        let headers = matched.headers();
        assert_eq!(value(&headers, "access-control-allow-origin"), Some("https://a.example"));
        assert_eq!(value(&headers, "access-control-allow-methods"), Some("GET, PUT"));
        assert_eq!(value(&headers, "access-control-expose-headers"), Some("ETag, x-amz-request-id"));
        assert_eq!(value(&headers, "access-control-max-age"), Some("3000"));
        assert_eq!(value(&headers, "access-control-allow-credentials"), Some("true"));
        assert_eq!(value(&headers, "access-control-allow-headers"), None);
        assert!(value(&headers, "vary").unwrap().starts_with("Origin"));
        let before = matched.preflight_headers();
        assert_eq!(value(&before, "access-control-allow-headers"), Some("x-amz-date, content-md5"));
        assert_eq!(value(&before, "access-control-allow-origin"), Some("https://a.example"));
        let nothing_asked = rules.matching("https://a.example", "GET", None).unwrap().preflight_headers();
        assert_eq!(value(&nothing_asked, "access-control-allow-headers"), None);
    }

    #[test]
    fn headers_of_every_site() {
        let every = rules(vec![rule(&["*"], &["GET"], &[])]);
        let headers = every.matching("https://a.example", "GET", None).unwrap().headers();
        assert_eq!(value(&headers, "access-control-allow-origin"), Some("*"));
        assert_eq!(value(&headers, "access-control-allow-credentials"), None);
        assert_eq!(value(&headers, "access-control-max-age"), None);
        assert_eq!(value(&headers, "access-control-expose-headers"), None);
        // One that is named besides is answered by its name.
        let both = rules(vec![rule(&["*", "https://a.example"], &["GET"], &[])]);
        let headers = both.matching("https://a.example", "GET", None).unwrap().headers();
        assert_eq!(value(&headers, "access-control-allow-origin"), Some("https://a.example"));
        let headers = both.matching("https://b.example", "GET", None).unwrap().headers();
        assert_eq!(value(&headers, "access-control-allow-origin"), Some("*"));
    }

    #[test]
    fn refuses_what_s3_refuses() {
        let good = || rule(&["*"], &["GET"], &["*"]);
        let code = |list: Vec<Rule>| S3Error::from(Rules::try_from(list).unwrap_err()).code().clone();
        assert_eq!(code(vec![]), S3ErrorCode::MalformedXML);
        assert_eq!(code(vec![good(); 101]), S3ErrorCode::MalformedXML);
        assert_eq!(rules(vec![good(); 100]).rules.len(), 100);
        assert_eq!(code(vec![rule(&[], &["GET"], &[])]), S3ErrorCode::MalformedXML);
        assert_eq!(code(vec![rule(&["*"], &[], &[])]), S3ErrorCode::MalformedXML);
        for method in ["PATCH", "OPTIONS", "get", "*", ""] {
            let error = Rules::try_from(vec![good(), rule(&["*"], &["GET", method], &[])]).unwrap_err();
            assert!(error.to_string().contains("rule 2"), "{error}");
            assert_eq!(S3Error::from(error).code(), &S3ErrorCode::InvalidRequest);
        }
        for origin in ["https://*.*", "**", "", "a b", "é", "a\n"] {
            assert_eq!(code(vec![rule(&[origin], &["GET"], &[])]), S3ErrorCode::InvalidRequest, "{origin:?}");
            assert_eq!(code(vec![rule(&["*"], &["GET"], &[origin])]), S3ErrorCode::InvalidRequest, "{origin:?}");
        }
        for expose in ["*", "x-*", "a b", "", "é"] {
            let expose = Rule { expose: vec![expose.to_owned()], ..good() };
            assert_eq!(code(vec![expose]), S3ErrorCode::InvalidRequest);
        }
        assert_eq!(code(vec![Rule { id: Some("i".repeat(256)), ..good() }]), S3ErrorCode::InvalidRequest);
        assert_eq!(code(vec![rule(&["h".repeat(BYTES_MAX).as_str()], &["GET"], &[])]), S3ErrorCode::InvalidRequest);
        let aged =
            CORSRule { max_age_seconds: Some(-1), ..CORSConfiguration::from(rules(vec![good()])).cors_rules.remove(0) };
        let error = Rules::try_from(CORSConfiguration { cors_rules: vec![aged] }).unwrap_err();
        assert_eq!(error, CorsError::MaxAge { rule: 1 });
    }

    #[test]
    fn both_ways() {
        let full = Rule {
            id: Some("one".to_owned()),
            expose: vec!["ETag".to_owned()],
            max_age_seconds: Some(0),
            ..rule(&["https://a.example"], &["GET"], &["*"])
        };
        let rules = rules(vec![full, rule(&["*"], &["PUT"], &[])]);
        let configuration = CORSConfiguration::from(rules.clone());
        assert_eq!(configuration.cors_rules[1].allowed_headers, None);
        assert_eq!(configuration.cors_rules[0].max_age_seconds, Some(0));
        assert_eq!(Rules::try_from(configuration).unwrap(), rules);
        let text = serde_json::to_string(&rules).unwrap();
        assert_eq!(serde_json::from_str::<Rules>(&text).unwrap(), rules);
        assert!(serde_json::from_str::<Rules>("[]").is_err());
        assert!(serde_json::from_str::<Rules>(&text.replace("PUT", "PATCH")).is_err());
    }

    proptest! {
        #[test]
        fn hostile_requests(origin in ".*", method in "(GET|PUT|.*)", asked in proptest::option::of(".*")) {
            let rules = rules(vec![rule(&["*a", "h*"], &["GET"], &["x*"]), rule(&["*"], &["PUT"], &["*"])]);
            if let Some(matched) = rules.matching(&origin, &method, asked.as_deref()) {
                prop_assert!(!matched.preflight_headers().is_empty());
            }
        }
    }
}
