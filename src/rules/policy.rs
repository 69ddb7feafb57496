//! What a platform team decides. A key exists only together with the rule that reads it.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::de::{self, IntoDeserializer, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::stale::Stale;
use super::{Severity, find};
use crate::model::ListMerge;

/// The configuration file. Unknown keys are refused.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Policy {
    /// How far any rule may go.
    pub mode: Mode,
    /// Action per rule; what is not named keeps its default.
    pub rules: BTreeMap<String, RuleAction>,
    /// Rules whose warnings become denials.
    pub strict: BTreeSet<String>,
    /// GW003: gateways in a control plane's IstioOperator are denied, not only warned of.
    pub separate_gateways: bool,
    /// UP002: how many minors a canary may be ahead of the nearest control plane.
    pub canary_minor_skip: MinorSkip,
    /// GW002–GW004, GW020: how gateway lists merge when no version tells.
    pub gateway_lists: GatewayLists,
    /// UP005: when gateways move to a new control plane.
    pub gateway_order: GatewayOrder,
    /// UP012: a control plane with a revision changes its version only as a revision of its own.
    pub canary_only: bool,
    pub mutations: Mutations,
    /// Which flaws of what exists the controller mends. None by default.
    pub repair: RepairPolicy,
    pub exempt: Exempt,
    pub allow: Allow,
    /// What an old view means.
    pub stale: Stale,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Findings are recorded, nobody is told.
    Audit,
    /// Denials become warnings.
    Warn,
    #[default]
    Enforce,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(remote = "Self")]
pub enum RuleAction {
    Deny,
    Warn,
    Audit,
    Off,
}

impl<'de> Deserialize<'de> for RuleAction {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Word(|word| RuleAction::deserialize(word)))
    }
}

impl<'de> Deserialize<'de> for Prefer {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Word(|word| Prefer::deserialize(word)))
    }
}

/// One of some words. `false` is `Off`: whatever reads YAML 1.1, as Helm does of its values, has made that of an `Off` without quotes.
struct Word<T>(for<'a> fn(StrDeserializer<'a, ValueError>) -> Result<T, ValueError>);

impl<T> Visitor<'_> for Word<T> {
    type Value = T;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a word such as Off")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<T, E> {
        (self.0)(word.into_deserializer()).map_err(E::custom)
    }

    fn visit_bool<E: de::Error>(self, on: bool) -> Result<T, E> {
        if on { Err(E::invalid_type(Unexpected::Bool(on), &self)) } else { self.visit_str("Off") }
    }
}

/// 1 or 2.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "u8")]
pub struct MinorSkip(pub i32);

impl Default for MinorSkip {
    fn default() -> Self {
        MinorSkip(2)
    }
}

impl TryFrom<u8> for MinorSkip {
    type Error = String;
    fn try_from(n: u8) -> Result<Self, String> {
        if n == 1 || n == 2 { Ok(MinorSkip(i32::from(n))) } else { Err(format!("{n} is neither 1 nor 2")) }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub enum GatewayLists {
    /// As istioctl up to 1.23.
    ByName,
    /// As istioctl from 1.24.
    #[default]
    Replace,
}

/// When gateways move to a new control plane.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub enum GatewayOrder {
    /// After the workloads, which have shown by then that the new one works.
    #[default]
    Last,
    /// Before the workloads.
    First,
    Any,
}

impl From<GatewayLists> for ListMerge {
    fn from(g: GatewayLists) -> ListMerge {
        match g {
            GatewayLists::ByName => ListMerge::ByName,
            GatewayLists::Replace => ListMerge::Replace,
        }
    }
}

/// Which findings are mended while the object is written. All off by default.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default, rename_all = "UPPERCASE")]
pub struct Mutations {
    /// Drop one of the two labels.
    pub ns001: Prefer,
    /// Drop `istio.io/rev` beside `istio-injection=disabled`.
    pub ns002: bool,
    /// Replace `istio-injection=enabled` by `istio.io/rev` with this name, while no default injector is live.
    pub ns005: Option<String>,
    /// Give a new gateway a `preStop` that waits until endpoints have followed.
    pub gw014: bool,
    /// Set the pod label `sidecar.istio.io/inject` to the annotation's value.
    pub wl004: bool,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(remote = "Self")]
pub enum Prefer {
    #[default]
    Off,
    /// Keep `istio.io/rev`.
    Rev,
    /// Keep `istio-injection`.
    Default,
}

/// `all`, `none`, or single rules.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum RepairPolicy {
    Every(Every),
    Rules(BTreeMap<String, bool>),
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Every {
    All,
    None,
}

impl Default for RepairPolicy {
    fn default() -> Self {
        RepairPolicy::Every(Every::None)
    }
}

/// Who is not judged.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Exempt {
    /// Namespaces whose objects (and which themselves) are not judged.
    pub namespaces: BTreeSet<String>,
    /// User names, among them `system:serviceaccount:NAMESPACE:NAME`.
    pub writers: BTreeSet<String>,
}

/// Who may set or lengthen `revguard.dev/allow`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Allow {
    /// Empty: everybody.
    pub groups: BTreeSet<String>,
}

impl Policy {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// What is wrong with it, with line and column where it can be said.
    pub fn parse(text: &str) -> Result<Policy, String> {
        if text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#')) {
            return Ok(Policy::default());
        }
        let policy: Policy = crate::wire::manifest::from_yaml(text)?;
        let repaired = match &policy.repair {
            RepairPolicy::Every(_) => Vec::new(),
            RepairPolicy::Rules(rules) => rules.keys().collect(),
        };
        for (key, codes) in [
            ("rules", policy.rules.keys().collect::<Vec<_>>()),
            ("strict", policy.strict.iter().collect()),
            ("repair", repaired),
        ] {
            if let Some(code) = codes.iter().find(|c| find(c).is_none()) {
                return Err(format!("{key}: there is no rule {code}; `revguard rules` lists them"));
            }
        }
        if let Some(name) = &policy.mutations.ns005
            && !crate::model::name::is_dns_label(name)
        {
            return Err(format!("mutations.NS005: {name:?} is no name of a revision or tag"));
        }
        Ok(policy)
    }

    /// The controller may mend what this rule finds. In `mode: audit` nothing is written.
    pub fn repairs(&self, code: &str) -> bool {
        self.mode != Mode::Audit
            && match &self.repair {
                RepairPolicy::Every(every) => *every == Every::All,
                RepairPolicy::Rules(rules) => rules.get(code) == Some(&true),
            }
    }

    /// What a finding of this severity comes to; `None` drops it.
    pub fn action(&self, code: &str, severity: Severity) -> Option<super::Action> {
        use super::Action;
        let severity = if self.strict.contains(code) { Severity::Deny } else { severity };
        let own = match severity {
            Severity::Deny => Action::Deny,
            Severity::Warn => Action::Warn,
        };
        // A rule's action caps its findings; it does not lift a warning to a denial, which is what `strict` is for.
        let capped = match self.rules.get(code) {
            None | Some(RuleAction::Deny) => own,
            Some(RuleAction::Warn) => own.min(Action::Warn),
            Some(RuleAction::Audit) => Action::Audit,
            Some(RuleAction::Off) => return None,
        };
        Some(match self.mode {
            Mode::Enforce => capped,
            Mode::Warn => capped.min(Action::Warn),
            Mode::Audit => Action::Audit,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Action;

    #[test]
    fn unknown_keys_and_rules_are_refused_with_their_place() {
        let e = Policy::parse("mode: warn\nmodus: x\n").unwrap_err();
        assert!(e.contains("modus") && e.contains("line 2"), "{e}");
        let e = Policy::parse("rules: {NS999: Off}").unwrap_err();
        assert!(e.contains("NS999"), "{e}");
        let e = Policy::parse("canaryMinorSkip: 3").unwrap_err();
        assert!(e.contains("neither 1 nor 2"), "{e}");
        assert_eq!(Policy::parse("# nothing\n").unwrap(), Policy::default());
        let e = Policy::parse("rules: {NS008: Never}").unwrap_err();
        assert!(e.contains("Never") && e.contains("Audit") && e.contains("line 1"), "{e}");
        assert!(Policy::parse("mutations: {NS001: true}").unwrap_err().contains("line 1"));
    }

    #[test]
    fn off_is_off_as_helm_has_read_it_too() {
        let policy = Policy::parse("rules: {NS008: false, GW012: Off}\nmutations: {NS001: false}").unwrap();
        assert_eq!((policy.action("NS008", Severity::Deny), policy.action("GW012", Severity::Deny)), (None, None));
        assert_eq!(policy.mutations.ns001, Prefer::Off);
    }

    #[test]
    fn repairs_are_off_until_they_are_asked_for() {
        assert!(!Policy::default().repairs("VW005"));
        assert!(Policy::parse("repair: all").unwrap().repairs("VW005"));
        let some = Policy::parse("repair: {VW005: true, MW003: false}").unwrap();
        assert!(some.repairs("VW005") && !some.repairs("MW003") && !some.repairs("VW002"));
        assert!(!Policy::parse("mode: audit\nrepair: all").unwrap().repairs("VW005"));
        assert!(Policy::parse("repair: {VW999: true}").unwrap_err().contains("VW999"));
        assert!(Policy::parse("repair: some").is_err());
    }

    #[test]
    fn strict_lifts_and_actions_and_mode_cap() {
        let p = Policy::parse("strict: [ALW001]\nrules: {NS001: Audit}").unwrap();
        assert_eq!(p.action("ALW001", Severity::Warn), Some(Action::Deny));
        assert_eq!(p.action("NS001", Severity::Deny), Some(Action::Audit));
        let p = Policy::parse("mode: warn\nstrict: [NS001]\nrules: {ALW001: Off}").unwrap();
        assert_eq!(p.action("NS001", Severity::Warn), Some(Action::Warn));
        assert_eq!(p.action("ALW001", Severity::Deny), None);
        let p = Policy::parse("mode: audit").unwrap();
        assert_eq!(p.action("NS001", Severity::Deny), Some(Action::Audit));
    }
}
