//! An API server that is not there yet, answers nobody, or has nothing to say: what the operator then
//! does and leaves alone.

use std::slice;

use anyhow::Result;
use serde_json::json;
use xmpp_edge_tests::{
    cluster::{Audit, FakePod, Operator, SharedCluster, operator_account, operator_user},
    wait,
};

use super::{
    SERVER,
    stage::{SOON, create, edit, get, partner, policy, pool, until_says},
};

/// A server that these tests take away.
static UNSTEADY: SharedCluster = SharedCluster::new();

const READY: &[(&str, &str)] = &[("Ready", "True, Ready")];

#[test]
fn an_operator_waits_for_an_api_server_that_is_not_there_yet() {
    UNSTEADY.test_in_turn(async |namespace| {
        let server = namespace.server;
        let object = partner("p", json!({ "domain": "p.example" }));
        create(namespace, &[pool(namespace), object.clone()]).await?;
        let account = operator_account(server, &namespace.name, &[]).await?;
        server.stop().await?;
        let mut operator = Operator::launch(server, &account, &namespace.name, &[])?;
        operator
            .process()
            .await_line("it is tried again", SOON)
            .await?;
        server.launch().await?;
        operator.ready().await?;
        until_says(namespace, &object, &[("Accepted", "True, Accepted")])
            .await
            .map(drop)
    });
}

#[test]
fn who_cannot_renew_the_lease_ends_and_its_successor_writes_nothing_anew() {
    UNSTEADY.test_in_turn(async |namespace| {
        let server = namespace.server;
        let object = partner("p", json!({ "domain": "p.example" }));
        let everyone = policy("everyone", json!({ "scope": "Global" }));
        create(
            namespace,
            &[pool(namespace), object.clone(), everyone.clone()],
        )
        .await?;
        let mut operator = Operator::start(namespace, &[]).await?;
        let _pod = FakePod::start(namespace, "hq", 100_000).await?;
        for object in [&object, &everyone] {
            until_says(namespace, object, READY).await?;
        }
        let before = get(namespace, &object).await?;

        server.freeze();
        let ended = wait::until("the leader ends", SOON, async || {
            operator.process().exited()
        });
        let ended = ended.await;
        server.thaw();
        assert_eq!(ended?.code(), Some(1));

        // As the kubelet would start it again.
        let mark = server.audit().mark();
        let _operator = Operator::start(namespace, &[]).await?;
        let later = partner("later", json!({ "domain": "later.example" }));
        create(namespace, slice::from_ref(&later)).await?;
        until_says(namespace, &later, READY).await?;
        let after = get(namespace, &object).await?;
        assert_eq!(
            after["metadata"]["resourceVersion"],
            before["metadata"]["resourceVersion"]
        );
        let written = statuses(&server.audit(), &namespace.name, mark)?;
        assert!(
            written.iter().all(|name| name == "later" || name == "hq"),
            "{written:?}"
        );
        Ok(())
    });
}

/// Names of the objects in a namespace whose status was written after `mark`.
fn statuses(audit: &Audit, namespace: &str, mark: u64) -> Result<Vec<String>> {
    let entries = audit.since(mark)?;
    let written = entries
        .into_iter()
        .filter(|entry| entry.target().ends_with("/status"));
    let objects = written.filter_map(|entry| entry.object_ref);
    Ok(objects
        .filter(|object| object.namespace == namespace && object.api_group == "xmpp-edge.dev")
        .map(|object| object.name)
        .collect())
}

#[test]
fn an_operator_without_work_only_watches_and_renews_its_lease() {
    SERVER.test(async |namespace| {
        let object = partner("p", json!({ "domain": "p.example" }));
        create(namespace, &[pool(namespace), object.clone()]).await?;
        let user = operator_user(&namespace.name);
        let identity = operator_account(namespace.server, &namespace.name, &[]).await?;
        let start = || Operator::start_as(namespace.server, &identity, &namespace.name, &[]);
        let _leader = start().await?;
        let _follower = start().await?;
        let _pod = FakePod::start(namespace, "hq", 100_000).await?;
        until_says(namespace, &object, READY).await?;
        // The last words of a change may follow it within a few looks: an edit that comes to rest.
        edit(namespace, &object, json!({ "description": "at rest" })).await?;
        until_says(namespace, &object, READY).await?;

        let audit = namespace.server.audit();
        let calls = |mark: u64| -> Result<(usize, Vec<String>)> {
            let entries = audit.of(&user, mark)?;
            let renewals = entries.iter().filter(|entry| entry.target() == "leases");
            let renewals = renewals.filter(|entry| entry.verb == "update").count();
            let others = entries
                .iter()
                .filter(|entry| entry.target() != "leases" && entry.verb != "watch")
                .map(|entry| format!("{} {}", entry.verb, entry.uri))
                .collect();
            Ok((renewals, others))
        };
        // Five renewals in a row with nothing else between them.
        let mut mark = audit.mark();
        let mut last = Vec::new();
        let quiet = wait::until("it is quiet", SOON * 2, async || {
            let next = audit.mark();
            let (renewals, others) = calls(mark).ok()?;
            if others.is_empty() {
                return (renewals >= 5).then_some(());
            }
            mark = next;
            last = others;
            None
        })
        .await;
        quiet.map_err(|error| error.context(format!("{last:#?}")))
    });
}
