//! Who answers in a pod's place: the operator tells nobody the token but a pod of the pool, and believes
//! nobody else.

use std::sync::Arc;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use xmpp_edge_tests::{
    cluster::{FakePod, Namespace, Operator, PodObject, pools::text},
    wait,
};

use super::{
    SERVER,
    stage::{SOON, create, get, pool, until_says},
};

/// What the pool says of its pods.
async fn until_unproven(namespace: &Namespace<'_>) -> Result<()> {
    let pool = pool(namespace);
    wait::until("the pod is not believed", SOON, async || {
        let now = get(namespace, &pool).await.ok()?;
        let conditions = now["status"]["conditions"].as_array()?;
        let said = conditions
            .iter()
            .find(|it| it["type"] == "ConfigReplicated")?;
        let message = said["message"].as_str()?;
        let unproven = message.contains("does not prove by TLS that it is a pod of this pool");
        (unproven && said["status"] != "True").then_some(())
    })
    .await
}

#[test]
fn who_stands_between_operator_and_pod_sees_no_token_and_is_not_believed() {
    SERVER.test(async |namespace| {
        create(namespace, &[pool(namespace)]).await?;
        let _operator = Operator::start(namespace, &[]).await?;
        let issued = [("CertificateReady", "True, Issued")];
        until_says(namespace, &pool(namespace), &issued).await?;
        // As a proxy answered before there was TLS: in clear, whatever it is asked.
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let noted = heard.clone();
        let machine = tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut bytes = vec![0; 4096];
                let read = socket.read(&mut bytes).await.unwrap_or(0);
                noted.lock().extend_from_slice(&bytes[..read]);
                let status = json!({"pool": "hq", "version": "0", "streams": [], "partners": [], "gateways": [],
                    "config": {"generation": 100_000, "loadedTime": "2026-01-01T00:00:00Z"}});
                let status = status.to_string();
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{status}", status.len());
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        let object = PodObject::create(namespace, "hq", port).await?;
        object.set_ready(true).await?;
        until_unproven(namespace).await?;
        machine.abort();
        let secret = namespace.api::<Secret>().get("hq-admin").await?;
        let token = text(&secret, "token").unwrap();
        let heard = heard.lock().clone();
        let seen = String::from_utf8_lossy(&heard);
        ensure!(heard.first() == Some(&22), "a handshake begins it");
        ensure!(!seen.contains(&token) && !seen.contains("Bearer"), "{seen}");
        Ok(())
    });
}

#[test]
fn a_pod_with_the_intermediate_of_another_pool_is_asked_nothing() {
    SERVER.test(async |namespace| {
        let mut other = pool(namespace);
        other["metadata"]["name"] = json!("other");
        other["spec"]["accessEdge"]["fqdn"] = json!(format!("other.{}.example", namespace.name));
        create(namespace, &[pool(namespace), other.clone()]).await?;
        let _operator = Operator::start(namespace, &[]).await?;
        for object in [&pool(namespace), &other] {
            until_says(namespace, object, &[("CertificateReady", "True, Issued")]).await?;
        }
        let stranger = FakePod::start_with_issuer_of(namespace, "hq", "other", 100_000).await?;
        until_unproven(namespace).await?;
        ensure!(stranger.asked() == 0, "it was asked");
        stranger.delete().await?;
        let pod = FakePod::start(namespace, "hq", 100_000).await?;
        until_says(
            namespace,
            &pool(namespace),
            &[("ConfigReplicated", "True, InSync")],
        )
        .await?;
        ensure!(pod.asked() > 0, "it was not asked");
        Ok(())
    });
}
