//! A person at a terminal: types lines into a shell, reads what comes back, and keeps both for the page.
//!
//! The shell has kubectl, helm, revguard and istioctl in its path, a kubeconfig where everybody has it, and the folders that the docs speak of.
//! The person may do everything, but is not of the group that the guard lets through in an emergency. What a cluster does not know yet is
//! tried again, and only the last try is told.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::page::Page;
use crate::harness::machine::Machine;
use crate::harness::programs::{Said, built, command, repository, said, target};
use crate::harness::wait::wait_until;

/// How long a person looks whether something has come about. What takes longest is that an API server hears of a new admission policy.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long they watch a gateway.
const COURSE: Duration = Duration::from_secs(420);

/// So many lines that did not do what they should are enough.
const ENOUGH: usize = 6;

/// The longest that one line may take: a rollout is watched to its end, and a clone is compiled.
const AT_MOST: Duration = Duration::from_secs(1800);

/// From one look to the next.
const LOOK: Duration = Duration::from_millis(500);

pub struct Terminal {
    home: PathBuf,
    pub page: Page,
    /// Lines that did not do what they should, and what they did. The story goes on as far as it can, so that one run shows all of them.
    broken: Vec<String>,
}

impl Terminal {
    /// A home of its own, with nothing of a former run.
    pub fn open(machine: &Machine) -> Result<Terminal> {
        let home = target().join("walkthrough");
        if home.exists() {
            std::fs::remove_dir_all(&home)?;
        }
        for folder in ["bin", ".kube", "istio"] {
            std::fs::create_dir_all(home.join(folder))?;
        }
        let programs = [
            ("kubectl", built("control-plane", "kubectl")?),
            ("helm", built("helm", "helm")?),
            ("revguard", PathBuf::from(env!("CARGO_BIN_EXE_revguard"))),
            ("istioctl", repository().join("tests/node/walkthrough/istioctl")),
            ("cargo", PathBuf::from(env!("CARGO"))),
            ("rustc", Path::new(env!("CARGO")).with_file_name("rustc")),
        ];
        for (name, program) in programs {
            symlink(program, home.join("bin").join(name))?;
        }
        symlink(repository(), home.join("revguard.git"))?;
        symlink(repository().join("charts"), home.join("charts"))?;
        symlink(repository().join("tests/node/istiod"), home.join("istio/istiod"))?;
        symlink(repository().join("tests/node/gateway"), home.join("istio/gateway"))?;
        let mut kubeconfig: Value = serde_json::from_slice(&std::fs::read(&machine.kubeconfig)?)?;
        let user = &mut kubeconfig["users"][0]["user"];
        user["as"] = json!("jane");
        user["as-groups"] = json!(["people", "system:authenticated"]);
        std::fs::write(home.join(".kube/config"), kubeconfig.to_string())?;
        Ok(Terminal { home, page: Page::default(), broken: Vec::new() })
    }

    /// Types a line that is not told.
    pub async fn quietly(&self, line: &str) -> Result<Said> {
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", self.home.join("bin").display());
        let mut shell = command("bash");
        // What a person sees is both streams, as they come.
        shell.args(["-c", "exec 2>&1; eval \"$0\"", line]).current_dir(&self.home);
        shell.env("PATH", path).env("HOME", &self.home).env_remove("KUBECONFIG").env_remove("CARGO_TARGET_DIR");
        // Whoever types is at home elsewhere, and has downloaded what cargo has.
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
        shell.envs(std::env::var_os("CARGO_HOME").map(PathBuf::from).or(home).map(|home| ("CARGO_HOME", home)));
        tokio::time::timeout(AT_MOST, said(shell, ""))
            .await
            .with_context(|| format!("$ {line}: not within {AT_MOST:?}"))?
    }

    /// A file that the story needs, told and written.
    pub fn file(&mut self, name: &str, content: &str) -> Result<()> {
        self.page.file(name, content);
        self.keep(name, content)
    }

    /// The same, not told.
    pub fn keep(&self, name: &str, content: &str) -> Result<()> {
        Ok(std::fs::write(self.home.join(name), format!("{}\n", content.trim()))?)
    }

    /// Types a line that is done at once: nobody should have to type it again.
    pub async fn types(&mut self, line: &str) -> Result<String> {
        let said = self.strictly(line).await;
        let said = self.so(said)?;
        self.told(line, &said);
        Ok(said)
    }

    async fn strictly(&self, line: &str) -> Result<String> {
        let said = self.quietly(line).await?;
        match done(&said, &[]) {
            Ok(()) => Ok(said.out),
            Err(why) => bail!("$ {line}: {why}"),
        }
    }

    /// Types a line until it is done and says all of these.
    pub async fn until(&mut self, line: &str, words: &[&str]) -> Result<String> {
        let said = self.tried(line, |said| done(said, words)).await;
        let said = self.so(said)?;
        self.told(line, &said);
        Ok(said)
    }

    /// Puts it on the page, which a person can read while the story goes on.
    fn told(&mut self, line: &str, said: &str) {
        self.page.typed(line, said);
        // The page that counts is written in the end.
        let _ = std::fs::write(self.home.join("walkthrough.md"), self.page.text());
    }

    /// What a line said; that it was wrong is told in the end.
    fn so(&mut self, said: Result<String>) -> Result<String> {
        let error = match said {
            Ok(said) => return Ok(said),
            Err(error) => format!("{error:#}"),
        };
        println!("BROKEN: {error}");
        self.broken.push(error.clone());
        ensure!(self.broken.len() < ENOUGH, "too much is wrong:\n{}", self.broken.join("\n\n"));
        Ok(error)
    }

    /// Fails if anything was wrong, `told` included.
    pub fn end(mut self, told: Result<()>) -> Result<()> {
        self.broken.extend(told.err().map(|error| format!("{error:#}")));
        ensure!(self.broken.is_empty(), "the story does not hold:\n{}", self.broken.join("\n\n"));
        self.page.end()
    }

    /// Looks at a Deployment once its pods are as they are wanted.
    pub async fn rolled_out(&mut self, namespace: &str, deployment: &str) -> Result<String> {
        let line = format!("kubectl rollout status -n {namespace} deployment/{deployment}");
        let said = self.tried(&line, |said| done(said, &[])).await;
        self.so(said)?;
        // Pods that are ending count as pods.
        let ending = format!("kubectl get pods -n {namespace} -o jsonpath='{{.items[*].metadata.deletionTimestamp}}'");
        let nobody = |said: &Said| if said.out.is_empty() { Ok(()) } else { Err(said.out.clone()) };
        let said = self.tried(&ending, nobody).await;
        self.so(said)?;
        self.types(&line).await
    }

    /// The same as [`Terminal::until`], where what comes back differs from run to run.
    pub async fn once(&mut self, line: &str, words: &[&str]) -> Result<String> {
        let said = self.tried_for(COURSE, line, |said| done(said, words)).await;
        let said = self.so(said)?;
        self.page.typed_once(line, &said);
        Ok(said)
    }

    /// Types a line that says much and is told in part: `told` makes the part of it.
    pub async fn in_part(&mut self, line: &str, told: impl Fn(&str) -> String) -> Result<String> {
        let said = self.strictly(line).await;
        let said = self.so(said)?.replace(&*self.home.to_string_lossy(), "~");
        self.page.typed_once(line, &told(&said));
        Ok(said)
    }

    /// Watches a rollout to its end, which must be this one. A terminal draws each look over the one before; the page has one look of each
    /// state, the last one whole.
    pub async fn watches(&mut self, line: &str, end: &str) -> Result<()> {
        let said = self.quietly(line).await?.passed()?;
        let looks: Vec<&str> = said.split("\n--- ").collect();
        let head = |look: &&str| look.lines().find(|line| line.contains(" -> ")).unwrap_or_default().to_owned();
        let last = looks.last().context("a look")?;
        ensure!(head(last).contains(end), "it did not end as {end}:\n{last}");
        let mut told: Vec<String> = Vec::new();
        let mut seen = String::new();
        for look in &looks[..looks.len() - 1] {
            if head(look) != seen {
                seen = head(look);
                let endpoints = look.lines().find(|line| line.starts_with("endpoints"));
                told.extend([seen.clone()].into_iter().chain(endpoints.map(str::to_owned)));
            }
        }
        told.push(
            last.split_once('\n')
                .filter(|(first, _)| !first.contains(" -> "))
                .map_or(*last, |(_, rest)| rest)
                .to_owned(),
        );
        self.page.typed_once(line, &told.join("\n"));
        Ok(())
    }

    /// Types a line of kubectl's that is refused in words that contain these. Whether everybody knows by now that it must be is found out in a
    /// dry run, so that nothing is done that should not have been.
    pub async fn refused(&mut self, line: &str, words: &[&str]) -> Result<String> {
        if line.contains("kubectl ") {
            let trial = format!("{line} --dry-run=server");
            let said = self.tried(&trial, |said| refusal(said, words)).await;
            if said.is_err() {
                return self.so(said);
            }
        }
        let said = self.quietly(line).await?;
        let refused = refusal(&said, words).map(|()| said.out).map_err(|why| anyhow::anyhow!("$ {line}: {why}"));
        let said = self.so(refused)?;
        self.told(line, &said);
        Ok(said)
    }

    async fn tried(&self, line: &str, is: impl Fn(&Said) -> Result<(), String>) -> Result<String> {
        self.tried_for(PATIENCE, line, is).await
    }

    async fn tried_for(&self, limit: Duration, line: &str, is: impl Fn(&Said) -> Result<(), String>) -> Result<String> {
        let tries = Mutex::new(Vec::new());
        wait_until(limit, &format!("$ {line}"), || async {
            let said = self.quietly(line).await.map_err(|error| format!("{error:#}"))?;
            match is(&said) {
                Ok(()) => Ok(said.out),
                Err(why) => {
                    // Who reads the run learns what had to be typed more than once, which the page does not tell.
                    let mut tries = tries.lock().unwrap_or_else(PoisonError::into_inner);
                    if !tries.contains(&why) {
                        println!("AGAIN: $ {line}: {why}");
                        tries.push(why.clone());
                    }
                    drop(tries);
                    tokio::time::sleep(LOOK).await;
                    Err(why)
                }
            }
        })
        .await
    }

    /// Pastes the command with which a finding of `revguard status` says it is mended, as `status --all` prints it. What a person does in the
    /// editor that it opens is said with `editor`.
    pub async fn mends(&mut self, code: &str, object: &str, editor: Option<&str>) -> Result<String> {
        let told: Value = serde_json::from_str(&self.quietly("revguard status -o json").await?.passed()?)?;
        let results = told["results"].as_array().context("results")?;
        let is = |result: &&Value| result["code"] == code && result["object"]["name"] == object;
        let found = results.iter().find(is).with_context(|| format!("no {code} of {object} in {results:?}"))?;
        let fix = found["fix"].as_str().context("a fix")?;
        let line = fix.split("\n(").next().unwrap_or(fix);
        let printed = self.quietly("revguard status --all").await?.passed()?;
        ensure!(printed.contains(&format!("  fix: {line}")), "{code}: {line} is not what is printed:\n{printed}");
        match editor {
            Some(script) => self.types(&format!("KUBE_EDITOR='{script}' {line}")).await,
            None => self.types(line).await,
        }
    }
}

fn done(said: &Said, words: &[&str]) -> Result<(), String> {
    match said.code {
        Some(0) => all(said, words),
        code => Err(format!("exit code {code:?}: {}", said.out)),
    }
}

fn refusal(said: &Said, words: &[&str]) -> Result<(), String> {
    match said.code {
        Some(0) => Err(format!("it was not refused: {}", said.out)),
        _ => all(said, words),
    }
}

fn all(said: &Said, words: &[&str]) -> Result<(), String> {
    match words.iter().find(|word| !said.out.contains(**word)) {
        None => Ok(()),
        Some(word) => Err(format!("no {word:?} in: {}", said.out)),
    }
}
