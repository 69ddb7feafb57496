//! Pages that the program prints about itself; a test keeps those in `docs/` current.

use std::fmt::Write;
use std::path::Path;

use crate::rules::RULES;
use crate::wire::kinds::{KINDS, Watch};

/// Every generated page: path below `docs/`, text.
pub fn pages() -> Vec<(String, String)> {
    let mut pages: Vec<(String, String)> =
        RULES.iter().map(|r| (format!("rules/{}.md", r.code), format!("{}\n", r.doc().trim_end()))).collect();
    pages.push(("rules/README.md".into(), rules()));
    pages.push(("cli.md".into(), cli()));
    pages.push(("access.md".into(), access()));
    pages.push(("metrics.md".into(), crate::telemetry::metrics::docs()));
    pages
}

/// Writes them all.
///
/// # Errors
/// A page that cannot be written.
pub fn write(folder: &Path) -> anyhow::Result<()> {
    for (path, text) in pages() {
        let file = folder.join(path);
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&file, text).map_err(|e| anyhow::anyhow!("{}: {e}", file.display()))?;
    }
    Ok(())
}

fn rules() -> String {
    let mut out = String::from("# Rules\n\n| code | name | summary |\n|---|---|---|\n");
    for r in RULES.iter() {
        let _ = writeln!(out, "| [{0}]({0}.md) | {1} | {2} |", r.code, r.name, r.summary);
    }
    out
}

fn cli() -> String {
    let mut out = String::from("# Command line\n");
    let mut command = super::command().term_width(100);
    command.build();
    section(&mut out, &mut command, "revguard");
    out
}

fn section(out: &mut String, command: &mut clap::Command, name: &str) {
    let help = command.render_long_help();
    let help: Vec<String> = help.to_string().lines().map(|l| l.trim_end().to_owned()).collect();
    let _ = write!(out, "\n## {name}\n\n```text\n{}\n```\n", help.join("\n").trim_end());
    let children: Vec<String> = command
        .get_subcommands()
        .filter(|c| !c.is_hide_set() && c.get_name() != "help")
        .map(|c| c.get_name().to_owned())
        .collect();
    for child in children {
        if let Some(c) = command.find_subcommand_mut(&child) {
            section(out, c, &format!("{name} {child}"));
        }
    }
}

fn access() -> String {
    let mut out = String::from(
        "# Access\n\nWhat is read of a live cluster, and why. Nothing is written.\n\n| group | resource | verbs | how | why |\n|---|---|---|---|---|\n",
    );
    for row in KINDS.iter().filter(|r| r.watch != Watch::Never) {
        let group = if row.group.is_empty() { "core" } else { row.group };
        let how = match row.watch {
            Watch::Whole => "whole objects, read leanly".to_owned(),
            Watch::Metadata => "metadata".to_owned(),
            Watch::MetadataWhere(label) => format!("metadata of those labelled `{label}`"),
            Watch::InMesh("") => "whole objects, only in namespaces with an istiod or a gateway".to_owned(),
            Watch::InMesh(label) => format!("those labelled `{label}`, only in namespaces with an istiod or a gateway"),
            Watch::MetadataAndInMesh => "metadata; whole objects in namespaces with an istiod or a gateway".to_owned(),
            Watch::Never => continue,
        };
        let _ = writeln!(out, "| {group} | {} | list, watch | {how} | {} |", row.plural, row.why);
    }
    out
}
