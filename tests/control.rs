//! What the controller's loops do against an API server that is slow, hangs, or serves less than they know. It takes whatever is
//! written and validates nothing; what a real one makes of it is for the tests of the cluster harness.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::response::Response;
use http::{Method, Request, StatusCode};
use revguard::admission::webhook::Shared;
use revguard::controller::audit::{Auditor, Pace};
use revguard::controller::events::{Events, Word};
use revguard::controller::lease::Leadership;
use revguard::controller::{At, Candidate, Names, Terms, Writer};
use revguard::model::{Id, Kind};
use revguard::rules::Policy;
use revguard::snapshot::Snapshot;
use revguard::telemetry::metrics::Loop;
use revguard::telemetry::{Health, Metrics};
use serde_json::{Value, json};

#[derive(Default)]
struct World {
    /// By path.
    objects: BTreeMap<String, Value>,
    /// Method and path, in their order.
    asked: Vec<(Method, String)>,
    written: Vec<Value>,
    /// Every answer takes so long.
    delay: Duration,
    hangs: bool,
    /// What paths that begin with a text are answered with.
    errors: Vec<(&'static str, u16)>,
}

#[derive(Clone)]
struct Api {
    world: Arc<Mutex<World>>,
    url: String,
}

impl Api {
    async fn start() -> Api {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = Api { world: Arc::default(), url: format!("http://{}", listener.local_addr().unwrap()) };
        let router = Router::new().fallback(answer).with_state(api.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        api
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    fn client(&self) -> kube::Client {
        revguard::cluster::install_crypto();
        let mut config = kube::Config::new(self.url.parse().unwrap());
        config.default_retry = false;
        kube::Client::try_from(config).unwrap()
    }

    /// For somebody who leads for a minute.
    fn writer(&self) -> Writer {
        let leadership = Leadership::default();
        leadership.lead_until(Some(tokio::time::Instant::now() + Duration::from_secs(60)));
        Writer::new(self.client(), leadership, Arc::new(Metrics::new()))
    }
}

async fn answer(State(api): State<Api>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let body: Value = serde_json::from_slice(&to_bytes(body, 1 << 20).await.unwrap()).unwrap_or_default();
    let (delay, hangs, error) = {
        let mut world = api.world();
        world.asked.push((parts.method.clone(), path.clone()));
        let error = world.errors.iter().find(|(prefix, _)| path.starts_with(prefix)).map(|(_, code)| *code);
        (world.delay, world.hangs, error)
    };
    if hangs {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(delay).await;
    let say = |code: u16, body: &Value| {
        Response::builder().status(StatusCode::from_u16(code).unwrap()).body(Body::from(body.to_string())).unwrap()
    };
    if let Some(code) = error {
        return say(code, &json!({"kind": "Status", "code": code}));
    }
    let mut world = api.world();
    if parts.method == Method::GET {
        if parts.uri.query().is_some_and(|q| q.contains("fieldSelector")) {
            return say(200, &json!({"items": [{"metadata": {"uid": "u"}}]}));
        }
        return world.objects.get(&path).map_or_else(|| say(404, &json!({"code": 404})), |object| say(200, object));
    }
    let place = match body["metadata"]["name"].as_str() {
        Some(name) if parts.method == Method::POST => format!("{path}/{name}"),
        _ => path,
    };
    let mut object = body;
    object["metadata"]["uid"] = json!("u");
    object["metadata"]["resourceVersion"] = json!(world.asked.len().to_string());
    world.written.push(object.clone());
    world.objects.insert(place, object.clone());
    say(200, &object)
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn word(n: usize) -> Word {
    Word { warning: true, reason: "NS004".to_owned(), action: "Audit", note: format!("finding {n}") }
}

fn namespace() -> At {
    At::id(&Id { kind: Kind::Namespace, namespace: "".into(), name: "shop".into() })
}

/// A turn of the audit is hundreds of requests. While each of them ends, the task that waits for them is not stuck.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_waits_for_many_slow_writes_is_alive() {
    let api = Api::start().await;
    api.world().delay = ms(60);
    for beats in [true, false] {
        let health = Health::new(&[]);
        let task = health.task("audit", Some(ms(600)));
        let writer = if beats { api.writer().beating(task.pulse()) } else { api.writer() };
        let events = Events::new(writer, "me");
        let (mut dead, began) = (false, api.world().written.len());
        for n in 0..20 {
            events.say(&namespace(), None, &word(n)).await;
            dead |= health.alive().is_err();
        }
        assert_eq!(api.world().written.len() - began, 20);
        assert_eq!(dead, !beats, "without a word in between the task looks stuck");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_finds_its_object_in_the_version_that_is_served() {
    let api = Api::start().await;
    // As Istio 1.20 and 1.21.
    api.world().errors = vec![("/apis/networking.istio.io/v1/", 404)];
    let writer = api.writer();
    let events = Events::new(writer.clone(), "me");
    let gateway = At::id(&Id { kind: Kind::IstioGateway, namespace: "shop".into(), name: "public".into() });
    events.say(&gateway, None, &word(0)).await;
    let written = api.world().written.clone();
    assert_eq!(written.len(), 1);
    assert_eq!(written[0]["regarding"]["apiVersion"], "networking.istio.io/v1beta1");
    assert_eq!(written[0]["regarding"]["uid"], "u");
    assert_eq!(writer.metrics().reconcile_errors(Loop::Events), 0);
    // What keeps one from being written is counted; that there is no such kind any more is nobody's failure.
    api.world().errors = vec![("/apis/networking.istio.io/", 404)];
    events.say(&gateway, None, &word(1)).await;
    assert_eq!(writer.metrics().reconcile_errors(Loop::Events), 0);
    api.world().errors = vec![("/apis/networking.istio.io/", 403)];
    events.say(&gateway, None, &word(2)).await;
    assert_eq!(writer.metrics().reconcile_errors(Loop::Events), 1);
    assert_eq!(api.world().written.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_leadership_is_said_on_time_while_the_api_server_hangs() {
    let api = Api::start().await;
    // A request that hangs outlasts what is left of leadership.
    let terms = Terms {
        duration: ms(2000),
        leads: ms(1000),
        period: ms(300),
        answer: ms(3000),
        ..Terms::new("ns", "lease", "me".to_owned())
    };
    let candidate = Candidate::new(api.client(), terms);
    let leadership = candidate.leadership();
    let task = tokio::spawn(candidate.run(std::future::pending(), Health::new(&[]).task("lease", None)));
    leadership.gained().await;
    api.world().hangs = true;
    let mut changes = leadership.changes();
    tokio::time::timeout(ms(1600), changes.wait_for(|leads| !leads)).await.expect("nobody was told").unwrap();
    assert!(leadership.remaining().is_none() && !task.is_finished());
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_too_long_is_not_called_an_object() {
    let api = Api::start().await;
    let items = vec![json!({"data": "x".repeat(1 << 20)}); 17];
    api.world().objects.insert("/api/v1/configmaps".to_owned(), json!({"items": items}));
    let error = revguard::cluster::list(&api.client(), "/api/v1/configmaps?limit=100", "ConfigMap").await.unwrap_err();
    assert!(error.to_string().starts_with("an answer of more than 16 MiB"), "{error}");
}

/// What an audit finds in an old view it says, with since when; the MeshState does not call that clean.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_of_an_old_view_says_that_it_is_old() {
    let api = Api::start().await;
    let state = "/apis/revguard.dev/v1alpha1/meshstates/mesh";
    let empty = json!({"apiVersion": "revguard.dev/v1alpha1", "kind": "MeshState", "metadata": {"name": "mesh", "uid": "u"}, "spec": {}});
    api.world().objects.insert(state.to_owned(), empty);
    let heard = |ago: i64| {
        let old = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(ago);
        let snapshot = Snapshot::whole().heard_at(Arc::new([(Kind::ValidatingWebhook, old)].into()));
        (Shared::new(snapshot, Policy::default()), old.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
    };
    for ago in [10, 400] {
        let (shared, since) = heard(ago);
        let writer = api.writer();
        let events = Arc::new(Events::new(writer.clone(), "me"));
        let names = Names { namespace: "ns".to_owned(), release: "revguard".to_owned() };
        let (auditor, _) = Auditor::new(writer, shared, events, names, Pace { interval: ms(100), look: ms(50) });
        let before = api.world().written.len();
        let audit = tokio::spawn(auditor.run(Health::new(&[]).task("audit", None), Arc::default()));
        tokio::time::timeout(Duration::from_secs(10), async {
            while api.world().written.len() == before {
                tokio::time::sleep(ms(10)).await;
            }
        })
        .await
        .expect("a MeshState");
        audit.abort();
        let status = api.world().written[before]["status"].clone();
        let condition = |kind: &str| {
            let all = status["conditions"].as_array().unwrap();
            all.iter().find(|c| c["type"] == kind).map(|c| (c["status"].clone(), c["message"].clone())).unwrap()
        };
        let (clean, single) = (condition("AuditClean"), condition("ValidatorSingle"));
        let text = format!("nothing was heard of validatingwebhookconfigurations since {since}");
        if ago > 300 {
            assert_eq!(status["unknown"], json!([text]));
            assert_eq!((clean.0, single), (json!("Unknown"), (json!("Unknown"), json!(text))));
        } else {
            assert_eq!(status["unknown"], json!([]), "{status}");
            assert_eq!((clean.0, single.0), (json!("True"), json!("True")));
        }
    }
}

/// Leadership runs out by itself, and is said to be over a moment later.
#[test]
fn an_audit_without_leadership_waits() {
    let (done, waited) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let api = Api::start().await;
            let leadership = Leadership::default();
            let writer = Writer::new(api.client(), leadership.clone(), Arc::new(Metrics::new()));
            let events = Arc::new(Events::new(writer.clone(), "me"));
            let names = Names { namespace: "ns".to_owned(), release: "revguard".to_owned() };
            let shared = Shared::new(Snapshot::live(), Policy::default());
            let pace = Pace { interval: ms(200), look: ms(50) };
            let (auditor, _) = Auditor::new(writer, shared, events, names, pace);
            leadership.lead_until(Some(tokio::time::Instant::now() + ms(1)));
            tokio::time::sleep(ms(5)).await;
            assert!(leadership.remaining().is_none() && *leadership.changes().borrow());
            let health = Health::new(&[]);
            let audit = tokio::spawn(auditor.run(health.task("audit", Some(ms(500))), Arc::default()));
            let spent =
                || Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime)).unwrap();
            let before = spent();
            tokio::time::sleep(ms(1000)).await;
            assert!(health.alive().is_ok());
            audit.abort();
            done.send(spent() - before).unwrap();
        });
    });
    let spent = waited.recv_timeout(Duration::from_secs(10)).expect("the audit leaves no time to anybody else");
    assert!(spent < ms(200), "{spent:?} of a second");
}
