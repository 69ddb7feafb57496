//! Who will write a Deployment's template again, and what a person does so that it gets another revision.
//!
//! Who it is, src/rollout/read finds out.

use std::sync::Arc;

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq)]
pub struct Owner {
    /// As people call it: `Helm`, `Argo CD`.
    pub tool: &'static str,
    /// Only of what somebody installs by hand.
    pub release: Option<Release>,
}

/// A release of Helm's.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    pub name: Arc<str>,
    pub namespace: Arc<str>,
    /// Name of its chart, without the version.
    pub chart: Option<Arc<str>>,
    /// The chart's version. Without it Helm takes the newest, whose defaults are not those that `--reuse-values` brings along.
    pub version: Option<Arc<str>>,
    /// It is applied by the API server (the default from Helm 4 on), which refuses to set what somebody else has set meanwhile.
    pub applied: bool,
}

/// Istio's own chart for gateways.
const CHART: &str = "gateway";

impl Owner {
    /// What is waited for, and below it what to type.
    pub fn to_move(&self, deployment: &str, revision: &str) -> String {
        let head = format!("{} to move Deployment {deployment} to {revision}:", self.tool);
        let Some(release) = &self.release else {
            return format!("{head}\nset revision {revision} where {} reads it, and let it apply that", self.tool);
        };
        let Release { name, namespace, chart, version, applied } = release;
        let version = version.as_deref().map_or_else(String::new, |version| format!(" --version {version}"));
        let (chart, own) = match chart.as_deref() {
            None | Some(CHART) => ("istio/gateway", ""),
            Some(_) => ("CHART", "\n(CHART, and the value that sets the revision, are the release's own)"),
        };
        // An autoscaler, or the number of replicas, where the chart has one of them.
        let (force, why) = if *applied {
            (" --force-conflicts", "\n(--force-conflicts gives Helm back what the rollout has set meanwhile)")
        } else {
            ("", "")
        };
        format!(
            "{head}\nhelm upgrade {name} {chart} -n {namespace}{version} --reuse-values --set-string revision={revision}{force}{own}{why}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(chart: &str, applied: bool) -> Owner {
        let chart = Some(Arc::from(chart));
        Owner {
            tool: "Helm",
            release: Some(Release {
                name: Arc::from("igw"),
                namespace: Arc::from("gw"),
                chart,
                version: Some(Arc::from("1.23.2")),
                applied,
            }),
        }
    }

    #[test]
    fn a_release_is_told_by_a_command() {
        let told = release("gateway", false).to_move("igw", "1-24");
        let command = "helm upgrade igw istio/gateway -n gw --version 1.23.2 --reuse-values --set-string revision=1-24";
        assert_eq!(told, format!("Helm to move Deployment igw to 1-24:\n{command}"));
        assert!(release("gateway", true).to_move("igw", "1-24").contains(&format!("{command} --force-conflicts\n(")));
        assert!(release("shop", false).to_move("igw", "1-24").contains("helm upgrade igw CHART -n gw"));
    }

    #[test]
    fn a_tool_that_reads_git_is_told_there() {
        let told = Owner { tool: "Argo CD", release: None }.to_move("igw", "1-24");
        assert!(told.ends_with("set revision 1-24 where Argo CD reads it, and let it apply that"));
    }
}
