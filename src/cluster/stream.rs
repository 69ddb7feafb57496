//! Objects out of bytes as they arrive: items of a list, lines of a watch.
//!
//! A page of 500 Pods is 5 MB and would otherwise be held twice, as text and as objects; here one object is held at a
//! time. Cutting is all that happens: nothing here knows what an object means.

use serde::Deserialize;
use serde::de::IgnoredAny;

/// No object of the API server is larger: it refuses requests over 3 MiB, and JSON escapes at most double that.
pub const MOST_BYTES: usize = 16 << 20;

/// Buffers that one large object has grown are given back above this.
const KEEP_BYTES: usize = 64 << 10;

/// Bytes that are not what an API server sends.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("an object of more than {} MiB", MOST_BYTES >> 20)]
    TooLong,
    /// Of what is read as a whole.
    #[error("an answer of more than {} MiB", MOST_BYTES >> 20)]
    LongAnswer,
    #[error("the list is not JSON: {0}")]
    List(String),
}

/// Cuts the elements of the array `items` out of a list; what is left of the list is read at its end.
#[derive(Default)]
pub struct Items {
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// Between the brackets of `items`.
    in_items: bool,
    in_item: bool,
    item: Vec<u8>,
    /// The list without its items.
    rest: Vec<u8>,
    /// The string read last outside of items: `items` before its bracket.
    last: Vec<u8>,
}

/// What a list says of itself.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ListMeta {
    #[serde(rename = "resourceVersion")]
    pub version: String,
    /// Where the next page begins; empty on the last one.
    #[serde(rename = "continue")]
    pub next: String,
}

impl Items {
    /// Takes bytes in, gives every object that they complete to `each`.
    ///
    /// # Errors
    /// An object longer than [`MOST_BYTES`].
    pub fn feed(&mut self, chunk: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), Malformed> {
        let mut from = 0;
        let mut at = 0;
        while at < chunk.len() {
            if self.in_string {
                at += self.string(&chunk[at..]);
                continue;
            }
            let byte = chunk[at];
            if self.in_items && !self.in_item && byte == b'{' {
                self.keep(&chunk[from..at], false)?;
                self.in_item = true;
                from = at;
            }
            match byte {
                b'"' => {
                    self.in_string = true;
                    self.last.clear();
                }
                b'{' | b'[' => {
                    self.in_items |= byte == b'[' && self.depth == 1 && self.last == b"items";
                    self.depth += 1;
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.in_item && self.depth == 2 {
                        self.keep(&chunk[from..=at], true)?;
                        each(&self.item);
                        self.item.clear();
                        self.item.shrink_to(KEEP_BYTES);
                        self.in_item = false;
                        from = at + 1;
                    } else if self.in_items && !self.in_item && self.depth == 1 {
                        self.in_items = false;
                    }
                }
                // Between two items; the list that is left must stay JSON.
                b',' if self.in_items && !self.in_item => {
                    self.keep(&chunk[from..at], false)?;
                    from = at + 1;
                }
                _ => {}
            }
            at += 1;
        }
        self.keep(&chunk[from..], self.in_item)
    }

    /// Skips to the end of a string; the number of bytes passed.
    fn string(&mut self, bytes: &[u8]) -> usize {
        if self.escaped {
            self.escaped = false;
            return 1;
        }
        let end = bytes.iter().position(|b| matches!(b, b'"' | b'\\'));
        let passed = end.unwrap_or(bytes.len());
        if self.depth == 1 && self.last.len() < 8 {
            self.last.extend_from_slice(&bytes[..passed.min(8)]);
        }
        match end {
            Some(end) => {
                self.in_string = bytes[end] != b'"';
                self.escaped = self.in_string;
                end + 1
            }
            None => passed,
        }
    }

    fn keep(&mut self, bytes: &[u8], of_item: bool) -> Result<(), Malformed> {
        let to = if of_item { &mut self.item } else { &mut self.rest };
        if to.len() + bytes.len() > MOST_BYTES {
            return Err(Malformed::TooLong);
        }
        to.extend_from_slice(bytes);
        Ok(())
    }

    /// What the list says of itself, once all of it was fed.
    ///
    /// # Errors
    /// A list that was cut short or is no list.
    pub fn end(self) -> Result<ListMeta, Malformed> {
        #[derive(Deserialize)]
        struct List {
            metadata: ListMeta,
            #[allow(dead_code, reason = "a list has items; anything else is not one")]
            items: Option<Vec<IgnoredAny>>,
        }
        let list: List = serde_json::from_slice(&self.rest).map_err(|e| Malformed::List(e.to_string()))?;
        Ok(list.metadata)
    }
}

/// Cuts lines.
#[derive(Default)]
pub struct Lines {
    line: Vec<u8>,
}

impl Lines {
    /// Takes bytes in, gives every line that they complete to `each`.
    ///
    /// # Errors
    /// A line longer than [`MOST_BYTES`].
    pub fn feed(&mut self, chunk: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), Malformed> {
        let mut rest = chunk;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            if self.line.is_empty() {
                each(&rest[..end]);
            } else {
                self.line.extend_from_slice(&rest[..end]);
                each(&self.line);
                self.line.clear();
                self.line.shrink_to(KEEP_BYTES);
            }
            rest = &rest[end + 1..];
        }
        if self.line.len() + rest.len() > MOST_BYTES {
            return Err(Malformed::TooLong);
        }
        self.line.extend_from_slice(rest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(list: &str, chunk: usize) -> (Vec<String>, Result<ListMeta, Malformed>) {
        let mut items = Items::default();
        let mut found = Vec::new();
        for part in list.as_bytes().chunks(chunk) {
            items.feed(part, |i| found.push(String::from_utf8(i.to_vec()).unwrap())).unwrap();
        }
        (found, items.end())
    }

    #[test]
    fn items_are_cut_wherever_the_chunks_end_and_whatever_the_order_of_keys() {
        let objects = [r#"{"a":{"items":[{"b":"}]\"\\"}]}}"#, r#"{"c":"items"}"#, r#"{}"#];
        let items = objects.join(" ,\n");
        let lists = [
            format!(r#"{{"kind":"items","metadata":{{"resourceVersion":"7","continue":"x"}},"items":[{items}]}}"#),
            format!(r#"{{"items": [ {items} ], "metadata":{{"continue":"x","resourceVersion":"7","items":[1]}}}}"#),
        ];
        for list in &lists {
            for chunk in 1..list.len() {
                let (found, meta) = cut(list, chunk);
                assert_eq!(found, objects, "chunks of {chunk}");
                assert_eq!(meta.unwrap(), ListMeta { version: "7".into(), next: "x".into() });
            }
        }
    }

    #[test]
    fn an_empty_list_and_a_null_one_have_no_items() {
        for list in [r#"{"metadata":{"resourceVersion":"7"},"items":[]}"#, r#"{"metadata":{},"items":null}"#] {
            let (found, meta) = cut(list, 3);
            assert!(found.is_empty());
            assert!(meta.is_ok());
        }
    }

    #[test]
    fn a_list_that_was_cut_short_is_an_error() {
        let list = r#"{"metadata":{"resourceVersion":"7"},"items":[{"a":1},{"b":2}]}"#;
        for end in 1..list.len() {
            assert!(cut(&list[..end], 5).1.is_err(), "{}", &list[..end]);
        }
        assert!(cut(r#"{"kind":"Status"}"#, 5).1.is_err());
    }

    #[test]
    fn lines_are_cut_wherever_the_chunks_end() {
        let text = "one\ntwo\n\nthree\nfo";
        for chunk in 1..text.len() {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for part in text.as_bytes().chunks(chunk) {
                lines.feed(part, |l| found.push(String::from_utf8(l.to_vec()).unwrap())).unwrap();
            }
            assert_eq!(found, ["one", "two", "", "three"]);
        }
    }

    #[test]
    fn nothing_grows_without_bound() {
        let mut lines = Lines::default();
        let mut items = Items::default();
        items.feed(br#"{"items":[{"a":""#, |_| {}).unwrap();
        let chunk = vec![b'x'; 1 << 20];
        let ends = (0..17).any(|_| lines.feed(&chunk, |_| {}).is_err());
        assert!(ends);
        let ends = (0..17).any(|_| items.feed(&chunk, |_| {}).is_err());
        assert!(ends);
    }
}
