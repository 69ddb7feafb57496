//! What somebody who watches a gateway during its rollout sees, a few dozen times a second.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, ensure};
use http::Method;
use kube::Client;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::{GW, Stage};
use crate::harness::raw::{As, send};

#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// Each new pair of phase and state, in order.
    pub story: Vec<(String, String)>,
    /// The fewest ready pods that the Service selects.
    pub fewest: Option<usize>,
    /// The most autoscalers and budgets at a time.
    pub hpas: usize,
    pub pdbs: usize,
}

/// Watches from the moment when it is made.
pub struct Watch {
    seen: Arc<Mutex<Watched>>,
    client: Client,
    ns: String,
    task: JoinHandle<()>,
}

impl Watch {
    pub fn start(stage: &Stage) -> Watch {
        let (client, ns) = (stage.env().plane.client(), stage.ns.clone());
        let seen = Arc::<Mutex<Watched>>::default();
        let (to, from, at) = (Arc::clone(&seen), client.clone(), ns.clone());
        let task = tokio::spawn(async move {
            loop {
                // The API server may be restarting.
                let _ = look(&from, &at, &to).await;
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        });
        Watch { seen, client, ns, task }
    }

    pub async fn end(self) -> Result<Watched> {
        self.task.abort();
        look(&self.client, &self.ns, &self.seen).await?;
        Ok(self.seen.lock().unwrap().clone())
    }
}

async fn look(client: &Client, ns: &str, to: &Mutex<Watched>) -> Result<()> {
    let get = async |path: String| send(client, Method::GET, &path, None, &As::default()).await?.expect(&path);
    let all = |group: &str, plural: &str| format!("{group}/namespaces/{ns}/{plural}");
    let pods = get(all("/api/v1", "pods")).await?;
    let hpas = get(all("/apis/autoscaling/v2", "horizontalpodautoscalers")).await?;
    let pdbs = get(all("/apis/policy/v1", "poddisruptionbudgets")).await?;
    let object =
        get(format!("{}/{ns}", all("/apis/revguard.dev/v1alpha1", "gatewayrollouts"))).await.unwrap_or_default();
    let items = |list: &Value| list["items"].as_array().cloned().unwrap_or_default();
    let serves = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        pod["metadata"]["labels"]["app"] == GW && pod["metadata"]["deletionTimestamp"].is_null() && { conditions }
            .any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    let serving = items(&pods).iter().filter(|pod| serves(pod)).count();
    let text = |key: &str| object["status"][key].as_str().unwrap_or_default().to_owned();
    let mut seen = to.lock().unwrap();
    let now = (text("phase"), text("state"));
    if seen.story.last() != Some(&now) && !now.0.is_empty() {
        seen.story.push(now);
    }
    seen.fewest = Some(seen.fewest.map_or(serving, |fewest| fewest.min(serving)));
    seen.hpas = seen.hpas.max(items(&hpas).len());
    seen.pdbs = seen.pdbs.max(items(&pdbs).len());
    Ok(())
}

impl Watched {
    /// The phases in their order.
    pub fn phases(&self) -> Vec<&str> {
        let mut all: Vec<&str> = self.story.iter().map(|(phase, _)| phase.as_str()).collect();
        all.dedup();
        all
    }

    /// Never fewer than the two that there were, never a second autoscaler or budget.
    pub fn kept_its_promises(&self) -> Result<()> {
        ensure!(self.fewest >= Some(2), "{} ready pods: {:?}", self.fewest.unwrap_or(0), self.story);
        ensure!(self.hpas == 1 && self.pdbs == 1, "{} autoscalers, {} budgets", self.hpas, self.pdbs);
        Ok(())
    }
}
