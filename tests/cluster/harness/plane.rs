//! Starting, reaching and restarting one control plane.
//!
//! etcd and the API server talk through a socket in the run's folder, and the controller manager
//! serves nothing, so a control plane has a single TCP port. That port is held by us from before the
//! API server starts until after it ends ([`Port`]): nobody can take it in between, also not across a
//! restart, so there is nothing to retry.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use http::{HeaderName, HeaderValue};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tokio::sync::Mutex;

use super::audit;
use super::pki::{Authority, Pair, service_account_keys};
use super::process::{Process, tail};
use super::rundir::RunDir;
use super::tools::{Tools, tools};
use super::wait::wait_until;

/// From nothing to ready takes 2.5 s on two idle cores; a loaded CI machine gets twenty times that.
const START: Duration = Duration::from_secs(60);

/// The API server ends by itself 1.1 s after SIGTERM. Requests that a test left hanging may take
/// longer, and are then cut.
const STOP: Duration = Duration::from_secs(10);

/// The first address of the service range, which the API server's own Service gets.
const SERVICES: &str = "10.96.0.0/16";

/// What differs from one control plane to another.
#[derive(Clone, Debug)]
pub struct Options {
    /// Controllers by their names in `kube-controller-manager --controllers`; nothing else runs.
    /// Empty: the controller manager is not started at all.
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
        Options {
            controllers: names.iter().map(|&name| name.to_owned()).collect(),
            apiserver: Vec::new(),
        }
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
        let number = socket
            .local_addr()?
            .as_socket_ipv4()
            .context("a loopback port")?
            .port();
        Ok(Port {
            number,
            _held: socket,
        })
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
    /// Starts one and waits until the API server is ready. The controllers may still be starting:
    /// wait for what they do, not for them.
    pub async fn start(options: Options) -> Result<ControlPlane> {
        let tools = tools().map_err(|missing| anyhow!("no control plane: {}", missing.0))?;
        let dir = RunDir::create()?;
        let port = Port::hold()?;
        let authority = Authority::new("test-control-plane")?;
        write_credentials(&dir, port.number, &authority)?;
        let client = Client::try_from(config_of(&dir.join("admin.kubeconfig")).await?)?;

        let etcd = spawn(&dir, &tools.etcd, "etcd", &etcd_flags())?;
        let apiserver = spawn_apiserver(&dir, tools, port.number, &options)?;
        let plane = ControlPlane {
            options,
            authority,
            client,
            running: Mutex::new(Running {
                controllers: None,
                apiserver,
                etcd,
            }),
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
        let mut config = config_of(&path).await?;
        if groups.len() > 1 {
            let header = |key, value: &str| -> Result<_> {
                Ok((HeaderName::from_static(key), HeaderValue::from_str(value)?))
            };
            config.headers.push(header("impersonate-user", name)?);
            for group in groups {
                config.headers.push(header("impersonate-group", group)?);
            }
        }
        Ok(Client::try_from(config)?)
    }

    /// `https://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        url(self.port.number)
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
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '+' {
                    c
                } else {
                    '_'
                }
            })
            .collect();
        let user = match groups {
            [] | [_] => {
                let pair = self.authority.client(name, groups.first().copied())?;
                write_pair(&self.dir, &file, &pair)?;
                certificate_user(&self.dir, &file)
            }
            _ => {
                let mut user = certificate_user(&self.dir, "admin");
                user["as"] = json!(name);
                user["as-groups"] = json!(groups);
                user
            }
        };
        write_kubeconfig(&self.dir, self.port.number, &file, &user)
    }

    /// A kubeconfig with a token of an existing ServiceAccount: what a pod of it has in a cluster.
    pub async fn kubeconfig_of_service_account(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<PathBuf> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
        let answer = accounts
            .create_token_request(name, &PostParams::default(), &TokenRequest::default())
            .await?;
        let token = answer.status.context("a token")?.token;
        let file = format!("sa+{namespace}+{name}");
        write_kubeconfig(&self.dir, self.port.number, &file, &json!({"token": token}))
    }

    /// Runs the real kubectl as the administrator.
    pub async fn kubectl(&self, args: &[&str]) -> Result<Output> {
        self.kubectl_as(&self.kubeconfig(), args, "").await
    }

    /// Runs the real kubectl with any kubeconfig, `input` on its stdin (for `-f -`).
    pub async fn kubectl_as(
        &self,
        kubeconfig: &Path,
        args: &[&str],
        input: &str,
    ) -> Result<Output> {
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

    /// Ends the API server as an upgrade would (SIGTERM). The port stays ours; calls are refused.
    pub async fn stop_apiserver(&self) -> Result<()> {
        self.running.lock().await.apiserver.terminate(STOP).await?;
        Ok(())
    }

    /// Starts it again on the same port over the same data, and waits until it is ready.
    pub async fn start_apiserver(&self) -> Result<()> {
        let apiserver = spawn_apiserver(&self.dir, self.tools, self.port.number, &self.options)?;
        self.running.lock().await.apiserver = apiserver;
        self.ready().await
    }

    /// Both, in that order.
    pub async fn restart_apiserver(&self) -> Result<()> {
        self.stop_apiserver().await?;
        self.start_apiserver().await
    }

    /// The process ids of everything that runs.
    pub async fn pids(&self) -> Vec<u32> {
        let running = self.running.lock().await;
        let controllers = running.controllers.as_ref().map(Process::pid);
        [running.etcd.pid(), running.apiserver.pid()]
            .into_iter()
            .chain(controllers)
            .collect()
    }

    async fn ready(&self) -> Result<()> {
        let answered = wait_until(START, "a ready API server", || async {
            let mut running = self.running.lock().await;
            let Running {
                etcd, apiserver, ..
            } = &mut *running;
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
        let flags = controller_flags(&self.options.controllers);
        let process = spawn(&self.dir, program, "kube-controller-manager", &flags)?;
        self.running.lock().await.controllers = Some(process);
        Ok(())
    }
}

fn url(port: u16) -> String {
    format!("https://127.0.0.1:{port}")
}

/// Numbers for files of one process.
fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

async fn config_of(kubeconfig: &Path) -> Result<Config> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    Ok(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)
}

/// Absolute paths, because programs with other working folders read them.
fn certificate_user(dir: &RunDir, file: &str) -> Value {
    json!({
        "client-certificate": dir.join(&format!("{file}.crt")),
        "client-key": dir.join(&format!("{file}.key")),
    })
}

fn write_pair(dir: &RunDir, file: &str, pair: &Pair) -> Result<()> {
    std::fs::write(dir.join(&format!("{file}.crt")), &pair.certificate)?;
    std::fs::write(dir.join(&format!("{file}.key")), &pair.key)?;
    Ok(())
}

/// JSON is YAML.
fn write_kubeconfig(dir: &RunDir, port: u16, file: &str, user: &Value) -> Result<PathBuf> {
    let content = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {
            "server": url(port), "certificate-authority": dir.join("ca.crt"),
        }}],
        "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    });
    let path = dir.join(&format!("{file}.kubeconfig"));
    std::fs::write(&path, content.to_string())?;
    Ok(path)
}

fn write_credentials(dir: &RunDir, port: u16, authority: &Authority) -> Result<()> {
    std::fs::write(dir.join("ca.crt"), authority.pem())?;
    let server = authority.server(&["localhost", "127.0.0.1"])?;
    write_pair(dir, "apiserver", &server)?;
    let users = [
        ("admin", "admin", Some("system:masters")),
        ("controllers", "system:kube-controller-manager", None),
    ];
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
    let mut flags = apiserver_flags(port);
    flags.extend(options.apiserver.iter().cloned());
    spawn(dir, &tools.kube_apiserver, "kube-apiserver", &flags)
}

fn flags(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|&line| line.to_owned()).collect()
}

fn etcd_flags() -> Vec<String> {
    flags(&[
        "--data-dir=etcd",
        // Relative, because a socket's path may be 107 bytes long and the run's folder may be longer.
        "--listen-client-urls=unix://etcd.sock",
        "--advertise-client-urls=unix://etcd.sock",
        "--listen-peer-urls=unix://peer.sock",
        "--initial-advertise-peer-urls=unix://peer.sock",
        "--initial-cluster=default=unix://peer.sock",
        // Nothing here has to survive a power cut.
        "--unsafe-no-fsync",
        "--log-level=warn",
    ])
}

fn apiserver_flags(port: u16) -> Vec<String> {
    let mut all = flags(&[
        "--etcd-servers=unix://etcd.sock",
        "--bind-address=127.0.0.1",
        // What makes our hold on the port and the API server's own compatible.
        "--permit-port-sharing",
        "--tls-cert-file=apiserver.crt",
        "--tls-private-key-file=apiserver.key",
        "--client-ca-file=ca.crt",
        "--anonymous-auth=false",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-account-signing-key-file=service-accounts.key",
        "--service-account-key-file=service-accounts.pub",
        // It would publish a loopback address as the endpoint of Service `kubernetes`, and refuses.
        "--endpoint-reconciler-type=none",
        "--allow-privileged",
        // Pods need no ServiceAccount: no controller makes one unless a test asks for it.
        "--disable-admission-plugins=ServiceAccount",
        "--audit-policy-file=audit-policy.yaml",
        "--audit-log-path=audit.jsonl",
        // The entry of an answered request is in the file, not in a buffer.
        "--audit-log-mode=blocking",
        // /debug/pprof and contention counters: nobody looks.
        "--profiling=false",
    ]);
    all.push(format!("--secure-port={port}"));
    all.push(format!("--service-cluster-ip-range={SERVICES}"));
    all
}

fn controller_flags(controllers: &[String]) -> Vec<String> {
    let mut all = flags(&[
        "--kubeconfig=controllers.kubeconfig",
        // There is one, so there is nobody to elect.
        "--leader-elect=false",
        // It serves nothing: no second port.
        "--secure-port=0",
        // Webhooks then see `system:serviceaccount:kube-system:namespace-controller`, as on any real
        // cluster, and rules may depend on that.
        "--use-service-account-credentials",
        "--service-account-private-key-file=service-accounts.key",
        "--root-ca-file=ca.crt",
        // Twenty a second by default, which makes the end of a test's namespace a matter of seconds.
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]);
    all.push(format!("--controllers={}", controllers.join(",")));
    all
}
