//! What a metric is: its name, type, help and labels.

/// One metric as an operator reads of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Def {
    /// The full name, base unit and `_total` included.
    pub name: &'static str,
    /// What the exposition format says after `# TYPE`.
    pub kind: Kind,
    /// One sentence.
    pub help: &'static str,
    /// Label names; every set of values is closed.
    pub labels: &'static [&'static str],
}

/// The types of metric that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Buckets, a sum and a count.
    Histogram,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}
