//! Starting, reaching and restarting one control plane.
//!
//! etcd and the API server talk through a socket in the run's folder, and the controller manager
//! serves nothing, so a control plane has a single TCP port. That port is held by us from before the
//! API server starts until after it ends ([`Port`]): nobody can take it in between, also not across a
//! restart, so there is nothing to retry.

use rustix::process::Signal;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use http::{HeaderName, HeaderValue};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;
use socket2::{Domain, Socket, Type};
use tokio::sync::Mutex;

use super::pki::Authority;
use super::process::{Process, tail};
use super::rundir::RunDir;
use super::tools::{Tools, tools};
use super::wait::wait_until;
use super::{audit, credentials, flags};

/// From nothing to ready takes 2.5 s on two idle cores; a loaded CI machine gets twenty times that.
const START: Duration = Duration::from_secs(60);

/// The API server ends by itself 1.1 s after SIGTERM. Requests that a test left hanging may take
/// longer, and are then cut.
const STOP: Duration = Duration::from_secs(10);

/// Who the controller manager is before its controllers take names of their own.
const CONTROLLERS: &str = "system:kube-controller-manager";

/// What differs from one control plane to another.
#[derive(Clone, Debug)]
pub struct Options {
    /// Controllers by their names in `kube-controller-manager --controllers`; nothing else runs. `*`
    /// is all that are on by default. Empty: the controller manager is not started at all.
    pub controllers: Vec<String>,
    /// Appended to the API server's command line.
    pub apiserver: Vec<String>,
}

impl Default for Options {
    /// Namespaces end and owners' dependents are collected. Nothing else moves, so that a test's
    /// Deployment keeps the status that the test gave it.
    fn default() -> Self {
        Options::with_controllers(&["namespace-controller", "garbage-collector-controller"])
    }
}

impl Options {
    /// Exactly these controllers.
    pub fn with_controllers(names: &[&str]) -> Self {
        Options { controllers: names.iter().map(|&name| name.to_owned()).collect(), apiserver: Vec::new() }
    }
}

/// A port that is ours: bound with `SO_REUSEPORT` and never listened on. The API server binds it with
/// the same option; connections go to the one that listens. The kernel neither gives the port to
/// others who ask for a free one nor uses it for outgoing connections.
struct Port {
    number: u16,
    _held: Socket,
}

impl Port {
    fn hold() -> Result<Port> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_port(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let number = socket.local_addr()?.as_socket_ipv4().context("a loopback port")?.port();
        Ok(Port { number, _held: socket })
    }
}

/// The programs that run, in the order in which they have to end.
struct Running {
    controllers: Option<Process>,
    apiserver: Process,
    etcd: Process,
}

/// A running control plane. Dropping it ends everything and removes its folder.
pub struct ControlPlane {
    options: Options,
    authority: Authority,
    client: Client,
    running: Mutex<Running>,
    port: Port,
    tools: &'static Tools,
    // Last, because the programs above have files in it.
    dir: RunDir,
}

impl ControlPlane {
    /// Starts one and waits until the API server is ready and the controller manager has asked it
    /// something. Its controllers may still be filling their caches: wait for what they do.
    pub async fn start(options: Options) -> Result<ControlPlane> {
        let tools = tools().map_err(|missing| anyhow!("no control plane: {}", missing.0))?;
        let dir = RunDir::create()?;
        let port = Port::hold()?;
        let authority = Authority::new("test-control-plane")?;
        credentials::write_all(&dir, port.number, &authority)?;
        let client = Client::try_from(credentials::config_of(&dir.join("admin.kubeconfig")).await?)?;

        let etcd = spawn(&dir, &tools.etcd, "etcd", &flags::etcd())?;
        let apiserver = spawn_apiserver(&dir, tools, port.number, &options)?;
        let plane = ControlPlane {
            options,
            authority,
            client,
            running: Mutex::new(Running { controllers: None, apiserver, etcd }),
            port,
            tools,
            dir,
        };
        plane.ready().await?;
        plane.start_controllers().await?;
        Ok(plane)
    }

    /// The administrator's client (group `system:masters`).
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A client that the API server takes for `name` with `groups`.
    pub async fn user(&self, name: &str, groups: &[&str]) -> Result<Client> {
        let path = self.kubeconfig_of(name, groups)?;
        let mut config = credentials::config_of(&path).await?;
        if groups.len() > 1 {
            let header =
                |key, value: &str| -> Result<_> { Ok((HeaderName::from_static(key), HeaderValue::from_str(value)?)) };
            config.headers.push(header("impersonate-user", name)?);
            for group in groups {
                config.headers.push(header("impersonate-group", group)?);
            }
        }
        Ok(Client::try_from(config)?)
    }

    /// `https://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port.number)
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.kubeconfig")
    }

    /// A kubeconfig for `name` with `groups`; the API server adds `system:authenticated`.
    ///
    /// Up to one group it holds a certificate of that user. More do not fit into a name that rcgen
    /// makes, so then it holds the administrator's and impersonates. kubectl understands that; a
    /// program that uses kube ignores it and would be the administrator, so give it one group at most,
    /// or a service account's kubeconfig.
    pub fn kubeconfig_of(&self, name: &str, groups: &[&str]) -> Result<PathBuf> {
        // A file a user and set of groups; a name may hold characters that a path may not.
        let file: String = [&["as", name], groups]
            .concat()
            .join("+")
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '+' { c } else { '_' })
            .collect();
        let user = match groups {
            [] | [_] => {
                let pair = self.authority.client(name, groups.first().copied())?;
                credentials::write_pair(&self.dir, &file, &pair)?;
                credentials::certificate_user(&self.dir, &file)
            }
            _ => {
                let mut user = credentials::certificate_user(&self.dir, "admin");
                user["as"] = json!(name);
                user["as-groups"] = json!(groups);
                user
            }
        };
        credentials::write_kubeconfig(&self.dir, self.port.number, &file, &user)
    }

    /// A kubeconfig with a token of an existing ServiceAccount: what a pod of it has in a cluster.
    pub async fn kubeconfig_of_service_account(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
        let answer = accounts.create_token_request(name, &PostParams::default(), &TokenRequest::default()).await?;
        let token = answer.status.context("a token")?.token;
        let file = format!("sa+{namespace}+{name}");
        credentials::write_kubeconfig(&self.dir, self.port.number, &file, &json!({"token": token}))
    }

    /// Runs the real kubectl as the administrator.
    pub async fn kubectl(&self, args: &[&str]) -> Result<Output> {
        self.kubectl_as(&self.kubeconfig(), args, "").await
    }

    /// Runs the real kubectl with any kubeconfig, `input` on its stdin (for `-f -`).
    pub async fn kubectl_as(&self, kubeconfig: &Path, args: &[&str], input: &str) -> Result<Output> {
        let stdin = self.dir.join(&format!("stdin-{}", unique()));
        std::fs::write(&stdin, input)?;
        let mut command = clean_command(&self.tools.kubectl, &self.dir);
        command
            .env("KUBECONFIG", kubeconfig)
            .args(args)
            .stdin(std::fs::File::open(&stdin)?)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let _ = std::fs::remove_file(stdin);
        Ok(output)
    }

    /// What the API server has written to its audit log so far, `Metadata` level.
    pub fn audit(&self) -> Result<Vec<audit::Entry>> {
        audit::read(&self.dir.join("audit.jsonl"))
    }

    /// Sum of the API server's samples called `name` that carry all of `labels`; 0 if there are none,
    /// because a counter appears with its first event.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let text = self.raw("/metrics").await?;
        super::metrics::sum(&text, name, labels)
    }

    /// The body of a GET by the administrator, for what has no type.
    pub async fn raw(&self, path: &str) -> Result<String> {
        let request = http::Request::get(path).body(Vec::new())?;
        Ok(self.client.request_text(request).await?)
    }

    /// Ends the API server as an upgrade would (SIGTERM). The port stays ours; calls are refused. The
    /// controller manager ends first: one that is cut off while it starts tries again only after half a
    /// minute, so it is worth nothing to a test afterwards.
    pub async fn stop_apiserver(&self) -> Result<()> {
        let mut running = self.running.lock().await;
        running.controllers = None;
        running.apiserver.terminate(STOP).await?;
        Ok(())
    }

    /// The API server takes connections and answers nobody.
    pub async fn freeze_apiserver(&self) {
        self.running.lock().await.apiserver.signal(Signal::STOP);
    }

    /// It goes on where it was.
    pub async fn thaw_apiserver(&self) {
        self.running.lock().await.apiserver.signal(Signal::CONT);
    }

    /// Starts both again, the API server on the same port over the same data, and waits as
    /// [`Self::start`] does.
    pub async fn start_apiserver(&self) -> Result<()> {
        let apiserver = spawn_apiserver(&self.dir, self.tools, self.port.number, &self.options)?;
        self.running.lock().await.apiserver = apiserver;
        self.ready().await?;
        self.start_controllers().await
    }

    /// Both, in that order.
    pub async fn restart_apiserver(&self) -> Result<()> {
        self.stop_apiserver().await?;
        self.start_apiserver().await
    }

    /// The run's folder: a place for logs and files of programs under test. It is kept with the control
    /// plane's own logs when a test has failed.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// The process ids of everything that runs.
    pub async fn pids(&self) -> Vec<u32> {
        let running = self.running.lock().await;
        let controllers = running.controllers.as_ref().map(Process::pid);
        [running.etcd.pid(), running.apiserver.pid()].into_iter().chain(controllers).collect()
    }

    async fn ready(&self) -> Result<()> {
        let answered = wait_until(START, "a ready API server", || async {
            let mut running = self.running.lock().await;
            let Running { etcd, apiserver, .. } = &mut *running;
            // A program that has ended will not become ready; the deadline need not pass for that.
            if let Err(ended) = etcd.check().and_then(|()| apiserver.check()) {
                return Ok(Err(ended));
            }
            drop(running);
            match self.raw("/readyz").await {
                Ok(_) => Ok(Ok(())),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
        match answered {
            Ok(ready) => ready,
            Err(late) => {
                let log = self.running.lock().await.apiserver.log().to_owned();
                Err(late.context(format!("the end of {}:\n{}", log.display(), tail(&log))))
            }
        }
    }

    async fn start_controllers(&self) -> Result<()> {
        let Some(program) = &self.tools.kube_controller_manager else {
            return Ok(());
        };
        if self.options.controllers.is_empty() {
            return Ok(());
        }
        // Nothing is logged before the first start.
        let before = self.audit().map_or(0, |entries| entries.len());
        let flags = flags::controllers(&self.options.controllers);
        let process = spawn(&self.dir, program, "kube-controller-manager", &flags)?;
        self.running.lock().await.controllers = Some(process);
        // It serves nothing that could be asked. Its first request proves that its flags are good: a
        // misspelt controller would otherwise show as a test that waits for nothing until its deadline.
        wait_until(START, "the controller manager's first request", || async {
            let mut running = self.running.lock().await;
            if let Some(Err(ended)) = running.controllers.as_mut().map(Process::check) {
                return Ok(Err(ended));
            }
            drop(running);
            let entries = self.audit().map_err(|error| format!("{error:#}"))?;
            let seen = entries.iter().skip(before).any(|entry| entry.user().username == CONTROLLERS);
            seen.then_some(Ok(())).ok_or_else(|| "none yet".to_owned())
        })
        .await?
    }
}

/// Numbers for files of one process.
fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A command that knows nothing of our environment (proxies, somebody's kubeconfig) and works in the
/// run's folder, where every path below is relative to.
fn clean_command(program: &Path, dir: &RunDir) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", dir.path())
        .current_dir(dir.path());
    command
}

fn spawn(dir: &RunDir, program: &Path, name: &str, flags: &[String]) -> Result<Process> {
    let mut command = clean_command(program, dir);
    command.args(flags);
    Process::spawn(name, command, dir.join(&format!("{name}.log")))
}

fn spawn_apiserver(dir: &RunDir, tools: &Tools, port: u16, options: &Options) -> Result<Process> {
    let mut all = flags::apiserver(port);
    all.extend(options.apiserver.iter().cloned());
    spawn(dir, &tools.kube_apiserver, "kube-apiserver", &all)
}
