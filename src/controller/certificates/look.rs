//! One look at the cluster, in the order that the plan relies on: what may be replaced before what decides about it, and
//! the CA Secret last. Every read asks for what etcd holds now, none is served from a cache. What cannot be looked at besides
//! the Secrets is told as unseen: a certificate is renewed without it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use kube::Client;
use serde_json::Value;

use super::pem::{Chain, cas};
use super::plan::{Ca, Configuration, Id, Kept, Leaf, Memory, Replica, Seen, Served, Serving};
use super::{Settings, replicas};
use crate::cluster::Trouble;
use crate::controller::resource::{MUTATING, Resource, SECRETS, VALIDATING};
use crate::controller::send::{self, Method};
use crate::controller::write::LONGEST;
use crate::controller::{At, Held, Names};

/// Keys of the CA Secret.
pub const CURRENT: [&str; 2] = ["ca.crt", "ca.key"];
pub const NEXT: [&str; 2] = ["next.crt", "next.key"];
pub const OLD: &str = "old.crt";

/// Keys of the serving Secret.
pub const LEAF: [&str; 2] = ["tls.crt", "tls.key"];
pub const BUNDLE: &str = "ca.crt";

/// An object as it was read, for the write that follows.
pub struct Read {
    pub at: At,
    pub held: Held,
    pub object: Value,
}

impl Read {
    /// One key of a Secret.
    pub fn data(&self, key: &str) -> Vec<u8> {
        let text = self.object["data"][key].as_str().unwrap_or_default();
        STANDARD.decode(text).unwrap_or_default()
    }
}

/// What was read, beside what a plan is made from.
#[derive(Default)]
pub struct Look {
    pub seen: Seen,
    pub ca: Option<Read>,
    pub tls: Option<Read>,
    /// The serving certificate itself, which may be its own bundle.
    pub served: Option<Id>,
    pub configurations: BTreeMap<String, Read>,
}

/// Both configurations, by what a person calls them.
pub fn configurations(names: &Names) -> [(String, Resource); 2] {
    [VALIDATING, MUTATING].map(|resource| (format!("{}/{}", resource.kind, names.release), resource))
}

/// Looks once.
///
/// # Errors
/// A Secret that could not be read; that something is not there is an answer.
pub async fn look(
    client: &Client,
    settings: &Settings,
    needed: &[String],
    memory: &Memory,
    now: Timestamp,
) -> Result<Look, Trouble> {
    let names = &settings.names;
    let tls = get(client, At::of(&SECRETS, &names.namespace, &settings.secret)).await?;
    let mut look = Look { tls, ..Look::default() };
    let others = others(client, names, &mut look).await;
    look.ca = get(client, At::of(&SECRETS, &names.namespace, &names.ca())).await?;
    look.served = look.tls.as_ref().and_then(|tls| Some(Chain::read(&tls.data(LEAF[0]))?.id()));
    look.seen = understand(&look, others, (needed, memory), now);
    Ok(look)
}

/// The configurations, and what each replica serves.
async fn others(client: &Client, names: &Names, look: &mut Look) -> Result<Vec<replicas::Asked>, String> {
    for (name, resource) in configurations(names) {
        let read = get(client, At::of(&resource, "", &names.release)).await;
        if let Some(read) = read.map_err(|trouble| format!("{name} cannot be looked at: {trouble}"))? {
            look.configurations.insert(name, read);
        }
    }
    let pods = send::send_with(client, Method::Get, &names.webhook_pods(), None, LONGEST).await;
    Ok(replicas::ask(&pods.map_err(|trouble| format!("the webhook's pods cannot be listed: {trouble}"))?).await)
}

async fn get(client: &Client, at: At) -> Result<Option<Read>, Trouble> {
    const PATIENCE: Duration = LONGEST;
    match send::send(client, Method::Get, &at, None, PATIENCE).await {
        Ok(object) => Ok(Some(Read { at, held: Held::of(&object), object })),
        Err(Trouble::NotFound) => Ok(None),
        Err(trouble) => Err(trouble),
    }
}

fn understand(
    look: &Look,
    others: Result<Vec<replicas::Asked>, String>,
    (needed, memory): (&[String], &Memory),
    now: Timestamp,
) -> Seen {
    let kept = look.ca.as_ref().map(kept);
    let configurations: Vec<Configuration> = look
        .configurations
        .iter()
        .map(|(name, read)| Configuration {
            name: name.clone(),
            bundles: bundles(&read.object).map(|b| ids(&b)).collect(),
        })
        .collect();
    let mut published: BTreeMap<_, Ca> = BTreeMap::new();
    let noted = look.tls.iter().map(|tls| tls.data(BUNDLE));
    for bundle in look.configurations.values().flat_map(|read| bundles(&read.object)).chain(noted) {
        published.extend(cas(&bundle).into_iter().map(|ca| (ca.id.clone(), ca)));
    }
    let known: Vec<&Ca> = kept.iter().flat_map(Kept::all).chain(published.values()).collect();
    let serving = look.tls.as_ref().map(|tls| {
        let chain = Chain::read(&tls.data(LEAF[0]));
        let leaf = chain.and_then(|chain| {
            let (from, until) = chain.validity()?;
            let by = chain.signed_by(known.iter().copied(), now);
            Some(Leaf { by, from, until, sound: chain.fits(needed, &tls.data(LEAF[1])) })
        });
        Serving { leaf, bundle: ids(&tls.data(BUNDLE)) }
    });
    let served = |chain: Chain| {
        let by = chain.signed_by(known.iter().copied(), now)?;
        Some(Served { by, until: chain.validity()?.1 })
    };
    let (asked, unseen) = match others {
        Ok(asked) => (asked, None),
        Err(why) => (Vec::new(), Some(why)),
    };
    let replicas = asked.into_iter().map(|asked| Replica { name: asked.name, serves: asked.serves.map(served) });
    let replicas = replicas.collect();
    let mut seen = Seen { kept, serving, configurations, replicas, published, memory: memory.clone(), unseen };
    // Half a look tells nothing about what is true everywhere.
    if seen.unseen.is_none() {
        let mut memory = memory.clone();
        memory.note(&seen, now);
        seen.memory = memory;
    }
    seen
}

/// A CA whose key does not fit, or is not there, cannot sign: it is as if it were an old one.
fn kept(read: &Read) -> Kept {
    let mut old = cas(&read.data(OLD));
    let mut with_key = |[certificate, key]: [&str; 2]| {
        let ca = cas(&read.data(certificate)).into_iter().next()?;
        let chain = Chain::read(&read.data(certificate))?;
        if chain.fits(&[], &read.data(key)) {
            return Some(ca);
        }
        tracing::error!(ca = ca.name, key, "the key of this CA is missing or another's; it signs nothing any more");
        old.push(ca);
        None
    };
    let (current, next) = (with_key(CURRENT), with_key(NEXT));
    Kept { current, next, old }
}

/// The bundle of each webhook.
pub fn bundles(configuration: &Value) -> impl Iterator<Item = Vec<u8>> {
    configuration["webhooks"].as_array().into_iter().flatten().map(|webhook| {
        let text = webhook["clientConfig"]["caBundle"].as_str().unwrap_or_default();
        STANDARD.decode(text).unwrap_or_default()
    })
}

/// Every certificate of a bundle, also one that is no CA: it does not belong there and is put right.
fn ids(pem: &[u8]) -> BTreeSet<Id> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    CertificateDer::pem_slice_iter(pem).filter_map(|der| Some(super::pem::id(&der.ok()?))).collect()
}
