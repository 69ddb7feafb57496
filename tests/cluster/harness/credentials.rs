//! Certificates, keys and kubeconfigs of one control plane, as files in its folder.

use std::path::{Path, PathBuf};

use anyhow::Result;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use super::audit;
use super::pki::{Authority, Pair, service_account_keys};
use super::rundir::RunDir;

/// What kube reads out of a kubeconfig.
pub async fn config_of(kubeconfig: &Path) -> Result<Config> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    Ok(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)
}

/// Absolute paths, because programs with other working folders read them.
pub fn certificate_user(dir: &RunDir, file: &str) -> Value {
    json!({
        "client-certificate": dir.join(&format!("{file}.crt")),
        "client-key": dir.join(&format!("{file}.key")),
    })
}

pub fn write_pair(dir: &RunDir, file: &str, pair: &Pair) -> Result<()> {
    std::fs::write(dir.join(&format!("{file}.crt")), &pair.certificate)?;
    std::fs::write(dir.join(&format!("{file}.key")), &pair.key)?;
    Ok(())
}

/// JSON is YAML.
pub fn write_kubeconfig(dir: &RunDir, port: u16, file: &str, user: &Value) -> Result<PathBuf> {
    let content = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {
            "server": format!("https://127.0.0.1:{port}"), "certificate-authority": dir.join("ca.crt"),
        }}],
        "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    });
    let path = dir.join(&format!("{file}.kubeconfig"));
    std::fs::write(&path, content.to_string())?;
    Ok(path)
}

/// Everything that the programs of a control plane and its administrator need.
pub fn write_all(dir: &RunDir, port: u16, authority: &Authority) -> Result<()> {
    std::fs::write(dir.join("ca.crt"), authority.pem())?;
    let server = authority.server(&["localhost", "127.0.0.1"])?;
    write_pair(dir, "apiserver", &server)?;
    let users = [("admin", "admin", Some("system:masters")), ("controllers", "system:kube-controller-manager", None)];
    for (file, name, group) in users {
        write_pair(dir, file, &authority.client(name, group)?)?;
        write_kubeconfig(dir, port, file, &certificate_user(dir, file))?;
    }
    let (private, public) = service_account_keys()?;
    std::fs::write(dir.join("service-accounts.key"), private)?;
    std::fs::write(dir.join("service-accounts.pub"), public)?;
    std::fs::write(dir.join("audit-policy.yaml"), audit::POLICY)?;
    Ok(())
}
