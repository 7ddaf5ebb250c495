//! Several replicas, one lease; and an API server that goes away.

use anyhow::Result;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use xmpp_edge_tests::{
    cluster::{ApiServer, Namespace, Operator, alone},
    wait,
};

use super::{
    SERVER,
    stage::{SOON, create, edit, partner, pool, until_says},
};

async fn holder(namespace: &Namespace<'_>) -> Option<String> {
    let lease = namespace
        .api::<Lease>()
        .get("xmpp-edge-operator")
        .await
        .ok()?;
    lease
        .spec?
        .holder_identity
        .filter(|holder| !holder.is_empty())
}

async fn held(namespace: &Namespace<'_>, not_by: Option<&String>) -> Result<String> {
    wait::until("the lease has a holder", wait::GENEROUS * 2, async || {
        holder(namespace)
            .await
            .filter(|holder| Some(holder) != not_by)
    })
    .await
}

#[test]
fn when_the_leader_is_killed_the_other_takes_over() {
    SERVER.test(async |namespace| {
        let object = partner("p", json!({"domain": "p.example"}));
        create(namespace, &[pool(namespace), object.clone()]).await?;
        let mut first = Operator::start(namespace, &[]).await?;
        let leader = held(namespace, None).await?;
        let second = Operator::start(namespace, &[]).await?;
        until_says(namespace, &object, &[("Accepted", "True, Accepted")]).await?;
        assert!(
            first
                .get("/metrics")
                .await?
                .contains("xmpp_edge_operator_leader 1")
        );
        assert!(
            second
                .get("/metrics")
                .await?
                .contains("xmpp_edge_operator_leader 0")
        );
        assert_eq!(
            second.get("/readyz").await?,
            "ok\n",
            "a follower is ready too"
        );
        first.process().kill();
        edit(
            namespace,
            &object,
            json!({"additionalDomains": [format!("{}.example", namespace.name)]}),
        )
        .await?;
        held(namespace, Some(&leader)).await?;
        until_says(namespace, &object, &[("Accepted", "False, OwnDomain")]).await?;
        Ok(())
    });
}

#[test]
fn a_leader_that_is_told_to_stop_hands_over_at_once_and_ends_well() {
    SERVER.test(async |namespace| {
        create(namespace, &[pool(namespace)]).await?;
        let first = Operator::start(namespace, &[]).await?;
        let leader = held(namespace, None).await?;
        let _second = Operator::start(namespace, &[]).await?;
        assert_eq!(first.stop().await?, Some(0));
        assert_ne!(
            holder(namespace).await,
            Some(leader),
            "the lease is given up"
        );
        held(namespace, None).await?;
        Ok(())
    });
}

#[test]
fn a_frozen_leader_that_wakes_up_does_not_act_on() {
    SERVER.test(async |namespace| {
        create(namespace, &[pool(namespace)]).await?;
        let mut first = Operator::start(namespace, &[]).await?;
        let leader = held(namespace, None).await?;
        let _second = Operator::start(namespace, &[]).await?;
        first.process().freeze();
        held(namespace, Some(&leader)).await?;
        first.process().thaw();
        let ended = wait::until("the old leader ends", SOON, async || {
            first.process().exited()
        })
        .await?;
        assert_eq!(ended.code(), Some(1));
        Ok(())
    });
}

#[test]
fn a_leader_whose_lease_somebody_takes_ends_and_a_deleted_lease_is_made_anew() {
    SERVER.test(async |namespace| {
        create(namespace, &[pool(namespace)]).await?;
        let mut first = Operator::start(namespace, &[]).await?;
        let leader = held(namespace, None).await?;
        let leases = namespace.api::<Lease>();
        leases
            .delete("xmpp-edge-operator", &DeleteParams::default())
            .await?;
        assert_eq!(held(namespace, None).await?, leader, "nobody else wants it");
        let stolen = Patch::Merge(json!({"spec": {"holderIdentity": "somebody"}}));
        leases
            .patch("xmpp-edge-operator", &PatchParams::default(), &stolen)
            .await?;
        let ended = wait::until("the leader ends", SOON, async || first.process().exited());
        assert_eq!(ended.await?.code(), Some(1));
        // Who does not renew it does not keep it.
        let _second = Operator::start(namespace, &[]).await?;
        let holder = held(namespace, Some(&"somebody".to_owned())).await?;
        assert_ne!(holder, leader, "another process");
        Ok(())
    });
}

#[test]
fn an_api_server_that_was_away_is_taken_up_again() {
    alone(async {
        let server = ApiServer::start().await?;
        server.install_kinds().await?;
        server.namespace("chat", &[]).await?;
        let object = partner("p", json!({"domain": "p.example"}));
        let mut operator = {
            let namespace = chat(&server).await?;
            create(&namespace, &[pool(&namespace), object.clone()]).await?;
            let operator = Operator::start(&namespace, &[]).await?;
            until_says(&namespace, &object, &[("Accepted", "True, Accepted")]).await?;
            operator
        };
        server.kill();
        operator
            .process()
            .await_line("it is tried again", SOON)
            .await?;
        server.launch().await?;
        let namespace = chat(&server).await?;
        // Who led may have had to stop meanwhile: a pod would be started again.
        if operator.process().exited().is_some() {
            operator = Operator::start(&namespace, &[]).await?;
        }
        edit(
            &namespace,
            &object,
            json!({"additionalDomains": ["chat.example"]}),
        )
        .await?;
        until_says(&namespace, &object, &[("Accepted", "False, OwnDomain")]).await?;
        drop(operator);
        Ok(())
    });
}

async fn chat(server: &ApiServer) -> Result<Namespace<'_>> {
    Ok(Namespace {
        server,
        client: server.admin().client("chat").await?,
        name: "chat".to_owned(),
    })
}
