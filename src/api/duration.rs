//! A duration as a person writes it into our objects: `90s`, `1h30m`, `500ms`.

use std::fmt;
use std::str::FromStr;

use jiff::SignedDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Written and compared as text by the API server, as a number by us. Never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration {
    millis: u64,
}

/// The form of durations in the Gateway API (GEP-2257).
const PATTERN: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl Duration {
    pub const ZERO: Duration = Duration { millis: 0 };

    pub const fn from_secs(seconds: u32) -> Self {
        Duration { millis: seconds as u64 * 1000 }
    }

    pub const fn from_mins(minutes: u32) -> Self {
        Duration::from_secs(minutes * 60)
    }

    pub const fn from_hours(hours: u32) -> Self {
        Duration { millis: hours as u64 * 3_600_000 }
    }

    pub const fn is_zero(self) -> bool {
        self.millis == 0
    }

    /// For arithmetic with timestamps.
    pub fn signed(self) -> SignedDuration {
        SignedDuration::from_millis(i64::try_from(self.millis).unwrap_or(i64::MAX))
    }
}

/// For `#[serde(default)]`, which wants a function.
pub(super) fn seconds<const N: u32>() -> Duration {
    Duration::from_secs(N)
}

pub(super) fn minutes<const N: u32>() -> Duration {
    Duration::from_mins(N)
}

pub(super) fn hours<const N: u32>() -> Duration {
    Duration::from_hours(N)
}

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no duration; write it like 90s, 1h30m or 500ms");
        let (mut rest, mut millis, mut parts) = (text, 0_u64, 0);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|n| (1..=5).contains(n)).ok_or_else(bad)?;
            let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
            let after = &rest[digits..];
            let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
            let (_, each) = UNITS.iter().find(|(unit, _)| *unit == &after[..end]).ok_or_else(bad)?;
            millis += number * each;
            parts += 1;
            rest = &after[end..];
        }
        if parts == 0 || parts > 4 { Err(bad()) } else { Ok(Duration { millis }) }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.millis == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.millis;
        for (unit, each) in UNITS {
            if rest >= each {
                write!(f, "{}{unit}", rest / each)?;
                rest %= each;
            }
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": PATTERN, "maxLength": 28})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_and_written_as_people_do() {
        for (text, millis) in [("90s", 90_000), ("1h30m", 5_400_000), ("500ms", 500), ("0s", 0), ("1m500ms", 60_500)] {
            assert_eq!(text.parse::<Duration>().unwrap().millis, millis, "{text}");
        }
        assert_eq!("90s".parse::<Duration>().unwrap().to_string(), "1m30s");
        for bad in ["", "5", "s", "-5s", "5d", "1.5s", "123456s", "1s1s1s1s1s"] {
            assert!(bad.parse::<Duration>().is_err(), "{bad}");
        }
    }
}
