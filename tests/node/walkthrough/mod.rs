//! The whole of an upgrade as its first user lives it, typed into a terminal, on the real node: docs/walkthrough.md is what comes of it.
//!
//! It takes many minutes, so that it runs only where it is asked for: `make walkthrough`, which fails when the story no longer holds.
//! The mesh is that of tests/node/rollout: real Envoys in the gateways, under constant load from the first line to the last; control planes are
//! stand-ins. Each chapter begins with what the one before has left.

mod enforce;
mod fresh;
mod leave;
mod look;
mod mesh;
mod page;
mod terminal;
mod upgrade;

use anyhow::{Context, Result};
use libtest_mimic::Trial;

use self::terminal::Terminal;
use crate::harness::machine::Machine;
use crate::rollout::stage::BOTH;
use crate::rollout::traffic::Traffic;
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        Trial::test("walkthrough::page::two_runs_are_one_page", page::two_runs_are_one_page),
        trial!(Cluster, the_story_holds).with_ignored_flag(true),
    ]
}

const INTRODUCTION: &str = "
# An upgrade, from the first look to the last goodbye

Every command of this page was typed as it stands here, and what is below it is what came back: `make walkthrough` does it again on a real Kubernetes
node and fails when the story no longer holds (`UPDATE=1 make walkthrough` writes the page). Ages, addresses and the random ends of
pod names are made the same, and of what cargo and the demonstration say the middle is left out; nothing else is touched.

The gateways run a real Envoy, and requests come through them from the first look at the cluster to the last. istiod is a stand-in that serves, injects and
configures as far as is needed, installed by a chart of the same shape as Istio's (`istio/istiod` here); `istioctl` is a script that knows `tag set`.
The person who types may do everything in the cluster, but is not a member of `system:masters`.
";

async fn the_story_holds(machine: &'static Machine) -> Result<()> {
    let mut terminal = Terminal::open(machine)?;
    terminal.page.say(INTRODUCTION);
    fresh::tell(&mut terminal).await.context("from a clone")?;
    mesh::set(machine, &terminal).await.context("the mesh")?;
    let traffic = Traffic::start(machine, &BOTH).await?;
    let told = story(machine, &mut terminal).await;
    let tally = traffic.finish().await?;
    tally.print("the story");
    let streams = [("short", "that take a moment"), ("kept", "on kept connections"), ("long", "that take 20 s")];
    terminal.page.say("## Requests lost\n\nOf the requests that came through both gateways meanwhile:");
    for (stream, which) in streams {
        terminal.page.say(&format!("- {which}: {} lost", tally.only(stream).lost()));
    }
    terminal.end(told)?;
    tally.none_lost("the whole story")?;
    mesh::clear(machine).await
}

async fn story(machine: &'static Machine, terminal: &mut Terminal) -> Result<()> {
    look::tell(terminal).await.context("looking")?;
    enforce::tell(terminal).await.context("enforcing")?;
    upgrade::tell(machine, terminal).await.context("the upgrade")?;
    leave::tell(terminal).await.context("the end")
}
