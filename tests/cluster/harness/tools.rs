//! Where etcd, kube-apiserver, kube-controller-manager and kubectl come from.
//!
//! `KUBEBUILDER_ASSETS` wins when it is set: users of setup-envtest have these programs already.
//! Otherwise `tools/build.sh` builds them once from pinned Go modules. It knows the cache, the hash
//! and the lock; this module only runs it and reads the folder it prints. Where there is neither,
//! the answer is a sentence that says how to get them, never a silent pass: see `main`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// What can be run on this machine.
#[derive(Clone, Debug)]
pub struct Tools {
    pub etcd: PathBuf,
    pub kube_apiserver: PathBuf,
    pub kubectl: PathBuf,
    /// setup-envtest does not ship it. Without it no namespace ends and nothing is garbage-collected.
    pub kube_controller_manager: Option<PathBuf>,
}

/// Why there is no control plane, and how to get one.
#[derive(Clone, Debug)]
pub struct Missing(pub String);

const HOW: &str = "install Go 1.26 (they are then built once), or set KUBEBUILDER_ASSETS to a folder \
                   with etcd, kube-apiserver, kubectl and kube-controller-manager";

/// build.sh ends with this when there is no Go, and with anything else when a build went wrong.
const NO_GO: i32 = 3;

/// Found or built once a process.
///
/// # Panics
/// When the tools are meant to be there but are not: a broken build, a wrong `KUBEBUILDER_ASSETS`.
/// Skipping tests then would hide the mistake.
pub fn tools() -> Result<&'static Tools, Missing> {
    static TOOLS: OnceLock<Result<Tools, Missing>> = OnceLock::new();
    TOOLS
        .get_or_init(|| match std::env::var_os("KUBEBUILDER_ASSETS") {
            Some(assets) if !assets.is_empty() => Ok(from_assets(assets)),
            _ => build(),
        })
        .as_ref()
        .map_err(Clone::clone)
}

fn from_assets(folder: OsString) -> Tools {
    let folder = PathBuf::from(folder);
    let here = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
    let must = |name: &str| {
        here(name).unwrap_or_else(|| panic!("KUBEBUILDER_ASSETS is {}, and there is no {name} in it", folder.display()))
    };
    Tools {
        etcd: must("etcd"),
        kube_apiserver: must("kube-apiserver"),
        kubectl: must("kubectl"),
        kube_controller_manager: here("kube-controller-manager"),
    }
}

fn build() -> Result<Tools, Missing> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/tools/build.sh");
    // Cargo's own answer to where the target folder is, whichever way that was configured.
    let target =
        Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo's temporary folder is in the target folder");
    let output = Command::new(&script)
        .arg("control-plane")
        .env("CARGO_TARGET_DIR", target)
        .stdin(Stdio::null())
        // The progress of a cold build goes where the person looks.
        .stderr(Stdio::inherit())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            return Err(Missing(format!("{} cannot run ({error}); {HOW}", script.display())));
        }
    };
    if output.status.code() == Some(NO_GO) {
        return Err(Missing(HOW.to_owned()));
    }
    assert!(output.status.success(), "{} failed ({}); its own words are above", script.display(), output.status);
    let bin = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end());
    Ok(Tools {
        etcd: bin.join("etcd"),
        kube_apiserver: bin.join("kube-apiserver"),
        kubectl: bin.join("kubectl"),
        kube_controller_manager: Some(bin.join("kube-controller-manager")),
    })
}
