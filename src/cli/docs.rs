//! Pages that the program prints about itself; a test keeps those in `docs/` current.

use std::fmt::Write;
use std::path::Path;

use crate::controller::access::{self, Role};
use crate::rules::RULES;

/// Every generated page: path below `docs/`, text.
pub fn pages() -> Vec<(String, String)> {
    let mut pages: Vec<(String, String)> =
        RULES.iter().map(|r| (format!("rules/{}.md", r.code), format!("{}\n", r.doc().trim_end()))).collect();
    pages.push(("rules/README.md".into(), rules()));
    pages.push(("cli.md".into(), cli()));
    pages.push(("access.md".into(), access::docs()));
    pages.push(("guards.md".into(), crate::rollout::guards::docs()));
    pages.push(("metrics.md".into(), crate::telemetry::metrics::docs()));
    pages
}

/// Writes them all.
///
/// # Errors
/// A page that cannot be written.
pub fn write(folder: &Path) -> anyhow::Result<()> {
    store(folder, pages())
}

fn store(folder: &Path, files: Vec<(String, String)>) -> anyhow::Result<()> {
    for (path, text) in files {
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

/// Generated files of the chart: path below `charts/revguard`, text.
pub fn chart_files() -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> =
        Role::ALL.iter().map(|role| (format!("files/{}", role.file()), access::rules(*role))).collect();
    for (name, mut definition) in crate::api::definitions() {
        // Helm never upgrades what stands in its own crds/ folder, and must not take everybody's objects along when it
        // removes a release.
        definition["metadata"]["annotations"]["helm.sh/resource-policy"] = "keep".into();
        // By which whoever wants them gone as well finds them.
        definition["metadata"]["labels"]["app.kubernetes.io/name"] = "revguard".into();
        let text = serde_json::to_string_pretty(&definition).expect("a definition is plain data");
        // JSON is YAML. It is a template as well, and whoever writes two braces into a description should hear of it.
        assert!(!text.contains("{{"), "{name}: Helm would read this as an action");
        files.push((format!("templates/crds/{name}.yaml"), format!("{text}\n")));
    }
    files
}

/// Writes them all.
///
/// # Errors
/// A file that cannot be written.
pub fn write_chart(chart: &Path) -> anyhow::Result<()> {
    store(chart, chart_files())
}
