//! Several namespaces, each an organisation of its own.

use serde_json::json;
use xmpp_edge_tests::cluster::{Namespace, Operator, operator_account, operator_user};

use super::{
    SERVER,
    stage::{condition, create, delete, get, partner, pool, until_says},
};

#[test]
fn an_own_domain_belongs_to_the_older_pool_of_all_watched_namespaces() {
    SERVER.test(async |first| {
        let name = format!("{}-other", first.name);
        first.server.namespace(&name, &[]).await?;
        let second = Namespace {
            server: first.server,
            client: first.server.admin().client(&name).await?,
            name: name.clone(),
        };
        let object = pool(first);
        create(first, std::slice::from_ref(&object)).await?;
        let watch = [
            "--watch-namespace",
            first.name.as_str(),
            "--watch-namespace",
            second.name.as_str(),
        ];
        let _operator = Operator::start(first, &watch).await?;
        until_says(first, &object, &[("Accepted", "True, Accepted")]).await?;
        // Creation times have whole seconds; of equal ones the name decides, which is shorter here.
        create(&second, std::slice::from_ref(&object)).await?;
        let lost = until_says(&second, &object, &[("Accepted", "False, DomainConflict")]).await?;
        assert!(lost.to_string().contains(&first.name), "{lost}");
        delete(first, &object).await?;
        until_says(&second, &object, &[("Accepted", "True, Accepted")]).await?;
        Ok(())
    });
}

#[test]
fn a_namespace_that_is_not_watched_is_left_alone() {
    SERVER.test(async |watched| {
        let name = format!("{}-other", watched.name);
        watched.server.namespace(&name, &[]).await?;
        let other = Namespace {
            server: watched.server,
            client: watched.server.admin().client(&name).await?,
            name,
        };
        let object = partner("p", json!({"domain": "p.example"}));
        create(&other, std::slice::from_ref(&object)).await?;
        create(watched, std::slice::from_ref(&object)).await?;
        let user = operator_user(&watched.name);
        let identity = operator_account(watched.server, &watched.name, &[]).await?;
        let _operator = Operator::start_as(watched.server, &identity, &watched.name, &[]).await?;
        until_says(watched, &object, &[("Accepted", "True, Accepted")]).await?;
        assert_eq!(condition(&get(&other, &object).await?, "Accepted"), "");
        let asked = watched.server.audit().of(&user, 0)?;
        let elsewhere = asked.iter().filter(|entry| {
            let object = entry.object_ref.as_ref();
            object.is_some_and(|object| object.namespace == other.name)
        });
        assert_eq!(elsewhere.count(), 0);
        Ok(())
    });
}
