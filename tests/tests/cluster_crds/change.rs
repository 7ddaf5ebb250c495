//! What may change and who owns it: the immutable domain, old faults that may stay (ratcheting), field
//! managers side by side, the subresources `status` and `scale`.

use anyhow::{Context, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};
use xmpp_edge_tests::cluster::{Refusal, Submission, Write};

use crate::{SERVER, table};

fn partner(spec: Value) -> Value {
    object("XmppFederatedPartner", "partner", spec)
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "xmpp-edge.dev/v1alpha1",
        "kind": kind,
        "metadata": { "name": name },
        "spec": spec,
    })
}

/// The smallest pool of the table.
fn pool() -> Value {
    let cases = table::accepted();
    let case = cases.into_iter().find(|case| case.name == "pool-minimal");
    case.expect("it is in the table").manifest
}

/// `object` without its spec, with this status.
fn with_status(object: &Value, status: Value) -> Value {
    json!({
        "apiVersion": object["apiVersion"],
        "kind": object["kind"],
        "metadata": { "name": object["metadata"]["name"] },
        "status": status,
    })
}

fn condition(kind: &str, status: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": "Tested", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

fn apply(manager: &str) -> Submission<'_> {
    Submission {
        write: Write::Apply(manager),
        ..Submission::CREATE
    }
}

fn apply_status(manager: &str) -> Submission<'_> {
    Submission {
        subresource: "status",
        ..apply(manager)
    }
}

fn only_cause(refusal: &Refusal) -> (&str, &str) {
    assert_eq!(refusal.causes.len(), 1, "{refusal:#?}");
    (&refusal.causes[0].field, &refusal.causes[0].message)
}

#[test]
fn the_primary_domain_cannot_change_and_the_refusal_says_what_to_do_instead() {
    SERVER.test(async |namespace| {
        let old = partner(json!({ "domain": "old.example" }));
        namespace.write(Submission::CREATE, &old).await?;
        let new = partner(json!({ "domain": "new.example" }));
        let refusal = namespace.submit(Submission::MERGE, &new).await?.unwrap_err();
        let (field, message) = only_cause(&refusal);
        assert_eq!(field, "spec.domain");
        assert!(
            message.ends_with(
                "the primary domain cannot change: create another XmppFederatedPartner, or use additionalDomains"
            ),
            "{message}"
        );
        let more = partner(json!({ "additionalDomains": ["new.example"] }));
        namespace.write(Submission::MERGE, &more).await?;
        Ok(())
    });
}

/// The definition of partners under another group, so that other tests have the true one to
/// themselves: as it is, or without any rule.
fn definition(lax: bool) -> Result<CustomResourceDefinition> {
    let found = xmpp_edge_crds::kinds::crds()
        .into_iter()
        .find(|crd| crd.spec.names.kind == "XmppFederatedPartner");
    let mut definition = serde_json::to_value(found.context("it is defined")?)?;
    definition["metadata"]["name"] = json!("xmppfederatedpartners.ratcheting.example");
    definition["spec"]["group"] = json!("ratcheting.example");
    let names = &mut definition["spec"]["names"];
    names["shortNames"] = json!([]);
    names["categories"] = json!([]);
    if lax {
        without_rules(&mut definition);
    }
    Ok(serde_json::from_value(definition)?)
}

fn without_rules(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.remove("x-kubernetes-validations");
            fields.values_mut().for_each(without_rules);
        }
        Value::Array(items) => items.iter_mut().for_each(without_rules),
        _ => {}
    }
}

#[test]
fn an_old_fault_may_stay_until_it_is_touched() {
    SERVER.test(async |namespace| {
        let server = namespace.server;
        let elsewhere = |name: &str, spec: Value| {
            let mut object = object("XmppFederatedPartner", name, spec);
            object["apiVersion"] = json!("ratcheting.example/v1alpha1");
            object
        };
        server.install(&definition(true)?).await?;
        // One breaks a field's own rule, one a rule between fields.
        let field = elsewhere("field", json!({ "domain": "Partner.Example" }));
        let between = elsewhere(
            "between",
            json!({ "domain": "a.example", "tlsNegotiation": "NotSupported" }),
        );
        for object in [&field, &between] {
            namespace.write(Submission::CREATE, object).await?;
        }
        server.install(&definition(false)?).await?;
        namespace
            .until_refused(&elsewhere("new", json!({ "domain": "New.Example" })))
            .await?;

        // What the operator writes passes for both: status, labels, finalizers.
        for object in [&field, &between] {
            let status = with_status(
                object,
                json!({ "conditions": [condition("Ready", "False")] }),
            );
            namespace.write(Submission::STATUS, &status).await?;
            let mut labelled = object.clone();
            labelled["metadata"]["labels"] = json!({ "team": "chat" });
            labelled["metadata"]["finalizers"] = json!(["example.org/held"]);
            namespace.write(Submission::MERGE, &labelled).await?;
            labelled["metadata"]["finalizers"] = Value::Null;
            namespace.write(Submission::MERGE, &labelled).await?;
        }
        // An administrator may edit around a field's fault…
        let edit = elsewhere("field", json!({ "suspended": true }));
        namespace.write(Submission::MERGE, &edit).await?;
        // …but between fields every edit of the spec is asked to mend it, and can.
        let edit = elsewhere("between", json!({ "suspended": true }));
        let refusal = namespace
            .submit(Submission::MERGE, &edit)
            .await?
            .unwrap_err();
        assert!(
            refusal.message.contains("saslNegotiation needs TLS"),
            "{refusal:#?}"
        );
        let mended = elsewhere(
            "between",
            json!({ "suspended": true, "tlsNegotiation": "Required" }),
        );
        namespace.write(Submission::MERGE, &mended).await?;
        Ok(())
    });
}

#[test]
fn two_managers_own_a_condition_each_and_withdraw_their_own_alone() {
    SERVER.test(async |namespace| {
        let partner = partner(json!({ "domain": "partner.example" }));
        namespace.write(Submission::CREATE, &partner).await?;
        let types = |stored: &Value| -> Vec<String> {
            stored["status"]["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|condition| condition["type"].as_str().unwrap().to_owned())
                .collect()
        };
        let of = |kinds: &[&str]| {
            let conditions: Vec<_> = kinds.iter().map(|kind| condition(kind, "True")).collect();
            with_status(&partner, json!({ "conditions": conditions }))
        };
        namespace
            .write(apply_status("one"), &of(&["Ready"]))
            .await?;
        let both = namespace
            .write(apply_status("two"), &of(&["Secure"]))
            .await?;
        assert_eq!(types(&both), ["Ready", "Secure"]);

        let other = with_status(
            &partner,
            json!({ "conditions": [condition("Ready", "False")] }),
        );
        let refusal = namespace
            .submit(apply_status("two"), &other)
            .await?
            .unwrap_err();
        assert_eq!(refusal.code, 409);
        assert!(refusal.message.contains("\"one\""), "{}", refusal.message);

        let left = namespace.write(apply_status("one"), &of(&[])).await?;
        assert_eq!(types(&left), ["Secure"]);
        Ok(())
    });
}

#[test]
fn two_managers_share_lists_by_item() {
    SERVER.test(async |namespace| {
        let mut created = pool();
        created["metadata"]["name"] = json!("shared");
        namespace.write(apply("administrator"), &created).await?;
        let part = |spec: Value| object("EdgePool", "shared", spec);
        let env = |name: &str| {
            part(json!({
                "podTemplate": { "env": [{ "name": name, "value": "1" }] },
                "content": { "pepNodes": [format!("urn:{name}")] },
            }))
        };
        namespace.write(apply("one"), &env("A")).await?;
        let both = namespace.write(apply("two"), &env("B")).await?;
        let names = |stored: &Value| -> Vec<String> {
            let env = stored["spec"]["podTemplate"]["env"].as_array();
            env.into_iter()
                .flatten()
                .map(|variable| variable["name"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(names(&both), ["A", "B"]);
        assert_eq!(
            both["spec"]["content"]["pepNodes"],
            json!(["urn:A", "urn:B"])
        );

        let left = namespace.write(apply("one"), &part(json!({}))).await?;
        assert_eq!(names(&left), ["B"]);
        assert_eq!(left["spec"]["content"]["pepNodes"], json!(["urn:B"]));
        // What the administrator said is still there, and still the administrator's.
        assert_eq!(left["spec"]["site"], created["spec"]["site"]);
        let taken = part(json!({ "site": "elsewhere" }));
        let refusal = namespace.submit(apply("two"), &taken).await?.unwrap_err();
        assert_eq!(refusal.code, 409);
        Ok(())
    });
}

#[test]
fn two_managers_each_have_a_gateway_of_one_pool_told_apart_by_its_name() {
    SERVER.test(async |namespace| {
        let mut created = pool();
        created["metadata"]["name"] = json!("inside");
        namespace.write(apply("administrator"), &created).await?;
        let part = |domain: &str| {
            let gateway =
                json!({ "name": "other", "domains": [domain], "address": "other.example:5269" });
            object(
                "EdgePool",
                "inside",
                json!({ "domains": [domain], "gateways": [gateway] }),
            )
        };
        let both = namespace
            .write(apply("one"), &part("other.example"))
            .await?;
        let names = |stored: &Value| -> Vec<String> {
            let gateways = stored["spec"]["gateways"].as_array();
            let name = |it: &Value| it["name"].as_str().unwrap().to_owned();
            gateways.into_iter().flatten().map(name).collect()
        };
        // The one without a name is called by its first domain, and is somebody's alone.
        assert_eq!(names(&both), ["", "other"]);
        let again = namespace.write(apply("administrator"), &created).await?;
        assert_eq!(names(&again), ["", "other"]);
        Ok(())
    });
}

#[test]
fn status_and_spec_are_written_apart_and_only_the_spec_counts_generations() {
    SERVER.test(async |namespace| {
        let mut partner = partner(json!({ "domain": "partner.example" }));
        partner["status"] = json!({ "observedGeneration": 7 });
        let created = namespace.write(Submission::CREATE, &partner).await?;
        assert_eq!(
            created.get("status"),
            None,
            "a status in a manifest is left out"
        );
        assert_eq!(created["metadata"]["generation"], 1);

        let mut both = partner.clone();
        both["spec"]["suspended"] = json!(true);
        let stored = namespace.write(Submission::STATUS, &both).await?;
        assert_eq!(
            stored["spec"]["suspended"], false,
            "a status write leaves the spec"
        );
        assert_eq!(stored["status"]["observedGeneration"], 7);
        assert_eq!(stored["metadata"]["generation"], 1);

        let stored = namespace.write(Submission::MERGE, &both).await?;
        assert_eq!(stored["metadata"]["generation"], 2);
        Ok(())
    });
}

#[test]
fn a_pool_is_scaled_by_its_subresource() {
    SERVER.test(async |namespace| {
        let pool = pool();
        let name = pool["metadata"]["name"].as_str().context("it has a name")?;
        namespace.write(Submission::CREATE, &pool).await?;
        let status = with_status(&pool, json!({ "replicas": 1, "selector": "app=edge" }));
        namespace.write(Submission::STATUS, &status).await?;
        let kubectl = namespace.server.kubectl();
        let target = format!("epool/{name}");
        let scale = |replicas: &str| {
            let replicas = format!("--replicas={replicas}");
            kubectl.run(&["scale", "-n", &namespace.name, &target, &replicas])
        };
        scale("3")?;
        let path = format!(
            "/apis/xmpp-edge.dev/v1alpha1/namespaces/{}/edgepools/{name}/scale",
            namespace.name
        );
        let shown: Value = serde_json::from_str(&kubectl.run(&["get", "--raw", &path])?)?;
        assert_eq!(shown["spec"], json!({ "replicas": 3 }));
        assert_eq!(
            shown["status"],
            json!({ "replicas": 1, "selector": "app=edge" })
        );
        Ok(())
    });
}
