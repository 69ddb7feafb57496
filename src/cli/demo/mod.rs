//! `revguard demo`: the main job with no cluster at hand.
//!
//! The real HTTPS server over a mesh of manifests; an upgrade in a hurry is sent to it over TLS, as the API server would, and
//! each verdict is printed as kubectl would print it. The cluster is a stand-in: manifests in memory, changed by the writes
//! that are let through.

mod client;
mod story;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde_json::Value;

use self::client::Client;
use self::story::{Step, Write, steps};
use super::Failure;
use super::paint::Paint;
use super::text::message;
use crate::admission::compose::{self, Wanted};
use crate::admission::webhook::{Published, Shared};
use crate::model::{Id, Kind};
use crate::rules::{Policy, User};
use crate::run::demo::Demo;
use crate::snapshot::Snapshot;
use crate::wire::{manifest, row};

#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 every verdict was the expected one, 1 some was not, 2 the server could not start."
)]
pub struct Options {
    /// Keep serving after the story, and print a command that asks for a verdict
    #[arg(long)]
    serve: bool,
}

const MESH: &str = include_str!("mesh.yaml");
const WORLD: &str = include_str!("world.yaml");

/// Gateways in a control plane's custom resource are refused, as the upgrade guides advise; everything else is the default.
const POLICY: &str = "separateGateways: true";

/// The stand-in for a cluster: manifests by identity.
struct World {
    objects: BTreeMap<Id, Value>,
    shared: Arc<Shared>,
}

impl World {
    fn new() -> Result<Self, Failure> {
        let shared = Shared::new(Snapshot::whole(), Policy::parse(POLICY).map_err(anyhow::Error::msg)?);
        let mut world = World { objects: BTreeMap::new(), shared };
        for text in [MESH, WORLD] {
            let read = manifest::read("demo", text, "default");
            if let Some(problem) = read.problems.first() {
                anyhow::bail!("{problem}");
            }
            for document in read.documents {
                world.put(document.raw)?;
            }
        }
        Ok(world)
    }

    fn read(&self, raw: &Value) -> Result<manifest::Document, Failure> {
        let read = manifest::read("demo", &raw.to_string(), "default");
        if let Some(problem) = read.problems.first() {
            anyhow::bail!("{problem}");
        }
        read.documents
            .into_iter()
            .next()
            .ok_or_else(|| anyhow::anyhow!("an object of a kind that no rule looks at: {raw}"))
    }

    fn put(&mut self, raw: Value) -> Result<(), Failure> {
        let document = self.read(&raw)?;
        self.objects.insert(document.object.id(), raw);
        self.publish(|s| s.with(document.object));
        Ok(())
    }

    fn remove(&mut self, id: &Id) {
        self.objects.remove(id);
        self.publish(|s| s.without(id));
    }

    fn publish(&self, change: impl FnOnce(&Snapshot) -> Snapshot) {
        let snapshot = change(&self.shared.state.load().snapshot);
        self.shared.state.store(Arc::new(Published::of(snapshot)));
    }

    /// The stored object with `changes` merged in (RFC 7386), and the stored one.
    fn merged(&self, changes: &Value) -> Result<(Value, Value), Failure> {
        let id = self.read(changes)?.object.id();
        let old =
            self.objects.get(&id).cloned().ok_or_else(|| anyhow::anyhow!("{id:?} is not in the demonstration"))?;
        let mut new = old.clone();
        json_patch::merge(&mut new, changes);
        Ok((old, new))
    }
}

pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    let mut world = World::new()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let demo = Demo::start(Arc::clone(&world.shared)).await?;
        let client = Client::new(demo.address, demo.ca_pem())?;
        let paint = Paint::of(&std::io::stdout());
        let head = format!("revguard listens on https://{} (certificate made in memory)", demo.address);
        line(&format!("{}\n", super::text::broken(&head, "")))?;
        let mut wrong = 0;
        let mut writes = 0;
        for step in steps().map_err(anyhow::Error::msg)? {
            if let Write::Event(changes) = &step.write {
                line(&format!("{}\n", paint.dim(&message(&format!("-- {}", step.title)))))?;
                for change in changes {
                    let (_, new) = world.merged(change)?;
                    world.put(new)?;
                }
                continue;
            }
            writes += 1;
            wrong += usize::from(!play(&mut world, &client, &step, writes, paint).await?);
        }
        line(&format!("{writes} writes judged over TLS, {} as expected", writes - wrong))?;
        if options.serve {
            line(&format!(
                "\nStill serving. A namespace with both labels, judged from another terminal:\n\n{}\n\nCtrl-C ends it.",
                demo.curl()?
            ))?;
            tokio::signal::ctrl_c().await?;
        }
        demo.stop().await;
        Ok(ExitCode::from(u8::from(wrong > 0)))
    })
}

/// Sends one write and prints the verdict. True if it is the expected one.
async fn play(world: &mut World, client: &Client, step: &Step, number: usize, paint: Paint) -> Result<bool, Failure> {
    let user = User { name: "jane".into(), groups: vec!["system:authenticated".into()] };
    let uid = format!("00000000-0000-4000-8000-{number:012}");
    let (named, body, after) = match &step.write {
        Write::Create(raw) => {
            (raw.clone(), compose::body(kind(world, raw)?, &Wanted::Create(raw), &user, &uid, false), Some(raw.clone()))
        }
        Write::Update(changes) => {
            let (old, new) = world.merged(changes)?;
            let body = compose::body(kind(world, &new)?, &Wanted::Update { old: &old, new: &new }, &user, &uid, false);
            (new.clone(), body, Some(new))
        }
        Write::Delete(named) => {
            let (old, _) = world.merged(named)?;
            (old.clone(), compose::body(kind(world, &old)?, &Wanted::Delete(&old), &user, &uid, false), None)
        }
        Write::Scale(named, replicas) => {
            let (object, _) = world.merged(named)?;
            let body = compose::body(
                kind(world, &object)?,
                &Wanted::Scale { object: &object, replicas: *replicas },
                &user,
                &uid,
                false,
            );
            let mut new = object.clone();
            new["spec"]["replicas"] = (*replicas).into();
            (object, body, Some(new))
        }
        Write::Event(_) => return Ok(true),
    };
    let answer = client.validate(body).await?;
    let response = &answer["response"];
    line(&format!("{}\n$ {}", paint.bold(&message(&format!("{number}. {}", step.title))), step.types))?;
    for warning in response["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let told = message(&format!("Warning: {warning}"));
        line(&format!("{}{}", paint.yellow("Warning:"), told.trim_start_matches("Warning:")))?;
    }
    let document = world.read(&named)?;
    let allowed = response["allowed"] == true;
    if allowed {
        line(&paint.green(&done(&document, &step.write)))?;
        match after {
            Some(raw) => world.put(raw)?,
            None => world.remove(&document.object.id()),
        }
    } else {
        let why = response["status"]["message"].as_str().unwrap_or("without explanation");
        let webhook = webhook_of(document.object.kind());
        let refused = "Error from server (Forbidden):";
        let told = message(&format!("{refused} admission webhook {webhook:?} denied the request: {why}"));
        line(&format!("{}{}", paint.red(refused), told.trim_start_matches(refused)))?;
    }
    let denied: Vec<&str> =
        response["auditAnnotations"]["denied"].as_str().unwrap_or("").split(',').filter(|c| !c.is_empty()).collect();
    let right = response["uid"] == uid.as_str() && denied == step.expect && allowed == step.expect.is_empty();
    if !right {
        line(&format!("{} expected {:?}, got {denied:?}", paint.red("UNEXPECTED:"), step.expect))?;
    }
    line("")?;
    Ok(right)
}

fn line(text: &str) -> Result<(), Failure> {
    super::print(format!("{text}\n").as_bytes()).map(drop)
}

fn kind(world: &World, raw: &Value) -> Result<Kind, Failure> {
    Ok(world.read(raw)?.object.kind())
}

/// What kubectl says of a write that went through.
fn done(document: &manifest::Document, write: &Write) -> String {
    let row = row(document.object.kind());
    let kind = row.name.to_lowercase();
    let kind = if row.group.is_empty() { kind } else { format!("{kind}.{}", row.group) };
    let name = &document.object.meta().name;
    match write {
        Write::Create(_) => format!("{kind}/{name} created"),
        Write::Update(_) => format!("{kind}/{name} configured"),
        Write::Delete(_) => format!("{kind} {:?} deleted", &**name),
        Write::Scale(..) => format!("{kind}/{name} scaled"),
        Write::Event(_) => String::new(),
    }
}

/// The chart's webhook of a kind.
fn webhook_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Namespace => "namespaces.revguard.dev",
        Kind::Deployment | Kind::DaemonSet | Kind::StatefulSet | Kind::Job | Kind::CronJob => "workloads.revguard.dev",
        _ => "control-plane.revguard.dev",
    }
}
