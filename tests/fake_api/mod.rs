//! A small API server for tests of the live state: discovery, lists in pages or as streams, watches with bookmarks, and
//! every way in which a real one fails, on command. It stands for kube-apiserver's wire behaviour and nothing else:
//! objects are what the test puts, validated by nobody. The real one is met by the tests of the cluster harness.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

/// What happens to the next request whose path and query hold a text.
#[derive(Clone, Debug)]
pub enum Fault {
    /// An error with a `Retry-After`, if any.
    Status(u16, Option<u64>),
    /// The connection stays open and nothing is said.
    Silence,
    /// The connection is cut after this many bytes of the body.
    Cut(usize),
}

struct Past {
    version: u64,
    what: &'static str,
    resource: String,
    object: Value,
}

#[derive(Default)]
struct World {
    version: u64,
    /// By resource (`apps/deployments`, `/pods`), then namespace and name.
    objects: BTreeMap<String, BTreeMap<(String, String), Value>>,
    history: Vec<Past>,
    /// Versions up to here are forgotten.
    compacted: u64,
    /// Served versions of a group, the preferred one first, and the resources of each.
    groups: BTreeMap<String, Vec<(String, Vec<String>)>>,
    faults: HashMap<String, Vec<Fault>>,
    asked: Vec<String>,
    /// Watches begun before this are cut.
    era: u64,
    streams: bool,
    bookmarks: bool,
    /// What a list as a stream is answered with: a Status in its first line.
    stream_error: Option<Value>,
}

#[derive(Clone)]
pub struct FakeApi {
    world: Arc<Mutex<World>>,
    changed: watch::Sender<u64>,
    pub url: String,
}

/// Groups that every API server has.
const BUILT_IN: [(&str, &str, &[&str]); 6] = [
    ("", "v1", &["namespaces", "pods", "services", "configmaps"]),
    ("apps", "v1", &["deployments", "daemonsets", "statefulsets", "replicasets"]),
    ("batch", "v1", &["cronjobs", "jobs"]),
    ("discovery.k8s.io", "v1", &["endpointslices"]),
    ("admissionregistration.k8s.io", "v1", &["mutatingwebhookconfigurations", "validatingwebhookconfigurations"]),
    ("apiextensions.k8s.io", "v1", &["customresourcedefinitions"]),
];

impl FakeApi {
    pub async fn start() -> FakeApi {
        let mut world = World { streams: true, bookmarks: true, version: 100, ..World::default() };
        for (group, version, resources) in BUILT_IN {
            let resources = resources.iter().map(|r| (*r).to_owned()).collect();
            world.groups.insert(group.to_owned(), vec![(version.to_owned(), resources)]);
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let api = FakeApi { world: Arc::new(Mutex::new(world)), changed: watch::channel(0).0, url };
        let router = Router::new().fallback(answer).with_state(api.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        api
    }

    pub fn client(&self) -> kube::Client {
        revguard::cluster::install_crypto();
        let mut config = kube::Config::new(self.url.parse().unwrap());
        config.default_retry = false;
        kube::Client::try_from(config).unwrap()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    fn wake(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// Writes an object; the version that it got.
    pub fn put(&self, resource: &str, mut object: Value) -> u64 {
        let mut world = self.world();
        world.version += 1;
        let version = world.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let old = world.objects.entry(resource.to_owned()).or_default().insert(place(&object), object.clone());
        let what = if old.is_some() { "MODIFIED" } else { "ADDED" };
        world.history.push(Past { version, what, resource: resource.to_owned(), object });
        drop(world);
        self.wake();
        version
    }

    pub fn delete(&self, resource: &str, namespace: &str, name: &str) -> u64 {
        let mut world = self.world();
        world.version += 1;
        let version = world.version;
        let place = (namespace.to_owned(), name.to_owned());
        let mut object = world.objects.get_mut(resource).unwrap().remove(&place).unwrap();
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        world.history.push(Past { version, what: "DELETED", resource: resource.to_owned(), object });
        drop(world);
        self.wake();
        version
    }

    /// Deletes while nobody is told: what a lost history looks like.
    pub fn delete_untold(&self, resource: &str, namespace: &str, name: &str) {
        let mut world = self.world();
        world.objects.get_mut(resource).unwrap().remove(&(namespace.to_owned(), name.to_owned())).unwrap();
        world.version += 1;
    }

    /// Forgets history, as compaction does.
    pub fn compact(&self) {
        let mut world = self.world();
        world.compacted = world.version;
    }

    /// Cuts every open watch in the middle of a line.
    pub fn cut_watches(&self) {
        self.world().era += 1;
        self.wake();
    }

    pub fn no_streams(&self) {
        self.world().streams = false;
    }

    /// From now on no watch says that nothing is new.
    pub fn no_bookmarks(&self) {
        self.world().bookmarks = false;
    }

    /// Everything is as it was at an earlier version: the objects of `resource` are these, and of later versions nothing is
    /// known. Watches from a later version are taken, and nothing is said on them.
    pub fn restore(&self, version: u64, resource: &str, objects: Vec<Value>) {
        let mut world = self.world();
        world.version = version;
        world.history.retain(|past| past.version <= version);
        let restored = objects.into_iter().map(|mut object| {
            object["metadata"]["resourceVersion"] = json!(version.to_string());
            (place(&object), object)
        });
        world.objects.insert(resource.to_owned(), restored.collect());
        drop(world);
        self.cut_watches();
    }

    /// Takes lists as streams and answers each with this Status, as a cacher does whose etcd is too old for them; a text is
    /// sent as it is.
    pub fn streams_end_with(&self, status: Value) {
        self.world().stream_error = Some(status);
    }

    pub fn install(&self, group: &str, versions: &[(&str, &[&str])]) {
        let served =
            versions.iter().map(|(v, r)| ((*v).to_owned(), r.iter().map(|r| (*r).to_owned()).collect())).collect();
        self.world().groups.insert(group.to_owned(), served);
        for (_, resources) in versions.iter().take(1) {
            for plural in *resources {
                self.put(
                    "apiextensions.k8s.io/customresourcedefinitions",
                    json!({"metadata": {"name": format!("{plural}.{group}")}}),
                );
            }
        }
    }

    pub fn uninstall(&self, group: &str) {
        let served = self.world().groups.remove(group).unwrap();
        for plural in &served[0].1 {
            self.world().objects.remove(&format!("{group}/{plural}"));
            self.delete("apiextensions.k8s.io/customresourcedefinitions", "", &format!("{plural}.{group}"));
        }
        self.cut_watches();
    }

    /// The next request whose path and query hold `text` fails like this.
    pub fn fail(&self, text: &str, fault: Fault) {
        self.world().faults.entry(text.to_owned()).or_default().push(fault);
    }

    pub fn heal(&self, text: &str) {
        self.world().faults.remove(text);
    }

    /// Paths and queries of requests so far that hold `text`.
    pub fn asked(&self, text: &str) -> Vec<String> {
        self.world().asked.iter().filter(|a| a.contains(text)).cloned().collect()
    }
}

fn place(object: &Value) -> (String, String) {
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or("").to_owned();
    (text("namespace"), text("name"))
}

fn error(code: u16, retry_after: Option<u64>) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": format!("the test wants {code}")});
    let mut response = Response::builder().status(StatusCode::from_u16(code).unwrap());
    if let Some(seconds) = retry_after {
        response = response.header("Retry-After", seconds.to_string());
    }
    response.body(Body::from(body.to_string())).unwrap()
}

async fn answer(State(api): State<FakeApi>, request: Request<Body>) -> Response {
    let path = request.uri().path().to_owned();
    let query: HashMap<String, String> = request
        .uri()
        .query()
        .unwrap_or("")
        .split('&')
        .filter_map(|p| p.split_once('='))
        .map(|(k, v)| (k.to_owned(), v.replace("%2F", "/").replace("%21", "!").replace("%3D", "=").replace("%2C", ",")))
        .collect();
    let whole = request.uri().to_string();
    let metadata =
        request.headers().get("accept").is_some_and(|a| a.to_str().unwrap().contains("PartialObjectMetadata"));
    let fault = {
        let mut world = api.world();
        world.asked.push(whole.clone());
        let found = world.faults.iter_mut().find(|(text, faults)| whole.contains(text.as_str()) && !faults.is_empty());
        // A refusal lasts until it is healed; everything else happens once.
        found.map(
            |(_, faults)| if matches!(faults[0], Fault::Status(403, _)) { faults[0].clone() } else { faults.remove(0) },
        )
    };
    match fault {
        Some(Fault::Status(code, retry_after)) => return error(code, retry_after),
        Some(Fault::Silence) => std::future::pending().await,
        _ => {}
    }
    let cut = if let Some(Fault::Cut(bytes)) = fault { Some(bytes) } else { None };
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (group, rest) = match parts.as_slice() {
        ["api", rest @ ..] => ("", rest),
        ["apis", group, rest @ ..] => (*group, rest),
        _ => return error(404, None),
    };
    let Some(served) = api.world().groups.get(group).cloned() else { return error(404, None) };
    let body = match rest {
        [] => {
            let versions: Vec<_> =
                served.iter().map(|(v, _)| json!({"groupVersion": format!("{group}/{v}"), "version": v})).collect();
            json!({"kind": "APIGroup", "name": group, "versions": versions, "preferredVersion": versions[0]})
        }
        [version] => match served.iter().find(|(v, _)| v == version) {
            Some((_, resources)) => {
                let all: Vec<_> = resources
                    .iter()
                    .flat_map(|r| [json!({"name": r}), json!({"name": format!("{r}/status")})])
                    .collect();
                json!({"kind": "APIResourceList", "resources": all})
            }
            None => return error(404, None),
        },
        [version, rest @ ..] => {
            let (namespace, plural) = match rest {
                ["namespaces", ns, plural] => (Some((*ns).to_owned()), *plural),
                [plural] => (None, *plural),
                _ => return error(404, None),
            };
            if !served.iter().any(|(v, r)| v == version && r.iter().any(|r| r == plural)) {
                return error(404, None);
            }
            let about = About {
                resource: format!("{group}/{plural}"),
                namespace,
                label: query.get("labelSelector").cloned(),
                live_pods: query.contains_key("fieldSelector"),
                metadata,
            };
            return if query.contains_key("watch") {
                watch_response(api, about, query, cut)
            } else {
                list(&api, &about, &query, cut)
            };
        }
    };
    Response::new(Body::from(body.to_string()))
}

struct About {
    resource: String,
    namespace: Option<String>,
    label: Option<String>,
    live_pods: bool,
    metadata: bool,
}

impl About {
    fn wants(&self, object: &Value) -> bool {
        let phase = object["status"]["phase"].as_str().unwrap_or("Running");
        self.namespace.as_ref().is_none_or(|ns| object["metadata"]["namespace"] == **ns)
            && self.label.as_ref().is_none_or(|l| object["metadata"]["labels"].get(l).is_some())
            && !(self.live_pods && matches!(phase, "Succeeded" | "Failed"))
    }

    fn shown(&self, object: &Value) -> Value {
        if !self.metadata {
            return object.clone();
        }
        let mut metadata = object["metadata"].clone();
        metadata["managedFields"] =
            json!([{"manager": "somebody", "fieldsV1": {"f:metadata": {"f:labels": {".": {}}}}}]);
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
    }
}

fn body_cut(text: String, cut: Option<usize>) -> Body {
    let Some(cut) = cut else { return Body::from(text) };
    let part = text.as_bytes()[..cut.min(text.len())].to_vec();
    Body::from_stream(futures::stream::iter([Ok(part), Err(std::io::Error::other("cut"))]))
}

fn list(api: &FakeApi, about: &About, query: &HashMap<String, String>, cut: Option<usize>) -> Response {
    let world = api.world();
    let limit: usize = query.get("limit").map_or(500, |l| l.parse().unwrap());
    let from: usize = query.get("continue").map_or(0, |c| c.parse().unwrap());
    let all: Vec<Value> = world
        .objects
        .get(&about.resource)
        .into_iter()
        .flat_map(|m| m.values())
        .filter(|o| about.wants(o))
        .map(|o| about.shown(o))
        .collect();
    let page: Vec<Value> = all.iter().skip(from).take(limit).cloned().collect();
    let mut metadata = json!({"resourceVersion": world.version.to_string()});
    if from + page.len() < all.len() {
        metadata["continue"] = json!((from + page.len()).to_string());
    }
    Response::new(body_cut(json!({"kind": "List", "metadata": metadata, "items": page}).to_string(), cut))
}

fn line(what: &str, object: &Value) -> String {
    json!({"type": what, "object": object}).to_string() + "\n"
}

fn watch_response(api: FakeApi, about: About, query: HashMap<String, String>, cut: Option<usize>) -> Response {
    let initial = query.contains_key("sendInitialEvents");
    if initial && !api.world().streams {
        return error(422, None);
    }
    let (send, receive) = mpsc::channel::<Result<String, std::io::Error>>(16);
    tokio::spawn(async move {
        let mut changed = api.changed.subscribe();
        let era = api.world().era;
        let mut at: u64 = query.get("resourceVersion").map_or(0, |v| v.parse().unwrap());
        let mut first = Vec::new();
        let refusal = api.world().stream_error.clone().filter(|_| initial);
        if let Some(status) = refusal {
            let text = status.as_str().map_or_else(|| line("ERROR", &status), |page| format!("{page}\n"));
            let _ = send.send(Ok(text)).await;
            return;
        }
        if initial {
            let world = api.world();
            at = world.version;
            first = world
                .objects
                .get(&about.resource)
                .into_iter()
                .flat_map(|m| m.values())
                .filter(|o| about.wants(o))
                .map(|o| line("ADDED", &about.shown(o)))
                .collect();
            first.push(line("BOOKMARK", &json!({"metadata": {"resourceVersion": at.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}}})));
        } else if at < api.world().compacted {
            let _ = send.send(Ok(line("ERROR", &json!({"kind": "Status", "code": 410, "reason": "Expired"})))).await;
            return;
        }
        if let Some(bytes) = cut {
            let text: String = first.concat();
            let _ = send.send(Ok(text[..bytes.min(text.len())].to_owned())).await;
            let _ = send.send(Err(std::io::Error::other("cut"))).await;
            return;
        }
        for text in first {
            if send.send(Ok(text)).await.is_err() {
                return;
            }
        }
        let end = Duration::from_secs(query["timeoutSeconds"].parse().unwrap());
        let end = tokio::time::Instant::now() + end;
        loop {
            let (lines, over) = {
                let world = api.world();
                let new = world
                    .history
                    .iter()
                    .filter(|p| p.version > at && p.resource == about.resource && about.wants(&p.object));
                let lines: Vec<String> = new.map(|p| line(p.what, &about.shown(&p.object))).collect();
                at = at.max(world.version);
                (lines, world.era != era)
            };
            for text in lines {
                if send.send(Ok(text)).await.is_err() {
                    return;
                }
            }
            if over {
                let _ = send.send(Ok("{\"type\":\"ADD".to_owned())).await;
                let _ = send.send(Err(std::io::Error::other("cut"))).await;
                return;
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = send.closed() => return,
                () = tokio::time::sleep_until(end) => return,
                // Real ones come every minute.
                () = tokio::time::sleep(Duration::from_millis(100)) => {
                    let says = {
                        let world = api.world();
                        world.bookmarks && at <= world.version
                    };
                    if !says {
                        continue;
                    }
                    let mark = line("BOOKMARK", &json!({"metadata": {"resourceVersion": at.to_string()}}));
                    if send.send(Ok(mark)).await.is_err() {
                        return;
                    }
                }
            }
        }
    });
    let lines =
        futures::stream::unfold(receive, |mut receive| async move { receive.recv().await.map(|line| (line, receive)) });
    Response::new(Body::from_stream(lines))
}
