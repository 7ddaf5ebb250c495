//! What an administrator sees: the columns of `kubectl get`, at 80 characters, the short names, the
//! category, and the help of `kubectl explain`.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use xmpp_edge_tests::cluster::{Namespace, Submission};

use crate::SERVER;

/// What kubectl prints for an age in an object's first two years.
const AGE: usize = "729d".len();

fn conditions(set: &[(&str, &str, &str)]) -> Value {
    set.iter()
        .map(|(kind, status, reason)| {
            json!({
                "type": kind, "status": status, "reason": reason, "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        })
        .collect()
}

async fn put(
    namespace: &Namespace<'_>,
    kind: &str,
    name: &str,
    spec: Value,
    status: Value,
) -> Result<()> {
    let object = json!({
        "apiVersion": "xmpp-edge.dev/v1alpha1",
        "kind": kind,
        "metadata": { "name": name },
        "spec": spec,
        "status": status,
    });
    namespace.write(Submission::CREATE, &object).await?;
    if !object["status"].is_null() {
        namespace.write(Submission::STATUS, &object).await?;
    }
    Ok(())
}

pub async fn partners(namespace: &Namespace<'_>) -> Result<()> {
    put(
        namespace,
        "XmppFederatedPartner",
        "contoso",
        json!({ "domain": "contoso.example", "partnerType": "Federated" }),
        json!({
            "authenticationMethods": ["SaslOverTls"], "methodSummary": "SaslOverTls",
            "conditions": conditions(&[
                ("Ready", "True", "Ready"), ("Reachable", "True", "Reachable"), ("Secure", "True", "Encrypted"),
            ]),
        }),
    )
    .await?;
    put(
        namespace,
        "XmppFederatedPartner",
        "northwind",
        json!({ "domain": "chat.northwind.example", "saslNegotiation": "Optional", "suspended": true }),
        json!({
            "authenticationMethods": ["SaslOverTls", "TlsDialback"], "methodSummary": "SaslOverTls,TlsDialback",
            "why": "DomainConflict",
            "conditions": conditions(&[
                ("Ready", "False", "DomainConflict"), ("Reachable", "Unknown", "NoAttempt"),
                ("Secure", "True", "Encrypted"),
            ]),
        }),
    )
    .await?;
    // Nobody looked at it yet.
    let spec = json!({ "domain": "fabrikam.example", "partnerType": "PublicVerified" });
    put(
        namespace,
        "XmppFederatedPartner",
        "fabrikam",
        spec,
        Value::Null,
    )
    .await
}

pub async fn policies(namespace: &Namespace<'_>) -> Result<()> {
    let granted = json!({ "scope": "User", "enableFederationAccess": true, "enableXmppAccess": true,
        "users": ["alice@org.example", "*@sales.org.example"] });
    put(
        namespace,
        "ExternalAccessPolicy",
        "sales",
        granted,
        json!({ "users": 2, "conditions": conditions(&[("Ready", "True", "Ready")]) }),
    )
    .await?;
    put(
        namespace,
        "ExternalAccessPolicy",
        "headquarters",
        json!({ "scope": "Site", "site": "berlin", "mode": "Audit" }),
        json!({ "users": 0, "conditions": conditions(&[("Ready", "False", "Conflict")]) }),
    )
    .await
}

pub async fn pools(namespace: &Namespace<'_>) -> Result<()> {
    let spec = |site: &str, fqdn: &str, priority: u16| {
        json!({
            "site": site, "domains": ["org.example"], "accessEdge": { "fqdn": fqdn },
            "route": { "priority": priority },
            "gateways": [{ "domains": ["org.example"], "address": "prosody.inside.example:5269" }],
            "certificate": { "selfSigned": {} },
        })
    };
    put(
        namespace,
        "EdgePool",
        "berlin",
        spec("berlin", "xmpp-berlin.org.example", 10),
        json!({
            "replicas": 2, "readyReplicas": 2,
            "certificate": { "notAfter": "2126-01-01T00:00:00Z", "dnsNames": ["org.example"], "serial": "01" },
            "conditions": conditions(&[
                ("Ready", "True", "Ready"), ("DnsPublished", "True", "Published"),
                ("GatewayReachable", "True", "Reachable"),
            ]),
        }),
    )
    .await?;
    put(
        namespace,
        "EdgePool",
        "frankfurt",
        spec("frankfurt", "xmpp-frankfurt.org.example", 20),
        json!({
            "replicas": 2, "readyReplicas": 0,
            "conditions": conditions(&[
                ("Ready", "False", "NoReadyReplica"), ("DnsPublished", "True", "NotManaged"),
                ("GatewayReachable", "False", "GatewayUnreachable"),
            ]),
        }),
    )
    .await
}

/// The table without the age's value, each line without blanks at its end.
fn ageless(table: &str) -> Result<String> {
    let header = table.lines().next().unwrap_or_default();
    let at = header.find("AGE").unwrap_or(header.len());
    ensure!(
        header[at..].trim() == "AGE",
        "AGE is the last column: {header}"
    );
    let lines = table.lines().map(|line| {
        let line = if line == header {
            line
        } else {
            line.get(..at).unwrap_or(line)
        };
        format!("{}\n", line.trim_end())
    });
    Ok(lines.collect())
}

#[track_caller]
fn assert_columns(namespace: &Namespace<'_>, kind: &str, golden: &str) {
    let table = namespace
        .server
        .kubectl()
        .run(&["get", "-n", &namespace.name, kind])
        .unwrap();
    let shown = ageless(&table).unwrap();
    assert_eq!(shown, golden, "\n{shown}");
    let width = shown.lines().next().map_or(0, str::len) - "AGE".len() + AGE;
    assert!(width <= 80, "{kind}: {width} characters");
}

#[test]
fn partners_fit_a_terminal() {
    SERVER.test(async |namespace| {
        partners(namespace).await?;
        assert_columns(
            namespace,
            "xfp",
            "\
NAME        DOMAIN                   READY   REACHABLE   WHY              AGE
contoso     contoso.example          True    True
fabrikam    fabrikam.example
northwind   chat.northwind.example   False   Unknown     DomainConflict
",
        );
        Ok(())
    });
}

#[test]
fn policies_fit_a_terminal() {
    SERVER.test(async |namespace| {
        policies(namespace).await?;
        assert_columns(
            namespace,
            "exap",
            "\
NAME           SCOPE   SITE     XMPP    USERS   READY   AGE
headquarters   Site    berlin   false   0       False
sales          User             true    2       True
",
        );
        Ok(())
    });
}

#[test]
fn pools_fit_a_terminal() {
    SERVER.test(async |namespace| {
        pools(namespace).await?;
        assert_columns(
            namespace,
            "epool",
            "\
NAME        SITE        PODS   READY   DNS    GATEWAY   AGE
berlin      berlin      2      True    True   True
frankfurt   frankfurt   0      False   True   False
",
        );
        // However long, what only sometimes matters comes with `-o wide`.
        let fqdn = format!(
            "xmpp.{}.{}.example",
            "frankfurt-am-main".repeat(3),
            "europe".repeat(8)
        );
        let spec = json!({ "accessEdge": { "fqdn": fqdn } });
        let frankfurt = json!({"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "EdgePool",
            "metadata": { "name": "frankfurt" }, "spec": spec});
        namespace.write(Submission::MERGE, &frankfurt).await?;
        let get = ["get", "-n", &namespace.name, "epool"];
        let kubectl = namespace.server.kubectl();
        let longest = |table: &str| table.lines().map(str::len).max();
        let narrow = kubectl.run(&get)?;
        assert!(longest(&narrow) <= Some(80), "{narrow}");
        let wide = kubectl.run(&[&get[..], &["-o", "wide"]].concat())?;
        assert!(wide.contains(&fqdn), "{wide}");
        Ok(())
    });
}

/// Neither a list as JSON nor the age of what is to come.
#[test]
fn wide_columns_print_methods_as_text_and_when_a_certificate_ends() {
    SERVER.test(async |namespace| {
        partners(namespace).await?;
        pools(namespace).await?;
        let kubectl = namespace.server.kubectl();
        let get = |kind| kubectl.run(&["get", "-n", &namespace.name, kind, "-o", "wide"]);
        let (partners, pools) = (get("xfp")?, get("epool")?);
        assert!(partners.contains(" SaslOverTls,TlsDialback "), "{partners}");
        assert!(pools.contains(" 2126-01-01T00:00:00Z "), "{pools}");
        for table in [partners, pools] {
            assert!(
                !table.contains('[') && !table.contains("<invalid>"),
                "{table}"
            );
        }
        Ok(())
    });
}

#[test]
fn partners_are_found_by_their_domain_and_pools_by_their_site() {
    SERVER.test(async |namespace| {
        partners(namespace).await?;
        pools(namespace).await?;
        let kubectl = namespace.server.kubectl();
        for (kind, selector, found) in [
            ("xfp", "spec.domain=contoso.example", "contoso"),
            ("xfp", "spec.partnerType=PublicVerified", "fabrikam"),
            ("epool", "spec.site=frankfurt", "frankfurt"),
        ] {
            let selector = format!("--field-selector={selector}");
            let get = ["get", "-n", &namespace.name, kind, &selector, "-o", "name"];
            let names = kubectl.run(&get)?;
            assert!(
                names.trim_end().ends_with(&format!("/{found}")),
                "{selector}: {names}"
            );
            assert_eq!(names.lines().count(), 1, "{names}");
        }
        Ok(())
    });
}

#[test]
fn the_category_names_all_three_kinds() {
    SERVER.test(async |namespace| {
        partners(namespace).await?;
        policies(namespace).await?;
        pools(namespace).await?;
        let kubectl = namespace.server.kubectl();
        let names = kubectl.run(&["get", "-n", &namespace.name, "xmpp", "-o", "name"])?;
        for name in [
            "xmppfederatedpartner.xmpp-edge.dev/contoso",
            "externalaccesspolicy.xmpp-edge.dev/sales",
            "edgepool.xmpp-edge.dev/berlin",
        ] {
            assert!(names.lines().any(|line| line == name), "{name} in {names}");
        }
        Ok(())
    });
}

#[test]
fn explain_tells_the_meaning_the_choices_and_the_default() {
    SERVER.test(async |namespace| {
        let help = namespace
            .server
            .kubectl()
            .run(&["explain", "xfp.spec.tlsNegotiation"])?;
        for part in [
            "DESCRIPTION",
            "ENUM",
            "Required",
            "Optional",
            "NotSupported",
        ] {
            assert!(help.contains(part), "{part} in {help}");
        }
        Ok(())
    });
}
