//! Reads `Retry-After` (RFC 9110, section 10.2.3).

use std::time::Duration;

use fanfare_model::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

/// A year: more than any caller grants, and little enough to add to any time.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long after `now` a receiver wants to be called again; `None` if the value says nothing.
///
/// As it was asked for, up to a year: whoever obeys it sets the bound.
pub(super) fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        let seconds = value.parse().map_or(LONGEST, Duration::from_secs);
        return Some(seconds.min(LONGEST));
    }
    // The preferred form of an HTTP date is one that RFC 2822 reads too.
    let at = DateTimeParser::new().parse_timestamp(value).ok()?;
    // What lies in the past is a wait of nothing.
    let wait = Duration::try_from(now.duration_until(at)).unwrap_or_default();
    Some(wait.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read_and_nonsense_is_not() {
        let now: Timestamp = "1994-11-06T08:49:00Z".parse().unwrap();
        for (value, seconds) in [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("86400", Some(86_400)),
            ("999999999", Some(LONGEST.as_secs())),
            ("99999999999999999999999", Some(LONGEST.as_secs())),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(37)),
            ("Sun, 06 Nov 1994 08:48:00 GMT", Some(0)),
            ("Sun, 06 Nov 9994 08:49:37 GMT", Some(LONGEST.as_secs())),
            ("Mon, 06 Nov 1994 08:49:37 GMT", None),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("+5", None),
            ("soon", None),
            ("1994-11-06T08:49:37Z", None),
        ] {
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(retry_after(value, now), expected, "{value:?}");
        }
    }
}
