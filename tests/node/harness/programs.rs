//! Programs that tests run, and what they said.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Cargo's own answer to where the target folder is, whichever way that was configured.
pub fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo's temporary folder is in the target folder")
}

/// What a program answered.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    /// It was done.
    pub fn passed(self) -> Result<String> {
        ensure!(self.code == Some(0), "{}\n{}", self.err, self.out);
        Ok(self.out)
    }

    /// It was refused in words that contain all of these.
    pub fn refused(self, words: &[&str]) -> Result<String> {
        ensure!(self.code.is_some_and(|code| code != 0), "it was not refused: {}", self.out);
        for word in words {
            ensure!(self.err.contains(word), "no {word:?} in: {}", self.err);
        }
        Ok(self.err)
    }
}

/// A program of ours with the target folder that we use; what cargo tells tests is none of its business.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO") && text != "CARGO_HOME" || text == "LD_LIBRARY_PATH" {
            command.env_remove(&name);
        }
    }
    command.env("CARGO_TARGET_DIR", target()).current_dir(repository()).kill_on_drop(true);
    command
}

pub async fn said(mut command: Command, input: &str) -> Result<Said> {
    let what = format!("{:?}", command.as_std().get_program());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| what.clone())?;
    let mut stdin = child.stdin.take().context("stdin")?;
    // A program that does not read its input to the end is free to do so.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = child.wait_with_output().await.context(what)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    Ok(Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) })
}

/// kubectl and helm, built from their pinned modules.
pub fn built(component: &'static str, program: &'static str) -> Result<PathBuf> {
    static SCRIPT: OnceLock<PathBuf> = OnceLock::new();
    let script = SCRIPT.get_or_init(|| repository().join("tests/cluster/tools/build.sh"));
    let output = std::process::Command::new(script)
        .arg(component)
        .env("CARGO_TARGET_DIR", target())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "{} {component}: {}", script.display(), output.status);
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end()).join(program))
}
