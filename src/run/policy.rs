//! The policy file: read again when its content changes, never by file events; a bad new one keeps the old policy.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::admission::webhook::Shared;
use crate::rules::Policy;
use crate::telemetry::Metrics;
use crate::telemetry::health::Heartbeat;

/// How often the file is looked at. A ConfigMap takes up to a minute to reach the pod anyway.
pub const POLL: Duration = Duration::from_secs(2);

/// A policy file and what it last held.
pub struct File {
    path: PathBuf,
    text: String,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
}

/// Reads a policy file.
///
/// # Errors
/// The file, and what is wrong with it.
pub fn read(path: &Path) -> Result<(Policy, String), String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("--config {}: {e}", path.display()))?;
    let policy = Policy::parse(&text).map_err(|e| format!("--config {}: {e}", path.display()))?;
    Ok((policy, text))
}

impl File {
    /// Puts the file's policy in force and keeps an eye on it.
    ///
    /// # Errors
    /// At start a bad file is an error; later it is not.
    pub fn open(path: &Path, shared: Arc<Shared>, metrics: Arc<Metrics>) -> Result<File, String> {
        let (policy, text) = read(path)?;
        shared.policy.store(Arc::new(policy));
        metrics.policy_loaded();
        Ok(File { path: path.to_owned(), text, shared, metrics })
    }

    /// Looks once.
    pub fn look(&mut self) {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            // Between two symlink swaps there may be no file for a moment.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return,
            Err(e) => {
                self.refuse(&e.to_string());
                return;
            }
        };
        if text == self.text {
            return;
        }
        match Policy::parse(&text) {
            Ok(policy) => {
                self.shared.policy.store(Arc::new(policy));
                self.metrics.policy_loaded();
                tracing::info!(file = %self.path.display(), "policy reloaded");
            }
            Err(error) => self.refuse(&error),
        }
        // Also a refused content is remembered, so that it is reported once.
        self.text = text;
    }

    fn refuse(&self, error: &str) {
        self.metrics.policy_refused();
        tracing::error!(file = %self.path.display(), error, "the new policy is refused, the old one stays in force");
    }

    /// Looks until the process ends.
    pub async fn run(mut self, interval: Duration, heartbeat: Heartbeat) {
        let mut tick = tokio::time::interval(interval);
        loop {
            tick.tick().await;
            heartbeat.beat();
            // On a thread that may block: a file system that hangs must stop this task and no other.
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            match looked.await {
                Ok(file) => self = file,
                // A panic. Without its heartbeat the task counts as dead.
                Err(error) => {
                    tracing::error!(%error, "the policy file is no longer looked at");
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Mode;
    use crate::snapshot::Snapshot;

    #[test]
    fn a_bad_policy_keeps_the_old_one_and_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.yaml");
        std::fs::write(&path, "mode: warn").unwrap();
        let (shared, metrics) = (Shared::new(Snapshot::whole(), Policy::default()), Arc::new(Metrics::new()));
        let mut file = File::open(&path, Arc::clone(&shared), Arc::clone(&metrics)).unwrap();
        assert_eq!(shared.policy.load().mode, Mode::Warn);
        std::fs::write(&path, "mode: sometimes").unwrap();
        file.look();
        assert_eq!(shared.policy.load().mode, Mode::Warn);
        assert!(metrics.text().contains("revguard_policy_reload_errors_total 1"), "{}", metrics.text());
        file.look();
        assert!(metrics.text().contains("revguard_policy_reload_errors_total 1"), "the same content is refused once");
        std::fs::write(&path, "mode: audit").unwrap();
        file.look();
        assert_eq!(shared.policy.load().mode, Mode::Audit);
        std::fs::remove_file(&path).unwrap();
        file.look();
        assert_eq!(shared.policy.load().mode, Mode::Audit);
        assert!(File::open(&path, shared, metrics).is_err_and(|e| e.contains("--config")));
    }
}
