//! Contacts of unverified partners in a PostgreSQL that the pools of two sites share.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    client::Client,
    cluster::{images::SERVERS, inside::CHAT},
    peer::{Behaviour, Identity, Login, Peer, PeerServer},
    pki::{Leaf, Usage},
    servers::S2S_PORT,
    wait,
};

use crate::{
    pods::Pod,
    stage::{EDGE, OWN, SOON, STAGE, Stage},
};

/// A domain whose users are strangers until somebody adds them.
const STRANGERS: &str = "stranger.example";
/// The pools' internal listener.
const INTERNAL_PORT: u16 = 23456;

/// Makes the role and database once, then serves by TLS and with passwords only.
const SERVE: &str = r#"
bin=$(echo /usr/lib/postgresql/*/bin)
$bin/initdb --auth=trust --username=postgres --no-sync --encoding=UTF8 -D /data/db
printf 'local all all trust\nhostssl all all all scram-sha-256\n' >/data/db/pg_hba.conf
printf "CREATE ROLE edge LOGIN PASSWORD 'secret';\nCREATE DATABASE edge OWNER edge;\n" |
    $bin/postgres --single -D /data/db postgres
exec $bin/postgres -D /data/db -c listen_addresses='*' -c unix_socket_directories=/tmp -c fsync=off \
    -c ssl=on -c ssl_cert_file=/tls/tls.crt -c ssl_key_file=/tls/tls.key
"#;

/// The database's pod, Service and certificate.
fn database(leaf: &Leaf) -> [Value; 3] {
    let metadata = json!({"name": "postgres", "namespace": CHAT});
    let labels = json!({"app": "postgres"});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata,
        "stringData": {"tls.crt": leaf.certificate, "tls.key": leaf.key}});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": {"selector": labels, "ports": [{"port": 5432}]}});
    let container = json!({"name": "postgres", "image": SERVERS, "command": ["sh", "-ec", SERVE],
        "readinessProbe": {"tcpSocket": {"port": 5432}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "tmp", "mountPath": "/tmp"},
            {"name": "tls", "mountPath": "/tls"}]});
    let pod = json!({"automountServiceAccountToken": false, "containers": [container],
        "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}},
            {"name": "tls", "secret": {"secretName": "postgres", "defaultMode": 0o440}}]});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}});
    [secret, service, deployment]
}

/// Changes where both pools keep their contacts, and waits until their pods are exchanged for it.
async fn keep_contacts(stage: &Stage, spec: &Value) -> Result<()> {
    let all = |stage: &Stage| -> Result<Vec<Pod>> {
        Ok([stage.pods("hq")?, stage.pods("branch")?].concat())
    };
    let old: Vec<_> = all(stage)?.into_iter().map(|pod| pod.uid).collect();
    for pool in ["epool/hq", "epool/branch"] {
        stage.edit(pool, &json!({ "contacts": spec }))?;
    }
    wait::until("the pods are exchanged", SOON * 3, async || {
        let pods = all(stage).ok()?;
        let right = |pod: &Pod| pod.ready && !pod.ending && !old.contains(&pod.uid);
        (pods.len() == old.len() && pods.iter().all(right)).then_some(())
    })
    .await?;
    for pool in ["epool/hq", "epool/branch"] {
        stage.says(pool, "Ready", "True").await?;
    }
    Ok(())
}

struct Scene<'s> {
    stage: &'s Stage,
    strangers: PeerServer,
    identity: Leaf,
    gateway: Leaf,
    alice: Client,
}

impl<'s> Scene<'s> {
    async fn new(stage: &'s Stage) -> Result<Self> {
        let identity = stage
            .authority
            .issue(&[STRANGERS], Usage::ServerAndClientAuth);
        let own = stage.internet.address(12)?;
        let behaviour = Behaviour::good(Identity::of(&identity)?);
        let strangers = PeerServer::listen(SocketAddr::from((own, S2S_PORT)), behaviour).await?;
        let target = format!("xmpp.{STRANGERS}.");
        let records = format!(
            "update add {target} 60 A {own}\n\
             update add _xmpp-server._tcp.{STRANGERS}. 60 SRV 0 0 {S2S_PORT} {target}"
        );
        stage.dns.edit(&records).await?;
        let secret = stage.get("secret/xmpp-edge-gateway-org.example")?;
        let part = |name: &str| -> Result<String> {
            let data = secret["data"][name].as_str().context("a part")?;
            Ok(String::from_utf8(BASE64_STANDARD.decode(data)?)?)
        };
        let gateway = Leaf {
            certificate: part("tls.crt")?,
            key: part("tls.key")?,
        };
        let alice = Client::login(stage.inside, &format!("alice@{OWN}"), "contacts").await?;
        Ok(Self {
            stage,
            strangers,
            identity,
            gateway,
            alice,
        })
    }

    /// Alice writes to somebody, through the pods of this pool: that adds him.
    async fn adds(&self, pool: &str, remote: &str) -> Result<()> {
        let service = self.stage.get(&format!("service/{pool}-internal"))?;
        let address = service["spec"]["clusterIP"].as_str().context("clusterIP")?;
        let address = SocketAddr::from((address.parse::<std::net::Ipv4Addr>()?, INTERNAL_PORT));
        let login = Login::External(&self.gateway);
        let mut inside = Peer::login(address, OWN, STRANGERS, &login).await?;
        let id = self.alice.fresh_id();
        inside
            .message(self.alice.bare(), remote, &id, "hello")
            .await?;
        self.strangers.stanza_id(&id).await?;
        inside.send("</stream:stream>").await
    }

    /// Whether a message of `remote` to the pods behind this load balancer reaches Alice; if not, it is
    /// answered.
    async fn reaches(&self, balancer: u8, remote: &str) -> Result<bool> {
        let address = SocketAddr::from((self.stage.cluster.site().balancer(balancer), S2S_PORT));
        let login = Login::External(&self.identity);
        let mut peer = Peer::login(address, STRANGERS, OWN, &login).await?;
        let id = self.alice.fresh_id();
        peer.message(remote, self.alice.full(), &id, "hello")
            .await?;
        let reached = tokio::select! {
            delivered = self.alice.expect_message(&id) => delivered.map(|_| true),
            answered = self.strangers.stanza_id(&id) => answered.map(|_| false),
        }?;
        peer.send("</stream:stream>").await?;
        Ok(reached)
    }

    async fn comes_to_reach(&self, balancer: u8, remote: &str, wanted: bool) -> Result<()> {
        let what = format!("{remote} reaches alice at {balancer}: {wanted}");
        let mut last = None;
        let found = wait::until(&what, wait::GENEROUS, async || {
            let reached = self.reaches(balancer, remote).await;
            let right = reached.as_ref().is_ok_and(|it| *it == wanted);
            last = Some(reached);
            right.then_some(())
        });
        let found = found.await;
        found.with_context(|| format!("{last:?}"))
    }
}

#[test]
fn a_contact_made_at_one_site_is_known_at_the_other() {
    STAGE.test(async |stage| {
        let host = format!("postgres.{CHAT}.svc.cluster.local");
        let leaf = stage.authority.issue(&[&host], Usage::ServerAuth);
        for object in database(&leaf) {
            stage.apply(&object.to_string())?;
        }
        let place = ["--namespace", CHAT, "--timeout=90s"];
        let rollout = ["rollout", "status", "deployment/postgres"];
        stage.kubectl().run(&[&rollout[..], &place].concat())?;
        let url = format!("postgres://edge:secret@{host}:5432/edge?sslmode=verify-full");
        let access = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "contacts", "namespace": EDGE},
            "stringData": {"url": url, "ca.crt": stage.authority.certificate()}});
        stage.apply(&access.to_string())?;
        keep_contacts(stage, &json!({"postgres": {"secretRef": {"name": "contacts"}}})).await?;
        stage.edit("exap/everyone", &json!({"enablePublicCloudAccess": true}))?;
        let partner = json!({"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "XmppFederatedPartner",
            "metadata": {"name": "strangers", "namespace": EDGE},
            "spec": {"domain": STRANGERS, "partnerType": "PublicUnverified"}});
        stage.apply(&partner.to_string())?;
        stage.says("xfp/strangers", "Programmed", "True").await?;

        let scene = Scene::new(stage).await?;
        let (hq, branch) = (1, 2);
        for (pool, other, remote) in [
            ("hq", branch, "bob@stranger.example"),
            ("branch", hq, "carol@stranger.example"),
        ] {
            scene.comes_to_reach(other, remote, false).await?;
            scene.adds(pool, remote).await?;
            scene.comes_to_reach(other, remote, true).await?;
        }
        // Nobody else came along.
        scene.comes_to_reach(branch, "dave@stranger.example", false).await?;

        stage.kubectl().run(&["delete", "xfp/strangers", "--namespace", EDGE])?;
        stage.edit("exap/everyone", &json!({"enablePublicCloudAccess": null}))?;
        keep_contacts(stage, &Value::Null).await?;
        stage
            .kubectl()
            .run(&["delete", "deployment/postgres", "--namespace", CHAT])?;
        Ok(())
    });
}
