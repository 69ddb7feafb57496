//! The formats of `check`: text for a person, JSON, SARIF 2.1.0, JUnit and GitHub annotations for machines.

use std::fmt::Write;

use serde_json::{Value, json};

use super::report::{Format, Report};
use super::text::message;
use crate::rules::RULES;

pub fn render(format: Format, report: &Report) -> String {
    match format {
        Format::Text => text(report),
        Format::Json => pretty(&serde_json::to_value(report).expect("strings and numbers always serialise")),
        Format::Sarif => pretty(&sarif(report)),
        Format::Junit => junit(report),
        Format::Github => github(report),
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    for f in &report.results {
        let (object, file, block) = (f.object.display(), &f.source.file, message(&f.block));
        let _ = writeln!(out, "{}: {object} ({file}:{})\n{block}\n", f.action, f.line);
    }
    for e in &report.errors {
        let _ = writeln!(out, "error: {}:{}: document {}: {}\n", e.file, e.line, e.document, e.message);
    }
    let s = &report.summary;
    let _ = write!(out, "{} judged: {} denied, {} warned", plural(s.objects, "object"), s.deny, s.warn);
    if s.audit > 0 {
        let _ = write!(out, ", {} recorded", s.audit);
    }
    if s.errors > 0 {
        let _ = write!(out, "; {} could not be read", plural(s.errors, "document"));
    }
    if s.skipped > 0 {
        let _ = write!(out, "; {} of kinds that no rule looks at", s.skipped);
    }
    out.push('\n');
    out
}

fn plural(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

fn level(action: &str) -> &'static str {
    match action {
        "deny" => "error",
        "warn" => "warning",
        _ => "note",
    }
}

fn sarif(report: &Report) -> Value {
    let rules: Vec<Value> = RULES
        .iter()
        .map(|r| {
            json!({
                "id": r.code,
                "name": r.name,
                "shortDescription": {"text": r.summary},
                "help": {"text": r.doc(), "markdown": r.doc()},
            })
        })
        .collect();
    let results: Vec<Value> = report
        .results
        .iter()
        .map(|f| {
            json!({
                "ruleId": f.code,
                "ruleIndex": RULES.iter().position(|r| r.code == f.code),
                "level": level(f.action),
                "message": {"text": format!("{}: {} {} Fix: {}", f.object.display(), f.what, f.why, f.fix)},
                "locations": [{
                    "physicalLocation": {
                        "artifactLocation": {"uri": uri(&f.source.file)},
                        "region": {"startLine": f.line.max(1)},
                    },
                    "logicalLocations": [{"fullyQualifiedName": format!("{}: {}", f.object.display(), f.field)}],
                }],
            })
        })
        .collect();
    let notes: Vec<Value> = report
        .errors
        .iter()
        .map(|e| {
            json!({
                "level": "error",
                "message": {"text": e.message},
                "locations": [{"physicalLocation": {
                    "artifactLocation": {"uri": uri(&e.file)},
                    "region": {"startLine": e.line.max(1)},
                }}],
            })
        })
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "revguard", "version": env!("CARGO_PKG_VERSION"), "rules": rules}},
            "invocations": [{"executionSuccessful": report.errors.is_empty(), "toolExecutionNotifications": notes}],
            "results": results,
        }],
    })
}

/// A relative URI reference: what RFC 3986 does not allow in a path is escaped.
fn uri(file: &str) -> String {
    let mut out = String::new();
    for b in file.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => out.push(char::from(b)),
            _ => {
                let _ = write!(out, "%{b:02X}");
            }
        }
    }
    out
}

fn junit(report: &Report) -> String {
    let s = &report.summary;
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let failures = s.deny;
    let _ = writeln!(
        out,
        "<testsuites name=\"revguard\" tests=\"{}\" failures=\"{failures}\" errors=\"{}\">",
        s.deny + s.warn + s.audit + s.errors,
        s.errors
    );
    let _ = writeln!(
        out,
        "  <testsuite name=\"revguard check\" tests=\"{}\" failures=\"{failures}\" errors=\"{}\">",
        s.deny + s.warn + s.audit + s.errors,
        s.errors
    );
    for f in &report.results {
        let class = xml(&f.object.display());
        let _ = write!(
            out,
            "    <testcase classname=\"{class}\" name=\"{} {}\" file=\"{}\"",
            f.code,
            f.name,
            xml(&f.source.file)
        );
        if f.action == "deny" {
            let _ = writeln!(
                out,
                ">\n      <failure message=\"{}\">{}</failure>\n    </testcase>",
                xml(&f.what),
                xml(&f.block)
            );
        } else {
            let _ = writeln!(out, ">\n      <system-out>{}</system-out>\n    </testcase>", xml(&f.block));
        }
    }
    for e in &report.errors {
        let _ = writeln!(
            out,
            "    <testcase classname=\"{}\" name=\"document {}\">\n      <error message=\"{}\"/>\n    </testcase>",
            xml(&e.file),
            e.document,
            xml(&e.message)
        );
    }
    out.push_str("  </testsuite>\n</testsuites>\n");
    out
}

/// Text in XML 1.0, which has no place for most control characters.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

fn github(report: &Report) -> String {
    let mut out = String::new();
    for f in &report.results {
        let command = match level(f.action) {
            "note" => "notice",
            other => other,
        };
        let _ = writeln!(
            out,
            "::{command} file={},line={},title={}::{}",
            property(&f.source.file),
            f.line,
            property(&format!("{} {}", f.code, f.name)),
            data(&format!("{}: {}\n{}\n{}", f.object.display(), f.what, f.why, f.fix))
        );
    }
    for e in &report.errors {
        let _ =
            writeln!(out, "::error file={},line={},title=revguard::{}", property(&e.file), e.line, data(&e.message));
    }
    out
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
