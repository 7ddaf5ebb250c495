//! What the operator makes for sidecars: their Secret, the Service that they dial, and what deleting the Secret means.

use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use kube::{Api, api::DeleteParams};
use serde_json::json;
use xmpp_edge_crds::{
    edge_config::{EdgeConfig, GatewayMode, VERSION, shards},
    sidecar_config::SidecarConfig,
};
use xmpp_edge_tests::cluster::Operator;

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
        assert_eq!(document.version, VERSION);
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
