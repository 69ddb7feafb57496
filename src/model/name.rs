//! Names that must not be taken for one another: a revision is not a tag.

use std::fmt;

use super::Str;

/// A control plane's revision. The revision of an installation without one is `default`, as istiod
/// itself labels it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RevisionName(Str);

/// A revision tag: a movable name for a revision.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TagName(Str);

/// Longest revision: the Service `istiod-<revision>` must fit 63 characters.
pub const MAX_REVISION: usize = 63 - "istiod-".len();
/// Longest tag: the Service `istiod-revision-tag-<tag>` must fit 63 characters.
pub const MAX_TAG: usize = 63 - "istiod-revision-tag-".len();

impl RevisionName {
    /// The empty revision is called `default` in every label that istiod writes.
    pub fn new(name: &str) -> Self {
        RevisionName(Str::from(if name.is_empty() { "default" } else { name }))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_default(&self) -> bool {
        self.0 == "default"
    }

    /// Suffix of everything that is named after the revision: empty for `default`, else `-R`.
    pub fn suffix(&self) -> String {
        if self.is_default() { String::new() } else { format!("-{}", self.0) }
    }

    /// The Service (and Deployment) of this revision's istiod.
    pub fn istiod(&self) -> String {
        format!("istiod{}", self.suffix())
    }
}

impl TagName {
    pub fn new(name: &str) -> Self {
        TagName(Str::from(name))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RevisionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for TagName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`, at most 63 characters.
pub fn is_dns_label(s: &str) -> bool {
    let ok = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let b = s.as_bytes();
    !b.is_empty() && b.len() <= 63 && ok(b[0]) && ok(b[b.len() - 1]) && b.iter().all(|&c| ok(c) || c == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dns_label_has_no_dots_and_no_capitals() {
        for ok in ["1-23", "a", "canary-2"] {
            assert!(is_dns_label(ok), "{ok}");
        }
        for bad in ["", "1.23", "-a", "a-", "A", &"x".repeat(64)] {
            assert!(!is_dns_label(bad), "{bad}");
        }
    }
}
