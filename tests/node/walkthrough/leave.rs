//! The old control plane goes, and then we do.

use anyhow::{Context, Result, ensure};

use super::terminal::Terminal;

pub async fn tell(t: &mut Terminal) -> Result<()> {
    old(t).await.context("the old control plane")?;
    ours(t).await.context("ourselves")
}

async fn old(t: &mut Terminal) -> Result<()> {
    t.page.say("## The old control plane goes");
    let told = t.until("revguard uninstall-check 1-23", &["safe to remove", "To remove it:"]).await?;
    let (_, commands) = told.split_once("To remove it:").context("a command")?;
    t.page.say("The command that it printed:");
    for line in commands.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('(')) {
        t.types(line).await?;
    }
    t.page.say(
        "Nothing dangles. What is still said of 1-23 is said by the IstioOperator files, which nobody has told yet:",
    );
    let told = t.types("revguard status").await?;
    for level in ["critical", "error", "warning"] {
        ensure!(!told.contains(level), "something is wrong:\n{told}");
    }
    Ok(())
}

/// Kinds of which we make objects.
const OURS: &str = "kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations,validatingadmissionpolicies,\
                    validatingadmissionpolicybindings,clusterroles,clusterrolebindings,crds,policyreports,clusterpolicyreports -A -l app.kubernetes.io/name=revguard -o name";

async fn ours(t: &mut Terminal) -> Result<()> {
    t.page.say("## And so do we");
    t.types("helm uninstall revguard -n revguard-system").await?;
    t.types("kubectl delete namespace revguard-system").await?;
    t.page.say("Definitions stay, with what people have written into them, until they are deleted:");
    t.types(OURS).await?;
    t.types("kubectl delete crds -l app.kubernetes.io/name=revguard").await?;
    let left = t.types(OURS).await?;
    ensure!(left.is_empty(), "left behind: {left}");
    t.page.say("The cluster works without us:");
    t.types("kubectl rollout restart -n shop deployment/web").await?;
    t.rolled_out("shop", "web").await?;
    t.types("kubectl label namespace orders team=orders").await?;
    Ok(())
}
