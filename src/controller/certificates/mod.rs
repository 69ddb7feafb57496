//! Our own certificates: a CA and a serving certificate that are renewed without a call being lost, or a watch over those
//! that somebody else keeps.
//!
//! One leader looks, plans one step ([`plan`]), carries it out under a precondition, and looks again. It creates neither
//! Secrets nor webhook configurations: what is deleted by hand stays deleted. In external mode it only looks and reports.

pub mod issue;
mod look;
pub mod pem;
pub mod plan;
mod replicas;

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use self::issue::Pair;
use self::look::{BUNDLE, CURRENT, LEAF, Look, NEXT, OLD, Read};
use self::plan::{Id, Memory, Next, Seen, Step, Timing};
use super::write::WriteError;
use super::{Change, Held, Manager, Names, Write, Writer};
use crate::telemetry::Heartbeat;
use crate::telemetry::metrics::Loop;

/// Who keeps the certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// We do.
    #[default]
    Own,
    /// cert-manager or a person does; we only say whether it fits.
    External,
}

/// What the loop is told on the command line.
#[derive(Clone, Debug)]
pub struct Settings {
    pub names: Names,
    /// The Secret of the serving certificate, in the same namespace.
    pub secret: String,
    pub mode: Mode,
    pub timing: Timing,
    /// Further names and addresses of the serving certificate, beside those of the Service.
    pub further: Vec<String>,
    /// Longest pause between two looks: how long a caBundle that was changed by hand stays so.
    pub pause: Duration,
}

/// A look costs five small reads.
pub const PAUSE: Duration = Duration::from_secs(10);
/// After a step the next one follows at once, but never faster than this.
const BREATH: Duration = Duration::from_millis(50);
/// After a failed read or write.
const AFTER_TROUBLE: Duration = Duration::from_secs(2);

impl Settings {
    /// The names that the API server and people call us by.
    pub fn needed(&self) -> Vec<String> {
        let (service, namespace) = (self.names.webhook(), &self.names.namespace);
        let own = ["", ".svc", ".svc.cluster.local"].map(|suffix| match suffix {
            "" => format!("{service}.{namespace}"),
            suffix => format!("{service}.{namespace}{suffix}"),
        });
        own.into_iter().chain(self.further.iter().cloned()).collect()
    }
}

/// Looks, plans, writes; for as long as the process lives. Only a leader writes.
pub async fn run(settings: Settings, writer: Writer, heartbeat: Heartbeat) {
    let needed = settings.needed();
    let (memory, stood, said) = (Memory::default(), BTreeMap::new(), String::new());
    let mut keeper = Keeper { needed, settings, writer, memory, stood, said };
    loop {
        heartbeat.beat();
        let pause = keeper.round().await;
        heartbeat.beat();
        tokio::time::sleep(pause).await;
    }
}

struct Keeper {
    settings: Settings,
    needed: Vec<String>,
    writer: Writer,
    memory: Memory,
    /// Uid and bundles of each configuration as they last were, by our own writes or at the last look.
    stood: BTreeMap<String, (String, Vec<Vec<u8>>)>,
    /// The last reason to wait, so that each is logged once.
    said: String,
}

impl Keeper {
    /// One look and at most one write; how long to pause then.
    async fn round(&mut self) -> Duration {
        let now = Timestamp::now();
        let found = look::look(self.writer.client(), &self.settings, &self.needed, &self.memory, now).await;
        let look = match found {
            Ok(look) => look,
            Err(trouble) => {
                self.writer.metrics().reconcile_error(Loop::Certificates);
                self.say(&format!("certificates cannot be looked at: {trouble}"));
                return AFTER_TROUBLE;
            }
        };
        self.report(&look, now);
        if let Some(why) = &look.seen.unseen {
            self.writer.metrics().reconcile_error(Loop::Certificates);
            self.say(why);
        }
        let leads = self.writer.leadership().remaining().is_some();
        if self.settings.mode == Mode::External {
            return self.settings.pause;
        }
        if !leads {
            // Whoever leads next begins to count when it begins to lead: until then it has not looked often enough.
            self.memory = Memory::default();
            self.stood.clear();
            return self.settings.pause.min(AFTER_TROUBLE);
        }
        self.memory = look.seen.memory.clone();
        if look.seen.unseen.is_none() {
            self.notice_hands(&look);
        }
        match plan::plan(&look.seen, now, &self.settings.timing) {
            Next::Wait { .. } if look.seen.unseen.is_some() => AFTER_TROUBLE,
            Next::Wait { until, why } => {
                self.say(&why);
                let left = until.and_then(|until| Duration::try_from(until.duration_since(now)).ok());
                left.unwrap_or(self.settings.pause).clamp(BREATH, self.settings.pause)
            }
            Next::Do { step, why } => self.carry_out(&look, &step, &why, now).await,
        }
    }

    async fn carry_out(&mut self, look: &Look, step: &Step, why: &str, now: Timestamp) -> Duration {
        let write = match self.write_of(look, step, now) {
            Ok(write) => write,
            Err(error) => {
                self.writer.metrics().reconcile_error(Loop::Certificates);
                tracing::error!(%step, error, "a step cannot be taken");
                return self.settings.pause;
            }
        };
        match self.writer.write(&write).await {
            Ok(object) => {
                tracing::info!(%step, why, object = %write.at, "certificates");
                if let Step::Publish { configuration, .. } = step {
                    let stood = look::bundles(&object).collect();
                    self.stood.insert(configuration.clone(), (Held::of(&object).uid, stood));
                }
                self.said.clear();
                BREATH
            }
            // Somebody was faster: look again. What is refused is counted and logged where it is written.
            Err(WriteError::Moved { .. } | WriteError::NotLeader { .. }) => BREATH,
            Err(_) => AFTER_TROUBLE,
        }
    }

    /// Bundles that somebody else has written since the last look. The plan puts them right; here they are told.
    fn notice_hands(&mut self, look: &Look) {
        let now = look.configurations.iter().map(|(name, read)| {
            (name.clone(), (read.held.uid.clone(), look::bundles(&read.object).collect::<Vec<_>>()))
        });
        let now: BTreeMap<_, _> = now.collect();
        for (configuration, there) in &now {
            // Another uid is another object: whoever made it anew left the bundle to us.
            if self.stood.get(configuration).is_some_and(|stood| stood.0 == there.0 && stood.1 != there.1) {
                tracing::warn!(configuration, "a caBundle was changed by somebody else and is put back");
                self.writer.metrics().ca_bundle_restored();
            }
        }
        self.stood = now;
    }

    fn say(&mut self, why: &str) {
        if self.said != why {
            tracing::info!(waiting_on = why, "certificates");
            why.clone_into(&mut self.said);
        }
    }

    /// A step as a write.
    fn write_of(&self, look: &Look, step: &Step, now: Timestamp) -> Result<Write, String> {
        let timing = &self.settings.timing;
        let (boundary, read, change) = match step {
            Step::Make { adopt } | Step::Adopt { adopt } => {
                let read = look.ca.as_ref().ok_or("the CA Secret is not there")?;
                let mut data = data(read);
                let adopted: String = adopt.iter().map(|ca| &*ca.id).collect();
                put(
                    &mut data,
                    OLD,
                    format!("{}{adopted}", pem_of(&look.seen, |k| k.old.iter().map(|ca| ca.id.clone()).collect())),
                );
                if matches!(step, Step::Make { .. }) {
                    let pair = issue::authority(now, timing.ca_validity).map_err(|e| e.to_string())?;
                    put(&mut data, NEXT[0], pair.certificate);
                    put(&mut data, NEXT[1], pair.key);
                }
                ("certificates.keep", read, secret(read, data))
            }
            Step::Promote => {
                let read = look.ca.as_ref().ok_or("the CA Secret is not there")?;
                let mut data = data(read);
                let old = pem_of(&look.seen, |k| k.current.iter().chain(&k.old).map(|ca| ca.id.clone()).collect());
                put(&mut data, OLD, old);
                for (to, from) in CURRENT.iter().zip(NEXT) {
                    let value = data.remove(from).unwrap_or_default();
                    data.insert((*to).to_owned(), value);
                }
                ("certificates.promote", read, secret(read, data))
            }
            Step::Retire { drop } => {
                let read = look.ca.as_ref().ok_or("the CA Secret is not there")?;
                let mut data = data(read);
                let kept = |k: &plan::Kept| {
                    k.old.iter().map(|ca| ca.id.clone()).filter(|id| !drop.contains(id)).collect::<Vec<_>>()
                };
                put(&mut data, OLD, pem_of(&look.seen, kept));
                ("certificates.retire", read, secret(read, data))
            }
            Step::Sign { bundle } => {
                let read = look.tls.as_ref().ok_or("the serving Secret is not there")?;
                let pair = self.sign(look, now)?;
                let mut data = data(read);
                put(&mut data, LEAF[0], pair.certificate);
                put(&mut data, LEAF[1], pair.key);
                put(&mut data, BUNDLE, bundle.concat());
                ("certificates.sign", read, secret(read, data))
            }
            Step::Note { bundle } => {
                let read = look.tls.as_ref().ok_or("the serving Secret is not there")?;
                let mut data = data(read);
                put(&mut data, BUNDLE, bundle.concat());
                ("certificates.note", read, secret(read, data))
            }
            Step::Publish { configuration, bundle } => {
                let read = look.configurations.get(configuration).ok_or("the configuration is not there")?;
                ("certificates.publish", read, publish(read, bundle))
            }
        };
        Ok(Write { boundary, by: Loop::Certificates, at: read.at.clone(), change })
    }

    fn sign(&self, look: &Look, now: Timestamp) -> Result<Pair, String> {
        let read = look.ca.as_ref().ok_or("the CA Secret is not there")?;
        let text = |key| String::from_utf8(read.data(key)).map_err(|_| format!("{key} is not UTF-8"));
        let ca = Pair { certificate: text(CURRENT[0])?, key: text(CURRENT[1])? };
        let current = look.seen.kept.as_ref().and_then(|k| k.current.as_ref()).ok_or("there is no CA that signs")?;
        issue::leaf(&ca, current.until, &self.needed, (now, self.settings.timing.cert_validity))
            .map_err(|e| format!("no certificate for {}: {e}", self.needed.join(", ")))
    }

    /// What an operator's alarm hangs on: expiry, and whether API servers believe what is served.
    fn report(&self, look: &Look, now: Timestamp) {
        let metrics = self.writer.metrics();
        let seen = &look.seen;
        let leaf = seen.serving.as_ref().and_then(|s| s.leaf.as_ref());
        let current = match self.settings.mode {
            Mode::Own => seen.kept.as_ref().and_then(|k| k.current.as_ref()),
            Mode::External => leaf.and_then(|leaf| seen.published.get(leaf.by.as_ref()?)),
        };
        if let Some(ca) = current {
            metrics.ca(ca.until.as_second());
        }
        if let Some(leaf) = leaf {
            metrics.certificate(leaf.until.as_second());
        }
        if seen.unseen.is_some() {
            return;
        }
        for (name, resource) in look::configurations(&self.settings.names) {
            let there = seen.configurations.iter().find(|c| c.name == name);
            let believed = |by: &Id| there.is_some_and(|c| c.bundles.iter().all(|bundle| bundle.contains(by)));
            // An API server also believes a certificate that stands in the bundle itself and is no CA: the library of ours does not.
            let fits =
                leaf.is_some_and(|leaf| leaf.until > now && leaf.by.iter().chain(look.served.as_ref()).any(believed));
            // One that was deleted is another alarm's business.
            metrics.ca_bundle_current(resource.kind, there.is_none() || fits);
            if self.settings.mode == Mode::External && there.is_some() && !fits {
                tracing::warn!(
                    configuration = name,
                    secret = self.settings.secret,
                    "the caBundle does not verify the certificate in the Secret: whoever keeps them (cert-manager's \
                     cainjector, a person) has to put the CA there"
                );
            }
        }
    }
}

/// The PEM texts of some of the CAs that are kept, each once.
fn pem_of(seen: &Seen, which: impl Fn(&plan::Kept) -> Vec<Id>) -> String {
    let mut ids = seen.kept.as_ref().map(which).unwrap_or_default();
    ids.dedup();
    ids.concat()
}

/// What a Secret holds, in base64.
fn data(read: &Read) -> Map<String, Value> {
    read.object["data"].as_object().cloned().unwrap_or_default()
}

fn put(data: &mut Map<String, Value>, key: &str, text: String) {
    data.insert(key.to_owned(), json!(STANDARD.encode(text)));
}

/// The Secret's whole data, if it is still the one that was read.
fn secret(read: &Read, data: Map<String, Value>) -> Change {
    Change::Patch { operations: vec![json!({"op": "add", "path": "/data", "value": data})], held: read.held.clone() }
}

/// Only the bundles, by a field manager of their own, and only of the object that was read.
fn publish(read: &Read, bundle: &[Id]) -> Change {
    let text = STANDARD.encode(bundle.concat());
    let webhooks = read.object["webhooks"].as_array().into_iter().flatten();
    let webhooks: Vec<Value> =
        webhooks.map(|w| json!({"name": w["name"], "clientConfig": {"caBundle": text}})).collect();
    Change::Apply { object: json!({"webhooks": webhooks}), manager: Manager::Ca, held: Some(read.held.clone()) }
}
