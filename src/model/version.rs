//! Istio's minor versions and how far two of them are apart.

use std::fmt;

/// `major.minor` of a control plane or a proxy. Patch levels decide nothing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    pub major: u16,
    pub minor: u16,
}

impl Version {
    pub const fn new(major: u16, minor: u16) -> Self {
        Version { major, minor }
    }

    /// Reads `^v?\d+\.\d+`: `1.24.2-distroless`, `v1.24`. Anything else (`latest`, a digest) is unknown.
    pub fn parse(s: &str) -> Option<Version> {
        let s = s.strip_prefix('v').unwrap_or(s);
        let (major, rest) = s.split_once('.')?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if major.is_empty() || !major.bytes().all(|c| c.is_ascii_digit()) {
            return None;
        }
        Some(Version { major: major.parse().ok()?, minor: rest[..digits].parse().ok()? })
    }

    /// The tag of an image reference: `host:5000/istio/pilot:1.24.2@sha256:…` is 1.24.
    pub fn of_image(image: &str) -> Option<Version> {
        Version::parse(tag(image)?)
    }

    /// The version that a revision's name seems to carry (`1-24-2`, `canary-1-24`, `v1-30-3`). A name is only a hint:
    /// enough for a warning, never for a denial.
    pub fn hinted_by(name: &str) -> Option<Version> {
        let numbers: Vec<&str> =
            name.split(['-', '_', '.']).map(|p| p.strip_prefix('v').unwrap_or(p)).skip_while(|p| *p != "1").collect();
        match numbers.as_slice() {
            ["1", minor, ..] if minor.len() <= 2 => Some(Version { major: 1, minor: minor.parse().ok()? }),
            _ => None,
        }
    }

    /// So many minors later.
    pub const fn plus(self, minors: u16) -> Version {
        Version { major: self.major, minor: self.minor.saturating_add(minors) }
    }

    /// Minors from `older` to `self`, negative when `self` is the older; `None` across majors.
    pub fn minors_after(self, older: Version) -> Option<i32> {
        (self.major == older.major).then(|| i32::from(self.minor) - i32::from(older.minor))
    }
}

/// A release with its patch level, for the questions that patch levels decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Release {
    pub version: Version,
    pub patch: u16,
}

impl Release {
    /// Reads `^v?\d+\.\d+\.\d+`: `1.24.2`, `v1.24.2-distroless`.
    pub fn parse(s: &str) -> Option<Release> {
        let version = Version::parse(s)?;
        let patch = s.splitn(3, '.').nth(2)?;
        let digits = patch.bytes().take_while(u8::is_ascii_digit).count();
        Some(Release { version, patch: patch[..digits].parse().ok()? })
    }

    /// The tag of an image reference.
    pub fn of_image(image: &str) -> Option<Release> {
        Release::parse(tag(image)?)
    }
}

/// The tag of an image reference; `None` where it has none, or a digest alone.
pub fn tag(image: &str) -> Option<&str> {
    let (_, tag) = image.split('@').next()?.rsplit('/').next()?.split_once(':')?;
    (!tag.is_empty()).then_some(tag)
}

/// The whole version that a tag names, without what says how the image was built: of `v1.24.2-distroless` it is `1.24.2`. Other tags
/// (`latest`) are what they are.
pub fn bare(tag: &str) -> &str {
    let tag = tag.trim_end_matches("-distroless").trim_end_matches("-debug");
    if Version::parse(tag).is_some() { tag.trim_start_matches('v') } else { tag }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.version, self.patch)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_without_what_says_how_an_image_was_built() {
        for (image, version) in [
            ("docker.io/istio/proxyv2:1.24.2-distroless", Some("1.24.2")),
            ("host:5000/istio/pilot:v1.24.2-debug@sha256:0", Some("1.24.2")),
            ("pilot:latest", Some("latest")),
            ("pilot:", None),
            ("host:5000/istio/pilot", None),
            ("pilot@sha256:0", None),
        ] {
            assert_eq!(tag(image).map(bare), version, "{image}");
        }
    }

    #[test]
    fn versions_are_read_from_tags_only() {
        assert_eq!(Version::of_image("docker.io/istio/pilot:1.24.2-distroless"), Some(Version::new(1, 24)));
        assert_eq!(Version::of_image("host:5000/istio/pilot:v1.9@sha256:ab"), Some(Version::new(1, 9)));
        for unknown in ["istio/pilot:latest", "host:5000/istio/pilot", "istio/pilot@sha256:1.2", "auto", "x:1", "x:.2"]
        {
            assert_eq!(Version::of_image(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_release_needs_its_patch_level() {
        let of = |s| Release::parse(s).map(|r| r.to_string());
        assert_eq!(of("1.24.2-distroless").as_deref(), Some("1.24.2"));
        assert_eq!(of("v1.9.0").as_deref(), Some("1.9.0"));
        assert!(Release::parse("1.24.10") > Release::parse("1.24.9"));
        assert_eq!(of("1.24"), None);
        assert_eq!(of("1.24.x"), None);
        assert_eq!(Release::of_image("host:5000/istio/pilot:1.24.2@sha256:ab"), Release::parse("1.24.2"));
    }

    #[test]
    fn a_name_may_hint_at_a_version() {
        assert_eq!(Version::hinted_by("1-24-2"), Some(Version::new(1, 24)));
        assert_eq!(Version::hinted_by("default-v1-30-3"), Some(Version::new(1, 30)));
        assert_eq!(Version::hinted_by("canary"), None);
        assert_eq!(Version::hinted_by("prod-2"), None);
        assert_eq!(Version::hinted_by("1"), None);
    }
}
