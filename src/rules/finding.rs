//! What a rule found, in words for an operator.

use std::borrow::Cow;

use super::Patch;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Warn,
    Deny,
}

/// How to put it right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fix {
    /// A command that works when pasted; further lines explain.
    Say(String),
    /// The same, and the operations of a patch that the policy has applied while the object is written.
    Patch(Vec<Patch>, String),
}

impl Fix {
    pub fn text(&self) -> &str {
        match self {
            Fix::Say(text) | Fix::Patch(_, text) => text,
        }
    }

    /// It begins with a command, and not with words about the manifest that was sent.
    pub fn is_command(&self) -> bool {
        ["kubectl ", "istioctl ", "helm ", "revguard "].iter().any(|program| self.text().starts_with(program))
    }
}

/// One violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// Path of the field to blame, as `details.causes` names it.
    pub field: Cow<'static, str>,
    /// The offending value. Field and value are the ratchet's key: another value is another violation.
    pub value: String,
    /// One sentence with names and values.
    pub what: String,
    /// What happens if it stays.
    pub why: Cow<'static, str>,
    pub fix: Fix,
}

impl Finding {
    /// A violation that is refused.
    pub fn deny(field: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Draft {
        Draft { severity: Severity::Deny, field: field.into(), value: value.into() }
    }

    /// A violation that is let through with a warning.
    pub fn warn(field: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Draft {
        Draft { severity: Severity::Warn, field: field.into(), value: value.into() }
    }

    /// The same violation on another object counts as the same.
    pub fn same_as(&self, other: &Finding) -> bool {
        self.field == other.field && self.value == other.value
    }
}

/// A finding whose words are still to come, so that none of the four parts is forgotten.
pub struct Draft {
    severity: Severity,
    field: Cow<'static, str>,
    value: String,
}

impl Draft {
    /// Chooses the severity late.
    #[must_use]
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    pub fn says(self, what: impl Into<String>, why: impl Into<Cow<'static, str>>, fix: impl Into<Fix>) -> Finding {
        Finding {
            severity: self.severity,
            field: self.field,
            value: self.value,
            what: what.into(),
            why: why.into(),
            fix: fix.into(),
        }
    }
}

impl From<String> for Fix {
    fn from(s: String) -> Fix {
        Fix::Say(s)
    }
}

impl From<&str> for Fix {
    fn from(s: &str) -> Fix {
        Fix::Say(s.to_owned())
    }
}

/// Field path of a label of the object itself.
pub fn label(key: &str) -> String {
    format!("metadata.labels[{key}]")
}

/// Field path of an annotation of the object itself.
pub fn annotation(key: &str) -> String {
    format!("metadata.annotations[{key}]")
}

/// Field path of a label of the pod template.
pub fn template_label(key: &str) -> String {
    format!("spec.template.metadata.labels[{key}]")
}

/// Field path of an annotation of the pod template.
pub fn template_annotation(key: &str) -> String {
    format!("spec.template.metadata.annotations[{key}]")
}
