//! Numbers, times and address ranges as policies write them.

use std::net::{IpAddr, Ipv6Addr};

use time::{Date, Month};

/// A decimal number. `inf`, `nan` and the like are none.
pub(super) fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E'));
    text.parse().ok().filter(|number: &f64| plain && number.is_finite())
}

/// A moment, in nanoseconds since 1970-01-01 00:00 UTC: either seconds since then as a whole number, or one of the
/// ISO 8601 forms `YYYY`, `YYYY-MM`, `YYYY-MM-DD` and `YYYY-MM-DDThh:mm[:ss[.fraction]](Z|±hh:mm)`.
pub(super) fn moment(text: &str) -> Option<i128> {
    const NANOS: i128 = 1_000_000_000;
    let text = text.trim();
    // Four digits are a year, as in the standard.
    if text.len() != 4 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(i128::from(text.parse::<u64>().ok()?) * NANOS);
    }
    let (date, time) = text.split_once(['T', 't']).map_or((text, None), |(date, time)| (date, Some(time)));
    let mut fields = date.split('-');
    let year = i32::try_from(digits(fields.next()?, 4)?).ok()?;
    let month = fields.next().map_or(Some(1), |month| digits(month, 2))?;
    let day = fields.next().map_or(Some(1), |day| digits(day, 2))?;
    if fields.next().is_some() || (time.is_some() && date.len() != "YYYY-MM-DD".len()) {
        return None;
    }
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = Date::from_calendar_date(year, month, u8::try_from(day).ok()?).ok()?;
    let since = i128::from(date.to_julian_day() - time::macros::date!(1970 - 01 - 01).to_julian_day());
    let seconds = since * 86_400;
    let (of_day, nanos) = time.map_or(Some((0, 0)), of_day)?;
    Some((seconds + i128::from(of_day)) * NANOS + i128::from(nanos))
}

/// Exactly `count` digits.
fn digits(text: &str, count: usize) -> Option<u32> {
    (text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Seconds since midnight UTC (other days' too, by the offset) and nanoseconds.
fn of_day(text: &str) -> Option<(i64, u32)> {
    let (clock, offset) = match text.strip_suffix(['Z', 'z']) {
        Some(clock) => (clock, 0),
        None => {
            let sign = text.rfind(['+', '-'])?;
            let (clock, offset) = text.split_at(sign);
            let (hours, minutes) = offset[1..].split_once(':')?;
            let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = i64::from(hours * 3_600 + minutes * 60);
            (clock, if offset.starts_with('-') { -seconds } else { seconds })
        }
    };
    let mut fields = clock.split(':');
    let (hours, minutes) = (digits(fields.next()?, 2)?, digits(fields.next()?, 2)?);
    let (seconds, nanos) = fields.next().map_or(Some((0, 0)), seconds)?;
    if fields.next().is_some() || hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    Some((i64::from(hours * 3_600 + minutes * 60 + seconds) - offset, nanos))
}

/// `ss` or `ss.fraction`, of which nine digits count.
fn seconds(text: &str) -> Option<(u32, u32)> {
    let Some((whole, fraction)) = text.split_once('.') else { return Some((digits(text, 2)?, 0)) };
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    Some((digits(whole, 2)?, nanos.parse().ok()?))
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    network: IpAddr,
    /// Leading bits that count.
    bits: u8,
}

/// An address; one of IPv4 in IPv6's clothes is one of IPv4.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    text.trim().parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

impl Range {
    /// `ADDRESS` or `ADDRESS/BITS`. Bits of the address past those that count do not matter.
    pub(super) fn new(text: &str) -> Option<Self> {
        let (network, bits) = text.trim().split_once('/').map_or((text.trim(), None), |(net, bits)| (net, Some(bits)));
        let network: IpAddr = network.parse().ok()?;
        let most = if network.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) if bits.len() <= 3 && bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().ok()?,
            Some(_) => return None,
        };
        if bits > most {
            return None;
        }
        match network {
            IpAddr::V6(v6) if bits >= 96 && v6.to_ipv4_mapped().is_some() => {
                Some(Self { network: network.to_canonical(), bits: bits - 96 })
            }
            _ => Some(Self { network, bits }),
        }
    }

    /// Whether `address` lies within.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        let shift = |most: u8| u32::from(most - self.bits);
        let wide = |address: Ipv6Addr| u128::from(address).checked_shr(shift(128)).unwrap_or(0);
        match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let cut = |address| u32::from(address).checked_shr(shift(32)).unwrap_or(0);
                cut(network) == cut(address)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => wide(network) == wide(address),
            // A short prefix of IPv6 may hold the addresses that stand for IPv4's.
            (IpAddr::V6(network), IpAddr::V4(address)) => wide(network) == wide(address.to_ipv6_mapped()),
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        }
    }

    /// Whether it is as wide as a good part of the whole internet: wider than /8, or /32 with IPv6.
    pub(super) fn is_broad(&self) -> bool {
        self.bits < if self.network.is_ipv4() { 8 } else { 32 }
    }
}

#[cfg(test)]
mod tests {
    //! Every form that the documentation shows, and near misses of each.
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number("10"), Some(10.0));
        assert_eq!(number("-1.5"), Some(-1.5));
        for bad in ["", "x", "nan", "inf", "0x10", "1,5", "1e999"] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }

    #[test]
    fn moments() {
        const NANOS: i128 = 1_000_000_000;
        for (text, seconds) in [
            ("0", 0),
            ("1577836800", 1_577_836_800),
            ("2020", 1_577_836_800),
            ("2020-01", 1_577_836_800),
            ("2020-01-01", 1_577_836_800),
            ("2020-01-01T00:00Z", 1_577_836_800),
            ("2020-01-01T00:00:00Z", 1_577_836_800),
            ("2020-01-01T01:00:00+01:00", 1_577_836_800),
            ("2019-12-31T18:30:00-05:30", 1_577_836_800),
            ("2024-02-29T12:00:00Z", 1_709_208_000),
            ("1969-12-31T23:59:59Z", -1),
        ] {
            assert_eq!(moment(text), Some(seconds * NANOS), "{text}");
        }
        assert_eq!(moment("1970-01-01T00:00:00.5Z"), Some(NANOS / 2));
        for bad in [
            "",
            "soon",
            "2020-13",
            "2020-02-30",
            "2020-1-1",
            "2020-01-01T",
            "2020-01-01T00:00",
            "2020-01-01T24:00Z",
            "2020-01-01T00:60Z",
            "2020-01-01T00:00:00.Z",
            "2020-01T00:00Z",
            "2020-01-01-01",
            "-1",
            "99999999999999999999999",
            "2020-01-01T00:00:00+1:00",
        ] {
            assert_eq!(moment(bad), None, "{bad}");
        }
    }

    #[test]
    fn ranges() {
        for (range, inside, expected) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.3/8", "10.9.9.9", true),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "203.0.113.9", true),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("::ffff:10.0.0.0/104", "10.1.1.1", true),
            ("::ffff:10.0.0.0/104", "11.1.1.1", false),
        ] {
            let range = Range::new(range).unwrap();
            assert_eq!(range.contains(address(inside).unwrap()), expected, "{range:?} {inside}");
        }
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/8/8", "x", "*"] {
            assert_eq!(Range::new(bad), None, "{bad}");
        }
        assert!(Range::new("0.0.0.0/1").unwrap().is_broad());
        assert!(Range::new("::ffff:0.0.0.0/97").unwrap().is_broad());
        assert!(!Range::new("10.0.0.0/8").unwrap().is_broad());
        assert!(Range::new("2000::/3").unwrap().is_broad());
        assert!(!Range::new("2001:db8::/32").unwrap().is_broad());
    }
}
