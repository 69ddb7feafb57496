//! How one rollout is shown: where it stands, its steps, its pods, what holds it, and what to type. A function of the object and the
//! time, so that what a person sees is tested as text.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};

use crate::api::GatewayRollout;
use crate::api::gateway_rollout::{Approval, Step};
use crate::api::rollout_status::{GatewayRolloutStatus, Phase, Stage};
use crate::cli::paint::Paint;
use crate::cli::text::{age, room, wrapped};
use crate::rollout::memory::Cause;

pub fn heads(namespaces: bool) -> Vec<&'static str> {
    let mut heads = vec!["NAME", "GATEWAY", "FROM", "TO", "STATE", "STEP", "WEIGHT", "PAUSED", "AGE"];
    if namespaces {
        heads.insert(0, "NAMESPACE");
    }
    heads
}

/// The columns of `kubectl get gwr`.
pub fn row(rollout: &GatewayRollout, namespaces: bool, now: Timestamp) -> Vec<String> {
    let status = rollout.status.clone().unwrap_or_default();
    let text = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let mut cells = vec![
        text(rollout.metadata.name.as_deref().unwrap_or_default()),
        text(&gateway(rollout, &status)),
        text(&from(rollout, &status)),
        rollout.spec.to_revision.clone(),
        text(&status.state),
        text(status.step.as_ref().map_or("", |s| &s.display)),
        status.weights.as_ref().map_or_else(|| "-".to_owned(), |w| w.endpoints.to_string()),
        text(status.pause.as_ref().map_or("", |p| &p.reason)),
        created(rollout).map_or_else(|| "-".to_owned(), |at| age(now.duration_since(at))),
    ];
    if namespaces {
        cells.insert(0, text(rollout.metadata.namespace.as_deref().unwrap_or_default()));
    }
    cells
}

fn created(rollout: &GatewayRollout) -> Option<Timestamp> {
    rollout.metadata.creation_timestamp.as_ref().map(|t| t.0)
}

fn gateway(rollout: &GatewayRollout, status: &GatewayRolloutStatus) -> String {
    let target = &rollout.spec.target;
    let named = target.deployment.as_ref().or(target.gateway.as_ref()).map(|n| n.name.clone());
    if status.gateway.is_empty() { named.unwrap_or_default() } else { status.gateway.clone() }
}

fn from(rollout: &GatewayRollout, status: &GatewayRolloutStatus) -> String {
    status.from_revision.clone().or_else(|| rollout.spec.from_revision.clone()).unwrap_or_default()
}

/// The whole of one.
pub fn whole(rollout: &GatewayRollout, now: Timestamp, paint: Paint) -> String {
    let status = rollout.status.clone().unwrap_or_default();
    let mut out = head(rollout, &status, paint);
    if let Some(pods) = pods(&status, now, paint) {
        out.push_str(&pods);
    }
    out.push_str(&steps(rollout, &status, now, paint));
    out.push_str(&holds(rollout, &status, now, paint));
    findings(&mut out, &status, paint);
    if !status.plan.is_empty() && !status.phase.is_over() {
        out.push_str("\nstill to do\n");
        for line in &status.plan {
            out.push_str(&wrapped(line, "  "));
        }
    }
    out
}

fn head(rollout: &GatewayRollout, status: &GatewayRolloutStatus, paint: Paint) -> String {
    let name = rollout.metadata.name.as_deref().unwrap_or_default();
    let from = from(rollout, status);
    let from = if from.is_empty() { "?" } else { &from };
    let state = if status.state.is_empty() { "not seen by the controller yet" } else { &status.state };
    let state = match status.phase {
        _ if status.pause.is_some() => paint.yellow(state),
        Phase::Failed | Phase::RollingBack | Phase::RolledBack => paint.red(state),
        Phase::Completed => paint.green(state),
        _ => state.to_owned(),
    };
    let mut out = format!(
        "{}  {} {from} -> {}  {state}\n",
        paint.bold(name),
        gateway(rollout, status),
        rollout.spec.to_revision,
    );
    let mut how: Vec<String> = Vec::new();
    how.extend(status.flavor.map(|f| format!("{f:?}")));
    how.extend(status.strategy.map(|s| format!("{s:?}")));
    how.extend(status.promotion.map(|p| format!("then {p:?}")));
    if let Some(drain) = &status.drain {
        how.push(match (&drain.key, drain.why.is_empty()) {
            (Some(key), _) => format!("old pods set apart by {key}"),
            (None, true) => "old pods told to stop".to_owned(),
            (None, false) => format!("old pods told to stop: {}", drain.why),
        });
    }
    if !how.is_empty() {
        out.push_str(&wrapped(&how.join(", "), "  "));
    }
    out
}

/// Twenty marks are as fine as a few pods are.
const MARKS: usize = 20;

fn pods(status: &GatewayRolloutStatus, now: Timestamp, paint: Paint) -> Option<String> {
    let pods = status.pods.as_ref()?;
    let mut out = String::from("\n");
    if let Some(weights) = &status.weights {
        let full = (weights.endpoints as usize * MARKS).div_ceil(100).min(MARKS);
        let bar = format!("{}{}", paint.green(&"#".repeat(full)), "-".repeat(MARKS - full));
        let _ = writeln!(out, "endpoints  [{bar}] {} % new, {} % wanted", weights.endpoints, weights.desired);
    }
    let _ = write!(out, "pods       new {}/{} ready, {} verified", pods.new_ready, pods.new, pods.verified);
    let _ = writeln!(out, "; old {}/{} ready", pods.old_ready, pods.old);
    if pods.apart > 0 {
        let open = match pods.connections {
            Some(1) => "1 connection still open".to_owned(),
            Some(n) => format!("{n} connections still open"),
            None => "connections not known".to_owned(),
        };
        let _ = writeln!(out, "apart      {} finishing what they have, {open}", pods.apart);
        for pod in &status.apart {
            let open = pod.connections.map_or_else(|| "?".to_owned(), |n| n.to_string());
            let since =
                pod.since.parse::<Timestamp>().map_or_else(|_| pod.since.clone(), |at| age(now.duration_since(at)));
            let _ = writeln!(out, "           {} for {since}, {open} open", pod.name);
        }
    }
    Some(out)
}

fn steps(rollout: &GatewayRollout, status: &GatewayRolloutStatus, now: Timestamp, paint: Paint) -> String {
    let mut out = String::from("\n");
    let at = status.step.as_ref().map(|s| s.index as usize);
    let ahead = !matches!(status.phase, Phase::RollingBack | Phase::RolledBack | Phase::Failed);
    let through = matches!(status.phase, Phase::Promoting | Phase::Finalizing | Phase::Completed);
    let width = rollout.spec.strategy.steps.iter().map(|s| s.name.len()).max().unwrap_or(0);
    for (index, step) in rollout.spec.strategy.steps.iter().enumerate() {
        let current = at == Some(index) && !through && status.phase.is_active();
        let done = through || at.is_some_and(|at| index < at);
        let mark = if done {
            paint.green("done")
        } else if current {
            paint.bold("now ")
        } else {
            "    ".to_owned()
        };
        let _ = write!(out, "  {mark}  {:width$}  {:>8}", step.name, wanted(step));
        let mut notes: Vec<String> = Vec::new();
        if current {
            notes.push(stage(status, now));
        }
        match approval(status, step) {
            Some(by) => notes.push(format!("approved by {by}")),
            // A step that is behind, or that nobody will take any more, needs none.
            None if step.approval == Approval::Required && !done && ahead => {
                notes.push("needs an approval".to_owned());
            }
            None => {}
        }
        let _ = writeln!(out, "{}{}", if notes.is_empty() { "" } else { "  " }, notes.join(", "));
    }
    out
}

fn wanted(step: &Step) -> String {
    match (step.weight, step.replicas) {
        (Some(weight), _) => format!("{weight} %"),
        (None, Some(1)) => "1 pod".to_owned(),
        (None, Some(n)) => format!("{n} pods"),
        (None, None) => String::new(),
    }
}

fn stage(status: &GatewayRolloutStatus, now: Timestamp) -> String {
    let Some(step) = &status.step else { return String::new() };
    let until = step.soak_until.as_deref().and_then(|t| t.parse::<Timestamp>().ok());
    match (step.stage, until) {
        (Stage::Soaking, Some(until)) if until > now => format!("soaking, {} left", age(until.duration_since(now))),
        (Stage::AwaitingApproval, _) => "waits".to_owned(),
        (stage, _) => stage.as_str().to_lowercase(),
    }
}

fn approval<'a>(status: &'a GatewayRolloutStatus, step: &Step) -> Option<&'a str> {
    status.approvals.iter().find(|a| a.step == step.name).map(|a| a.by.as_str())
}

fn holds(rollout: &GatewayRollout, status: &GatewayRolloutStatus, now: Timestamp, paint: Paint) -> String {
    let mut out = String::new();
    let name = rollout.metadata.name.as_deref().unwrap_or_default();
    let namespace = rollout.metadata.namespace.as_deref().unwrap_or_default();
    let command = |verb: &str| format!("  revguard rollout {verb} {name} -n {namespace}\n");
    if let Some(back) = &status.rollback {
        let word = match status.phase {
            Phase::Failed => "gave up going back",
            phase if phase.is_over() => "went back",
            _ => "goes back",
        };
        let _ = writeln!(out, "\n{}", paint.red(&format!("{word}: {}", back.reason)));
        out.push_str(&wrapped(&back.message, "  "));
        if status.phase == Phase::Failed {
            out.push_str("  to try again, once that is mended:\n");
            out.push_str(&command("resume"));
        }
    }
    if let Some(pause) = &status.pause {
        let since = pause.since.parse::<Timestamp>().map_or(SignedDuration::ZERO, |at| now.duration_since(at));
        let held = paint.yellow(&format!("held by {}", pause.reason));
        let _ = writeln!(out, "\n{held} for {}", age(since));
        out.push_str(&wrapped(&pause.message, "  "));
        let cause = Cause::ALL.into_iter().find(|cause| cause.as_str() == pause.reason);
        let verb = match cause {
            Some(Cause::User) => rollout.spec.paused.then_some("resume"),
            Some(cause) => cause.way_on(),
            None => pause.needs_human.then_some("resume"),
        };
        out.push_str(&verb.map(command).unwrap_or_default());
    }
    let ready = status.conditions.iter().find(|c| c.type_ == "Ready" && !c.message.is_empty());
    if let Some(ready) = ready
        && status.pause.is_none()
        && !status.phase.is_over()
    {
        let (message, commands) = ready.message.split_once('\n').unwrap_or((&ready.message, ""));
        let _ = write!(out, "\n{}", wrapped(&format!("now: {message}"), ""));
        // A command stays in one piece, so that it can be pasted.
        commands.lines().for_each(|line| {
            let _ = writeln!(out, "  {line}");
        });
    }
    for metric in status.metrics.iter().filter(|m| m.result != "Passed") {
        out.push_str(&wrapped(&format!("metric {}: {}, {}", metric.name, metric.result, metric.message), "  "));
    }
    out
}

fn findings(out: &mut String, status: &GatewayRolloutStatus, paint: Paint) {
    if status.preflight.is_empty() || status.phase.is_over() {
        return;
    }
    out.push_str("\npreflight\n");
    for finding in &status.preflight {
        let blocks = finding.severity == "Block";
        let mark = if blocks { paint.red("blocks") } else { paint.yellow("warns ") };
        // A name is not broken where it does not fit beside the guard.
        let width = 12 + finding.guard.chars().count() + finding.object.chars().count();
        let between = if width <= room() { "  " } else { "\n    " };
        let _ = writeln!(out, "  {mark}  {}{between}{}", finding.guard, finding.object);
        out.push_str(&wrapped(&finding.what, "    "));
        out.push_str(&wrapped(&format!("why: {}", finding.why), "    "));
        // A command stays in one piece, so that it can be pasted.
        let _ = writeln!(out, "    fix: {}", finding.fix.replace('\n', "\n         "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(status: serde_json::Value) -> GatewayRollout {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "revguard.dev/v1alpha1",
            "kind": "GatewayRollout",
            "metadata": {"name": "public-1-24", "namespace": "ingress", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {
                "target": {"deployment": {"name": "public"}}, "toRevision": "1-24",
                "strategy": {"steps": [
                    {"name": "first-pod", "replicas": 1},
                    {"name": "half", "weight": 50, "approval": "Required"},
                    {"name": "all", "weight": 100},
                ]},
            },
            "status": status,
        }))
        .expect("a rollout")
    }

    #[test]
    fn one_look_tells_the_story() {
        let rollout = rollout(serde_json::json!({
            "state": "Soaking", "phase": "Progressing", "gateway": "public", "fromRevision": "1-23",
            "flavor": "Injected", "strategy": "ParallelDeployment", "promotion": "KeepRevisioned",
            "drain": {"mode": "SetApart", "key": "app", "capacity": "FullSurge"},
            "step": {"index": 1, "name": "half", "display": "2/3 half", "stage": "Soaking", "soakUntil": "2026-01-01T00:14:12Z"},
            "weights": {"desired": 50, "endpoints": 50},
            "pods": {"newReady": 4, "new": 4, "oldReady": 3, "old": 3, "apart": 1, "connections": 34, "verified": 4},
            "apart": [{"name": "public-x", "since": "2026-01-01T00:09:00Z", "connections": 34}],
            "pause": {"reason": "AlertFiring", "since": "2026-01-01T00:07:00Z", "message": "HighErrorRate (page) fires.", "needsHuman": false},
        }));
        let text = whole(&rollout, "2026-01-01T00:10:00Z".parse().unwrap(), Paint::OFF);
        let expected = "\
public-1-24  public 1-23 -> 1-24  Soaking
  Injected, ParallelDeployment, then KeepRevisioned, old pods set apart by app

endpoints  [##########----------] 50 % new, 50 % wanted
pods       new 4/4 ready, 4 verified; old 3/3 ready
apart      1 finishing what they have, 34 connections still open
           public-x for 1m, 34 open

  done  first-pod     1 pod
  now   half           50 %  soaking, 4m12s left, needs an approval
        all           100 %

held by AlertFiring for 3m
  HighErrorRate (page) fires.
";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_waits_for_a_person_says_what_to_type() {
        let rollout = rollout(serde_json::json!({
            "state": "AwaitingApproval", "phase": "Progressing",
            "pause": {"reason": "Approval", "since": "2026-01-01T00:00:00Z", "message": "Step half waits.", "needsHuman": true},
        }));
        let text = whole(&rollout, "2026-01-01T00:10:00Z".parse().unwrap(), Paint::OFF);
        assert!(text.contains("\n  revguard rollout approve public-1-24 -n ingress\n"), "{text}");
    }

    #[test]
    fn what_has_given_up_does_not_say_that_it_is_back() {
        let rollout = rollout(serde_json::json!({
            "state": "Failed", "phase": "Failed",
            "rollback": {"reason": "Aborted", "message": "spec.abort is set; it does not get back: the old revision's istiod"},
        }));
        let text = whole(&rollout, "2026-01-01T00:10:00Z".parse().unwrap(), Paint::OFF);
        assert!(text.contains("gave up going back: Aborted\n  spec.abort is set"), "{text}");
        assert!(text.ends_with("once that is mended:\n  revguard rollout resume public-1-24 -n ingress\n"), "{text}");
    }

    #[test]
    fn a_pause_shows_what_ends_it_and_nothing_else() {
        let typed = |reason: &str, spec: serde_json::Value| {
            let pause = serde_json::json!({"reason": reason, "since": "2026-01-01T00:00:00Z", "message": "m", "needsHuman": false});
            let mut rollout = rollout(serde_json::json!({"state": reason, "phase": "Progressing", "pause": pause}));
            let paused = spec["paused"].as_bool().unwrap_or_default();
            rollout.spec.paused = paused;
            let text = whole(&rollout, "2026-01-01T00:10:00Z".parse().unwrap(), Paint::OFF);
            text.lines().find(|line| line.contains("revguard rollout")).unwrap_or_default().trim().to_owned()
        };
        let none = serde_json::json!({});
        let resume = "revguard rollout resume public-1-24 -n ingress";
        assert_eq!(typed("ServiceChanged", none.clone()), resume, "it may be accepted as it is");
        assert_eq!(typed("DeadlineExceeded", none.clone()), resume);
        assert_eq!(typed("AlertFiring", none.clone()), "", "it ends by itself");
        assert_eq!(typed("User", none), "", "a dry run is none that resume ends");
        assert_eq!(typed("User", serde_json::json!({"paused": true})), resume);
    }

    #[test]
    fn what_nothing_holds_says_what_it_waits_for() {
        let said = |message: &str| {
            let rollout = rollout(serde_json::json!({
                "state": "Pending", "phase": "Pending",
                "conditions": [{
                    "type": "Ready", "status": "False", "reason": "Pending",
                    "lastTransitionTime": "2026-01-01T00:00:00Z", "message": message,
                }],
            }));
            whole(&rollout, "2026-01-01T00:10:00Z".parse().unwrap(), Paint::OFF)
        };
        let text = said("waiting for an answer from Prometheus: http://p:9090 did not answer within 10s");
        let expected = "\nnow: waiting for an answer from Prometheus: http://p:9090 did not answer within\n10s\n";
        assert!(text.contains(expected), "{text}");
        // What is to be pasted stays in one piece.
        let command =
            format!("helm upgrade public istio/gateway -n ingress --set-string revision=1-24{}", " --x".repeat(9));
        let text = said(&format!("waiting for Helm:\n{command}"));
        assert!(text.contains(&format!("\nnow: waiting for Helm:\n  {command}\n")), "{text}");
    }

    #[test]
    fn before_the_controller_has_seen_it_the_spec_is_shown() {
        let mut rollout = rollout(serde_json::Value::Null);
        rollout.status = None;
        let text = whole(&rollout, "2026-01-01T00:10:00Z".parse().unwrap(), Paint::OFF);
        assert!(text.starts_with("public-1-24  public ? -> 1-24  not seen by the controller yet\n"), "{text}");
        let cells = row(&rollout, true, "2026-01-01T00:10:00Z".parse().unwrap());
        assert_eq!(cells, ["ingress", "public-1-24", "public", "-", "1-24", "-", "-", "-", "-", "10m"]);
    }
}
