//! What the operator asks of the API server: nothing without need.

use anyhow::Result;
use serde_json::{Value, json};
use xmpp_edge_tests::cluster::{
    ApiServer, ClusterIdentity, Entry, FakePod, Namespace, Operator, operator_account,
    operator_user,
};

use super::{
    SERVER,
    stage::{create, edit, partner, policy, pool, until_says},
};

/// Somebody of the admins' group with a name of its own, so that the audit log tells it apart.
async fn operator_of(namespace: &Namespace<'_>) -> Result<(String, ClusterIdentity)> {
    let identity = operator_account(namespace.server, &namespace.name, &[]).await?;
    Ok((operator_user(&namespace.name), identity))
}

/// Requests of `user` that change something or read single objects; the lease left out.
fn acts(server: &ApiServer, user: &str, mark: u64) -> Result<Vec<Entry>> {
    let mut entries = server.audit().of(user, mark)?;
    entries.retain(|entry| {
        let lease = entry.target() == "leases";
        !lease && entry.verb != "watch" && entry.verb != "list"
    });
    Ok(entries)
}

fn named(entries: &[Entry], name: &str) -> usize {
    let of = |entry: &&Entry| {
        entry
            .object_ref
            .as_ref()
            .is_some_and(|object| object.name == name)
    };
    entries.iter().filter(of).count()
}

#[test]
fn one_edit_writes_nobody_elses_status() {
    SERVER.test(async |namespace| {
        let mut objects = vec![pool(namespace)];
        let partners: Vec<Value> = (0..20)
            .map(|number| {
                partner(
                    &format!("p{number}"),
                    json!({"domain": format!("p{number}.example")}),
                )
            })
            .collect();
        objects.extend(partners.iter().cloned());
        objects.push(policy("everyone", json!({"scope": "Global"})));
        create(namespace, &objects).await?;
        let (user, identity) = operator_of(namespace).await?;
        let _operator =
            Operator::start_as(namespace.server, &identity, &namespace.name, &[]).await?;
        let _pod = FakePod::start(namespace, "hq", 100_000).await?;
        for object in &objects[1..] {
            until_says(namespace, object, &[("Ready", "True, Ready")]).await?;
        }
        let all = acts(namespace.server, &user, 0)?;
        for object in &partners {
            let name = object["metadata"]["name"].as_str().unwrap();
            assert!(named(&all, name) <= 3, "{name}: {all:#?}");
        }
        let mark = namespace.server.audit().mark();
        edit(namespace, &partners[7], json!({"description": "changed"})).await?;
        until_says(namespace, &partners[7], &[("Ready", "True, Ready")]).await?;
        edit(namespace, &partners[7], json!({"suspended": true})).await?;
        until_says(
            namespace,
            &partners[7],
            &[
                ("Reachable", "Unknown, Suspended"),
                ("Ready", "True, Ready"),
            ],
        )
        .await?;
        let entries = acts(namespace.server, &user, mark)?;
        let statuses: Vec<&Entry> = entries
            .iter()
            .filter(|it| it.target().ends_with("/status"))
            .collect();
        let others = statuses.iter().filter(|it| {
            it.object_ref
                .as_ref()
                .is_some_and(|o| o.resource == "xmppfederatedpartners" && o.name != "p7")
        });
        assert_eq!(others.count(), 0, "{statuses:#?}");
        assert!(
            entries.iter().all(|entry| entry.code() < 400),
            "{entries:#?}"
        );
        Ok(())
    });
}
