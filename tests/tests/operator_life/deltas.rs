//! The operator and a real proxy: what changed there since it was asked last is in the status soon,
//! without asking for everything; a proxy that was started anew is asked for everything at once.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Secret},
};
use kube::Api;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use xmpp_edge_tests::{
    cluster::{AdminTls, Namespace, Operator, PodObject, projected},
    edge::{Place, admin_connection},
    lab::Lab,
    peer::{Login, Peer},
    pki::{Leaf, Usage},
    pod::Pod,
    servers::S2S_PORT,
    wait,
};

use super::{
    SERVER,
    stage::{SOON, create, partner, policy, pool, until_says},
};

/// What the operator asked a proxy for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Everything,
    Changes,
}

/// The way from the operator to a proxy's admin port, which knows what was asked.
struct Line {
    port: u16,
    /// Questions that reached the proxy.
    asked: Arc<Mutex<Vec<Question>>>,
    /// Whether a question for everything gets through.
    everything: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Line {
    /// It stands for the proxy, with the certificate that this one would show.
    async fn to(proxy: SocketAddr, tls: AdminTls) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let everything = Arc::new(AtomicBool::new(true));
        let (noted, open) = (asked.clone(), everything.clone());
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (noted, open, tls) = (noted.clone(), open.clone(), tls.clone());
                tokio::spawn(async move {
                    // Either side may have given up.
                    let _ = carry(socket, &tls, proxy, &noted, &open).await;
                });
            }
        });
        Ok(Self {
            port,
            asked,
            everything,
            task,
        })
    }
}

async fn carry(
    operator: TcpStream,
    tls: &AdminTls,
    proxy: SocketAddr,
    noted: &Mutex<Vec<Question>>,
    open: &AtomicBool,
) -> Result<()> {
    let operator = tls.acceptor().await?.accept(operator).await?;
    let mut operator = BufReader::new(operator);
    let mut first = String::new();
    operator.read_line(&mut first).await?;
    let question = if first.contains("?since=") {
        Question::Changes
    } else {
        Question::Everything
    };
    ensure!(question == Question::Changes || open.load(Ordering::SeqCst));
    let mut proxy = admin_connection(proxy).await?;
    noted.lock().push(question);
    proxy.write_all(first.as_bytes()).await?;
    copy_bidirectional(&mut operator, &mut proxy).await?;
    Ok(())
}

/// As a kubelet mounts what the pool's pods name.
async fn mount(namespace: &Namespace<'_>, pod: &mut Pod) -> Result<()> {
    let deployments: Api<Deployment> = namespace.api();
    let deployment = deployments.get("hq").await?;
    let template = deployment.spec.context("a spec")?.template;
    let spec = template.spec.context("a pod's spec")?;
    for (name, volume) in [("config", &mut pod.config), ("secrets", &mut pod.secrets)] {
        let files = projected(&namespace.client, &namespace.name, &spec, name).await?;
        let files: Vec<(&str, Option<&[u8]>)> = files
            .iter()
            .map(|(path, content)| (path.as_str(), Some(content.as_slice())))
            .collect();
        volume.change(&files)?;
    }
    Ok(())
}

async fn given(namespace: &Namespace<'_>, name: &str) -> Result<Leaf> {
    let secret = namespace.api::<Secret>().get(name).await?;
    let data = secret.data.context("data")?;
    let text = |key: &str| -> Result<String> {
        Ok(String::from_utf8(
            data.get(key).context("a key")?.0.clone(),
        )?)
    };
    Ok(Leaf {
        certificate: text("tls.crt")?,
        key: text("tls.key")?,
    })
}

#[test]
fn what_changes_in_a_real_proxy_is_told_by_changes_and_everything_anew_once_it_restarted() {
    SERVER.test(async |namespace| {
        let lab = Lab::new().await?;
        let roots = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "roots"},
            "data": {"ca.crt": lab.authority().certificate()}});
        let maps: Api<ConfigMap> = namespace.api();
        maps.create(&Default::default(), &serde_json::from_value(roots)?)
            .await?;
        let mut own = pool(namespace);
        own["spec"]["trust"] = json!({"caConfigMapRef": {"name": "roots", "key": "ca.crt"}});
        let here = partner(
            "here",
            json!({"domain": "here.example", "partnerType": "Federated"}),
        );
        let away = partner(
            "away",
            json!({"domain": "away.example", "partnerType": "Federated"}),
        );
        let everyone = policy(
            "everyone",
            json!({"scope": "Global",
            "enableFederationAccess": true, "enableXmppAccess": true}),
        );
        create(
            namespace,
            &[own.clone(), here.clone(), away.clone(), everyone],
        )
        .await?;
        let _operator = Operator::start(namespace, &[]).await?;
        until_says(namespace, &own, &[("CertificateReady", "True, Issued")]).await?;

        let place = Place::in_lab(&lab, 20, 21);
        let admin = SocketAddr::from((place.internal_bind, 9090));
        let mut proxy = Pod::start(place).await?;
        wait::until("the proxy has all that it needs", SOON, async || {
            mount(namespace, &mut proxy).await.ok()?;
            let (code, _) = proxy.get("/readyz").await.ok()?;
            (code == 200).then_some(())
        })
        .await
        .with_context(|| proxy.log())?;
        let tls = AdminTls {
            secrets: namespace.api(),
            namespace: namespace.name.clone(),
            pool: "hq".to_owned(),
            issuer: "hq".to_owned(),
        };
        let line = Line::to(admin, tls).await?;
        let object = PodObject::create(namespace, "hq", line.port).await?;
        object.set_ready(true).await?;
        let untried = [
            ("Ready", "True, Ready"),
            ("Reachable", "Unknown, NotAttempted"),
        ];
        for object in [&here, &away] {
            until_says(namespace, object, &untried).await?;
        }
        ensure!(
            line.asked.lock().first() == Some(&Question::Everything),
            "the first question"
        );

        // From here on nothing is known but by changes.
        line.everything.store(false, Ordering::SeqCst);
        let own_domain = own["spec"]["domains"][0].as_str().context("a domain")?;
        let leaf = lab.authority().issue(&["here.example"], Usage::ServerAuth);
        let login = Login::External(&leaf);
        let _stream =
            Peer::login(proxy.public(S2S_PORT), "here.example", own_domain, &login).await?;
        let reached = until_says(namespace, &here, &[("Reachable", "True, Reachable")]).await?;
        let told = &reached["status"]["pools"][0];
        ensure!(
            told["inboundStreams"] == 1 && told["method"] == "SaslOverTls",
            "{told:#}"
        );
        // Nobody publishes the other's records.
        let inside = given(namespace, &format!("xmpp-edge-gateway-{own_domain}")).await?;
        let login = Login::External(&inside);
        let mut server = Peer::login(proxy.internal(), own_domain, "away.example", &login).await?;
        let alice = format!("alice@{own_domain}");
        server
            .message(&alice, "bob@away.example", "one", "hello")
            .await?;
        let failed = until_says(namespace, &away, &[("Reachable", "False, Unreachable")]).await?;
        let steps = failed["status"]["pools"][0]["lastAttempt"].as_array();
        let steps: Vec<&Value> = steps.into_iter().flatten().collect();
        ensure!(
            steps
                .iter()
                .any(|it| it["step"] == "dns" && it["direction"] == "Outbound"),
            "{steps:#?}"
        );

        // As the kubelet starts a container again: the same pod, and nothing of before is so.
        drop(server);
        proxy.stop().await?;
        line.asked.lock().clear();
        line.everything.store(true, Ordering::SeqCst);
        proxy.launch().await?;
        for object in [&here, &away] {
            until_says(namespace, object, &untried)
                .await
                .with_context(|| proxy.log())?;
        }
        // The answers in between were those of a proxy that knew of no configuration yet, if any.
        let asked = line.asked.lock().clone();
        let changes = asked
            .iter()
            .take_while(|it| **it == Question::Changes)
            .count();
        ensure!(asked.contains(&Question::Everything), "{asked:?}");
        println!("asked for changes {changes} times before everything");
        Ok(())
    });
}
