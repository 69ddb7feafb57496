//! A controller that is ended at write boundaries, by the switch that its program has for this: see `src/run/kill.rs`.
//!
//! There is one replica, so that nobody else goes on, and its Lease is short. The kubelet starts it again; what it has
//! used up it marks in a folder of its pod.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::stage;
use crate::harness::guard::{CONTROLLER, NAMESPACE};
use crate::harness::machine::Machine;
use crate::harness::programs::target;

pub struct Armed {
    machine: &'static Machine,
    /// The Deployment's spec as it was.
    before: Value,
    places: Vec<String>,
    /// Where the kubelet keeps the folder of marks.
    marks: PathBuf,
}

impl Armed {
    /// From now on the controller dies once at each of these places.
    pub async fn at(machine: &'static Machine, places: &[String]) -> Result<Armed> {
        let before = stage::get(machine, NAMESPACE, "deployment", CONTROLLER).await?["spec"].clone();
        let mut spec = before.clone();
        spec["replicas"] = json!(1);
        // Two at a time would mean two folders.
        spec["strategy"] = json!({"type": "Recreate"});
        let pod = &mut spec["template"]["spec"];
        let container = &mut pod["containers"][0];
        append(&mut container["args"], json!("--lease-duration=3s"));
        append(&mut container["env"], json!({"name": "REVGUARD_KILL_AT", "value": places.join(",")}));
        append(&mut container["env"], json!({"name": "REVGUARD_KILL_MARKS", "value": "/marks"}));
        append(&mut container["volumeMounts"], json!({"name": "marks", "mountPath": "/marks"}));
        append(&mut pod["volumes"], json!({"name": "marks", "emptyDir": {}}));
        replace(machine, &spec).await?;
        let of = "app.kubernetes.io/component=controller";
        let pods = stage::pods(machine, NAMESPACE, of).await?;
        ensure!(pods.len() == 1, "{} controllers", pods.len());
        let uid = pods[0]["metadata"]["uid"].as_str().context("a uid")?;
        let marks = target().join("node/kubelet/pods").join(uid).join("volumes/kubernetes.io~empty-dir/marks");
        ensure!(marks.is_dir(), "{} is no folder", marks.display());
        Ok(Armed { machine, before, places: places.to_vec(), marks })
    }

    /// The places where it has died, as they were written.
    fn used(&self) -> Result<BTreeSet<String>> {
        let marked = std::fs::read_dir(&self.marks)?.collect::<std::io::Result<Vec<_>>>()?;
        let marked: BTreeSet<String> = marked.iter().map(|f| f.file_name().to_string_lossy().into_owned()).collect();
        let used = |place: &&String| {
            let mut parts = place.split(':');
            let (boundary, side) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            marked.contains(&format!("{boundary}.{side}.{}", parts.next().unwrap_or("1")))
        };
        Ok(self.places.iter().filter(used).cloned().collect())
    }

    /// The places where it has yet to die.
    pub fn left(&self) -> Result<Vec<&String>> {
        let used = self.used()?;
        Ok(self.places.iter().filter(|place| !used.contains(*place)).collect())
    }

    /// Ends it: each place was used, and the controller is as it was before.
    pub async fn disarm(self) -> Result<usize> {
        let used = self.used()?;
        println!(
            "the controller was killed at {} places: {}",
            used.len(),
            Vec::from_iter(&used).into_iter().map(String::as_str).collect::<Vec<_>>().join(", ")
        );
        let missed = self.left()?;
        replace(self.machine, &self.before).await?;
        ensure!(missed.is_empty(), "nobody came by at {missed:?}");
        Ok(used.len())
    }
}

fn append(list: &mut Value, item: Value) {
    if list.is_null() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut() {
        list.push(item);
    }
}

async fn replace(machine: &Machine, spec: &Value) -> Result<()> {
    let patch = json!([{"op": "replace", "path": "/spec", "value": spec}]).to_string();
    let arguments = ["patch", "deployment", CONTROLLER, "-n", NAMESPACE, "--type=json", "-p", &patch];
    machine.kubectl(&arguments, "").await?.passed()?;
    let name = format!("deployment/{CONTROLLER}");
    machine.kubectl(&["rollout", "status", &name, "-n", NAMESPACE, "--timeout=120s"], "").await?.passed()?;
    // Former pods give their Lease back.
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(())
}
