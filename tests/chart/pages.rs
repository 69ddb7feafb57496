//! Pages about the chart are current. `UPDATE=1` rewrites what is generated of them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use revguard::controller::access::{Role, grants};
use serde_json::Value;

use crate::render::{NAMESPACE, RELEASE, chart, file, helm, render, text};
use crate::test;

pub fn tests() -> Vec<Trial> {
    vec![
        test("pages::the_table_of_values_is_current", &[], table_is_current),
        test("pages::the_panels_of_the_dashboard_are_listed", &[], panels_are_listed),
        test("pages::break_glass_is_the_same_everywhere", &[], break_glass),
        test("pages::security_names_what_rollouts_may_write", &[], security_names_rights),
        test("pages::groups_are_those_of_the_webhooks", &["helm"], groups_are_listed),
        test("pages::commands_are_for_the_chart_that_they_name", &["helm"], commands_fit),
        test("pages::notes_fit_what_was_installed", &["helm"], notes_fit),
    ]
}

fn page(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Rows of the table: key, default, comment. Every key has a comment, or its parent speaks for it.
fn rows() -> Result<Vec<[String; 3]>> {
    let (mut rows, mut comment) = (Vec::new(), String::new());
    // Keys that are open: their indentation, their name, whether somebody spoke of them.
    let mut open: Vec<(usize, String, bool)> = Vec::new();
    // The first paragraph is about the file.
    let text = file("values.yaml");
    for line in text.split("\n\n").skip(1).collect::<Vec<_>>().join("\n\n").lines() {
        let trimmed = line.trim_start();
        if let Some(words) = trimmed.strip_prefix("# ") {
            comment = format!("{comment} {words}").trim().to_owned();
            continue;
        }
        let Some((key, value)) = trimmed.split_once(':') else { continue };
        let indent = line.len() - trimmed.len();
        open.retain(|(at, _, _)| *at < indent);
        let path = open.iter().map(|(_, key, _)| key.as_str()).chain([key]).collect::<Vec<_>>().join(".");
        let spoken = open.last().is_some_and(|(_, _, spoken)| *spoken);
        ensure!(!comment.is_empty() || spoken || value.is_empty(), "values.yaml: {path} has no comment");
        rows.push([path, value.trim().to_owned(), std::mem::take(&mut comment)]);
        if value.is_empty() {
            let said = !rows.last().is_some_and(|row| row[2].is_empty());
            open.push((indent, key.to_owned(), said));
        }
    }
    Ok(rows)
}

fn table() -> Result<String> {
    let mut table = String::from("| key | default | meaning |\n|---|---|---|\n");
    let speaking = |row: &[String; 3]| !(row[1].is_empty() && row[2].is_empty());
    for [key, default, comment] in rows()?.into_iter().filter(speaking) {
        let default = if default.is_empty() { String::new() } else { format!("`{}`", default.replace('|', "\\|")) };
        table += &format!("| `{key}` | {default} | {} |\n", comment.replace('|', "\\|"));
    }
    Ok(table)
}

fn table_is_current() -> Result<()> {
    let (begin, end) = ("<!-- values -->\n", "<!-- end of values -->");
    let path = page("docs/install.md");
    let text = std::fs::read_to_string(&path)?;
    let (before, rest) = text.split_once(begin).context("no table in docs/install.md")?;
    let (_, after) = rest.split_once(end).context("a table without its end")?;
    let wanted = format!("{before}{begin}{}{end}{after}", table()?);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &wanted)?;
    } else {
        ensure!(text == wanted, "docs/install.md: UPDATE=1 cargo test --test chart");
    }
    Ok(())
}

/// A section for each row of the dashboard, a line for each panel, and what each asks Prometheus.
fn panels() -> Result<String> {
    let dashboard: Value = serde_json::from_str(&file("files/dashboard.json"))?;
    let mut page = String::from(
        "# The dashboard\n\n\
         Generated from `charts/revguard/files/dashboard.json`, which the chart installs as a ConfigMap that Grafana's sidecar finds; it can be\n\
         imported as a file just as well. Metrics are explained in [metrics.md](metrics.md), alerts in [runbook.md](runbook.md).\n\n\
         Every query here is run by a real Prometheus that scrapes the real binary and a real API server, and has to return something\n\
         (`cargo test --test cluster -- every_panel_shows_something`). No Grafana draws it in the tests.\n",
    );
    for panel in dashboard["panels"].as_array().context("panels")? {
        if text(panel, "/type") == "row" {
            page += &format!("\n## {}\n", text(panel, "/title"));
            continue;
        }
        page += &format!(
            "\n**{}** ({}). {}\n\n```promql\n",
            text(panel, "/title"),
            text(panel, "/type"),
            text(panel, "/description")
        );
        for target in panel["targets"].as_array().into_iter().flatten() {
            page += &format!("{}\n", text(target, "/expr").replace("$__rate_interval", "5m"));
        }
        page += "```\n";
    }
    Ok(page)
}

fn panels_are_listed() -> Result<()> {
    let (path, wanted) = (page("docs/dashboard.md"), panels()?);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, wanted)?;
        return Ok(());
    }
    ensure!(
        std::fs::read_to_string(&path).ok().as_ref() == Some(&wanted),
        "docs/dashboard.md: UPDATE=1 cargo test --test chart"
    );
    Ok(())
}

/// Whoever reads what the controller may do reads all of it: what it writes where gateways may be moved, and each Secret.
fn security_names_rights() -> Result<()> {
    let page = std::fs::read_to_string(page("SECURITY.md"))?;
    let row = page.lines().find(|line| line.starts_with("| controller |")).context("a row about the controller")?;
    let may = row.split(" | ").nth(1).context("what it may")?;
    for grant in grants().iter().filter(|grant| matches!(grant.role, Role::Rollouts | Role::ControllerNamespace)) {
        let called = match grant.resource.as_str() {
            "gatewayrollouts" => "GatewayRollouts",
            "deployments" => "Deployments",
            "configmaps" => "ConfigMaps",
            "horizontalpodautoscalers" => "autoscalers",
            "services" => "Services",
            "poddisruptionbudgets" => "disruption budgets",
            "leases" => "Lease",
            "guardparameters" => "GuardParameters",
            "secrets" if grant.names == ["-prometheus"] => "Secret `F-prometheus`",
            "secrets" => "its two Secrets",
            other => other,
        };
        ensure!(may.contains(called), "SECURITY.md says nothing of {} ({:?})", grant.resource, grant.verbs);
    }
    for value in ["rollouts.clusterWide: false", "rollouts.namespaces: []", "policy.repair: none"] {
        ensure!(page.contains(value), "SECURITY.md does not say that {value} narrows it");
    }
    Ok(())
}

/// A row for each webhook that the chart registers, in both tables.
fn groups_are_listed() -> Result<()> {
    let objects = render(&["--set", "policy.mutations.NS002=true"])?;
    let configurations = objects.iter().filter(|object| text(object, "/kind").ends_with("WebhookConfiguration"));
    let hooks: Vec<&Value> = configurations.flat_map(|c| c["webhooks"].as_array().into_iter().flatten()).collect();
    ensure!(hooks.len() == 8, "{} webhooks", hooks.len());
    for (path, fail, ignore) in
        [("docs/install.md", "refused", "let through"), ("docs/registering.md", "Fail", "Ignore")]
    {
        let page = std::fs::read_to_string(page(path))?;
        for hook in &hooks {
            let group = text(hook, "/name").trim_end_matches(".revguard.dev");
            let row =
                page.lines().find(|l| l.starts_with(&format!("| {group} |")) || l.starts_with(&format!("| `{group}`")));
            let row = row.with_context(|| format!("{path}: no row of {group}"))?;
            let meanwhile = if text(hook, "/failurePolicy") == "Fail" { fail } else { ignore };
            ensure!(row.ends_with(&format!("| {meanwhile} |")), "{path}: {row}");
        }
    }
    Ok(())
}

/// Pages that people type from; the walkthrough is what came of a run.
fn pages_by_hand() -> Result<Vec<(String, String)>> {
    let mut pages = vec![("NOTES.txt".to_owned(), file("templates/NOTES.txt"))];
    for entry in std::fs::read_dir(page("docs"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".md") && name != "walkthrough.md" {
            pages.push((name, std::fs::read_to_string(path)?));
        }
    }
    Ok(pages)
}

fn commands_fit() -> Result<()> {
    let (mut upgrades, mut wrong) = (0, Vec::new());
    for (name, page) in pages_by_hand()? {
        let page = page.replace("\\\n", " ");
        for line in page.lines() {
            // `F` is the full name, and Helm knows the release's alone.
            if ["helm upgrade F ", "helm uninstall F ", "helm rollback F "].iter().any(|command| line.contains(command))
            {
                wrong.push(format!("{name}: F is no release: {line}"));
            }
            // Old defaults under a newer chart lack what is new; beside a value that is set the chart stays the same.
            let ours = line.contains("charts/revguard") && line.contains("helm upgrade");
            upgrades += usize::from(ours);
            if ours && line.contains(" --reuse-values") && !line.contains("--set") {
                wrong.push(format!("{name}: --reset-then-reuse-values: {line}"));
            }
            // `helm test` runs what is a hook; applied, it is a Namespace that is refused.
            if line.starts_with("helm template") && line.contains('>') && !line.contains("--skip-tests") {
                wrong.push(format!("{name}: it applies what `helm test` runs: {line}"));
            }
            if line.contains("istioctl tag set default --revision") && !line.contains("--overwrite") {
                wrong.push(format!("{name}: refused where the tag is there already: {line}"));
            }
        }
    }
    ensure!(upgrades >= 5 && wrong.is_empty(), "{upgrades} upgrades\n{}", wrong.join("\n"));
    let without = render(&["--skip-tests"])?;
    let hook = |object: &Value| !text(object, "/metadata/annotations/helm.sh~1hook").is_empty();
    ensure!(!without.iter().any(hook) && render(&[])?.iter().any(hook), "--skip-tests is what leaves hooks out");
    Ok(())
}

fn break_glass() -> Result<()> {
    let command = "kubectl delete validatingwebhookconfigurations,mutatingwebhookconfigurations,\
                   validatingadmissionpolicybindings -l app.kubernetes.io/name=revguard";
    for path in ["docs/runbook.md", "docs/install.md", "docs/registering.md", "charts/revguard/templates/NOTES.txt"] {
        ensure!(std::fs::read_to_string(page(path))?.contains(command), "{path}: no break glass");
    }
    Ok(())
}

/// What Helm says after an installation.
fn notes(release: &str, namespace: &str, values: &str) -> Result<String> {
    let mut command = helm();
    command.args(["install", release]).arg(chart()).args([
        "--dry-run=client",
        "--namespace",
        namespace,
        "--set",
        values,
    ]);
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout)?;
    Ok(said.split_once("\nNOTES:\n").context("no notes")?.1.to_owned())
}

/// Every command of them is one for this installation.
fn notes_fit() -> Result<()> {
    let said = |values: &str| notes(RELEASE, NAMESPACE, values);
    let enforce = said("mode=enforce")?;
    ensure!(
        enforce.contains("--set mode=audit\n") && enforce.contains("\n  approvals     refused (Fail)\n"),
        "{enforce}"
    );
    ensure!(enforce.contains("\n             revguard report\n") && !enforce.contains("mutations"), "{enforce}");
    for mode in ["audit", "warn"] {
        let other = said(&format!("mode={mode}"))?;
        ensure!(other.contains("--set mode=enforce\n") && !other.contains("mode=audit\n"), "{other}");
    }
    let other = notes("edge", "mesh", "vap.enabled=false,tests.enabled=false,policy.mutations.NS002=true")?;
    ensure!(other.contains(" revguard report -n mesh --release edge-revguard\n"), "{other}");
    ensure!(!other.contains("admissionpolic") && !other.contains("helm test"), "{other}");
    ensure!(other.contains("\n  mutations     let through (Ignore)\n"), "{other}");
    let managed = said("certificates.mode=certManager")?;
    ensure!(
        managed.contains("cert-manager has issued") && !managed.contains("the controller has put its CA"),
        "{managed}"
    );
    let overridden = said("webhooks.namespaces.failurePolicy=Ignore,webhooks.workloads.failurePolicy=Fail")?;
    ensure!(
        overridden.contains("namespaces    let through") && overridden.contains("workloads     refused"),
        "{overridden}"
    );
    Ok(())
}
