//! What must hold at every moment of a rollout, seen from outside: by watching, so that nothing that was stored is missed.
//!
//! It knows nothing of how revguard works: ready endpoints of the Service, the Service's spec, autoscalers and budgets.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use super::stage::Gateway;
use crate::harness::machine::Machine;

/// What was seen of one gateway.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// The fewest ready endpoints.
    least: Option<usize>,
    /// Every spec that the Service has had.
    specs: Vec<String>,
    /// Most autoscalers and most budgets at a time.
    autoscalers: usize,
    budgets: usize,
}

pub struct Watch {
    seen: Vec<(Gateway, Arc<Mutex<Seen>>)>,
    tasks: JoinSet<()>,
}

impl Watch {
    pub async fn start(machine: &'static Machine, gateways: &[Gateway]) -> Result<Watch> {
        let client = machine.client().await?;
        let (mut seen, mut tasks) = (Vec::new(), JoinSet::new());
        for gateway in gateways {
            let of = Arc::new(Mutex::new(Seen::default()));
            follow_all(&mut tasks, &client, *gateway, &of);
            seen.push((*gateway, of));
        }
        Ok(Watch { seen, tasks })
    }

    /// The fewest ready endpoints that each gateway had.
    fn least(&self) -> Vec<(Gateway, usize)> {
        self.seen
            .iter()
            .map(|(gateway, seen)| (*gateway, seen.lock().expect("seen").least.unwrap_or_default()))
            .collect()
    }

    /// Ends it. Never were there fewer ready endpoints than replicas, another spec of the Service, a second autoscaler or budget.
    pub fn held(self, what: &str) -> Result<()> {
        let least = self.least();
        println!("{what}: fewest ready endpoints {:?}", least.iter().map(|(g, n)| (g.name, *n)).collect::<Vec<_>>());
        self.one_of_each()?;
        for (gateway, least) in least {
            ensure!(
                least >= gateway.replicas,
                "{what}: {} had {least} ready endpoints, of {}",
                gateway.name,
                gateway.replicas
            );
        }
        Ok(())
    }

    /// The same, but that somebody else has taken pods, one at a time.
    pub fn held_but_for_evictions(self, what: &str) -> Result<()> {
        self.one_of_each()?;
        for (gateway, least) in self.least() {
            println!("{what}: fewest ready endpoints of {}: {least}", gateway.name);
            ensure!(least + 1 >= gateway.replicas, "{what}: {} had {least} ready endpoints", gateway.name);
        }
        Ok(())
    }

    fn one_of_each(&self) -> Result<()> {
        ensure!(!self.tasks.is_empty(), "nobody watched");
        for (gateway, seen) in &self.seen {
            let seen = seen.lock().expect("seen");
            ensure!(seen.least.is_some() && !seen.specs.is_empty(), "{} was not seen: {seen:?}", gateway.name);
            ensure!(seen.specs.len() == 1, "the Service of {} was changed: {:#?}", gateway.name, seen.specs);
            ensure!(seen.autoscalers <= 1, "{} had {} autoscalers", gateway.name, seen.autoscalers);
            ensure!(seen.budgets <= 1, "{} had {} budgets", gateway.name, seen.budgets);
        }
        Ok(())
    }
}

fn follow_all(tasks: &mut JoinSet<()>, client: &Client, gateway: Gateway, seen: &Arc<Mutex<Seen>>) {
    let Gateway { namespace, name, .. } = gateway;
    let api = |client: &Client| Api::<EndpointSlice>::namespaced(client.clone(), namespace);
    let of_service = Config::default().labels(&format!("kubernetes.io/service-name={name}"));
    let to = Arc::clone(seen);
    tasks.spawn(follow(api(client), of_service, move |slices: &BTreeMap<String, EndpointSlice>| {
        let ready = slices.values().map(ready_endpoints).sum();
        let mut seen = to.lock().expect("seen");
        seen.least = Some(seen.least.map_or(ready, |least| least.min(ready)));
    }));
    let named = Config::default().fields(&format!("metadata.name={name}"));
    let to = Arc::clone(seen);
    tasks.spawn(follow(
        Api::namespaced(client.clone(), namespace),
        named,
        move |services: &BTreeMap<String, Service>| {
            let mut seen = to.lock().expect("seen");
            let specs: Vec<String> = services.values().map(|service| format!("{:?}", service.spec)).collect();
            if seen.specs.last() != Some(&specs.concat()) {
                seen.specs.push(specs.concat());
            }
        },
    ));
    let to = Arc::clone(seen);
    let all = Config::default();
    tasks.spawn(follow(
        Api::namespaced(client.clone(), namespace),
        all.clone(),
        move |there: &BTreeMap<String, HorizontalPodAutoscaler>| {
            let mut seen = to.lock().expect("seen");
            seen.autoscalers = seen.autoscalers.max(there.len());
        },
    ));
    let to = Arc::clone(seen);
    tasks.spawn(follow(
        Api::namespaced(client.clone(), namespace),
        all,
        move |there: &BTreeMap<String, PodDisruptionBudget>| {
            let mut seen = to.lock().expect("seen");
            seen.budgets = seen.budgets.max(there.len());
        },
    ));
}

fn ready_endpoints(slice: &EndpointSlice) -> usize {
    let ready = |conditions: &k8s_openapi::api::discovery::v1::EndpointConditions| conditions.ready == Some(true);
    slice.endpoints.iter().filter(|endpoint| endpoint.conditions.as_ref().is_some_and(ready)).count()
}

/// Shows `look` all of them after each change. A watch that breaks is begun again: an API server may be restarted.
async fn follow<K>(api: Api<K>, config: Config, look: impl Fn(&BTreeMap<String, K>))
where
    K: kube::Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let (mut there, mut listed) = (BTreeMap::new(), BTreeMap::new());
    let mut events = pin!(watcher(api, config).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(object)) => {
                there.insert(object.name_any(), object);
            }
            Ok(Event::Delete(object)) => {
                there.remove(&object.name_any());
            }
            Ok(Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(Event::InitApply(object)) => {
                listed.insert(object.name_any(), object);
                continue;
            }
            Ok(Event::InitDone) => there = std::mem::take(&mut listed),
            Err(_) => continue,
        }
        look(&there);
    }
}
