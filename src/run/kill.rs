//! A switch for tests: ends the process, hard, at a named write boundary. Off unless it is asked for by name, and hidden from
//! `--help`: a cluster where it is set has a controller that dies on purpose.
//!
//! `rollout-scale:after` ends it when the first answer to such a write is there, before anybody knows of it; `rollout-scale:before:3`
//! when the third is about to be sent. A place that was used is marked by a file, if there is a folder for marks, so that a container that is
//! started again by its kubelet goes on from there.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::controller::write::{Side, Witness};

/// One boundary, its side, and at which crossing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub boundary: String,
    pub side: Side,
    /// From 1.
    pub crossing: u32,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad =
            || format!("{text:?} is no boundary; write BOUNDARY:before or BOUNDARY:after, and :N for its Nth crossing");
        let mut parts = text.split(':');
        let boundary = parts.next().filter(|b| !b.is_empty()).ok_or_else(bad)?.to_owned();
        let side = match parts.next() {
            Some("before") => Side::Before,
            Some("after") => Side::After,
            _ => return Err(bad()),
        };
        let crossing = parts.next().map_or(Ok(1), str::parse).map_err(|_| bad())?;
        if crossing == 0 || parts.next().is_some() { Err(bad()) } else { Ok(Place { boundary, side, crossing }) }
    }
}

impl Place {
    /// Its name among the marks.
    fn mark(&self) -> String {
        let side = if self.side == Side::Before { "before" } else { "after" };
        format!("{}.{side}.{}", self.boundary, self.crossing)
    }
}

/// Ends the process at the first of its places that is crossed.
pub struct Kill {
    places: Vec<(Place, AtomicU32)>,
    marks: Option<PathBuf>,
}

impl Kill {
    /// `marks` is a folder.
    pub fn at(places: Vec<Place>, marks: Option<PathBuf>) -> Kill {
        Kill { places: places.into_iter().map(|place| (place, AtomicU32::new(0))).collect(), marks }
    }

    /// The place that is reached with this crossing, if it was not used before.
    fn reached(&self, boundary: &str, side: Side) -> Option<&Place> {
        let mut found = None;
        for (place, crossed) in self.places.iter().filter(|(p, _)| p.boundary == boundary && p.side == side) {
            let now = crossed.fetch_add(1, Ordering::SeqCst) + 1;
            let used = self.marks.as_ref().is_some_and(|folder| folder.join(place.mark()).exists());
            if now == place.crossing && !used {
                found = Some(place);
            }
        }
        found
    }
}

impl Witness for Kill {
    fn crosses(&self, boundary: &'static str, side: Side) {
        let Some(place) = self.reached(boundary, side) else { return };
        tracing::warn!(boundary, side = ?side, crossing = place.crossing, "ended here on purpose: --kill-at");
        if let Some(folder) = &self.marks
            && let Err(error) = std::fs::write(folder.join(place.mark()), "")
        {
            tracing::error!(folder = %folder.display(), %error, "no mark could be left");
        }
        // No destructor, no handler, no lease given back: as the kernel would end it for want of memory.
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_are_documented() {
        let place = |text: &str| text.parse::<Place>();
        assert_eq!(place("a:after"), Ok(Place { boundary: "a".into(), side: Side::After, crossing: 1 }));
        assert_eq!(place("a-b:before:3"), Ok(Place { boundary: "a-b".into(), side: Side::Before, crossing: 3 }));
        for bad in ["", "a", ":after", "a:beside", "a:after:0", "a:after:x", "a:after:1:1"] {
            assert!(place(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_place_is_reached_once_and_a_mark_outlives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let kill = || Kill::at(vec!["a:after:2".parse().unwrap()], Some(dir.path().to_owned()));
        let first = kill();
        assert!(first.reached("a", Side::After).is_none());
        assert!(first.reached("a", Side::Before).is_none() && first.reached("b", Side::After).is_none());
        let place = first.reached("a", Side::After).expect("the second crossing");
        std::fs::write(dir.path().join(place.mark()), "").unwrap();
        assert!(first.reached("a", Side::After).is_none());
        let second = kill();
        assert!((0..5).all(|_| second.reached("a", Side::After).is_none()), "it was used");
    }
}
