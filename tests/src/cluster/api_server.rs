//! etcd and kube-apiserver, on loopback addresses of their own or where a node finds them, with RBAC,
//! the default admission plugins and an audit log.

use std::{fs, net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Namespace, ServiceAccount},
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use parking_lot::Mutex;

use super::{
    Audit, ClusterIdentity, Credential, Kubectl, Tools, audit::POLICY, place::ServerPlace,
    storage::Storage,
};
use crate::{
    pki::{Authority, Draft, Leaf},
    process::Daemon,
    wait,
};

const ETCD_PORT: u16 = 2379;
const ETCD_PEER_PORT: u16 = 2380;
const API_PORT: u16 = 6443;

/// What a start may take; the server itself needs some 8 s on two idle cores.
const START: Duration = Duration::from_secs(120);

/// How long a server that was told to stop may answer what it was asked before.
const STOP: Duration = Duration::from_secs(60);

/// Who issues service account tokens, also their audience.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

const AUDIT_LOG: &str = "audit.log";

/// Lines of a log that a message shows.
const SHOWN: usize = 60;

/// Field manager of what the environment itself writes.
const MANAGER: &str = "test-environment";

/// A running control plane without controllers; everything in it ends with it.
pub struct ApiServer {
    // Processes end before the folder that they write to goes.
    daemon: Mutex<Option<Daemon>>,
    etcd: Mutex<Daemon>,
    tools: Tools,
    place: ServerPlace,
    authority: Authority,
    admin: ClusterIdentity,
    client: Client,
    kubectl: Kubectl,
    storage: Storage,
}

impl ApiServer {
    /// Starts both; returns once `/readyz` says so. The client lives on the calling runtime.
    ///
    /// # Errors
    /// When a program is not on this machine ([`super::Missing`]) or does not get ready; carries the end
    /// of its log.
    pub async fn start() -> Result<Self> {
        Self::start_in(Storage::new()?, ServerPlace::on_loopback()).await
    }

    pub(super) async fn start_in(storage: Storage, place: ServerPlace) -> Result<Self> {
        let tools = Tools::find()?;
        // Clients choose it by themselves, and must find one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let authority = Authority::new("Test Cluster");
        write_certificates(&storage, &authority, &place)?;
        fs::write(storage.path().join("audit-policy.yaml"), POLICY)?;
        let administrator = user(&authority, "admin", Some("system:masters"));
        let write = |name: &str, text: &str| fs::write(storage.path().join(name), text);
        write("admin.crt", &administrator.certificate)?;
        write("admin.key", &administrator.key)?;
        let admin = ClusterIdentity {
            server: format!("https://{}:{API_PORT}", place.api),
            authority: authority.certificate(),
            credential: Credential::Certificate(administrator),
        };
        let kubeconfig = storage.path().join("admin.kubeconfig");
        fs::write(&kubeconfig, admin.kubeconfig("default"))?;
        let etcd = start_etcd(&tools, &storage, place.etcd)?;
        let server = Self {
            daemon: Mutex::new(None),
            etcd: Mutex::new(etcd),
            client: admin.client("default").await?,
            kubectl: Kubectl::new(&tools.kubectl, &kubeconfig),
            admin,
            tools,
            place,
            authority,
            storage,
        };
        server.launch().await?;
        Ok(server)
    }

    /// Starts the API server again on the data it left; waits until it is ready.
    ///
    /// # Errors
    /// When it runs already or does not get ready.
    pub async fn launch(&self) -> Result<()> {
        let started = Daemon::start(
            "kube-apiserver",
            &self.tools.kube_apiserver,
            &self.arguments(),
            &[],
            &self.storage.path().join("kube-apiserver.log"),
        )?;
        ensure!(
            self.daemon.lock().replace(started).is_none(),
            "the API server ran already"
        );
        let ready = wait::until("the API server is ready", START, async || {
            if let Some(ended) = self.ended() {
                return Some(Err(ended));
            }
            let request = http::Request::get("/readyz").body(Vec::new()).ok()?;
            let answer = self.client.request_text(request).await;
            answer.ok().map(|_| Ok(()))
        })
        .await;
        ready
            .and_then(|outcome| outcome)
            .with_context(|| self.tails())
    }

    /// A process that ended by itself.
    fn ended(&self) -> Option<anyhow::Error> {
        let api = self.daemon.lock().as_mut().and_then(Daemon::exited);
        let etcd = self.etcd.lock().exited();
        api.or(etcd)
            .map(|status| anyhow::anyhow!("a process ended: {status}"))
    }

    fn tails(&self) -> String {
        let api = self.daemon.lock().as_ref().map(Daemon::tail);
        self.etcd.lock().tail() + &api.unwrap_or_default()
    }

    /// Ends the API server in order (SIGTERM); etcd and its data stay. Nothing when it does not run.
    ///
    /// # Errors
    /// When it had to be killed.
    pub async fn stop(&self) -> Result<()> {
        let running = self.daemon.lock().take();
        if let Some(mut daemon) = running {
            daemon.terminate(STOP).await?;
        }
        Ok(())
    }

    /// Ends the API server at once (SIGKILL): connections break. etcd and its data stay.
    pub fn kill(&self) {
        *self.daemon.lock() = None;
    }

    /// The API server answers nobody any more, connections alive, until [`Self::thaw`].
    pub fn freeze(&self) {
        if let Some(daemon) = self.daemon.lock().as_ref() {
            daemon.freeze();
        }
    }

    /// Undoes [`Self::freeze`].
    pub fn thaw(&self) {
        if let Some(daemon) = self.daemon.lock().as_ref() {
            daemon.thaw();
        }
    }

    /// A client of a member of `system:masters`, on the runtime that started the server.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Who [`Self::client`] is.
    pub fn admin(&self) -> &ClusterIdentity {
        &self.admin
    }

    /// kubectl as the admin.
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// What was asked of this server.
    pub fn audit(&self) -> Audit {
        Audit::at(&self.storage.path().join(AUDIT_LOG))
    }

    /// Somebody with a certificate of the cluster; roles are up to the test.
    pub fn user(&self, name: &str, group: Option<&str>) -> ClusterIdentity {
        ClusterIdentity {
            credential: Credential::Certificate(user(&self.authority, name, group)),
            ..self.admin.clone()
        }
    }

    /// A service account with a token of an hour; the account is made where there is none.
    ///
    /// # Errors
    /// When the server refuses, as in a namespace that is not there.
    pub async fn service_account(&self, namespace: &str, name: &str) -> Result<ClusterIdentity> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
        ensure_account(&accounts, name).await?;
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: vec![ISSUER.to_owned()],
                expiration_seconds: Some(3600),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let issued = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await?;
        let token = issued.status.context("a token was issued")?.token;
        Ok(ClusterIdentity {
            credential: Credential::Token(token),
            ..self.admin.clone()
        })
    }

    /// Writes `identity`'s kubeconfig where programs can read it; it ends with the server.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kubeconfig_file(
        &self,
        file: &str,
        identity: &ClusterIdentity,
        namespace: &str,
    ) -> Result<std::path::PathBuf> {
        let path = self.storage.path().join(format!("{file}.kubeconfig"));
        fs::write(&path, identity.kubeconfig(namespace))?;
        Ok(path)
    }

    /// kubectl as somebody, in `namespace` where nothing else is said; `file` names the kubeconfig.
    ///
    /// # Errors
    /// When the kubeconfig cannot be written.
    pub fn kubectl_as(
        &self,
        file: &str,
        identity: &ClusterIdentity,
        namespace: &str,
    ) -> Result<Kubectl> {
        let kubeconfig = self.kubeconfig_file(file, identity, namespace)?;
        Ok(Kubectl::new(&self.tools.kubectl, &kubeconfig))
    }

    /// The end of each log that speaks of `subject`, for messages.
    pub fn logs_about(&self, subject: &str) -> String {
        let mut files: Vec<_> = fs::read_dir(self.storage.path())
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|end| end == "log"))
            .filter(|path| !path.ends_with(AUDIT_LOG))
            .collect();
        files.sort();
        let mut all = String::new();
        for file in files {
            let log = fs::read(&file).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            if log.contains(subject) {
                let lines: Vec<_> = log.lines().collect();
                let from = lines.len().saturating_sub(SHOWN);
                all += &format!("--- {} ---\n{}\n", file.display(), lines[from..].join("\n"));
            }
        }
        all
    }

    /// Makes a namespace with the labels, and its service account `default`, which no controller is
    /// there to make.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn namespace(&self, name: &str, labels: &[(&str, &str)]) -> Result<()> {
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some(
                    labels
                        .iter()
                        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                        .collect(),
                ),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        Api::<Namespace>::all(self.client())
            .create(&PostParams::default(), &namespace)
            .await?;
        ensure_account(&Api::namespaced(self.client(), name), "default").await
    }

    /// The folder of the server's files and logs.
    pub fn directory(&self) -> &std::path::Path {
        self.storage.path()
    }

    pub(super) fn place(&self) -> &ServerPlace {
        &self.place
    }

    pub(super) fn tools(&self) -> &Tools {
        &self.tools
    }

    fn arguments(&self) -> Vec<String> {
        let path = |name: &str| self.storage.path().join(name).display().to_string();
        let ServerPlace { etcd, api, .. } = self.place;
        let reconciler = if self.place.has_nodes {
            "lease"
        } else {
            // It would publish the loopback address, which no Endpoints may hold.
            "none"
        };
        vec![
            format!("--etcd-servers=http://{etcd}:{ETCD_PORT}"),
            format!("--bind-address={api}"),
            format!("--advertise-address={api}"),
            format!("--secure-port={API_PORT}"),
            format!("--endpoint-reconciler-type={reconciler}"),
            // What asks a kubelet (exec, logs) does so as the admin, at the node's address.
            format!("--kubelet-client-certificate={}", path("admin.crt")),
            format!("--kubelet-client-key={}", path("admin.key")),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            format!("--tls-cert-file={}", path("server.crt")),
            format!("--tls-private-key-file={}", path("server.key")),
            format!("--client-ca-file={}", path("ca.crt")),
            format!("--cert-dir={}", path("generated")),
            // Controllers complain every few seconds where there is none.
            format!("--requestheader-client-ca-file={}", path("ca.crt")),
            "--requestheader-allowed-names=front-proxy".to_owned(),
            format!("--service-account-issuer={ISSUER}"),
            format!(
                "--service-account-signing-key-file={}",
                path("accounts.key")
            ),
            format!("--service-account-key-file={}", path("accounts.crt")),
            format!("--service-cluster-ip-range={}", self.place.services()),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--allow-privileged=true".to_owned(),
            format!("--audit-policy-file={}", path("audit-policy.yaml")),
            format!("--audit-log-path={}", path(AUDIT_LOG)),
            // An answered request is in the log.
            "--audit-log-mode=blocking-strict".to_owned(),
            "--profiling=false".to_owned(),
        ]
    }
}

async fn ensure_account(accounts: &Api<ServiceAccount>, name: &str) -> Result<()> {
    let account = serde_json::json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": name },
    });
    accounts
        .patch(name, &PatchParams::apply(MANAGER), &Patch::Apply(account))
        .await?;
    Ok(())
}

/// A certificate that says who one is (X.509 client authentication: CN is the user, O the group).
fn user(authority: &Authority, name: &str, group: Option<&str>) -> Leaf {
    authority.issue_as(&Draft {
        organisation: group.map(str::to_owned),
        ..Draft::of(&[name])
    })
}

fn write_certificates(storage: &Storage, authority: &Authority, place: &ServerPlace) -> Result<()> {
    let write = |name: &str, text: &str| fs::write(storage.path().join(name), text);
    let leaf = authority.issue_as(&Draft {
        ip_addresses: vec![place.api.into(), place.service(1).into()],
        ..Draft::of(&["kube-apiserver", "kubernetes.default.svc"])
    });
    write("ca.crt", &authority.certificate())?;
    write("server.crt", &leaf.certificate)?;
    write("server.key", &leaf.key)?;
    let accounts = Draft::of(&["service-accounts"]).self_signed();
    write("accounts.crt", &accounts.certificate)?;
    write("accounts.key", &accounts.key)?;
    Ok(())
}

fn start_etcd(tools: &Tools, storage: &Storage, address: Ipv4Addr) -> Result<Daemon> {
    let (client, peer) = (
        format!("http://{address}:{ETCD_PORT}"),
        format!("http://{address}:{ETCD_PEER_PORT}"),
    );
    let arguments = [
        "--name=test".to_owned(),
        format!("--data-dir={}", storage.data().join("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=test={peer}"),
        // The data need not outlive the machine.
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    Daemon::start(
        "etcd",
        &tools.etcd,
        &arguments,
        &[],
        &storage.path().join("etcd.log"),
    )
}
