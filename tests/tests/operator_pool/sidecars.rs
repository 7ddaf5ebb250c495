//! What the operator makes for sidecars: their Secret, the Service that they dial, and what deleting the Secret means.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use kube::{Api, ResourceExt, api::DeleteParams};
use serde_json::{Value, json};
use xmpp_edge_crds::{
    edge_config::{EdgeConfig, GatewayMode, WITHOUT_SIP, shards},
    kinds::EdgePool,
    sidecar_config::SidecarConfig,
};
use xmpp_edge_tests::{
    cluster::{Clock, FakePod, Namespace, Operator, operator_account},
    wait,
};

use crate::{SERVER, stage::*};

fn document(map: &ConfigMap) -> Option<EdgeConfig> {
    let shard = map.binary_data.as_ref()?.get("shard")?.0.clone();
    Some(shards::decode(&[shard]).ok()?.config)
}

#[test]
fn b_07_a_sidecar_has_its_secret_and_one_that_is_deleted_takes_all_of_before_away() {
    SERVER.test(async |namespace| {
        let _operator = Operator::start(namespace, &[]).await?;
        let domain = domain(namespace);
        let gateways = json!([{ "domains": [domain], "mode": "Sidecar" }]);
        create(
            namespace,
            &pool(namespace, "hq", json!({ "gateways": gateways })),
        )
        .await?;
        let service = until(namespace, "hq-trunk", |it: &Service| it.spec.clone()).await?;
        assert_eq!(service.cluster_ip.as_deref(), Some("None"));
        assert_eq!(service.publish_not_ready_addresses, Some(true));
        let name = format!("xmpp-edge-sidecar-{domain}");
        let whole = |it: &Secret| {
            let of = |key: &str| text(it, key);
            Some((
                of("epoch")?,
                of("tls.crt")?,
                of("tls.key")?,
                of("ca.crt")?,
                of("sidecar.json")?,
            ))
        };
        let (epoch, certificate, _, _, json) = until(namespace, &name, whole).await?;
        let config = SidecarConfig::parse(json.as_bytes(), "sidecar.json")?;
        assert_eq!(config.domains[0].as_str(), domain);
        let edge = config.edges[0].to_string();
        let expected = format!("hq-trunk.{}.svc.", namespace.name);
        assert!(
            edge.starts_with(&expected) && edge.ends_with(":23456"),
            "{edge}"
        );
        // Edges are told from when on certificates count.
        let told = async |since: &str| {
            until(namespace, "hq-config-0", |it: &ConfigMap| {
                let document = document(it)?;
                let after = document.gateways[0].issued_after?;
                (after.to_string() == since).then_some(document)
            })
            .await
        };
        let document = told(&epoch).await?;
        assert_eq!(document.version, WITHOUT_SIP);
        assert_eq!(document.gateways[0].mode, GatewayMode::Sidecar);
        let secrets: Api<Secret> = namespace.api();
        secrets.delete(&name, &DeleteParams::default()).await?;
        let (later, anew) = until(namespace, &name, |it: &Secret| {
            let (epoch, anew, ..) = whole(it)?;
            (anew != certificate).then_some((epoch, anew))
        })
        .await?;
        assert!(anew.contains("BEGIN CERTIFICATE"));
        let time = |text: &str| text.parse::<jiff::Timestamp>();
        assert!(time(&later)? > time(&epoch)?, "{epoch}, then {later}");
        told(&later).await?;
        Ok(())
    });
}

const DAY: i64 = 24 * 60 * 60;

/// The namespace of the server, beside that of the pools.
async fn servers<'n>(namespace: &Namespace<'n>) -> Result<Namespace<'n>> {
    let name = format!("{}-servers", namespace.name);
    Namespace::new(namespace.server, &name).await
}

fn elsewhere(namespace: &Namespace<'_>, place: Option<&str>) -> Value {
    let sidecar = place.map_or_else(|| json!({}), |place| json!({ "namespace": place }));
    json!({ "gateways": [{ "name": "org", "domains": [domain(namespace)], "mode": "Sidecar",
        "sidecar": sidecar }] })
}

/// Epoch, certificate and its pools' namespace.
fn identity(secret: &Secret) -> Option<(String, String, String)> {
    let whose = secret.annotations().get("xmpp-edge.dev/pools-in")?.clone();
    Some((text(secret, "epoch")?, text(secret, "tls.crt")?, whose))
}

const SECRET: &str = "xmpp-edge-sidecar-org";

#[test]
fn b_05_a_secret_in_the_server_s_namespace_needs_consent_is_renewed_and_goes_with_the_gateway() {
    SERVER.test(async |namespace| {
        let servers = servers(namespace).await?;
        let clock = Clock::new()?;
        let without = Operator::start_by(&clock, namespace, &[]).await?;
        let spec = elsewhere(namespace, Some(&servers.name));
        create(namespace, &pool(namespace, "hq", spec)).await?;
        let said = until_says(
            namespace,
            "hq",
            "SidecarIdentity",
            "False, NamespaceNotAllowed",
        )
        .await?;
        let message = message(&said, "SidecarIdentity");
        let line = format!("sidecars: {{{}: [{}/org]}}", servers.name, namespace.name);
        assert!(message.contains(&line), "{message}");
        // It holds up nothing else.
        until(namespace, "hq-config-0", |it: &ConfigMap| document(it)).await?;
        without.stop().await?;
        let allowed = format!("--sidecar-namespace={}=org", servers.name);
        let _operator = Operator::start_by(&clock, namespace, &[&allowed]).await?;
        until_says(namespace, "hq", "SidecarIdentity", "True, Issued").await?;
        let (epoch, first, whose) = until(&servers, SECRET, identity).await?;
        assert_eq!(whose, namespace.name);
        let here: Api<Secret> = namespace.api();
        assert!(here.get_opt(SECRET).await?.is_none(), "one place has it");
        let told = async |since: &str| {
            until(namespace, "hq-config-0", |it: &ConfigMap| {
                let after = document(it)?.gateways[0].issued_after?;
                (after.to_string() == since).then_some(())
            })
            .await
        };
        told(&epoch).await?;
        // Three renewals: another certificate each time, and the epoch stays.
        let mut before = first;
        for renewal in 1..=3 {
            clock.ahead(renewal * 21 * DAY)?;
            edit(
                namespace,
                "hq",
                json!({ "route": { "weight": 100 + renewal } }),
            )
            .await?;
            before = until(&servers, SECRET, |it| {
                let (same, anew, _) = identity(it)?;
                assert_eq!(same, epoch);
                (anew != before).then_some(anew)
            })
            .await?;
        }
        // Deleted: who had it is out, and there is another.
        let there: Api<Secret> = servers.api();
        there.delete(SECRET, &DeleteParams::default()).await?;
        let later = until(&servers, SECRET, |it| {
            let (later, ..) = identity(it)?;
            (later != epoch).then_some(later)
        })
        .await?;
        told(&later).await?;
        // The server moves into the pools' namespace: nothing stays behind.
        edit(namespace, "hq", elsewhere(namespace, None)).await?;
        until(namespace, SECRET, |it: &Secret| text(it, "tls.crt")).await?;
        wait::until("it is deleted there", SOON, async || {
            there.get_opt(SECRET).await.ok()?.is_none().then_some(())
        })
        .await
    });
}

#[test]
fn b_45_a_namespace_that_forbids_or_has_another_s_secret_is_told_with_what_to_do() {
    SERVER.test(async |namespace| {
        let servers = servers(namespace).await?;
        // The setting without the Role, as who writes manifests by hand has it.
        let account = operator_account(namespace.server, &namespace.name, &[]).await?;
        let (server, home) = (namespace.server, &namespace.name);
        let allowed = format!("--sidecar-namespace={}={home}/org", servers.name);
        let bare = Operator::start_as(server, &account, home, &[&allowed]).await?;
        let spec = elsewhere(namespace, Some(&servers.name));
        create(namespace, &pool(namespace, "hq", spec)).await?;
        let refused = "False, NamespaceNotAllowed";
        let said = until_says(namespace, "hq", "SidecarIdentity", refused).await?;
        let words = message(&said, "SidecarIdentity");
        assert!(
            words.contains("forbidden") && words.contains("sidecars: {"),
            "{words}"
        );
        bare.stop().await?;
        secret(&servers, SECRET, json!({ "somebody": "else" })).await?;
        let _operator = Operator::start(namespace, &[&allowed]).await?;
        let refused = "False, SecretNotWritten";
        let said = until_says(namespace, "hq", "SidecarIdentity", refused).await?;
        let words = message(&said, "SidecarIdentity");
        assert!(words.contains("delete it"), "{words}");
        let there: Api<Secret> = servers.api();
        there.delete(SECRET, &DeleteParams::default()).await?;
        until_says(namespace, "hq", "SidecarIdentity", "True, Issued").await?;
        Ok(())
    });
}

#[test]
fn b_45_the_status_says_who_is_connected_and_what_an_edge_or_a_server_refuses() {
    SERVER.test(async |namespace| {
        let _operator = Operator::start(namespace, &[]).await?;
        create(namespace, &pool(namespace, "hq", elsewhere(namespace, None))).await?;
        let generation = until(namespace, "hq-config-0", |it: &ConfigMap| {
            let document = document(it)?;
            document.gateways[0].issued_after?;
            Some(document.generation)
        })
        .await?;
        let pod = FakePod::start(namespace, "hq", generation).await?;
        let now = || jiff::Timestamp::now().to_string();
        let says = |sidecars: Value, attempt: Value| {
            pod.say("time", json!(now()));
            pod.say(
                "gateways",
                json!([{ "name": "org", "mode": "Sidecar", "domains": [domain(namespace)], "address": "",
                    "sidecars": sidecars, "lastAttempt": attempt }]),
            );
        };
        let sidecar = |server: Value| {
            json!([{ "instance": "prosody-0", "version": "0.2.0", "active": true, "serverUp": server.is_null(),
                "serverText": server, "establishedTime": "2026-11-01T00:00:00Z",
                "certificateNotAfter": "2026-12-01T00:00:00Z" }])
        };
        let refusal = json!([{ "step": "certificate", "outcome": "PeerCertificateName", "direction": "outbound",
            "domain": domain(namespace), "address": "10.0.0.9:4711", "text": "it is for lab.example", "time": now() }]);
        for (sidecars, attempt, expected, parts) in [
            (json!([]), json!([]), "False, NoSidecar", &["no sidecar is connected"][..]),
            (
                json!([]),
                refusal,
                "False, SidecarRefused",
                &["10.0.0.9:4711", "step certificate", "lab.example", "mount the Secret of this gateway"],
            ),
            (
                sidecar(json!("step sasl (SaslRejected): not trusted; let the server trust")),
                json!([]),
                "False, ServerUnreachable",
                &["prosody-0", "step sasl", "let the server trust"],
            ),
            (sidecar(Value::Null), json!([]), "True, Reachable", &[]),
        ] {
            says(sidecars, attempt);
            let said = until_says(namespace, "hq", "GatewayReachable", expected).await?;
            let message = message(&said, "GatewayReachable");
            for part in parts {
                assert!(message.contains(part), "{part}: {message}");
            }
        }
        let pools: Api<EdgePool> = namespace.api();
        let status = pools.get("hq").await?.status.context("it has one")?;
        let own = &status.gateways[0];
        assert_eq!((own.name.as_str(), own.sidecars[0].instance.as_str()), ("org", "prosody-0"));
        assert_eq!((own.sidecars[0].trunks, own.sidecars[0].server_up), (1, true));
        let wide = namespace.server.kubectl();
        let shown = wide.run(&["get", "epool", "hq", "--namespace", &namespace.name, "-o", "wide"])?;
        assert!(shown.contains("SIDECARS") && shown.contains("prosody-0 1/1"), "{shown}");
        Ok(())
    });
}

#[test]
fn b_17_a_pool_takes_the_mode_once_all_its_pods_read_a_document_with_sidecars() {
    SERVER.test(async |namespace| {
        let _operator = Operator::start(namespace, &[]).await?;
        create(namespace, &pool(namespace, "hq", json!({}))).await?;
        until_says(namespace, "hq", "CertificateReady", "True, Issued").await?;
        // The Service's address becomes known a look later, and is in the document.
        let first = until(namespace, "hq-config-0", |it: &ConfigMap| {
            document(it).filter(|first| !first.edges[0].addresses.is_empty())
        })
        .await?;
        let old = FakePod::start(namespace, "hq", first.generation).await?;
        until_says(namespace, "hq", "ConfigReplicated", "True, InSync").await?;
        let mut spec = elsewhere(namespace, None);
        spec["route"] = json!({ "weight": 7 });
        edit(namespace, "hq", spec).await?;
        let said = until_says(namespace, "hq", "GatewayReachable", "False, Pending").await?;
        let message = message(&said, "GatewayReachable");
        assert!(
            message.contains("is of version 0") && message.contains("upgrade"),
            "{message}"
        );
        // All else of the edit is in force.
        until(namespace, "hq-config-0", |it: &ConfigMap| {
            let now = document(it)?;
            let own = now.edges.iter().find(|edge| edge.pool == "hq")?;
            let is_held = now.gateways[0].mode == GatewayMode::Direct && now.version < WITHOUT_SIP;
            (own.weight == 7 && is_held).then_some(())
        })
        .await?;
        let config = json!({ "generation": first.generation, "reads": WITHOUT_SIP,
            "loadedTime": "2026-01-01T00:00:00Z" });
        old.say("config", config);
        until(namespace, "hq-config-0", |it: &ConfigMap| {
            let now = document(it)?;
            (now.gateways[0].mode == GatewayMode::Sidecar && now.version == WITHOUT_SIP)
                .then_some(())
        })
        .await
    });
}
