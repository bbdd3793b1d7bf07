//! Object lock: what keeps a version from being removed. The lock stands among what is kept of an object, under the names of the
//! headers that set it.

use std::collections::BTreeMap;

use crate::sys::clock::Timestamp;

/// `GOVERNANCE` or `COMPLIANCE`.
pub const LOCK_MODE: &str = "x-amz-object-lock-mode";
/// Until when, in RFC 3339.
pub const LOCK_UNTIL: &str = "x-amz-object-lock-retain-until-date";
/// `ON` or `OFF`.
pub const LEGAL_HOLD: &str = "x-amz-object-lock-legal-hold";

/// Whether a version with these headers must stay at `now`. A lock that cannot be read holds.
pub(super) fn holds(headers: &BTreeMap<String, String>, now: Timestamp, bypass_governance: bool) -> bool {
    if headers.get(LEGAL_HOLD).is_some_and(|hold| hold == "ON") {
        return true;
    }
    let Some(mode) = headers.get(LOCK_MODE) else { return false };
    let retained = headers.get(LOCK_UNTIL).is_some_and(|until| until.parse::<Timestamp>().map_or(true, |at| at > now));
    retained && !(bypass_governance && mode == "GOVERNANCE")
}

#[cfg(test)]
mod tests {
    //! A hold and a retention that is not over keep a version; only governance can be bypassed.
    use super::*;

    #[test]
    fn locks_hold() {
        let headers = |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let now = "2026-06-01T00:00:00.000Z".parse().unwrap();
        let (before, after) = ("2026-05-01T00:00:00.000Z", "2026-07-01T00:00:00.000Z");
        let cases = [
            (headers(&[]), false, false),
            (headers(&[(LEGAL_HOLD, "OFF")]), false, false),
            (headers(&[(LEGAL_HOLD, "ON")]), true, true),
            (headers(&[(LOCK_MODE, "GOVERNANCE"), (LOCK_UNTIL, after)]), true, false),
            (headers(&[(LOCK_MODE, "GOVERNANCE"), (LOCK_UNTIL, before)]), false, false),
            (headers(&[(LOCK_MODE, "COMPLIANCE"), (LOCK_UNTIL, after)]), true, true),
            (headers(&[(LOCK_MODE, "COMPLIANCE"), (LOCK_UNTIL, "nonsense")]), true, true),
        ];
        for (headers, held, held_with_bypass) in cases {
            assert_eq!(holds(&headers, now, false), held, "{headers:?}");
            assert_eq!(holds(&headers, now, true), held_with_bypass, "{headers:?}");
        }
    }
}
