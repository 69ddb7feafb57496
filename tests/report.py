#!/usr/bin/env python3
"""Writes docs/reliability.md from target/bench/{tests,node-*,rollout-*}.json, which the tests leave. Nothing is measured or typed in here:
what has no file is said as not measured, and what does not hold says so."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MISSING = "not measured"

# Section, what was asked, what it showed, whether it holds: the table at the head of the page.
SUMMARY = []


def read(name):
    file = ROOT / "target" / "bench" / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def source(record):
    return f"`{record['command']}` at commit `{record['commit']}`.\n"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(c) for c in row) + " |" for row in rows]) + "\n"


def number(value):
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def holds(lost, control):
    """A count of losses counts only if the same load finds some where there must be some."""
    if lost:
        return "**no**"
    if control is None:
        return "**void**: it has no control"
    return "yes" if control > 0 else "**void**: the control lost nothing"


def at_a_glance(title, name, showed):
    """A line of the table at the head of the page; `showed` makes it of the figures."""
    record = read(name)
    anchor = "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c in "-_")
    SUMMARY.append([f"[{title}](#{anchor})", f"`{record['command']}`" if record else "", showed(record["figures"]) if record else MISSING])


def lost(sent, control):
    return lambda f: f"{number(f['lost'])} lost of {number(f[sent])}; the control lost {number(f.get(control, 0))}"


def losses(name, title, what, extra):
    """A run under load, in which nothing may be lost, with its control."""
    at_a_glance(title, name, lost("calls", "control_lost"))
    record = read(name)
    out = [f"## {title}\n", what + "\n"]
    if record is None:
        return out + [MISSING.capitalize() + ".\n"]
    f = record["figures"]
    rows = [["admission calls", number(f["calls"])], ["of them refused, as they must be", number(f["refused"])]]
    rows += [[text, number(f[key])] for key, text in extra if key in f]
    rows.append(["**lost**", number(f["lost"])])
    if "control_lost" in f:
        rows.append([f"control: lost of {number(f['control_calls'])}", number(f["control_lost"])])
    rows.append(["holds", holds(f["lost"], f.get("control_lost"))])
    return out + [source(record), table(["", "counted"], rows)]


def rollouts(name, title, what, extra=()):
    """Gateways that move under load, with what the same load loses over an update in place."""
    at_a_glance(title, name, lost("sent", "control_lost"))
    record = read(name)
    out = [f"### {title}\n", what + "\n"]
    if record is None:
        return out + [MISSING.capitalize() + ".\n"]
    f = record["figures"]
    rows = [["rollouts", number(f["rollouts"])]] if "rollouts" in f else []
    rows += [[text, number(f[key])] for key, text in extra if key in f]
    kinds = {"short": "requests on connections of their own", "kept": "requests on kept connections", "long": "requests that take 20 s"}
    for kind, text in kinds.items():
        if kind in f.get("streams", {}):
            rows.append([f"{text}: lost of {number(f['streams'][kind]['sent'])}", number(f["streams"][kind]["lost"])])
    rows.append([f"**lost** of {number(f['sent'])}", number(f["lost"])])
    rows.append([f"control, in place: lost of {number(f['control_sent'])}", number(f["control_lost"])])
    rows.append(["holds", holds(f["lost"], f["control_lost"])])
    return out + [source(record), table(["", "counted"], rows)]


def plain(name, title, what, keys):
    at_a_glance(title, name, lambda f: "; ".join(f"{text}: {number(f[key])}" for key, text in keys if key in f))
    record = read(name)
    out = [f"## {title}\n", what + "\n"]
    if record is None:
        return out + [MISSING.capitalize() + ".\n"]
    rows = [[text, number(record["figures"][key])] for key, text in keys if key in record["figures"]]
    return out + [source(record), table(["", "measured"], rows)]


def tests():
    record = read("tests")
    if record is None:
        return []
    f = record["figures"]
    return ["## The whole test command\n", f"{f['passed']:,} passed, {f['failed']:,} failed: " + source(record)]


LOAD = "Writes are sent to a real API server all the time, some of which must be refused and others must pass; each answer is compared by its text. Every webhook fails closed, the client does not try again."


ROLLOUTS = "Two gateways with a real Envoy in each pod, in the shape of an IstioOperator file and of the Helm chart `gateway`, take 200 requests a second on connections of their own, 200 on kept ones, and 10 that take 20 s, each through the ClusterIP of its Service. Nothing is tried twice. Istio's own drain of 5 s is as it is. From outside it is watched that there are never fewer ready endpoints than before, that the Service's spec never changes, and that there is never a second autoscaler or budget."


NOT_HELD = """## What does not hold

- An eviction ends a pod within the pod's own drain: its requests that take longer are cut, and revguard has no say in that. Above they are counted apart.
- `PausedRolling` promises nothing for requests that take longer than the pods' own drain. It is for gateways that cannot be moved side by side.
- An ousted leader whose write was under way when its lease ended, and at the same time a ReplicaSet that has not yet heard of a pod set apart, can together end
  a serving pod. Each alone cannot. The lease and its deadline for writes make both at once unlikely; nothing makes it impossible.
- Where a Gateway names a port of the Service on which pods do not listen (80 for 8080), istiod may take that listener from a pod set apart: requests that take longer
  than `drainDuration` (45 s by default) end then. Known from istiod's source; the long requests of these runs take 20 s and would not show it. The guard
  `ListenerFollowsService` warns of it before anything moves.
- Two writes within one watch lag can both pass a rule about pairs. The audit finds what came of it.
- `helm uninstall` of a control plane in use goes on after each refusal: autoscalers and disruption budgets are gone then, and the refusals say how to put them back.
- Control planes in these runs are stand-ins that serve, inject and configure; the proxies are real Envoys. No run here had a cloud's load balancer in front of it.
"""


def main():
    head = [
        "# Reliability\n",
        "Written from the files that the tests leave under `target/bench`; not edited by hand. `make prove` makes the full counts, `make test-node` the short ones, on a real "
        "Kubernetes node with the release image, installed by Helm. Nothing counts as proven by a loss of zero alone: each run has a control that must lose, or it is void.\n",
    ]
    parts = []
    parts += losses("node-disruption", "Rolling restarts and evictions", LOAD + " Meanwhile the webhook's Deployment is restarted and its pods are evicted as `kubectl drain` does. Control: the same restarts without a drain.", [
        ("rolling_restarts", "rolling restarts"), ("calls_during_restarts", "calls during those"), ("evictions", "evictions"), ("smallest_share", "smallest share that one replica answered")])
    parts += losses("node-certificates", "Rotation of certificates", LOAD + " Meanwhile the controller renews the serving certificate and changes its CA; then `helm upgrade` gives it other durations, with an overlap longer than anything that is served will live. Control: a serving certificate that the API server has no reason to believe, while no controller runs; the next one puts it right.", [
        ("leaves", "serving certificates"), ("authorities", "CAs"), ("mended_seconds", "control: seconds from the controller's return to a certificate that is believed")])
    parts += losses("node-upgrade", "Upgrade and rollback", LOAD + " Meanwhile `helm upgrade` brings another version, with its custom resource definitions, and `helm rollback` takes it back. Control: `helm upgrade` of pods that do not drain.", [
        ("calls_until_upgraded", "calls until upgraded")])
    parts += ["## Gateway rollouts\n", ROLLOUTS + "\n"]
    parts += rollouts("node-rollout-by-hand", "The bench itself, without revguard", "A second Deployment, and the old pods set apart with kubectl before they are deleted.", [("gateways", "gateways")])
    parts += rollouts("node-rollout", "There and back", "Both gateways move to the other revision and back, by another rollout and by `abort` after completion. Meanwhile the controller is killed at write boundaries, a person pauses, and the API server is restarted; then the new revision has listeners that Envoy rejects, and then it never becomes ready.", [("killed", "places at which the controller was killed")])
    parts += rollouts("node-rollout-killed", "A controller that dies at every write boundary", "The same, with the controller killed once before and once after each sort of write, and in the middle of batches.", [("killed", "places at which the controller was killed")])
    parts += rollouts("node-rollout-api-server", "An API server that restarts", "It is killed in four phases of a rollout, and starts again.", [("restarts", "restarts")])
    parts += rollouts("node-rollout-evicted", "Pods that are evicted", "A pod of the old revision and one of the new are evicted in the middle of a rollout. An eviction ends a pod within its own drain of 5 s, so that the long requests of these pods are lost by it; they are counted apart. Nothing else may be lost.", [("evictions", "evictions"), ("cut_by_evictions", "long requests that the evictions cut")])
    parts += rollouts("node-rollout-hands", "Paused, aborted and deleted", "In Probing, Draining and Promoting and after completion, with both gateways.")
    parts += rollouts("node-rollout-turns-bad", "A revision that turns bad once it serves", "Its pods are ready and stay so while Envoy rejects the listeners that it is then given. The rollout holds by itself, and is aborted.")
    parts += rollouts("node-rollout-in-place", "In place, step by step", "`PausedRolling` promises nothing beyond the pods' own drain. Short requests are counted here; the control are the long ones of the same run.")
    parts += plain("node-cold-start", "Start from nothing", "Every pod is gone, the power is cut, etcd stays; every webhook fails closed. The node, DNS and revguard come back by themselves.", [
        ("pods_lost", "pods lost"), ("node_and_dns_seconds", "seconds until the node and DNS are ready"), ("guard_seconds", "seconds until revguard is ready")])
    parts += plain("node-leader", "The leader is lost", "Seconds until another controller leads: after the leading pod was deleted, and after the Lease was left behind by a holder that does not exist.", [
        ("deleted_replaced_seconds", "after its pod was deleted"), ("dead_replaced_seconds", "after a dead holder (its lease lasts 15)")])
    parts += plain("node-repair", "A validator broken with kubectl", "Seconds until the controller has mended it, with the policy `repair: all` and an audit every two seconds.", [("mended_seconds", "seconds")])
    parts += plain("node-istiod-uninstall", "helm uninstall of a control plane in use", "Its objects, and those that were gone after `helm uninstall` was refused.", [("objects", "objects of the release"), ("gone_when_refused", "gone after the refusal")])
    parts += plain("node-uninstall", "helm uninstall of revguard with no pod alive", "Nothing of it is left that could hold anything up.", [("seconds", "seconds for `helm uninstall`"), ("namespace_gone_seconds", "seconds until its namespace is gone")])
    parts += plain("rollout-states", "Rollouts: every way through small worlds", "The plan of a rollout in a model of a cluster: controllers and kubelets that act when they like, two leaders, writes that come too late, nodes that are drained, pods that do not start, listeners that are rejected, istiods that go and return, autoscalers, and people. Every state is visited, every edge is held against the promises (no write below the floor, no foreign object touched, no pod set apart forgotten, …), and from every state the way to a good end is walked. Each promise is also broken on purpose, and the search must find it.", [
        ("worlds", "worlds"), ("states", "distinct states"), ("edges", "edges"), ("transitions", "kinds of transition, waiting and writing that were taken"), ("refused", "writes that came too late and were refused"),
        ("longest_way_to_an_end", "events of the longest way to an end once nothing goes wrong any more"), ("broken_promises", "broken promises")])
    parts += plain("rollout-chance", "Rollouts: large worlds by chance", "The same promises over worlds of up to eight pods, with everything that can be asked for and everything that can go wrong, several at a time. After each event the status is written, read back, and edited by a clumsy hand.", [
        ("worlds", "worlds"), ("events", "events"), ("refused", "writes that came too late and were refused"), ("broken_promises", "broken promises")])
    parts += tests()
    parts = head + [table(["figure", "command", "showed"], SUMMARY), NOT_HELD] + parts
    page = ROOT / "docs" / "reliability.md"
    page.write_text("\n".join(parts))
    print(f"written: {page.relative_to(ROOT)}", file=sys.stderr)


main()
