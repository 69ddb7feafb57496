//! What an istiod says of the proxies that are connected to it, on its page `/debug/syncz`, and what follows for one pod.
//!
//! It is the second evidence beside what the pod's own Envoy says. A page that does not name the pod says nothing: an istiod may show
//! a caller only some proxies, and the replica that has it may not have answered. A page of a shape that is not known is none.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::seen::Synced;
use crate::model::text::brief;

/// What is sent to a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sort {
    Clusters,
    Listeners,
    Routes,
    Endpoints,
    Extensions,
}

impl Sort {
    const ALL: [Sort; 5] = [Sort::Clusters, Sort::Listeners, Sort::Routes, Sort::Endpoints, Sort::Extensions];

    const fn as_str(self) -> &'static str {
        match self {
            Sort::Clusters => "clusters",
            Sort::Listeners => "listeners",
            Sort::Routes => "routes",
            Sort::Endpoints => "endpoints",
            Sort::Extensions => "extensions",
        }
    }

    /// The last word of its type URL.
    const fn message(self) -> &'static str {
        match self {
            Sort::Clusters => "Cluster",
            Sort::Listeners => "Listener",
            Sort::Routes => "RouteConfiguration",
            Sort::Endpoints => "ClusterLoadAssignment",
            Sort::Extensions => "TypedExtensionConfig",
        }
    }

    /// Every proxy is sent these, and answers each. Of the others some Envoys leave one unanswered for good.
    const fn is_answered(self) -> bool {
        matches!(self, Sort::Clusters | Sort::Listeners)
    }
}

/// The last of one sort that was sent, and the last that was accepted, by nonce.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Exchange {
    sent: String,
    acked: String,
    /// What Envoy said against it.
    error: String,
}

impl Exchange {
    fn is_open(&self) -> bool {
        self.sent != self.acked
    }
}

type Connection = BTreeMap<Sort, Exchange>;

/// The proxies of one namespace that are connected to the istiods of a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page(BTreeMap<String, Vec<Connection>>);

/// One proxy, as istiod writes it: each sort in fields of its own, and since some version also by type URL.
#[derive(Deserialize)]
struct Written {
    proxy: String,
    #[serde(default)]
    cluster_sent: String,
    #[serde(default)]
    cluster_acked: String,
    #[serde(default)]
    listener_sent: String,
    #[serde(default)]
    listener_acked: String,
    #[serde(default)]
    route_sent: String,
    #[serde(default)]
    route_acked: String,
    #[serde(default)]
    endpoint_sent: String,
    #[serde(default)]
    endpoint_acked: String,
    #[serde(default)]
    extensionconfig_sent: String,
    #[serde(default)]
    extensionconfig_acked: String,
    #[serde(default)]
    resources: BTreeMap<String, Resource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    #[serde(default)]
    sent: String,
    #[serde(default)]
    acked: String,
    #[serde(default)]
    last_error: String,
}

impl Written {
    fn field(&self, sort: Sort) -> (&str, &str) {
        match sort {
            Sort::Clusters => (&self.cluster_sent, &self.cluster_acked),
            Sort::Listeners => (&self.listener_sent, &self.listener_acked),
            Sort::Routes => (&self.route_sent, &self.route_acked),
            Sort::Endpoints => (&self.endpoint_sent, &self.endpoint_acked),
            Sort::Extensions => (&self.extensionconfig_sent, &self.extensionconfig_acked),
        }
    }

    fn exchange(&self, sort: Sort) -> Exchange {
        let is = |url: &str| url.rsplit('.').next() == Some(sort.message());
        let resource = self.resources.iter().find(|(url, _)| is(url)).map(|(_, resource)| resource);
        let error = resource.map(|r| r.last_error.as_str()).unwrap_or_default();
        let (sent, acked) = match (self.field(sort), resource) {
            (("", ""), Some(r)) => (r.sent.as_str(), r.acked.as_str()),
            (field, _) => field,
        };
        Exchange { sent: sent.to_owned(), acked: acked.to_owned(), error: brief(error) }
    }

    fn connection(&self) -> Connection {
        let all = Sort::ALL.into_iter().map(|sort| (sort, self.exchange(sort)));
        all.filter(|(_, exchange)| !exchange.sent.is_empty()).collect()
    }
}

impl Page {
    /// Reads a page, as far as it is about proxies of this namespace.
    ///
    /// # Errors
    /// It is no list of proxies.
    pub fn read(body: &[u8], namespace: &str) -> Result<Page, String> {
        let all: Vec<Written> = serde_json::from_slice(body).map_err(|e| format!("no list of proxies: {e}"))?;
        let mut page = Page::default();
        let within = |id: &str| id.strip_suffix(namespace).is_some_and(|rest| rest.ends_with('.'));
        for one in all.iter().filter(|one| within(&one.proxy)) {
            page.0.entry(one.proxy.clone()).or_default().push(one.connection());
        }
        Ok(page)
    }

    /// Takes in what another replica says. A proxy that has just changed from one to the other is in both.
    pub fn unite(&mut self, other: Page) {
        for (id, connections) in other.0 {
            self.0.entry(id).or_default().extend(connections);
        }
    }

    fn of(&self, id: &str) -> &[Connection] {
        self.0.get(id).map_or(&[], Vec::as_slice)
    }

    /// This very thing was sent and not accepted here either.
    fn left_open(&self, id: &str, sort: Sort, exchange: &Exchange) -> bool {
        let same = |c: &Connection| c.get(&sort).is_some_and(|e| e.is_open() && e.sent == exchange.sent);
        self.of(id).iter().any(same)
    }
}

/// What istiods say of the proxy `POD.NAMESPACE`: those of the new revision `now` and the time `before`, and those of the old one. `None`: not
/// enough to say anything. What was sent just now is not held against a proxy; what it refused, or has not answered since the time
/// before, is.
pub fn synced(id: &str, (now, before): (&Page, &Page), old: &Page) -> Option<Synced> {
    if !old.of(id).is_empty() {
        return Some(Synced::Elsewhere);
    }
    let connections = now.of(id);
    let open = || connections.iter().flatten().filter(|(_, exchange)| exchange.is_open());
    if let Some((sort, exchange)) = open().find(|(_, exchange)| !exchange.error.is_empty()) {
        return Some(Synced::Waiting(format!("it refused its {}: {}", sort.as_str(), exchange.error)));
    }
    if let Some((sort, _)) = open().find(|(sort, e)| sort.is_answered() && before.left_open(id, **sort, e)) {
        return Some(Synced::Waiting(format!("it does not answer to its {}", sort.as_str())));
    }
    let is_whole = |c: &Connection| {
        let complete = Sort::ALL.into_iter().filter(|s| s.is_answered()).all(|sort| c.contains_key(&sort));
        complete && c.values().all(|exchange| !exchange.is_open())
    };
    (!connections.is_empty() && connections.iter().all(is_whole)).then_some(Synced::Acked)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ID: &str = "public-1-24-6c9d4f7b9c-x2x4k.istio-ingress";

    fn nonce(n: u32) -> String {
        format!("bX3QfJ2mVfA={n:08x}-8d4e-4d3c-9a2e-6a1f0c5e77b1")
    }

    /// As istiods up to 1.23 or so write it.
    fn flat(id: &str, listeners: (u32, u32)) -> Value {
        json!({
            "cluster_id": "Kubernetes", "proxy": id, "istio_version": "1.20.3",
            "cluster_sent": nonce(1), "cluster_acked": nonce(1),
            "listener_sent": nonce(listeners.0), "listener_acked": nonce(listeners.1),
            "route_sent": nonce(3), "route_acked": nonce(3),
            "endpoint_sent": nonce(4), "endpoint_acked": nonce(4),
        })
    }

    /// As later ones do: the same fields, and everything by type URL.
    fn typed(id: &str, listeners: (u32, u32), error: &str) -> Value {
        let mut one = flat(id, listeners);
        let resource = |(sent, acked): (u32, u32), error: &str| {
            let mut all =
                json!({"sent": nonce(sent), "acked": nonce(acked), "sentTime": "2026-08-22T15:00:18.123456789Z"});
            if !error.is_empty() {
                all["lastError"] = json!(error);
            }
            all
        };
        one["proxy_type"] = json!("router");
        one["resources"] = json!({
            "type.googleapis.com/envoy.config.cluster.v3.Cluster": resource((1, 1), ""),
            "type.googleapis.com/envoy.config.listener.v3.Listener": resource(listeners, error),
            "type.googleapis.com/envoy.config.route.v3.RouteConfiguration": resource((3, 3), ""),
            "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment": resource((4, 4), ""),
            "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret": resource((9, 8), ""),
        });
        one
    }

    fn page(all: &[Value]) -> Page {
        Page::read(json!(all).to_string().as_bytes(), "istio-ingress").unwrap()
    }

    /// What a page says by itself.
    fn says(all: &[Value]) -> Option<Synced> {
        synced(ID, (&page(all), &Page::default()), &Page::default())
    }

    #[test]
    fn both_shapes_are_read() {
        assert_eq!(says(&[flat(ID, (2, 2))]), Some(Synced::Acked));
        assert_eq!(says(&[typed(ID, (2, 2), "")]), Some(Synced::Acked));
        let mut bare = typed(ID, (2, 2), "");
        let fields = bare.as_object_mut().unwrap();
        fields.retain(|key, _| !key.ends_with("_sent") && !key.ends_with("_acked"));
        assert_eq!(says(&[bare]), Some(Synced::Acked), "by type URL alone");
    }

    #[test]
    fn whoever_is_not_named_is_not_spoken_of() {
        assert_eq!(says(&[]), None);
        assert_eq!(says(&[flat("public-1-24-6c9d4f7b9c-x2x4k.edge", (2, 2))]), None, "another namespace");
        assert_eq!(says(&[flat("cart-1.shop", (2, 2))]), None);
        let mut named = flat(ID, (2, 2));
        named.as_object_mut().unwrap().retain(|key, _| !key.contains("listener"));
        assert_eq!(says(&[named]), None, "nothing of its listeners yet");
        assert_eq!(says(&[json!({"proxy": ID})]), None);
    }

    #[test]
    fn other_shapes_are_none() {
        for body in
            ["", "{}", "null", "[1]", r#"[{"id": "a.b"}]"#, r#"{"resources": []}"#, "<html>", r#"[{"proxy": 7}]"#]
        {
            assert!(Page::read(body.as_bytes(), "istio-ingress").is_err(), "{body}");
        }
    }

    #[test]
    fn what_was_sent_just_now_is_not_held_against_it() {
        let (none, open) = (Page::default(), page(&[flat(ID, (5, 2))]));
        assert_eq!(synced(ID, (&open, &none), &none), None);
        let waiting = Some(Synced::Waiting("it does not answer to its listeners".into()));
        assert_eq!(synced(ID, (&open, &open), &none), waiting);
        let newer = page(&[flat(ID, (6, 5))]);
        assert_eq!(synced(ID, (&newer, &open), &none), None, "it has answered since");
        let mut routes = flat(ID, (2, 2));
        routes["route_acked"] = json!("");
        let routes = page(&[routes]);
        assert_eq!(synced(ID, (&routes, &routes), &none), None, "which says nothing for it, and nothing against it");
    }

    #[test]
    fn what_it_refuses_is_said_at_once() {
        let error = "Error adding/updating listener(s) 0.0.0.0_8080: cannot bind\n'0.0.0.0:8080'";
        let Some(Synced::Waiting(why)) = says(&[typed(ID, (5, 2), error)]) else { panic!("it refuses") };
        assert!(why.contains("it refused its listeners: Error adding") && !why.contains('\n'), "{why}");
        assert_eq!(says(&[typed(ID, (5, 5), error)]), Some(Synced::Acked), "it has taken a later one");
    }

    #[test]
    fn replicas_are_united_and_the_old_revision_contradicts() {
        let none = Page::default();
        let mut two = page(&[flat("other.istio-ingress", (2, 2))]);
        two.unite(page(&[flat(ID, (2, 2))]));
        assert_eq!(synced(ID, (&two, &none), &none), Some(Synced::Acked));
        assert_eq!(synced(ID, (&none, &none), &two), Some(Synced::Elsewhere));
        assert_eq!(synced(ID, (&two, &none), &two), Some(Synced::Elsewhere), "whatever the new one says");
        two.unite(page(&[flat(ID, (7, 2))]));
        assert_eq!(synced(ID, (&two, &none), &none), None, "in two places at a time");
    }
}
