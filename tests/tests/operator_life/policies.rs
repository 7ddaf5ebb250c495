//! A policy's life: made, in force, in conflict, mended.

use serde_json::json;
use xmpp_edge_tests::cluster::{FakePod, Operator};

use super::{
    SERVER,
    stage::{create, delete, edit, policy, pool, until_says},
};

#[test]
fn a_policy_says_whom_it_grants_and_is_ready_once_pods_have_it() {
    SERVER.test(async |namespace| {
        let user = format!("a@{}.example", namespace.name);
        let object = policy(
            "p",
            json!({"scope": "User", "users": [user], "enableFederationAccess": true}),
        );
        create(namespace, &[pool(namespace), object.clone()]).await?;
        let _operator = Operator::start(namespace, &[]).await?;
        let _pod = FakePod::start(namespace, "hq", 1000).await?;
        let ready = until_says(namespace, &object, &[("Ready", "True, Ready")]).await?;
        assert_eq!(ready["status"]["users"], 1);
        assert_eq!(ready["status"]["effectivePools"], json!(["hq"]));
        Ok(())
    });
}

#[test]
fn of_two_global_policies_one_is_in_force_and_the_other_says_so_until_it_can_be() {
    SERVER.test(async |namespace| {
        let (first, second) = (
            policy("z", json!({"scope": "Global"})),
            policy("a", json!({"scope": "Global"})),
        );
        create(namespace, &[pool(namespace), first.clone()]).await?;
        let _operator = Operator::start(namespace, &[]).await?;
        until_says(namespace, &first, &[("Accepted", "True, Accepted")]).await?;
        create(namespace, std::slice::from_ref(&second)).await?;
        until_says(
            namespace,
            &second,
            &[
                ("Accepted", "False, Conflict"),
                ("Ready", "False, Conflict"),
            ],
        )
        .await?;
        until_says(namespace, &first, &[("Accepted", "True, Accepted")]).await?;
        edit(namespace, &first, json!({"scope": "Site", "site": "hq"})).await?;
        until_says(namespace, &second, &[("Accepted", "True, Accepted")]).await?;
        delete(namespace, &first).await?;
        Ok(())
    });
}
