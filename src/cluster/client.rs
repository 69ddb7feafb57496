//! How we reach the API server: from inside a pod, or through a kubeconfig.
//!
//! Reads files and the environment once and asks the API server nothing; whoever uses the client learns whether it answers.

use std::path::{Path, PathBuf};

use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

/// Which cluster, as the command line says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// `--kubeconfig`. Without it, and without a context, the pod's own service account is used.
    pub kubeconfig: Option<PathBuf>,
    /// `--context`; else the kubeconfig's own current one.
    pub context: Option<String>,
}

/// Why there is no client. Each says what to change.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot read kubeconfig {path}: {error}; give --kubeconfig a file that this user may read")]
    Unreadable { path: String, error: std::io::Error },
    #[error("kubeconfig {path}: {error}; compare it with what `{view}` says")]
    Kubeconfig { path: String, error: String, view: String },
    #[error("kubeconfig {path} has no context {context:?} ({known}); choose one with --context")]
    NoContext { path: String, context: String, known: String },
    #[error("kubeconfig {path} names no current context ({known}); choose one with --context")]
    NoCurrentContext { path: String, known: String },
    #[error(
        "not in a cluster ({0}): KUBERNETES_SERVICE_HOST and a service account token are needed; run it in a pod, or give --kubeconfig FILE"
    )]
    NotInCluster(InClusterError),
    #[error(
        "cannot make a client for {server}: {error}; check certificate-authority, client-certificate and client-key"
    )]
    Tls { server: String, error: String },
}

/// Makes *ring* the process's one crypto provider. rustls panics where two are compiled in and none is chosen, so every
/// entry point calls this first; calling it again changes nothing.
pub fn install_crypto() {
    // An error says that a provider is there already, which is all that is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A client for the cluster that `access` names.
///
/// # Errors
/// A kubeconfig, context, certificate or service account that is missing or cannot be read.
pub async fn connect(access: &Access) -> Result<Client, ClientError> {
    let config = match (&access.kubeconfig, &access.context) {
        (None, None) => Config::incluster().map_err(ClientError::NotInCluster)?,
        (path, context) => from_file(path.as_deref(), context.as_deref()).await?,
    };
    client(config)
}

/// The same in the order of kubectl: `$KUBECONFIG` and `~/.kube/config` come before the pod's own service account.
///
/// # Errors
/// See [`connect`].
pub async fn connect_as_kubectl(access: &Access) -> Result<Client, ClientError> {
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".kube/config"));
    let has_file = std::env::var_os("KUBECONFIG").is_some_and(|v| !v.is_empty()) || home.is_some_and(|f| f.exists());
    let in_cluster = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    if *access == Access::default() && (has_file || !in_cluster) {
        return client(from_file(None, None).await?);
    }
    connect(access).await
}

fn client(mut config: Config) -> Result<Client, ClientError> {
    install_crypto();
    // Watches wait and repeat by themselves, with jitter and with a metric; a second, hidden loop below would
    // multiply with theirs.
    config.default_retry = false;
    let server = config.cluster_url.to_string();
    Client::try_from(config).map_err(|e| ClientError::Tls { server, error: chain(&e) })
}

async fn from_file(path: Option<&Path>, context: Option<&str>) -> Result<Config, ClientError> {
    let (shown, view, read) = match path {
        Some(path) => {
            let shown = path.display().to_string();
            let view = format!("kubectl config view --kubeconfig {shown}");
            (shown, view, Kubeconfig::read_from(path))
        }
        None => ("$KUBECONFIG or ~/.kube/config".to_owned(), "kubectl config view".to_owned(), Kubeconfig::read()),
    };
    let kubeconfig = read.map_err(|e| match e {
        KubeconfigError::ReadConfig(error, path) => ClientError::Unreadable { path: path.display().to_string(), error },
        other => ClientError::Kubeconfig { path: shown.clone(), error: first_line(&chain(&other)), view: view.clone() },
    })?;
    let names: Vec<&str> = kubeconfig.contexts.iter().map(|c| c.name.as_str()).collect();
    let known = if names.is_empty() { "it has none".to_owned() } else { format!("it has {}", names.join(", ")) };
    let current = kubeconfig.current_context.as_deref().filter(|c| !c.is_empty());
    match context.or(current) {
        None => return Err(ClientError::NoCurrentContext { path: shown, known }),
        Some(wanted) if !names.contains(&wanted) => {
            return Err(ClientError::NoContext { path: shown, context: wanted.to_owned(), known });
        }
        Some(_) => {}
    }
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|e| ClientError::Kubeconfig {
        path: shown,
        error: first_line(&chain(&e)),
        view,
    })
}

/// A parser's error goes on with a drawing of the place, behind which nothing more can be said.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// What the layers of a client call themselves; an operator wants what they wrap.
const HOLLOW: [&str; 5] = [
    "ServiceError: ",
    "client error (Connect): ",
    "client error (SendRequest): ",
    "tcp connect error: ",
    "dns error: ",
];

/// An error with what caused it: "client error (Connect)" alone tells an operator nothing.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    HOLLOW.iter().fold(layers(error), |text, hollow| text.replace(hollow, ""))
}

fn layers(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: 'https://localhost:1'}}]\nusers: [{name: u, user: {}}]\ncontexts: [{name: here, context: {cluster: c, user: u}}]\n";

    async fn error(text: &str, context: Option<&str>) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        std::fs::write(&path, text).unwrap();
        let access = Access { kubeconfig: Some(path), context: context.map(str::to_owned) };
        connect(&access).await.err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[tokio::test]
    async fn every_mistake_names_the_file_and_the_flag() {
        assert!(error(CONFIG, None).await.contains("no current context (it has here); choose one with --context"));
        assert!(error(CONFIG, Some("there")).await.contains("no context \"there\" (it has here)"));
        assert_eq!(error(CONFIG, Some("here")).await, "");
        assert!(error("clusters: 7", None).await.contains("kubectl config view"));
        let access = Access { kubeconfig: Some("/nowhere/config".into()), context: None };
        let text = connect(&access).await.err().unwrap().to_string();
        assert!(text.contains("/nowhere/config") && text.contains("--kubeconfig"), "{text}");
    }
}
