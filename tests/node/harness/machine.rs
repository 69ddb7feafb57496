//! Which cluster the tests run on.
//!
//! `REVGUARD_TEST_KUBECONFIG` names one that may be thrown away, and `REVGUARD_TEST_LOAD` a command that takes the path of an image
//! archive and gives the image to its nodes. Otherwise it is the node of this folder, if the machine can carry it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;

use super::door::Door;
use super::programs::{Said, built, command, repository, said, target};

pub struct Machine {
    pub kubeconfig: PathBuf,
    kubectl: PathBuf,
    helm: PathBuf,
    kind: Kind,
}

enum Kind {
    Node(Door),
    Given { load: String },
}

/// Why there is none, or why it did not come up.
#[derive(Clone, Debug)]
pub enum NotThere {
    /// This machine cannot: said, not failed.
    Lacks(String),
    Broken(String),
}

static MACHINE: OnceLock<Result<Machine, NotThere>> = OnceLock::new();

/// The cluster of this run, brought up by the first who asks.
pub fn machine() -> Result<&'static Machine, NotThere> {
    MACHINE.get_or_init(start).as_ref().map_err(Clone::clone)
}

/// Takes it down, if it is ours and nobody wants to look at it.
pub fn end() {
    if let Some(Ok(machine)) = MACHINE.get()
        && matches!(machine.kind, Kind::Node(_))
        && std::env::var_os("REVGUARD_NODE_KEEP").is_none()
        && let Err(error) = script(&["down"])
    {
        eprintln!("node.sh down: {error:#}");
    }
}

fn start() -> Result<Machine, NotThere> {
    let kind = match std::env::var("REVGUARD_TEST_KUBECONFIG") {
        Ok(path) if !path.is_empty() => {
            let load = std::env::var("REVGUARD_TEST_LOAD").map_err(|_| {
                NotThere::Lacks(
                    "REVGUARD_TEST_LOAD: a command that gives its nodes the image archive it is called with, such as \
                     `kind load image-archive`"
                        .to_owned(),
                )
            })?;
            return made(PathBuf::from(path), Kind::Given { load }).map_err(|e| NotThere::Broken(format!("{e:#}")));
        }
        _ => {
            let lacks = std::process::Command::new(node_script()).arg("needs").output();
            match lacks {
                Ok(output) if output.status.success() => Door::new().map(Kind::Node),
                Ok(output) => {
                    let lacks = String::from_utf8_lossy(&output.stdout).trim_end().replace('\n', ", ");
                    return Err(NotThere::Lacks(format!(
                        "{lacks}; or REVGUARD_TEST_KUBECONFIG and REVGUARD_TEST_LOAD, which name a cluster that may be \
                         thrown away"
                    )));
                }
                Err(error) => Err(error.into()),
            }
        }
    };
    let start = || -> Result<Machine> {
        let kubeconfig = target().join("node.kubeconfig");
        let machine = made(kubeconfig, kind?)?;
        // What a killed run has left behind.
        script(&["down"])?;
        machine.up()?;
        Ok(machine)
    };
    start().map_err(|error| NotThere::Broken(format!("{error:#}")))
}

fn made(kubeconfig: PathBuf, kind: Kind) -> Result<Machine> {
    Ok(Machine { kubeconfig, kubectl: built("control-plane", "kubectl")?, helm: built("helm", "helm")?, kind })
}

fn node_script() -> PathBuf {
    repository().join("tests/node/node.sh")
}

fn state() -> PathBuf {
    target().join("node")
}

/// Runs node.sh; its words go where a person looks.
fn script(arguments: &[&str]) -> Result<()> {
    let mut command = command(node_script()).into_std();
    let status = command.env("NODE_DIR", state()).args(arguments).status()?;
    ensure!(status.success(), "node.sh {}: {status}", arguments.join(" "));
    Ok(())
}

impl Machine {
    /// Why a test that needs the node's power switch cannot run here, if so.
    pub fn no_switch(&self) -> Option<String> {
        matches!(self.kind, Kind::Given { .. })
            .then(|| "the node of tests/node, which can lose power: unset REVGUARD_TEST_KUBECONFIG".to_owned())
    }

    /// From nothing, or again with the etcd that it had.
    pub fn up(&self) -> Result<()> {
        let Kind::Node(door) = &self.kind else { bail!("this cluster is not ours") };
        script(&["up"])?;
        let init = std::fs::read_to_string(state().join("init.pid"))?;
        door.enter(init.split(' ').next().context("a process")?.parse()?)?;
        let pki = |file: &str| state().join("pki").join(file);
        // JSON is YAML.
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "node",
            "clusters": [{"name": "node", "cluster": {
                "server": format!("https://{}", door.address()), "certificate-authority": pki("ca.crt"),
            }}],
            "users": [{"name": "admin", "user": {
                "client-certificate": pki("admin.crt"), "client-key": pki("admin.key"),
            }}],
            "contexts": [{"name": "node", "context": {"cluster": "node", "user": "admin"}}],
        });
        std::fs::write(&self.kubeconfig, kubeconfig.to_string())?;
        Ok(())
    }

    /// Ends everything at once; etcd and the images stay.
    pub fn power_cut(&self) -> Result<()> {
        ensure!(self.no_switch().is_none(), "this cluster is not ours");
        script(&["stop"])
    }

    /// Ends one program of the node.
    pub fn kill(&self, program: &str) -> Result<()> {
        ensure!(self.no_switch().is_none(), "this cluster is not ours");
        script(&["kill", program])
    }

    /// Ends one program of the node, which is started again at once.
    pub fn restart(&self, program: &str) -> Result<()> {
        ensure!(self.no_switch().is_none(), "this cluster is not ours");
        script(&["restart", program])
    }

    /// Gives the nodes an image.
    pub async fn load(&self, archive: &Path) -> Result<()> {
        let path = archive.to_str().context("a path in UTF-8")?;
        match &self.kind {
            Kind::Node(_) => script(&["load", path]),
            Kind::Given { load } => {
                let mut command = command("sh");
                command.args(["-c", &format!("{load} \"$0\""), path]);
                said(command, "").await?.passed().map(drop)
            }
        }
    }

    pub async fn kubectl(&self, arguments: &[&str], input: &str) -> Result<Said> {
        let mut command = command(&self.kubectl);
        command.env("KUBECONFIG", &self.kubeconfig).env("KUBECACHEDIR", target().join("kubecache")).args(arguments);
        said(command, input).await
    }

    pub async fn helm(&self, arguments: &[&str]) -> Result<Said> {
        let mut command = command(&self.helm);
        let home = target().join("helm");
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HELM_CACHE_HOME", home.join("cache"))
            .env("HELM_CONFIG_HOME", home.join("config"))
            .env("HELM_DATA_HOME", home.join("data"))
            .args(arguments);
        said(command, "").await
    }

    /// A client that never tries a request twice: that would hide a lost one.
    pub async fn client(&self) -> Result<Client> {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig)?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        config.default_retry = false;
        Ok(Client::try_from(config)?)
    }
}
