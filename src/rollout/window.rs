//! When forward steps may be taken: days and times of the week, in UTC.

use jiff::Timestamp;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;

use crate::api::gateway_rollout::Window;

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const DAY: u32 = 24 * 60;
const WEEK: u32 = 7 * DAY;

/// Minutes of the week, the end not included; beyond a week's end it goes on at its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: u32,
    end: u32,
}

/// It is open now. An entry that cannot be read opens nothing.
pub fn is_open(window: &Window, now: Timestamp) -> bool {
    let at = minute(now);
    window.allow.iter().flat_map(|entry| spans(entry)).any(|s| (s.start..s.end).contains(&at) || s.end > at + WEEK)
}

/// When it opens next; `None` if it never does.
pub fn opens(window: &Window, now: Timestamp) -> Option<Timestamp> {
    let at = minute(now);
    let ahead = window.allow.iter().flat_map(|entry| spans(entry)).map(|s| (s.start + WEEK - at) % WEEK).min()?;
    let second = now.as_second().div_euclid(60) * 60 + i64::from(ahead) * 60;
    Timestamp::from_second(second).ok()
}

fn minute(now: Timestamp) -> u32 {
    let civil = now.to_zoned(TimeZone::UTC);
    let day = u32::try_from(civil.weekday().since(Weekday::Monday)).unwrap_or(0);
    day * DAY + u32::try_from(civil.hour()).unwrap_or(0) * 60 + u32::try_from(civil.minute()).unwrap_or(0)
}

/// `Mon-Thu 08:00-16:00`: one span a day. A time that ends before it begins ends on the next day.
fn spans(entry: &str) -> Vec<Span> {
    let read = || {
        let (days, times) = entry.split_once(' ')?;
        let (first, last) = days.split_once('-').unwrap_or((days, days));
        let day = |name: &str| DAYS.iter().position(|d| *d == name).and_then(|n| u32::try_from(n).ok());
        let (first, last) = (day(first)?, day(last)?);
        let (from, to) = times.split_once('-')?;
        let (from, to) = (time(from)?, time(to)?);
        let length = if to > from { to - from } else { to + DAY - from };
        let count = (last + 7 - first) % 7 + 1;
        let start = |n: u32| (first + n) % 7 * DAY + from;
        Some((0..count).map(|n| Span { start: start(n), end: start(n) + length }).collect())
    };
    read().unwrap_or_default()
}

fn time(text: &str) -> Option<u32> {
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes): (u32, u32) = (hours.parse().ok()?, minutes.parse().ok()?);
    let at = hours.checked_mul(60)?.checked_add(minutes)?;
    (minutes < 60 && at <= DAY).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(entry: &str, at: &str) -> bool {
        is_open(&Window { allow: vec![entry.to_owned()] }, at.parse().unwrap())
    }

    // 2 March 2026 is a Monday.
    #[test]
    fn a_window_opens_on_its_days_at_its_times() {
        let office = "Mon-Thu 08:00-16:00";
        assert!(open(office, "2026-03-02T08:00:00Z") && open(office, "2026-03-05T15:59:59Z"));
        assert!(!open(office, "2026-03-02T07:59:59Z") && !open(office, "2026-03-02T16:00:00Z"));
        assert!(!open(office, "2026-03-06T10:00:00Z"), "a Friday");
        assert!(open("Sat 00:00-24:00", "2026-03-07T23:59:00Z") && !open("Sat 00:00-24:00", "2026-03-08T00:00:00Z"));
    }

    #[test]
    fn it_may_go_round_midnight_and_round_the_week() {
        assert!(open("Sun 22:00-02:00", "2026-03-02T01:59:00Z"), "Monday morning");
        assert!(!open("Sun 22:00-02:00", "2026-03-02T02:00:00Z"));
        assert!(open("Fri-Mon 10:00-11:00", "2026-03-08T10:30:00Z"));
        assert!(!open("Fri-Mon 10:00-11:00", "2026-03-03T10:30:00Z"), "a Tuesday");
    }

    #[test]
    fn what_cannot_be_read_opens_nothing() {
        for bad in
            ["", "Mon", "Mon 8-16", "Xyz 08:00-16:00", "Mon 08:61-16:00", "Mon 25:00-26:00", "Mon 71582789:00-08:00"]
        {
            let window = Window { allow: vec![bad.to_owned()] };
            let now = "2026-03-02T12:00:00Z".parse().unwrap();
            assert!(!is_open(&window, now) && opens(&window, now).is_none(), "{bad}");
        }
    }

    #[test]
    fn it_says_when_it_opens_next() {
        let window = Window { allow: vec!["Mon-Thu 08:00-16:00".into(), "Sat 06:30-07:00".into()] };
        let next = |at: &str| opens(&window, at.parse().unwrap()).unwrap().to_string();
        assert_eq!(next("2026-03-05T16:00:30Z"), "2026-03-07T06:30:00Z");
        assert_eq!(next("2026-03-07T12:00:00Z"), "2026-03-09T08:00:00Z");
    }
}
