//! Generated pages are current. `UPDATE=1` rewrites them.

use std::path::Path;

#[test]
fn docs_are_what_the_program_prints() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    if std::env::var_os("UPDATE").is_some() {
        revguard::cli::docs::write(&docs).unwrap();
    }
    let mut stale = Vec::new();
    for (path, text) in revguard::cli::docs::pages() {
        if std::fs::read_to_string(docs.join(&path)).unwrap_or_default() != text {
            stale.push(path);
        }
    }
    let known: Vec<String> = revguard::cli::docs::pages().into_iter().map(|(p, _)| p).collect();
    for entry in std::fs::read_dir(docs.join("rules")).into_iter().flatten() {
        let name = format!("rules/{}", entry.unwrap().file_name().to_string_lossy());
        if !known.contains(&name) {
            stale.push(format!("{name} (no such rule)"));
        }
    }
    assert!(stale.is_empty(), "UPDATE=1 cargo test --test generated; stale: {stale:?}");
}
