//! What is there, and what is wrong with it: installed in mode audit, read, and mended by the commands that the findings print.

use anyhow::{Result, ensure};

use super::terminal::Terminal;

/// Code and object of each old mistake, and what a person does in the editor that its command opens.
const MISTAKES: [(&str, &str, Option<&str>, &str); 6] = [
    (
        "VW002",
        "istiod-default-validator",
        None,
        "The validator of what names no revision leads to an istiod that is gone, so that every write of Istio configuration is refused:",
    ),
    ("NS001", "payments", None, "Both labels on a namespace, and nobody injects its pods:"),
    ("NS004", "legacy", None, "A revision that is not here any more:"),
    ("GW007", "custom-gw", None, "A gateway beside whose pods somebody has tidied the mesh configuration away:"),
    (
        "GW002",
        "gateways",
        Some("sed -i \"s/profile: default/profile: minimal/\""),
        "Two files that render one gateway, because the control plane's has a profile with gateways (the editor is told what to change here, in place of your hands):",
    ),
    (
        "UP009",
        "istiod-control-plane",
        Some("sed -i \"0,/defaultRevision: true/! s/defaultRevision: true/defaultRevision: false/\""),
        "Two default revisions of Gloo's:",
    ),
];

pub async fn tell(t: &mut Terminal) -> Result<()> {
    there(t).await?;
    installed(t).await?;
    found(t).await?;
    mended(t).await
}

async fn there(t: &mut Terminal) -> Result<()> {
    t.page.say(
        "## What is there\n\nA mesh of revision 1-23, installed by Helm, with the tag `prod`; gateways by Helm (`gw/igw`) and by an IstioOperator \
         file (`default/custom-gw`).",
    );
    t.types("kubectl get namespaces -L istio-injection,istio.io/rev").await?;
    t.types("helm list -A").await?;
    t.types("kubectl get deployments -A -l 'app in (istiod,igw,istio-ingressgateway,web)'").await?;
    Ok(())
}

async fn installed(t: &mut Terminal) -> Result<()> {
    t.page.say("## Look first\n\nIn mode audit nothing is refused, nobody is told, and nothing can be held up.");
    t.types("helm install revguard charts/revguard -n revguard-system --create-namespace --set mode=audit").await?;
    t.rolled_out("revguard-system", "revguard-webhook").await?;
    t.rolled_out("revguard-system", "revguard-controller").await?;
    t.types("kubectl get pods -n revguard-system").await?;
    Ok(())
}

async fn found(t: &mut Terminal) -> Result<()> {
    t.page.say("Revisions, who uses them, who validates, and what is wrong, the worst first:");
    t.until("revguard status", &["istiod-default-validator", "critical"]).await?;
    t.page.say("The same is in the cluster, for everybody who may read there, in a report for each namespace (where the cluster knows such reports):");
    let reports = ["payments", "legacy", "default", "istio-system", "gloo-mesh"];
    t.until("kubectl get policyreports -A", &reports).await?;
    t.until("kubectl get clusterpolicyreport revguard -o jsonpath='{range .results[*]}{.policy} {.result} {.message}{\"\\n\"}{end}'", &["VW002"]).await?;
    t.page.say("And in Prometheus, by rule and level, as soon as it has stood for a minute:");
    t.once(&prometheus("sum by (code, level) (revguard_audit_findings) > 0"), &["VW002", "NS001", "GW007"]).await?;
    t.page.say("Prometheus fires what comes with the chart (`PaymentsDown`, which is quiet, is the shop's own):");
    t.once(&prometheus("ALERTS{alertstate=\"firing\"}"), &["RevguardValidatorDangling"]).await?;
    Ok(())
}

fn prometheus(query: &str) -> String {
    format!(
        "kubectl exec -n monitoring deployment/prometheus -- /promtool query instant http://localhost:9090 '{query}'"
    )
}

async fn mended(t: &mut Terminal) -> Result<()> {
    t.page.say("## Mend what is old\n\nEach finding names the command that mends it. Here they are, pasted.");
    for (code, object, editor, why) in MISTAKES {
        t.page.say(why);
        t.mends(code, object, editor).await?;
    }
    t.page.say("Pods get what they were missing when they start again:");
    for namespace in ["payments", "legacy"] {
        t.types(&format!("kubectl rollout restart -n {namespace} deployment/web")).await?;
        t.rolled_out(namespace, "web").await?;
    }
    t.page.say("What is left is no mistake, only a note:");
    let told = t.types("revguard status").await?;
    for (code, ..) in MISTAKES {
        ensure!(!told.contains(code), "{code} is still there:\n{told}");
    }
    Ok(())
}
