//! The command line as a script sees it: exit codes, formats, bad input.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const BOTH: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  labels: {istio-injection: enabled, istio.io/rev: prod}\n";
const FINE: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  labels: {istio.io/rev: prod}\n";

fn revguard(args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_revguard"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // A child that refuses its arguments never reads.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

fn mesh() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/demo/mesh.yaml").display().to_string()
}

fn out(o: &Output) -> String {
    String::from_utf8(o.stdout.clone()).unwrap()
}

fn err(o: &Output) -> String {
    String::from_utf8(o.stderr.clone()).unwrap()
}

#[test]
fn exit_codes_tell_clean_findings_and_bad_input() {
    let cluster = mesh();
    for (args, stdin, code) in [
        (vec!["check", "-", "--cluster", &cluster], FINE, 0),
        (vec!["check", "-", "--cluster", &cluster], BOTH, 1),
        (vec!["check", "-", "--cluster", &cluster], "a: [", 2),
        (vec!["check", "/does/not/exist"], "", 2),
        (vec!["check"], "", 2),
        (vec!["check", "-", "--config", "/does/not/exist"], FINE, 2),
        (vec!["check", "-", "--cluster", &cluster, "--kubeconfig", "x"], FINE, 2),
        (vec!["explain", "NS999"], "", 2),
        (vec!["explain", "ns001"], "", 0),
        (vec!["explain", "noapartkey"], "", 0),
        (vec!["resolve"], "", 2),
        (vec!["resolve", "--cluster", &cluster], "", 0),
        (vec!["rules"], "", 0),
        (vec!["--version"], "", 0),
        (vec!["completion", "bash"], "", 0),
    ] {
        let o = revguard(&args, stdin);
        assert_eq!(o.status.code(), Some(code), "{args:?}: {}{}", out(&o), err(&o));
    }
}

#[test]
fn json_says_what_the_documentation_says() {
    let o = revguard(&["check", "-", "--cluster", &mesh(), "-o", "json"], BOTH);
    let report: Value = serde_json::from_slice(&o.stdout).unwrap();
    let r = &report["results"][0];
    assert_eq!(r["code"], "NS001");
    assert_eq!(r["name"], "both-labels");
    assert_eq!(r["action"], "deny");
    assert_eq!(
        r["object"],
        serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "namespace": "", "name": "shop"})
    );
    assert_eq!(r["source"], serde_json::json!({"file": "stdin", "document": 1}));
    assert_eq!(r["operation"], "CREATE");
    for key in ["field", "what", "why", "fix"] {
        assert!(r[key].as_str().is_some_and(|s| !s.is_empty()), "{key}");
    }
    assert_eq!(report["summary"]["deny"], 1);
    assert_eq!(report["errors"], serde_json::json!([]));
}

#[test]
fn a_bad_document_is_named_and_hides_nothing() {
    let text = format!(
        "{BOTH}---\nkind: Namespace\n---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: x, labels: {{a: 1}}}}\n"
    );
    let o = revguard(&["check", "-", "--cluster", &mesh(), "-o", "json"], &text);
    assert_eq!(o.status.code(), Some(2));
    let report: Value = serde_json::from_slice(&o.stdout).unwrap();
    assert_eq!(report["results"][0]["code"], "NS001");
    let errors = report["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert_eq!(errors[0]["document"], 2);
    assert!(errors[1]["message"].as_str().unwrap().contains("metadata.labels"), "{errors:?}");
}

#[test]
fn an_object_given_twice_is_an_error_unless_both_are_the_same() {
    let o = revguard(&["check", "-", "--cluster", &mesh()], &format!("{FINE}---\n{BOTH}"));
    assert_eq!(o.status.code(), Some(2));
    assert!(out(&o).contains("given twice: here and at stdin:1"), "{}", out(&o));
    let o = revguard(&["check", "-", "--cluster", &mesh()], &format!("{FINE}---\n{FINE}"));
    assert_eq!(o.status.code(), Some(0), "{}", out(&o));
}

#[test]
fn bytes_that_are_no_text_are_named_with_their_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.yaml");
    std::fs::write(&file, b"apiVersion: v1\nkind: \xff\n").unwrap();
    let o = revguard(&["check", &file.display().to_string()], "");
    assert_eq!(o.status.code(), Some(2));
    assert!(out(&o).contains("bad.yaml:2:"), "{}", out(&o));
}

#[test]
fn an_impossible_selector_is_named_with_its_webhook() {
    let text = "apiVersion: admissionregistration.k8s.io/v1\nkind: MutatingWebhookConfiguration\nmetadata: {name: m}\nwebhooks:\n- name: a.b.c\n  namespaceSelector: {matchExpressions: [{key: k, operator: In}]}\n";
    let o = revguard(&["resolve", "--cluster", "-"], text);
    assert_eq!(o.status.code(), Some(2));
    assert!(err(&o).contains("a.b.c") && err(&o).contains("needs at least one value"), "{}", err(&o));
}

#[test]
fn a_policy_with_an_unknown_key_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policy.yaml");
    std::fs::write(&file, "mode: enforce\nstrickt: []\n").unwrap();
    let o = revguard(&["check", "-", "--config", &file.display().to_string()], FINE);
    assert_eq!(o.status.code(), Some(2));
    assert!(err(&o).contains("strickt") && err(&o).contains("line 2"), "{}", err(&o));
}

#[test]
fn machine_formats_carry_the_finding() {
    for (format, parts) in [
        ("sarif", vec!["\"ruleId\": \"NS001\"", "\"version\": \"2.1.0\"", "\"level\": \"error\""]),
        ("junit", vec!["<failure message=", "failures=\"1\"", "NS001 both-labels"]),
        ("github", vec!["::error file=stdin,line=1,title=NS001 both-labels::"]),
        (
            "text",
            vec![
                "deny: Namespace shop (stdin:1)",
                "  fix:   kubectl label namespace shop",
                "1 object judged: 1 denied",
            ],
        ),
    ] {
        let o = revguard(&["check", "-", "--cluster", &mesh(), "-o", format], BOTH);
        for part in parts {
            assert!(out(&o).contains(part), "{format}: {part} is not in\n{}", out(&o));
        }
    }
}

#[test]
fn resolve_prints_json_and_a_table() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop, labels: {istio.io/rev: prod}}\nspec: {containers: [{name: c, image: x}]}\n";
    let o = revguard(&["resolve", "--cluster", &mesh(), "--cluster", "-", "--namespace", "shop", "-o", "json"], text);
    let all: Value = serde_json::from_slice(&o.stdout).unwrap();
    assert_eq!(
        all["workloads"],
        serde_json::json!([{"apiVersion": "v1", "kind": "Pod", "namespace": "shop", "name": "p", "injection": "one", "requested": "prod",
            "revision": "1-23", "hooks": ["istio-revision-tag-prod/rev.object.sidecar-injector.istio.io"],
            "because": "the pod asks for \"prod\" and only istio-revision-tag-prod answers"}])
    );
    let o = revguard(&["resolve", "--cluster", &mesh()], "");
    assert!(out(&o).starts_with("NAMESPACE"), "{}", out(&o));
}

#[test]
fn the_demonstration_ends_well() {
    let o = revguard(&["demo"], "");
    assert_eq!(o.status.code(), Some(0), "{}{}", out(&o), err(&o));
    let last = out(&o).lines().last().unwrap_or_default().to_owned();
    assert_eq!(last, "18 writes judged over TLS, 18 as expected");
    assert!(!out(&o).contains('\u{1b}'), "colours are for terminals");
}

/// As `| head -1` leaves it: the reader has gone while there is more to say.
#[test]
fn a_reader_that_has_gone_is_no_error() {
    for arguments in [&["demo"][..], &["rules"], &["explain", "NS001"], &["completion", "bash"], &["--help"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_revguard"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        drop(child.stdout.take());
        let o = child.wait_with_output().unwrap();
        assert_eq!((o.status.code(), err(&o)), (Some(0), String::new()), "{arguments:?}");
    }
}

/// `demo --serve` prints a command that works when pasted.
#[test]
fn the_demonstration_keeps_serving() {
    use std::io::BufRead;
    let mut child = Command::new(env!("CARGO_BIN_EXE_revguard"))
        .args(["demo", "--serve"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let first = lines.by_ref().find(|l| l.starts_with("curl ")).expect("a curl line");
    let second = lines.next().unwrap();
    let have_curl = Command::new("curl").arg("--version").output().is_ok();
    if have_curl {
        let command = format!("{}{second}", first.trim_end_matches('\\'));
        let o = Command::new("bash").args(["-c", &command]).output().unwrap();
        let answer: Value = serde_json::from_slice(&o.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", out(&o), err(&o)));
        assert_eq!(answer["response"]["allowed"], false);
        assert!(answer["response"]["status"]["message"].as_str().unwrap().starts_with("[NS001"));
    } else {
        eprintln!("!!! no curl here, its command line was not tried");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// kubectl runs `kubectl-revguard` from the PATH; help and errors then say what was typed.
#[test]
fn as_a_plugin_of_kubectl_it_goes_by_that_name() {
    let dir = tempfile::tempdir().unwrap();
    let plugin = dir.path().join("kubectl-revguard");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_revguard"), &plugin).unwrap();
    let o = Command::new(&plugin).args(["check", "--help"]).output().unwrap();
    assert!(out(&o).contains("Usage: kubectl revguard check"), "{}", out(&o));
    let o = Command::new(&plugin).arg("chek").output().unwrap();
    assert!(err(&o).contains("Usage: kubectl revguard <COMMAND>") && o.status.code() == Some(2), "{}", err(&o));
}

const BROKEN: &str = "apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: istiod-default-validator, labels: {istio.io/rev: \"1-23\"}}
webhooks:
- name: validation.istio.io
  clientConfig: {service: {name: istiod, namespace: istio-system, path: /validate}}
  failurePolicy: Fail
  rules: [{apiGroups: [networking.istio.io], apiVersions: ['*'], operations: [CREATE, UPDATE], resources: ['*']}]
";
const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, annotations: {istio.io/rev: 1-23}, ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: web, uid: u, controller: true}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web, namespace: shop}
spec: {template: {metadata: {labels: {istio.io/rev: 1-23}}, spec: {containers: [{name: c, image: x}]}}}
";

/// The mesh of the demonstration without its default validator, and what a test adds.
fn status(args: &[&str], text: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let all = std::fs::read_to_string(mesh()).unwrap();
    let kept: Vec<&str> = all.split("\n---\n").filter(|d| !d.contains("istiod-default-validator")).collect();
    let file = dir.path().join("mesh.yaml");
    std::fs::write(&file, format!("{}\n---\n{text}", kept.join("\n---\n"))).unwrap();
    revguard(&[&["status", &file.display().to_string()], args].concat(), "")
}

#[test]
fn status_tells_the_mesh_at_a_glance() {
    let o = status(&[], &format!("{BROKEN}---\n{POD}"));
    assert_eq!(o.status.code(), Some(0), "{}", err(&o));
    let said = out(&o);
    for part in [
        "1-23 *     1.23      1 ready   default,prod   0    1      0",
        "prod      1-23       yes",
        "istiod-default-validator            1-23       the rest   Fail     nobody",
        "VW002 ValidatingWebhookConfiguration istiod-default-validator",
        "  fix: ",
    ] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    let wide = said.lines().filter(|l| l.chars().count() > 80 && !l.contains("fix: ") && !l.starts_with("       "));
    assert_eq!(wide.collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn status_as_json_has_the_same_in_it() {
    let o = status(&["-o", "json"], &format!("{BROKEN}---\n{POD}"));
    let said: Value = serde_json::from_slice(&o.stdout).unwrap();
    assert_eq!(said["revisions"][0]["users"]["workloadPods"], 1, "{said:#}");
    assert_eq!(said["findings"]["critical"], 1);
    let first = &said["results"][0];
    assert_eq!((first["code"].as_str(), first["level"].as_str()), (Some("VW002"), Some("critical")));
    assert!(first["repair"].is_null(), "no policy allows it");
}

#[test]
fn status_without_a_cluster_says_how_to_name_one() {
    for command in ["status", "resolve"] {
        let o = Command::new(env!("CARGO_BIN_EXE_revguard"))
            .arg(command)
            .env_clear()
            .env("HOME", "/nowhere")
            .output()
            .unwrap();
        assert_eq!(o.status.code(), Some(2));
        assert!(err(&o).contains("/nowhere/.kube/config") && err(&o).contains("--kubeconfig"), "{}", err(&o));
    }
}

#[test]
fn an_api_server_that_is_not_there_is_told_in_the_words_of_an_operator() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config");
    // Nobody listens on port 1 of the loopback.
    let config = "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\nusers: [{name: u, user: {token: t}}]\n\
        contexts: [{name: c, context: {cluster: c, user: u}}]\ncurrent-context: c\n";
    std::fs::write(&file, config).unwrap();
    let file = file.display().to_string();
    for command in [&["status"][..], &["rollout", "get", "x"], &["report"]] {
        let o = revguard(&[command, &["--kubeconfig", &file]].concat(), "");
        assert_eq!(o.status.code(), Some(2));
        let said = err(&o);
        assert!(said.contains("cannot reach the API server: Connection refused"), "{said}");
        assert!(said.contains("kubectl get --raw /readyz") && !said.contains("client error"), "{said}");
    }
}

#[test]
fn what_could_not_be_looked_at_is_not_called_right() {
    let o = revguard(&["status", "-"], "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n");
    let said = out(&o);
    assert!(said.starts_with("no Istio control plane is seen, but not everything could be looked at\n"), "{said}");
    assert!(said.contains("\nnothing wrong is seen in what could be looked at\n"), "{said}");
}

#[test]
fn uninstall_check_is_safe_used_or_no_such_revision() {
    let dir = tempfile::tempdir().unwrap();
    let pods = dir.path().join("pods.yaml");
    std::fs::write(&pods, POD).unwrap();
    let (mesh, pods) = (mesh(), pods.display().to_string());
    for (args, code, says) in [
        (vec!["1-24", "--cluster", &mesh, "--cluster", &pods], 0, "safe to remove"),
        (vec!["1-23", "--cluster", &mesh, "--cluster", &pods], 1, "1 pod of shop/web runs its proxy"),
        (vec!["1-24", "--cluster", &mesh], 1, "the input holds no pods"),
        (vec!["1-24", "--cluster", &mesh, "--cluster", &pods, "-o", "json"], 0, "\"safe\": true"),
    ] {
        let o = revguard(&[vec!["uninstall-check"], args.clone()].concat(), "");
        assert_eq!(o.status.code(), Some(code), "{args:?}: {}{}", out(&o), err(&o));
        assert!(out(&o).contains(says), "{args:?}: {}", out(&o));
    }
    let o = revguard(&["uninstall-check", "ghost", "--cluster", &mesh], "");
    assert_eq!(o.status.code(), Some(2));
    assert!(err(&o).contains("revisions: 1-23, 1-24"), "{}", err(&o));
}

#[test]
fn the_command_that_removes_it_is_the_installers() {
    let dir = tempfile::tempdir().unwrap();
    let all = std::fs::read_to_string(mesh()).unwrap();
    let istiod = "  name: istiod-1-24\n  namespace: istio-system\n  labels: {app: istiod, istio: pilot, istio.io/rev: \"1-24\", operator.istio.io/component: Pilot, install.operator.istio.io/owning-resource: unknown}\n";
    assert!(all.contains(istiod));
    let helm = istiod.to_owned()
        + "  annotations: {meta.helm.sh/release-name: canary, meta.helm.sh/release-namespace: istio-system}\n";
    for (with, command) in [
        (helm, "helm uninstall canary -n istio-system"),
        (istiod.replace("resource: unknown", "resource: installed"), "istioctl uninstall --revision 1-24"),
    ] {
        let file = dir.path().join("mesh.yaml");
        std::fs::write(&file, all.replace(istiod, &with)).unwrap();
        let o = revguard(&["uninstall-check", "1-24", "--cluster", &file.display().to_string()], "");
        assert!(out(&o).ends_with(&format!("\n  {command}\n")), "{}", out(&o));
    }
}

const ROLLOUT: &str = "apiVersion: revguard.dev/v1alpha1\nkind: GatewayRollout\nmetadata: {name: igw-1-24, namespace: gw}\nspec: \
    {target: {deployment: {name: igw}}, toRevision: 1-24}\n";

fn gateway(file: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rollout_guards").join(file).display().to_string()
}

#[test]
fn plan_tells_what_a_rollout_would_do_and_what_stands_against_it() {
    let (planes, world) = (gateway("planes.yaml"), gateway("injected.yaml"));
    let cluster = ["--cluster", &planes, "--cluster", &world];
    let plan = |more: &[&str], rollout: &str| {
        let args: Vec<&str> = ["plan", "-f", "-"].iter().chain(&cluster).chain(more).copied().collect();
        revguard(&args, rollout)
    };
    let o = plan(&[], ROLLOUT);
    assert_eq!(o.status.code(), Some(0), "{}{}", out(&o), err(&o));
    let text = out(&o);
    assert!(text.starts_with("gateway gw/igw: 1-23 → 1-24 (Injected)\nnothing blocks it; 1 warning\n"), "{text}");
    for line in ["old pods will be set apart by label app before they are deleted", "step 5/5 all: 2 new, 0 old"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let o = plan(&["-o", "json"], &ROLLOUT.replace("toRevision: 1-24", "toRevision: 1-25"));
    assert_eq!(o.status.code(), Some(1));
    let answer: Value = serde_json::from_str(&out(&o)).expect("JSON");
    assert_eq!((&answer["blocked"], &answer["preflight"][0]["guard"]), (&true.into(), &"RevisionUnknown".into()));
    assert_eq!((&answer["apartKey"], &answer["promotion"]), (&"app".into(), &"AwaitExternal".into()));
    for (rollout, said) in [
        (ROLLOUT.replace("toRevision", "toRevison"), "gw/igw-1-24: spec.toRevison"),
        (FINE.to_owned(), "no GatewayRollout there"),
        (format!("{ROLLOUT}---\n{}", ROLLOUT.replace("igw-1-24", "other")), "2 GatewayRollouts there"),
        ("a: [".to_owned(), "document 1"),
    ] {
        let o = plan(&[], &rollout);
        assert_eq!(o.status.code(), Some(2), "{}{}", out(&o), err(&o));
        assert!(err(&o).contains(said), "{said}: {}", err(&o));
    }
}

/// Container runtimes give 1,024 files to begin with; a large mesh takes more connections than that.
#[test]
fn servers_may_open_as_many_files_as_they_are_allowed_to() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let nobody = "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}], \
                  clusters: [{name: c, cluster: {server: 'http://127.0.0.1:9'}}], users: [{name: u, user: {}}]}";
    std::fs::write(&kubeconfig, nobody).unwrap();
    let (kubeconfig, cluster) = (kubeconfig.display().to_string(), mesh());
    let serve = ["serve", "--listen", "127.0.0.1:0", "--self-signed", "--standalone", &cluster];
    let control = ["controller", "--namespace", "ns", "--kubeconfig", &kubeconfig];
    for (args, hard, says) in [
        (&serve[..], 4096, false),
        (&control[..], 4096, false),
        // 1,024 connections of the API server and what is open beside them.
        (&serve[..], 700, true),
        (&control[..], 700, true),
    ] {
        let script = format!("ulimit -S -n 256 && ulimit -H -n {hard} && exec \"$0\" \"$@\"");
        let log = folder.path().join("log");
        let mut child = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_revguard")])
            .args(args)
            .args(["--health-listen", "127.0.0.1:0"])
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let limits = format!("/proc/{}/limits", child.id());
        let wanted = format!("{hard} {hard} files");
        let raised = (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            let limits = std::fs::read_to_string(&limits).unwrap_or_default();
            let files = limits.lines().find_map(|l| l.strip_prefix("Max open files")).unwrap_or_default();
            files.split_whitespace().collect::<Vec<_>>().join(" ") == wanted
        });
        // What is said is said in the same moment.
        std::thread::sleep(std::time::Duration::from_millis(300));
        child.kill().unwrap();
        child.wait().unwrap();
        let log = std::fs::read_to_string(&log).unwrap();
        assert!(raised, "{args:?}: {log}");
        assert_eq!(log.contains("the limit of open files is too low"), says, "{args:?}: {log}");
    }
}
