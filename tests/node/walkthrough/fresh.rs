//! From a clone to the demonstration's last line, as somebody sees it who has Rust and a C compiler and nothing else.

use anyhow::{Result, ensure};

use super::terminal::Terminal;

/// Lines of the demonstration that are told: the first verdict, and the last one.
const FIRST: usize = 10;
const LAST: usize = 5;

/// It compiles in the home of the person who types, so that nothing of the repository's own is there. Crates that cargo has downloaded
/// before are not downloaded again.
pub async fn tell(t: &mut Terminal) -> Result<()> {
    t.page.say("## Without a cluster\n\nWhat revguard does can be seen before there is a cluster to put it into; the last lines say how long that took.");
    t.types("git clone -q revguard.git").await?;
    let line = "cd revguard && time cargo run --release -- demo";
    let said = t.in_part(line, in_part).await?;
    ensure!(said.contains("18 writes judged over TLS, 18 as expected"), "another demonstration:\n{said}");
    t.quietly("rm -rf revguard").await?.passed()?;
    Ok(())
}

/// What cargo does is told by its first line and its last.
fn in_part(said: &str) -> String {
    let is_cargo = |line: &&str| {
        ["Compiling", "Downloading", "Downloaded", "Updating"].iter().any(|w| line.trim_start().starts_with(w))
    };
    let cargo: Vec<&str> = said.lines().filter(is_cargo).collect();
    let rest: Vec<&str> = said.lines().filter(|line| !is_cargo(line)).collect();
    let (begin, end) = (FIRST.min(rest.len()), rest.len().saturating_sub(LAST).max(FIRST.min(rest.len())));
    let elided = ["…"];
    let ends = cargo.first().into_iter().chain(&elided).chain(cargo.last());
    ends.chain(&rest[..begin]).chain(&elided).chain(&rest[end..]).map(|line| format!("{line}\n")).collect()
}
