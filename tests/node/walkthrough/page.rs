//! docs/walkthrough.md: what was typed and what came back, in a form that a second run gives again.
//!
//! What no two runs share (ages, addresses, the random ends of names) is written as one of its kind. What also differs in its number of
//! lines is marked, and only its command is compared.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use libtest_mimic::Failed;

use crate::harness::programs::repository;

/// Before a block whose content is of one run.
const ONE_RUN: &str = "<!-- the output of one run -->\n";

#[derive(Default)]
pub struct Page {
    text: String,
    /// A block is open, so that what is typed next joins it.
    open: bool,
    names: Vec<String>,
}

impl Page {
    /// A heading, or prose.
    pub fn say(&mut self, text: &str) {
        self.close();
        let _ = write!(self.text, "\n{}\n", text.trim());
    }

    /// A file that the story needs.
    pub fn file(&mut self, name: &str, content: &str) {
        self.say(&format!("`{name}`:\n\n```yaml\n{}\n```", content.trim()));
    }

    /// A command and what it said.
    pub fn typed(&mut self, line: &str, said: &str) {
        let said = self.same(said);
        if !self.open {
            self.text.push_str("\n```console\n");
            self.open = true;
        }
        let _ = writeln!(self.text, "$ {line}");
        if !said.is_empty() {
            let _ = writeln!(self.text, "{}", said.trim_end());
        }
    }

    /// The same, where no second run says as many lines.
    pub fn typed_once(&mut self, line: &str, said: &str) {
        self.close();
        let _ = write!(self.text, "\n{ONE_RUN}");
        self.typed(line, said);
        self.close();
    }

    fn close(&mut self) {
        if std::mem::take(&mut self.open) {
            self.text.push_str("```\n");
        }
    }

    /// As it is so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn path() -> PathBuf {
        repository().join("docs/walkthrough.md")
    }

    /// Writes the page if `UPDATE` is set, else holds it against the one that is there.
    pub fn end(mut self) -> Result<()> {
        self.close();
        if std::env::var_os("UPDATE").is_some() {
            return Ok(std::fs::write(Page::path(), self.text.trim_start())?);
        }
        let there = std::fs::read_to_string(Page::path())?;
        let (there, here) = (compared(&there), compared(self.text.trim_start()));
        let at = there.iter().zip(&here).position(|(a, b)| a != b).unwrap_or_else(|| there.len().min(here.len()));
        let from =
            |lines: &[String]| lines[at.min(lines.len())..].iter().take(8).cloned().collect::<Vec<_>>().join("\n");
        ensure!(
            there == here,
            "docs/walkthrough.md no longer tells what happens (UPDATE=1 writes it anew). It says\n{}\n\nand now it is\n{}",
            from(&there),
            from(&here)
        );
        Ok(())
    }

    /// Output as every run gives it.
    fn same(&mut self, said: &str) -> String {
        let mut out = String::new();
        for line in said.lines() {
            if let Some((before, _)) = line.split_once("LAST DEPLOYED:") {
                let _ = writeln!(out, "{before}LAST DEPLOYED: today");
                continue;
            }
            // Words and the gaps between them. A gap takes up what a word has lost, so that columns stay columns.
            let mut rest = line.trim_end();
            let mut lost = 0;
            while !rest.is_empty() {
                let gap = rest.len() - rest.trim_start().len();
                out.push_str(&rest[..gap]);
                out.extend(std::iter::repeat_n(' ', if gap > 1 { std::mem::take(&mut lost) } else { 0 }));
                rest = &rest[gap..];
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                let word = match &rest[..end] {
                    // Elsewhere than in a column, a time is part of what is said.
                    age if gap > 1 && is_age(age) => "1m".to_owned(),
                    word => self.word(word),
                };
                lost += end.saturating_sub(word.len());
                out.push_str(&word);
                rest = &rest[end..];
            }
            out.push('\n');
        }
        out
    }

    fn word(&mut self, word: &str) -> String {
        let (front, core, back) = pared(word);
        if is_address(core) {
            return format!("{front}10.0.0.1{back}");
        }
        if is_time(core) {
            return format!("{front}2026-01-01T00:00:00Z{back}");
        }
        if is_like(core, "20dd-dd-dd") {
            return format!("{front}2026-01-01{back}");
        }
        if core.get(..9).is_some_and(|clock| is_like(clock, "dd:dd:dd.")) {
            return format!("{front}00:00:00{back}");
        }
        if let Some(stem) = pod(core) {
            // The same pod keeps its name over the page.
            let number = self.names.iter().position(|name| name == core).unwrap_or_else(|| {
                self.names.push(core.to_owned());
                self.names.len() - 1
            });
            return format!("{front}{stem}-{:05}{back}", number + 1);
        }
        word.to_owned()
    }
}

/// Lines without their spacing, and without what is of one run.
fn compared(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut of_one_run = false;
    for line in text.lines() {
        match line {
            _ if line == ONE_RUN.trim_end() => of_one_run = true,
            "```" => of_one_run = false,
            _ => {}
        }
        if !of_one_run || line.starts_with("$ ") {
            lines.push(line.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    lines
}

/// A word without the punctuation around it.
fn pared(word: &str) -> (&str, &str, &str) {
    let core = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let at = word.find(core).unwrap_or(0);
    (&word[..at], core, &word[at + core.len()..])
}

/// `5s`, `4m12s`, `3h`: an age in a table.
fn is_age(word: &str) -> bool {
    let mut numbers = 0;
    let mut rest = word;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let Some(unit) = rest[digits..].chars().next() else { return false };
        if digits == 0 || !"smhd".contains(unit) {
            return false;
        }
        rest = &rest[digits + 1..];
        numbers += 1;
    }
    (1..=2).contains(&numbers)
}

/// An address of a pod or Service.
fn is_address(word: &str) -> bool {
    let parts: Vec<&str> = word.split('.').collect();
    parts.len() == 4 && parts[0] == "10" && parts.iter().all(|part| part.parse::<u8>().is_ok())
}

fn is_time(word: &str) -> bool {
    word.len() >= 20 && word.starts_with("20") && word.ends_with('Z') && word.as_bytes()[10] == b'T'
}

/// A `d` of the pattern is any digit.
fn is_like(word: &str, pattern: &str) -> bool {
    let like = |(c, p): (char, char)| if p == 'd' { c.is_ascii_digit() } else { c == p };
    word.len() == pattern.len() && word.chars().zip(pattern.chars()).all(like)
}

/// What Kubernetes makes random ends of.
const RANDOM: &str = "bcdfghjklmnpqrstvwxz2456789";

/// The Deployment of a pod's name: `web-5d8c7b9f6c-x2x4v` is one of `web`.
fn pod(word: &str) -> Option<&str> {
    let random = |part: &str| part.chars().all(|c| RANDOM.contains(c));
    let (front, end) = word.rsplit_once('-')?;
    let (stem, hash) = front.rsplit_once('-')?;
    let is = end.len() == 5 && random(end) && (6..=10).contains(&hash.len()) && random(hash);
    is.then_some(stem)
}

/// Two runs of the same story are one page.
pub fn two_runs_are_one_page() -> Result<(), Failed> {
    let run = |age: &str, pod: &str, at: &str, watched: &str| {
        let mut page = Page::default();
        page.say("# A story");
        page.typed("kubectl get pods", &format!("NAME   AGE\n{pod}   {age}\nat {at}, on 10.244.0.{}", age.len()));
        page.typed_once("revguard rollout get x --watch", watched);
        page.close();
        compared(&page.text)
    };
    let one = run("5s", "web-5d8c7b9f6c-x2x4v", "2026-11-28T12:00:00Z", "1\n2");
    let other = run("12m4s", "web-6b8c7b9f6-zz4fv", "2027-01-02T03:04:05Z", "1\n1\n2");
    if one != other {
        return Err(format!("{one:#?}\n{other:#?}").into());
    }
    if run("5s", "web", "2026-11-28T12:00:00Z", "1") == one {
        return Err("a pod that is called otherwise goes unseen".into());
    }
    Ok(())
}
