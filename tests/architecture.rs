//! What ARCHITECTURE.md claims of the source tree, held by reading it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&src, &mut files);
    files.sort();
    files
        .into_iter()
        .map(|f| (f.strip_prefix(&src).expect("below src").to_owned(), std::fs::read_to_string(&f).expect("UTF-8")))
        .collect()
}

/// The part of a file before its tests.
fn code(text: &str) -> &str {
    text.split("\n#[cfg(test)]").next().unwrap_or(text)
}

/// From the bottom: a module uses only what stands before it, or its own room.
const LAYERS: [&str; 13] = [
    "model",
    "api",
    "wire",
    "snapshot",
    "rules",
    "audit",
    "rollout",
    "telemetry",
    "admission",
    "cluster",
    "controller",
    "run",
    "cli",
];

/// The first layer above the line.
const ABOVE: &str = "telemetry";

fn layer(room: &str) -> Option<usize> {
    LAYERS.iter().position(|l| *l == room)
}

fn room(path: &Path) -> String {
    let first = path.components().next().expect("a component").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn layers_use_only_what_is_below_them() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let own = room(&path);
        let Some(at) = layer(&own) else {
            assert!(matches!(own.as_str(), "main" | "lib"), "{} is in no layer", path.display());
            continue;
        };
        for (i, line) in code(&text).lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for part in line.split("crate::").skip(1) {
                let used: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if let Some(below) = layer(&used)
                    && below > at
                {
                    wrong.push(format!("{}:{}: {own} uses {used}", path.display(), i + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Words that below the line would mean I/O, a clock, dice, logs or an order that changes from run to run.
const BANNED: [&str; 14] = [
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::time::Instant",
    "SystemTime",
    "Timestamp::now",
    "Zoned::now",
    "tokio",
    "tracing",
    "println!",
    "eprintln!",
    "rand::",
    "async fn",
];

#[test]
fn below_the_line_there_is_no_clock_no_input_no_log() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        if layer(&room(&path)).is_none_or(|l| Some(l) >= layer(ABOVE)) {
            continue;
        }
        for (i, line) in code(&text).lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//")) {
            for word in BANNED.iter().filter(|w| line.contains(**w)) {
                wrong.push(format!("{}:{}: {word}", path.display(), i + 1));
            }
            // A hash map may be looked up, never walked: only the builder has them, and it only looks up and retains.
            if line.contains("HashMap") && path != Path::new("snapshot/builder.rs") {
                wrong.push(format!("{}:{}: HashMap", path.display(), i + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let lines = code(&text).lines().count();
        if lines > 500 {
            wrong.push(format!("{}: {lines} lines", path.display()));
        }
        if !text.starts_with("//!") {
            wrong.push(format!("{}: no module documentation", path.display()));
        }
        for word in ["todo!(", "unimplemented!(", "#[ignore"] {
            if text.contains(word) {
                wrong.push(format!("{}: {word}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_panic_fails_one_request_and_not_the_process() {
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    assert!(manifest.contains("panic = \"unwind\""));
    assert!(!manifest.contains("panic = \"abort\""));
}

#[test]
fn one_provider_of_cryptography() {
    let lock = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap();
    assert!(!lock.contains("name = \"aws-lc-rs\""), "two providers make rustls panic when a client is built");
    assert!(!lock.contains("name = \"openssl\""));
}

#[test]
fn every_dependency_says_why() {
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let (mut section, mut above) = ("", "");
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section.contains("dependencies") && line.contains('=') && !line.starts_with('#') {
            assert!(above.starts_with('#'), "{line}: no reason above it");
        }
        above = line;
    }
}

/// Modules side by side in one folder: whoever reads one of a pair that use each other has to read both.
#[test]
fn modules_side_by_side_do_not_use_each_other() {
    let mut uses = BTreeSet::new();
    for (path, text) in sources() {
        let own: Vec<String> = path.with_extension("").iter().map(|p| p.to_string_lossy().into_owned()).collect();
        // A folder's own file speaks for the folder.
        let own = own.strip_suffix(&["mod".to_owned()]).unwrap_or(&own);
        let code = code(&text).lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join(" ");
        for used in used(&code, own) {
            let shared = own.iter().zip(&used).take_while(|(a, b)| a == b).count();
            if shared > 0 && shared < own.len() && shared < used.len() {
                uses.insert((own[..=shared].join("/"), used[..=shared].join("/")));
            }
        }
    }
    let circles: Vec<_> = uses.iter().filter(|(a, b)| a < b && uses.contains(&(b.clone(), a.clone()))).collect();
    assert!(circles.is_empty(), "{circles:#?}");
}

/// Paths of modules and items that a file names, from `crate` on: `crate::a::b`, `super::b`, `{b::C, d}` behind either.
fn used(code: &str, own: &[String]) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    let words = |text: &str| -> Vec<String> {
        let path: String = text.chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':')).collect();
        path.split("::").filter(|w| !w.is_empty()).map(str::to_owned).collect()
    };
    let mut begin = |base: Vec<String>, rest: &str| {
        let path = words(rest);
        let behind = rest
            [rest.len().min(rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(0))..]
            .trim_start();
        let whole: Vec<String> = base.into_iter().chain(path).collect();
        if let Some(list) = behind.strip_prefix('{') {
            for part in list.split('}').next().unwrap_or("").split(',') {
                all.push(whole.iter().cloned().chain(words(part.trim())).collect());
            }
        }
        all.push(whole);
    };
    for rest in code.split("crate::").skip(1) {
        begin(Vec::new(), rest);
    }
    for (at, _) in code.match_indices("super::") {
        if code[..at].ends_with("super::") {
            continue;
        }
        let (mut base, mut rest) = (own, &code[at..]);
        while let Some(up) = rest.strip_prefix("super::") {
            (base, rest) = (&base[..base.len().saturating_sub(1)], up);
        }
        begin(base.to_vec(), rest);
    }
    all
}
