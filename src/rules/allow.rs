//! `revguard.dev/allow: "NS004: reason until=2026-12-31; WL003: …"`: which rules an object may break, why and until when.

use jiff::civil::Date;

use crate::model::Labels;
use crate::model::key::ALLOW;

/// One entry of the annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exemption {
    pub code: String,
    pub reason: String,
    /// Last day on which it holds, in UTC; `None` never ends.
    pub until: Option<Date>,
    /// `until=` with something that is no date.
    pub bad_date: Option<String>,
}

/// What an exemption does today.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    Holds(String),
    /// It does nothing; why, in words.
    Void(String),
}

/// Entries as written; anything that is not `CODE: …` is kept with an empty reason and so does nothing.
pub fn parse(annotations: &Labels) -> Vec<Exemption> {
    let Some(text) = annotations.value(ALLOW) else { return Vec::new() };
    let entries = text.split(';').map(str::trim).filter(|e| !e.is_empty());
    entries
        .map(|entry| {
            let (code, rest) = entry.split_once(':').unwrap_or((entry, ""));
            let mut until = None;
            let mut bad_date = None;
            let words: Vec<&str> = rest
                .split_whitespace()
                .filter(|word| match word.strip_prefix("until=") {
                    Some(date) => {
                        match date.parse() {
                            Ok(d) => until = Some(d),
                            Err(_) => bad_date = Some(date.to_owned()),
                        }
                        false
                    }
                    None => true,
                })
                .collect();
            Exemption { code: code.trim().to_owned(), reason: words.join(" "), until, bad_date }
        })
        .collect()
}

impl Exemption {
    /// It says why, and its last day is a date.
    fn is_worded(&self) -> bool {
        self.bad_date.is_none() && !self.reason.is_empty()
    }

    pub fn standing(&self, today: Date) -> Standing {
        let code = &self.code;
        if let Some(date) = &self.bad_date {
            return Standing::Void(format!(
                "the exemption from {code} does nothing: until={date} is no date (YYYY-MM-DD)"
            ));
        }
        if self.reason.is_empty() {
            return Standing::Void(format!("the exemption from {code} does nothing: it gives no reason"));
        }
        match self.until {
            Some(until) if until < today => Standing::Void(format!("the exemption from {code} ended on {until}")),
            Some(until) => Standing::Holds(format!("{} (until {until})", self.reason)),
            None => Standing::Holds(self.reason.clone()),
        }
    }
}

/// Exemptions of `new` that `old` did not have, or had for a shorter time. One that is worded so that it does nothing is none.
pub fn gained(old: &[Exemption], new: &[Exemption]) -> Vec<Exemption> {
    let had = |n: &Exemption| {
        old.iter().any(|o| {
            o.code == n.code
                && (o.is_worded() || o == n)
                && match (o.until, n.until) {
                    (None, _) => true,
                    (Some(_), None) => false,
                    (Some(a), Some(b)) => b <= a,
                }
        })
    };
    new.iter().filter(|n| !had(n)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<Exemption> {
        parse(&Labels::from([(ALLOW, text)]))
    }

    #[test]
    fn an_exemption_holds_through_its_last_day_and_needs_a_reason() {
        let today: Date = "2026-12-31".parse().unwrap();
        assert_eq!(
            of("NS004: moving until=2026-12-31")[0].standing(today),
            Standing::Holds("moving (until 2026-12-31)".into())
        );
        assert_eq!(of("NS004: moving")[0].standing(today), Standing::Holds("moving".into()));
        for void in ["NS004", "NS004: until=2027-01-01", "NS004: late until=2026-12-30", "NS004: x until=soon"] {
            assert!(matches!(of(void)[0].standing(today), Standing::Void(_)), "{void}");
        }
        assert_eq!(of("NS004: a; WL003: b c ;").len(), 2);
    }

    #[test]
    fn lengthening_is_gaining_and_shortening_is_not() {
        let short = of("NS004: a until=2026-01-01");
        let long = of("NS004: a until=2026-02-01");
        let forever = of("NS004: a");
        assert_eq!(gained(&short, &long).len(), 1);
        assert_eq!(gained(&long, &short).len(), 0);
        assert_eq!(gained(&long, &forever).len(), 1);
        assert_eq!(gained(&forever, &long).len(), 0);
        assert_eq!(gained(&[], &short).len(), 1);
        assert_eq!(gained(&short, &of("WL003: a until=2020-01-01")).len(), 1);
        // What did nothing is not lengthened by being put right: it is granted then.
        for nothing in ["NS004", "NS004: a until=soon"] {
            assert_eq!(gained(&of(nothing), &short).len(), 1, "{nothing}");
            assert_eq!(gained(&of(nothing), &of(nothing)).len(), 0, "{nothing}");
        }
    }
}
