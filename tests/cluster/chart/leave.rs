//! Commands of the pages, typed as they stand there: to a newer chart, and out.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::install::{foreign, ours, run};
use super::render::{NAMESPACE, RELEASE, chart, helm};
use crate::harness::objects::Scope;
use crate::harness::tools::tools;
use crate::harness::wait::wait_until;
use crate::harness::{ControlPlane, Options};

fn page(path: &str) -> Result<String> {
    Ok(std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))?)
}

/// The chart as it may be one day: a template uses a value that this one does not have.
fn newer(folder: &Path) -> Result<()> {
    let copied = Command::new("cp").arg("-r").arg(chart()).arg(folder).output()?;
    ensure!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let values = folder.join("values.yaml");
    std::fs::write(&values, format!("{}\nnewer:\n  inner: {{answer: \"42\"}}\n", std::fs::read_to_string(&values)?))?;
    let path = folder.join("values.schema.json");
    let mut schema: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    schema["properties"]["newer"] = json!({"type": "object"});
    std::fs::write(&path, schema.to_string())?;
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: newer\n  namespace: {{ .Release.Namespace }}\n\
                    data: {answer: {{ .Values.newer.inner.answer | quote }}}\n";
    std::fs::write(folder.join("templates/newer.yaml"), template)?;
    Ok(())
}

pub async fn a_newer_chart_is_installed_by_the_command_of_the_pages() -> Result<()> {
    // Names of the release are the same for everybody: nobody else may be here.
    let plane = ControlPlane::start(Options::default()).await?;
    let mut scope = Scope::new(&plane);
    scope.apply(&foreign()).await?;
    let this = chart();
    run(&plane, &["install", RELEASE, this.to_str().context("a path")?, "--create-namespace", "--set", "mode=audit"])
        .await?;
    let folder = tempfile::tempdir()?;
    let folder = folder.path().join("revguard");
    newer(&folder)?;
    let there = folder.to_str().context("a path")?;

    let upgrade = |line: &str| {
        let words: Vec<String> =
            line.split_whitespace().skip(1).map(|word| word.replace("charts/revguard", there)).collect();
        let mut command = helm();
        command.env("KUBECONFIG", plane.kubeconfig()).args(words);
        command
    };
    let old = upgrade("helm upgrade revguard charts/revguard -n revguard-system --reuse-values").output()?;
    let said = String::from_utf8_lossy(&old.stderr).into_owned();
    ensure!(said.contains("nil pointer"), "--reuse-values would do, and the pages need not speak of it: {said}");
    for path in ["docs/operating.md", "docs/install.md"] {
        let text = page(path)?;
        let section =
            text.split("\n## Upgrade").nth(1).with_context(|| format!("{path}: no section about upgrades"))?;
        let line = section.lines().find(|l| l.starts_with("helm upgrade revguard")).context("a command")?;
        let output = upgrade(line).output()?;
        ensure!(output.status.success(), "{path}: {line}: {}", String::from_utf8_lossy(&output.stderr));
        let get = ["get", "configmap", "newer", "revguard-policy", "-n", NAMESPACE, "-o", "jsonpath={.items[*].data}"];
        let data = String::from_utf8(plane.kubectl(&get).await?.stdout)?;
        ensure!(
            data.contains("\"answer\":\"42\"") && data.contains("mode: audit"),
            "{path}: what was set is lost: {data}"
        );
    }
    Ok(())
}

/// Types what stands on a page into a shell.
async fn types(plane: &ControlPlane, text: &str) -> Result<Output> {
    let kubectl = tools().map_err(|missing| anyhow::anyhow!(missing.0))?.kubectl.clone();
    let path = std::env::join_paths(
        kubectl
            .parent()
            .map(Path::to_path_buf)
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )?;
    let mut command = Command::new("sh");
    command.args(["-c", &text.replace("NAMESPACE", NAMESPACE)]).env("PATH", path).env("KUBECONFIG", plane.kubeconfig());
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    ensure!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output)
}

/// What the runbook has in a block of code, or between backticks, and begins so.
fn command<'a>(section: &'a str, begin: &str) -> Result<&'a str> {
    let from = section.find(begin).with_context(|| format!("docs/runbook.md, Uninstall: no {begin}"))?;
    let rest = &section[from..];
    let end = if section[..from].ends_with('\n') { rest.find("\n```") } else { rest.find('`') };
    Ok(&rest[..end.context("an end")?])
}

pub async fn the_ways_out_of_the_runbook_leave_nothing() -> Result<()> {
    // Names of the release are the same for everybody: nobody else may be here.
    let plane = ControlPlane::start(Options::default()).await?;
    let mut scope = Scope::new(&plane);
    scope.apply(&foreign()).await?;
    let edge = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "edge"}});
    scope.apply(&[edge]).await?;
    let chart = chart();
    let chart = chart.to_str().context("a path")?;
    // No pod runs here, so that nothing may be asked.
    let set = "mode=audit,rollouts.clusterWide=false,rollouts.namespaces={edge}";
    run(&plane, &["install", RELEASE, chart, "--create-namespace", "--set", set]).await?;
    let rollout = json!({
        "apiVersion": "revguard.dev/v1alpha1", "kind": "GatewayRollout",
        "metadata": {"name": "ingress", "namespace": "edge", "finalizers": ["revguard.dev/rollout"]},
        "spec": {"target": {"deployment": {"name": "ingress"}}, "toRevision": "1-24"},
    });
    scope.apply(&[rollout]).await?;
    scope.leave();

    let runbook = page("docs/runbook.md")?;
    let section =
        runbook.split("\n## Uninstall\n").nth(1).and_then(|rest| rest.split("\n## ").next()).context("a section")?;
    let crds = command(section, "kubectl delete crds")?;
    let crds = crds.lines().next().context("a command")?;
    // Without a controller both wait for what nobody does.
    for line in ["kubectl delete gatewayrollouts --all -A", crds] {
        ensure!(section.contains(line), "{line} is not in the runbook");
        let waits = types(&plane, &format!("{line} --timeout=3s")).await;
        ensure!(waits.is_err_and(|error| format!("{error:#}").contains("timed out")), "{line} waits for nobody");
    }
    types(&plane, command(section, "kubectl get gatewayrollouts -A -o jsonpath")?).await?;
    types(&plane, &format!("{crds} --timeout=30s")).await?;
    let left = plane.kubectl(&["get", "crds", "-l", "app.kubernetes.io/name=revguard", "-o", "name"]).await?;
    ensure!(left.stdout.is_empty(), "left: {}", String::from_utf8_lossy(&left.stdout));

    let everywhere = command(section, "kubectl delete clusterroles")?;
    let (_, glass) = runbook.split_once("## Break glass\n\n```\n").context("break glass")?;
    types(&plane, glass.lines().next().context("a command")?).await?;
    types(&plane, everywhere).await?;
    wait_until(std::time::Duration::from_secs(20), "everything outside of the namespace gone", || async {
        let left = ours(&plane).await.map_err(|error| error.to_string())?;
        let left = left.iter().filter(|o| o["metadata"]["namespace"] != NAMESPACE);
        let names: Vec<String> = left.map(|o| format!("{} {}", o["kind"], o["metadata"]["name"])).collect();
        if names.is_empty() { Ok(()) } else { Err(format!("left: {names:?}")) }
    })
    .await
}
