//! Policy reports: what stands, one object a namespace, in whichever API the cluster has.
//!
//! A report is written when its findings change and removed when there are none. What is there is listed once after this
//! replica began to lead; from then on it is known, because nobody else writes these objects, and looked at again when a
//! write does not find it as it was. Reports belong to the release's webhook configuration, so that they go with it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::names::Names;
use super::resource::{
    At, CLUSTER_POLICY_REPORTS, OPEN_CLUSTER_REPORTS, OPEN_REPORTS, POLICY_REPORTS, Resource, VALIDATING,
};
use super::send::{Method, send_with};
use super::write::{Change, Held, LONGEST, Manager, Write, WriteError, Writer};
use crate::audit::report::{self, Report, ReportApi};
use crate::cluster::Trouble;
use crate::cluster::request::version_path;
use crate::telemetry::metrics::Loop;

/// How often it is asked which API there is: it comes and goes with a CRD.
const ASK: Duration = Duration::from_secs(60);
/// Everything is listed again after so long, for what was changed by hand.
const RELIST: Duration = Duration::from_secs(1800);
/// Writes in one pass: the first audit of a large mesh spreads over some passes.
const AT_ONCE: usize = 100;

/// A report that is in the cluster.
struct Written {
    held: Held,
    /// Everything but what the API server adds.
    content: Value,
}

/// Keeps reports.
#[derive(Default)]
pub struct Keeper {
    api: Option<(Option<ReportApi>, Instant)>,
    /// By namespace, empty for the cluster's; `None`: not listed yet.
    written: Option<(BTreeMap<String, Written>, Instant)>,
    /// Whose end is theirs; `None`: not there, as after the break glass.
    owner: Option<Value>,
}

fn resource(api: ReportApi, namespaced: bool) -> &'static Resource {
    match (api, namespaced) {
        (ReportApi::WgPolicy, true) => &POLICY_REPORTS,
        (ReportApi::WgPolicy, false) => &CLUSTER_POLICY_REPORTS,
        (ReportApi::OpenReports, true) => &OPEN_REPORTS,
        (ReportApi::OpenReports, false) => &OPEN_CLUSTER_REPORTS,
    }
}

impl Keeper {
    /// Forgets what was known: another leader may have written meanwhile.
    pub fn forget(&mut self) {
        self.written = None;
    }

    /// Brings the cluster's reports to these.
    ///
    /// # Errors
    /// The first write that failed for a reason that the next pass will not overcome by itself.
    pub async fn keep(&mut self, writer: &Writer, names: &Names, reports: &[Report]) -> Result<(), WriteError> {
        let Some(api) = self.api(writer).await else { return Ok(()) };
        let owner = owner(writer, names).await?;
        if owner != self.owner {
            // With another one, what belonged to the former has gone or is about to.
            self.owner = owner;
            self.written = None;
        }
        if self.written.as_ref().is_none_or(|(_, at)| at.elapsed() > RELIST) {
            self.written = Some((list(writer, api).await?, Instant::now()));
        }
        let Some((written, _)) = &mut self.written else { return Ok(()) };
        let wanted: BTreeMap<String, Value> = reports
            .iter()
            .map(|r| {
                let mut manifest = r.manifest(api);
                if let Some(owner) = &self.owner {
                    manifest["metadata"]["ownerReferences"] = json!([owner]);
                }
                (r.namespace.as_ref().map(ToString::to_string).unwrap_or_default(), content(&manifest))
            })
            .collect();
        let gone: Vec<String> = written.keys().filter(|ns| !wanted.contains_key(*ns)).cloned().collect();
        let changed = wanted.iter().filter(|(ns, value)| written.get(*ns).is_none_or(|w| w.content != **value));
        let work = gone.iter().map(|ns| (ns, None)).chain(changed.map(|(ns, value)| (ns, Some(value))));
        let mut first = None;
        for (namespace, value) in work.take(AT_ONCE).collect::<Vec<_>>() {
            let before = written.remove(namespace);
            let at = At::of(resource(api, !namespace.is_empty()), namespace, report::NAME);
            let (boundary, change) = match (value, before) {
                (None, None) => continue,
                (None, Some(before)) => {
                    ("report-delete", Change::Delete { held: before.held.any_version(), foreground: false })
                }
                (Some(value), None) => ("report-create", Change::Create { object: value.clone() }),
                (Some(value), Some(before)) => {
                    let held = Some(before.held.any_version());
                    ("report", Change::Apply { object: value.clone(), manager: Manager::Controller, held })
                }
            };
            match writer.write(&Write { boundary, by: Loop::Reports, at, change }).await {
                Ok(object) => {
                    if let Some(value) = value {
                        let held = Held::of(&object);
                        written.insert(namespace.clone(), Written { held, content: value.clone() });
                    }
                }
                // Gone already is what was wanted; anything else is looked at again from the beginning.
                Err(WriteError::Missing { .. }) if value.is_none() => {}
                Err(error) => {
                    let over = matches!(error, WriteError::NotLeader { .. } | WriteError::Trouble { .. });
                    first.get_or_insert(error);
                    if over {
                        break;
                    }
                }
            }
        }
        match first {
            Some(error) => {
                self.written = None;
                Err(error)
            }
            None => Ok(()),
        }
    }

    /// The API that the cluster has, if it has one. Everybody may ask.
    async fn api(&mut self, writer: &Writer) -> Option<ReportApi> {
        if let Some((api, at)) = self.api
            && at.elapsed() < ASK
        {
            return api;
        }
        let mut found = None;
        for api in ReportApi::ALL {
            let path = version_path(api.group(), api.version());
            match send_with(writer.client(), Method::Get, &path, None, LONGEST).await {
                Ok(list) => {
                    let serves = |plural: &str| {
                        list["resources"].as_array().is_some_and(|all| all.iter().any(|r| r["name"] == plural))
                    };
                    // Both kinds, or the reports of some findings would be missing without a word.
                    if serves(api.plural(true)) && serves(api.plural(false)) {
                        found = Some(api);
                        break;
                    }
                }
                Err(Trouble::NotFound) => {}
                // Not known: what was known stays.
                Err(_) => return self.api.and_then(|(api, _)| api),
            }
        }
        if self.api.is_some_and(|(before, _)| before != found) {
            self.written = None;
        }
        self.api = Some((found, Instant::now()));
        found
    }
}

/// What reports belong to. It is no namespaced object, because they are in all namespaces.
async fn owner(writer: &Writer, names: &Names) -> Result<Option<Value>, WriteError> {
    let at = At::of(&VALIDATING, "", &names.release);
    let found = writer.read(&at).await.inspect_err(|_| writer.metrics().reconcile_error(Loop::Reports))?;
    Ok(found.map(|object| {
        let (version, uid) = (VALIDATING.api_version(), &object["metadata"]["uid"]);
        json!({"apiVersion": version, "kind": VALIDATING.kind, "name": names.release, "uid": uid})
    }))
}

/// Our reports as they are, of every namespace and of the cluster.
async fn list(writer: &Writer, api: ReportApi) -> Result<BTreeMap<String, Written>, WriteError> {
    let mut out = BTreeMap::new();
    for namespaced in [true, false] {
        let resource = resource(api, namespaced);
        let path = format!("{}?labelSelector=app.kubernetes.io%2Fmanaged-by%3Drevguard", resource.path(""));
        let list = send_with(writer.client(), Method::Get, &path, None, 2 * LONGEST).await.map_err(|trouble| {
            writer.metrics().reconcile_error(Loop::Reports);
            let at = resource.plural.to_owned();
            match trouble {
                Trouble::Forbidden(message) => WriteError::Forbidden { verb: "list", at, message },
                trouble => WriteError::Trouble { verb: "list", at, trouble },
            }
        })?;
        for item in list["items"].as_array().into_iter().flatten() {
            if item["metadata"]["name"] == report::NAME {
                let namespace = item["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
                out.insert(namespace, Written { held: Held::of(item), content: content(item) });
            }
        }
    }
    Ok(out)
}

/// What we decide about a report: everything but what tells one writing of it from another.
fn content(report: &Value) -> Value {
    let mut report = report.clone();
    if let Some(object) = report.as_object_mut() {
        object.retain(|key, _| !matches!(key.as_str(), "apiVersion" | "kind"));
    }
    if let Some(metadata) = report["metadata"].as_object_mut() {
        metadata.retain(|key, _| matches!(key.as_str(), "labels" | "annotations" | "ownerReferences"));
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_compared_without_what_the_api_server_adds() {
        let ours =
            json!({"kind": "PolicyReport", "metadata": {"name": "revguard", "labels": {"a": "b"}}, "results": []});
        let theirs = json!({"metadata": {"name": "revguard", "labels": {"a": "b"}, "uid": "u", "managedFields": []},
            "results": []});
        assert_eq!(content(&ours), content(&theirs));
        assert_ne!(content(&ours), content(&json!({"metadata": {"labels": {"a": "b"}}, "results": [1]})));
    }
}
