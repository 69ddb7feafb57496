//! `revguard rollout`: how gateway rollouts stand, and what a person says to them. Every word to them is a patch that kubectl could
//! send as well, and is printed as that.

mod draw;

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use super::paint::Paint;
use super::text::{room, terminal};
use super::{Failure, Live, Plain, table};
use crate::api::GatewayRollout;
use crate::api::gateway_rollout::Approval;
use crate::api::rollout_status::{Phase, Stage};
use crate::cluster;
use crate::model::key;
use crate::rollout::memory::Cause;

#[derive(Args)]
#[command(after_help = "Exit codes: 0 done or told, 2 bad input or usage, or not allowed.")]
pub struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Show rollouts as a table, or one of them whole
    Get(Get),
    /// Let the step pass that waits for an approval
    Approve(Approve),
    /// Hold a rollout at its next safe point
    Pause(One),
    /// Let a held rollout go on, also one that waits for a human
    Resume(One),
    /// Go back to the old revision for good; also after completion, while it lives
    Abort(One),
}

/// Where, as kubectl says it.
#[derive(Args)]
struct Place {
    /// The namespace; default: the context's own
    #[arg(short, long, value_name = "NAME", global = true)]
    namespace: Option<String>,
    #[command(flatten)]
    live: Live,
}

#[derive(Args)]
struct Get {
    /// The rollout; without it all of the namespace
    name: Option<String>,
    #[command(flatten)]
    place: Place,
    /// Rollouts of every namespace
    #[arg(short = 'A', long, conflicts_with_all = ["name", "namespace"])]
    all_namespaces: bool,
    /// Look again all the time, and show what has changed; one rollout is watched until it is over
    #[arg(short, long)]
    watch: bool,
    /// For a person or for a program
    #[arg(short, long, value_enum, default_value_t)]
    output: Plain,
}

#[derive(Args)]
struct One {
    /// The rollout
    name: String,
    #[command(flatten)]
    place: Place,
}

#[derive(Args)]
struct Approve {
    /// The rollout
    name: String,
    /// The step; default: the one that waits now
    #[arg(long, value_name = "STEP")]
    step: Option<String>,
    #[command(flatten)]
    place: Place,
}

/// What is said to a rollout by its spec alone.
#[derive(Clone, Copy, PartialEq)]
enum Word {
    Pause,
    Abort,
}

/// Between two looks of `--watch`: a rollout takes minutes, its pods seconds.
const EVERY: Duration = Duration::from_secs(1);

pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match &options.action {
            Action::Get(get) => shown(get).await,
            Action::Approve(approve) => approved(approve).await,
            Action::Pause(one) => said(one, Word::Pause).await,
            Action::Resume(one) => resumed(one).await,
            Action::Abort(one) => said(one, Word::Abort).await,
        }
    })
}

async fn api(place: &Place) -> Result<(Client, String), Failure> {
    let access = cluster::Access { kubeconfig: place.live.kubeconfig.clone(), context: place.live.context.clone() };
    let client = cluster::connect_as_kubectl(&access).await?;
    let namespace = place.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    Ok((client, namespace))
}

async fn one(api: &Api<GatewayRollout>, namespace: &str, name: &str) -> Result<GatewayRollout, Failure> {
    match api.get_opt(name).await {
        Ok(Some(found)) => Ok(found),
        Ok(None) => anyhow::bail!(
            "there is no GatewayRollout {name} in namespace {namespace}; `kubectl get gatewayrollouts -A` lists them"
        ),
        Err(error) => Err(explained(error).context(format!("GatewayRollout {namespace}/{name}"))),
    }
}

/// A cluster without our definition answers 404 to whoever lists.
fn explained(error: kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) if status.code == 404 => {
            anyhow::anyhow!("this cluster has no GatewayRollouts: `helm install revguard` brings their definition")
        }
        other => trouble(other),
    }
}

/// What the API server says against it is meant for a person: our own webhook, the definition's validations, who may what.
fn trouble(error: kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) if status.code != 401 => anyhow::anyhow!("{}", status.message),
        other => {
            let trouble = cluster::Trouble::from(other);
            anyhow::anyhow!("{trouble}{}", trouble.advice())
        }
    }
}

async fn shown(get: &Get) -> Result<ExitCode, Failure> {
    let (client, namespace) = api(&get.place).await?;
    let api: Api<GatewayRollout> =
        if get.all_namespaces { Api::all(client) } else { Api::namespaced(client, &namespace) };
    let out = std::io::stdout();
    let paint = Paint::of(&out);
    // A screen is drawn over; a file or a pipe gets what has changed, one after the other.
    let redrawn = get.watch && out.is_terminal() && get.output == Plain::Text;
    let mut last = String::new();
    let mut warned = String::new();
    loop {
        let (told, ended) = match told(get, &api, &namespace, paint).await {
            Ok(told) => told,
            Err(error) if last.is_empty() => return Err(error),
            // A watch outlives a restart of the API server.
            Err(error) => {
                let why = format!("{error:#}");
                if why != warned {
                    super::warn(&why);
                    warned = why;
                }
                (last.clone(), false)
            }
        };
        if told != last {
            warned.clear();
            let before = match (redrawn, last.is_empty()) {
                (true, _) => CLEAR.to_owned(),
                (false, false) if get.output == Plain::Text => format!("\n--- {:.0}\n", Timestamp::now()),
                _ => String::new(),
            };
            // What does not fit on the screen would scroll its head away; the end stays whole when it is over.
            let shown = if redrawn && !ended { on_screen(&told, terminal()) } else { told.clone() };
            super::print(format!("{before}{shown}").as_bytes())?;
            let _ = std::io::stdout().flush();
            last = told;
        }
        if !get.watch || ended {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// To the upper left corner, and nothing below.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// As many lines as the terminal (columns and lines) has room for, and how many more there are.
fn on_screen(told: &str, terminal: Option<(usize, usize)>) -> String {
    let Some((columns, height)) = terminal else { return told.to_owned() };
    let rows = |line: &str| columns_of(line).div_ceil(columns).max(1);
    if told.lines().map(rows).sum::<usize>() < height {
        return told.to_owned();
    }
    // One line says what is missing, and the cursor stands on another.
    let mut left = height.saturating_sub(2);
    let fits = |line: &&str| {
        let needed = rows(line);
        let fits = needed <= left;
        left = if fits { left - needed } else { 0 };
        fits
    };
    let shown: Vec<&str> = told.lines().take_while(fits).collect();
    format!("{}\n(and {} more lines)\n", shown.join("\n"), told.lines().count() - shown.len())
}

/// Columns that a line takes: colours take none.
fn columns_of(line: &str) -> usize {
    let mut parts = line.split('\x1b');
    let first = parts.next().map_or(0, |text| text.chars().count());
    first + parts.map(|part| part.split_once('m').map_or(0, |(_, text)| text.chars().count())).sum::<usize>()
}

/// What is shown, and whether it is one rollout that is over, of which nothing new is to be expected.
async fn told(get: &Get, api: &Api<GatewayRollout>, namespace: &str, paint: Paint) -> Result<(String, bool), Failure> {
    let now = Timestamp::now();
    if let Some(name) = &get.name {
        let rollout = one(api, namespace, name).await?;
        let phase = rollout.status.as_ref().map(|status| status.phase).unwrap_or_default();
        // One that is told to go back after its end is about to begin anew.
        let over = phase.is_over() && !(phase == Phase::Completed && rollout.spec.abort);
        let told = match get.output {
            Plain::Json => format!("{}\n", serde_json::to_string_pretty(&rollout)?),
            Plain::Text => draw::whole(&rollout, now, paint),
        };
        return Ok((told, over));
    }
    let all = api.list(&ListParams::default()).await.map_err(explained)?;
    if get.output == Plain::Json {
        return Ok((format!("{}\n", serde_json::to_string_pretty(&all.items)?), false));
    }
    if all.items.is_empty() {
        let place = if get.all_namespaces { "this cluster".to_owned() } else { format!("namespace {namespace}") };
        return Ok((format!("no GatewayRollout in {place}\n"), false));
    }
    let rows = all.items.iter().map(|r| draw::row(r, get.all_namespaces, now)).collect();
    // What the state says as well, or `rollout get NAME`, goes first where the screen is narrow.
    let spare = ["PAUSED", "GATEWAY", "AGE", "FROM", "WEIGHT", "STEP", "TO"];
    Ok((table::fitted(&draw::heads(get.all_namespaces), rows, room(), &spare), false))
}

/// The step that waits for an approval now. What will wait later is approved by its name: typed twice, the same line must not approve
/// the step after.
fn waiting(rollout: &GatewayRollout) -> Result<&str, Failure> {
    let (name, namespace) = (rollout.name_any(), rollout.namespace().unwrap_or_default());
    let at = rollout.status.as_ref().and_then(|s| s.step.as_ref());
    let steps = || rollout.spec.strategy.steps.iter().skip(at.map_or(0, |step| step.index as usize));
    if at.is_some_and(|step| step.stage == Stage::AwaitingApproval)
        && let Some(step) = steps().next()
    {
        return Ok(&step.name);
    }
    let later = steps().skip(usize::from(at.is_some())).find(|step| step.approval == Approval::Required);
    let ahead = later.map_or_else(String::new, |step| {
        let step = &step.name;
        format!(
            "; the next one that will is {step:?}: `revguard rollout approve {name} -n {namespace} --step {step}` approves it ahead"
        )
    });
    anyhow::bail!("no step of {name} waits for an approval now{ahead}")
}

async fn approved(approve: &Approve) -> Result<ExitCode, Failure> {
    let (client, namespace) = api(&approve.place).await?;
    let api: Api<GatewayRollout> = Api::namespaced(client, &namespace);
    let rollout = one(&api, &namespace, &approve.name).await?;
    let steps: Vec<&str> = rollout.spec.strategy.steps.iter().map(|s| s.name.as_str()).collect();
    let step = match &approve.step {
        Some(step) if steps.contains(&step.as_str()) => step.as_str(),
        Some(step) => anyhow::bail!("{} has no step {step:?} (steps: {})", approve.name, steps.join(", ")),
        None => waiting(&rollout)?,
    };
    let uid = rollout.uid().unwrap_or_default();
    annotated(&api, &approve.name, &format!("{uid}/{step}")).await?;
    super::print(format!("gatewayrollout.revguard.dev/{} step {step} approved\n", approve.name).as_bytes())
}

async fn resumed(one_: &One) -> Result<ExitCode, Failure> {
    let (client, namespace) = api(&one_.place).await?;
    let api: Api<GatewayRollout> = Api::namespaced(client, &namespace);
    let rollout = one(&api, &namespace, &one_.name).await?;
    let pause = rollout.status.as_ref().and_then(|s| s.pause.as_ref());
    let phase = rollout.status.as_ref().map(|s| s.phase).unwrap_or_default();
    let accepts = |reason: &str| {
        // It may end by itself, and a person may let it be as it is.
        Cause::ALL.into_iter().any(|cause| cause.as_str() == reason && cause.may_be_accepted())
    };
    if rollout.spec.paused {
        patched(&api, &one_.name, &json!({"spec": {"paused": false}})).await?;
    }
    // One that has given up going back tries again.
    let waits = phase == Phase::Failed || pause.is_some_and(|p| p.needs_human || accepts(&p.reason));
    match pause {
        _ if waits => {
            let uid = rollout.uid().unwrap_or_default();
            annotated(&api, &one_.name, &format!("{uid}/resume")).await?;
        }
        _ if rollout.spec.paused => {}
        Some(pause) if pause.reason == Cause::Approval.as_str() => anyhow::bail!(
            "{} waits for an approval: `revguard rollout approve {} -n {namespace}`",
            one_.name,
            one_.name
        ),
        Some(pause) => anyhow::bail!(
            "{} is held by {}, and goes on by itself when that ends: {}",
            one_.name,
            pause.reason,
            pause.message
        ),
        None => anyhow::bail!("{} is not held", one_.name),
    }
    super::print(format!("gatewayrollout.revguard.dev/{} goes on\n", one_.name).as_bytes())
}

async fn annotated(api: &Api<GatewayRollout>, name: &str, value: &str) -> Result<(), Failure> {
    let annotations = BTreeMap::from([(key::APPROVE, value)]);
    patched(api, name, &json!({"metadata": {"annotations": annotations}})).await
}

async fn patched(api: &Api<GatewayRollout>, name: &str, patch: &Value) -> Result<(), Failure> {
    let parameters = PatchParams { field_manager: Some("revguard-cli".to_owned()), ..PatchParams::default() };
    api.patch(name, &parameters, &Patch::Merge(patch)).await.map(drop).map_err(trouble)
}

async fn said(one_: &One, word: Word) -> Result<ExitCode, Failure> {
    let (client, namespace) = api(&one_.place).await?;
    let (api, name): (Api<GatewayRollout>, _) = (Api::namespaced(client, &namespace), &one_.name);
    let rollout = one(&api, &namespace, name).await?;
    let phase = rollout.status.as_ref().map(|s| s.phase).unwrap_or_default();
    if matches!(phase, Phase::RolledBack | Phase::Failed) {
        anyhow::bail!("{name} is over ({}): nothing that is said to it has an effect", phase.as_str());
    }
    let conditions = rollout.status.iter().flat_map(|s| &s.conditions);
    let no_way = { conditions }.find(|c| c.type_ == "RollbackAvailable" && c.status == "False");
    if let (Word::Abort, Phase::Completed, Some(no_way)) = (word, phase, no_way) {
        anyhow::bail!("{name} has completed and cannot go back: {}", no_way.message);
    }
    let (spec, comes_to) = match word {
        Word::Pause => (json!({"paused": true}), "holds at its next safe point"),
        // A rollout that is paused would not be let go back: abort does not wait.
        Word::Abort => (json!({"abort": true, "paused": false}), "goes back to the old revision"),
    };
    patched(&api, name, &json!({"spec": spec})).await?;
    super::print(format!("gatewayrollout.revguard.dev/{name} {comes_to}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_screen_keeps_the_head() {
        let told = "a\n\x1b[38;5;28mbbbb\x1b[0m\ncccccc\nd\ne\n";
        assert_eq!(on_screen(told, None), told);
        assert_eq!(on_screen(told, Some((4, 7))), told);
        assert_eq!(on_screen(told, Some((4, 6))), "a\n\x1b[38;5;28mbbbb\x1b[0m\ncccccc\n(and 2 more lines)\n");
        assert_eq!(on_screen(told, Some((4, 5))), "a\n\x1b[38;5;28mbbbb\x1b[0m\n(and 3 more lines)\n");
    }
}
