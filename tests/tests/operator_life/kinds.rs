//! Definitions that are missing, or not those of this operator.

use anyhow::Result;
use serde_json::{Value, json};
use xmpp_edge_tests::{
    cluster::{ApiServer, Namespace, Operator, alone, operator_account},
    wait,
};

use super::stage::{SOON, create, delete, partner, pool, until_says};

async fn chat(server: &ApiServer) -> Result<Namespace<'_>> {
    Ok(Namespace {
        server,
        client: server.admin().client("chat").await?,
        name: "chat".to_owned(),
    })
}

#[test]
fn missing_definitions_are_named_and_waited_for() {
    alone(async {
        let server = ApiServer::start().await?;
        server.namespace("chat", &[]).await?;
        let account = operator_account(&server, "chat", &[]).await?;
        let mut operator = Operator::launch(&server, &account, "chat", &[])?;
        operator
            .process()
            .await_line("install the CustomResourceDefinitions", SOON)
            .await?;
        server.install_kinds().await?;
        operator.ready().await?;
        let namespace = chat(&server).await?;
        let object = partner("p", json!({"domain": "p.example"}));
        create(&namespace, std::slice::from_ref(&object)).await?;
        until_says(&namespace, &object, &[("Accepted", "True, Accepted")]).await?;
        Ok(())
    });
}

#[test]
fn one_object_that_cannot_be_read_stops_no_other() {
    alone(async {
        let server = ApiServer::start().await?;
        server.namespace("chat", &[]).await?;
        for definition in xmpp_edge_crds::kinds::crds() {
            let mut lax = serde_json::to_value(&definition)?;
            forget_enums(&mut lax);
            server.install(&serde_json::from_value(lax)?).await?;
        }
        let namespace = chat(&server).await?;
        let strange = partner(
            "strange",
            json!({"domain": "s.example", "partnerType": "Sworn", "suspended": true}),
        );
        let plain = partner("plain", json!({"domain": "p.example"}));
        create(
            &namespace,
            &[pool(&namespace), strange.clone(), plain.clone()],
        )
        .await?;
        let operator = Operator::start(&namespace, &[]).await?;
        until_says(&namespace, &plain, &[("Accepted", "True, Accepted")]).await?;
        let said = until_says(
            &namespace,
            &strange,
            &[("Accepted", "False, Invalid"), ("Ready", "False, Invalid")],
        )
        .await?;
        assert!(said.to_string().contains("Sworn"), "{said}");
        wait::until("it is counted", SOON, async || {
            let metrics = operator.get("/metrics").await.ok()?;
            let told = [
                "objects{namespace=\"chat\",kind=\"XmppFederatedPartner\",ready=\"False\"} 2",
                "api_requests_total{code=\"200\"} ",
            ];
            told.iter().all(|it| metrics.contains(it)).then_some(())
        })
        .await
    });
}

#[test]
fn a_pool_that_cannot_be_decoded_goes_when_it_is_deleted() {
    alone(async {
        let server = ApiServer::start().await?;
        server.namespace("chat", &[]).await?;
        for definition in xmpp_edge_crds::kinds::crds() {
            let mut lax = serde_json::to_value(&definition)?;
            forget_enums(&mut lax);
            server.install(&serde_json::from_value(lax)?).await?;
        }
        let namespace = chat(&server).await?;
        let mut strange = pool(&namespace);
        strange["spec"]["service"] = json!({ "externalTrafficPolicy": "Newer" });
        strange["metadata"]["finalizers"] = json!(["xmpp-edge.dev/dns"]);
        create(&namespace, std::slice::from_ref(&strange)).await?;
        let _operator = Operator::start(&namespace, &[]).await?;
        until_says(&namespace, &strange, &[("Accepted", "False, Invalid")]).await?;
        delete(&namespace, &strange).await?;
        wait::until("it is gone", SOON, async || {
            let pools = namespace.api::<xmpp_edge_crds::kinds::EdgePool>();
            let left = pools.get_metadata_opt("hq").await.ok()?;
            left.is_none().then_some(())
        })
        .await
    });
}

/// As if the definitions were of a version that knows more values.
fn forget_enums(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("enum").is_some_and(Value::is_array) {
                fields.remove("enum");
            }
            fields.values_mut().for_each(forget_enums);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_enums),
        _ => {}
    }
}
