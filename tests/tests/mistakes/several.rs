//! What does not go together in several objects, what they refer to, and files that are no
//! manifests: as `validate` says it.

use xmpp_edge_tests::mistakes;

use crate::validate;

/// A pool `NAME` of org.example with more fields of its spec, in YAML's flow style.
fn pool(name: &str, more: &str) -> String {
    format!(
        "---\napiVersion: xmpp-edge.dev/v1alpha1\nkind: EdgePool\nmetadata: {{name: {name}}}\n\
         spec: {{site: {name}, domains: [org.example], accessEdge: {{fqdn: {name}.org.example}}, \
         gateways: [{{domains: [org.example], address: '10.0.0.9:5269'}}], certificate: {{selfSigned: {{}}}}{more}}}\n"
    )
}

fn object(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: xmpp-edge.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

fn partner(name: &str, spec: &str) -> String {
    object("XmppFederatedPartner", name, spec)
}

fn policy(name: &str, spec: &str) -> String {
    object(
        "ExternalAccessPolicy",
        name,
        &format!("enableFederationAccess: true, enableXmppAccess: true, {spec}"),
    )
}

const MAP: &str = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: map}\ndata: {users: 'a@b@c', ca: hello}\n";

/// One mistake each, with what it needs beside it.
fn manifests() -> Vec<String> {
    let hq = || pool("hq", "");
    let trust = |name: &str, key: &str| {
        partner(
            "p",
            &format!("domain: p.example, trust: {{caConfigMapRef: {{name: {name}, key: {key}}}}}"),
        )
    };
    let users = |name: &str, key: &str| {
        policy(
            "u",
            &format!("scope: User, usersFrom: [{{configMapRef: {{name: {name}, key: {key}}}}}]"),
        )
    };
    vec![
        // Files and documents.
        "hello: world\n".into(),
        "- a list\n".into(),
        "a: [\n".into(),
        "apiVersion: v1\nkind: List\n".into(),
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n".into(),
        "apiVersion: xmpp-edge.dev/v1alpha1\nkind: EdgePool\nspec: {}\n".into(),
        object("XmppPartner", "p", ""),
        hq() + &hq(),
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {tls.key: '%%%'}\n".into(),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {n: 5}\n".into(),
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {n: 5}\n".into(),
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {n: 'ENC[AES256_GCM,data:p6]'}\n".into(),
        // Neighbours.
        hq() + &partner("a", "domain: p.example") + &partner("b", "domain: p.example"),
        hq() + &partner("a", "domain: org.example"),
        pool("hq", "").replace(
            "5269'}",
            "5269', negotiation: {tlsNegotiation: Required, saslNegotiation: Required, supportDialbackNegotiation: false}}",
        ) + &partner("a", "domain: a.org.example"),
        hq() + &policy("a", "scope: Global") + &policy("b", "scope: Global"),
        hq() + &policy("a", "scope: Site, site: hq") + &policy("b", "scope: Site, site: hq"),
        hq() + &policy("a", "scope: User, users: [x@org.example]")
            + &policy("b", "scope: User, users: [x@org.example]"),
        hq() + &policy("a", "scope: User, users: ['*@org.example']")
            + &policy("b", "scope: User, users: ['*@org.example']"),
        pool("hq", ", settings: {dialbackSecretRef: {name: one}}") + &pool("west", ""),
        pool("hq", ", replicas: 2")
            + &partner("p", "domain: p.example, partnerType: PublicUnverified"),
        pool("hq", ", replicas: 1, contacts: {embedded: {}}") + &pool("west", "")
            + &partner("p", "domain: p.example, partnerType: PublicUnverified"),
        // References.
        hq() + &trust("nowhere", "ca"),
        hq() + MAP + &trust("map", "other"),
        hq() + MAP + &trust("map", "ca"),
        hq() + &users("nowhere", "users"),
        hq() + MAP + &users("map", "other"),
        hq() + MAP + &users("map", "users"),
        // `printf 'a@b.example\n' | iconv -t UTF-16`, in base64.
        hq() + &users("map", "users")
            + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: map}\nbinaryData: {users: //5hAEAAYgAuAGUAeABhAG0AcABsAGUACgA=}\n",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\nbinaryData: {n: '%%%'}\n".into(),
        pool("xmpp-edge-internal", ""),
        pool("hq", "").replace("selfSigned: {}", "secretRef: {name: nowhere}"),
        pool("hq", ", settings: {dialbackSecretRef: {name: nowhere}}"),
        pool("hq", ", contacts: {postgres: {secretRef: {name: nowhere}}}"),
        pool("hq", ", dns: {rfc2136: {server: '192.0.2.1', tsigSecretRef: {name: nowhere}, tsigAlgorithm: HmacSha256}}"),
        pool("hq", "").replace("selfSigned: {}", "certManager: {issuerRef: {name: ca}}"),
        // What is allowed and perhaps not meant.
        hq() + &policy("a", "scope: Global, partners: [nobody]"),
        hq() + &policy("a", "scope: Site, site: nowhere"),
        hq() + &policy("a", "scope: User, users: [x@elsewhere.example]"),
        hq() + &object("ExternalAccessPolicy", "a", "scope: Global, enableXmppAccess: true"),
        hq() + &object("ExternalAccessPolicy", "a", "scope: Global, enablePublicCloudAccess: true"),
        hq() + &partner("a", "domain: a.example, allowPlaintext: true, tlsNegotiation: Optional, saslNegotiation: Optional, supportDialbackNegotiation: true"),
        hq() + &partner("a", "domain: a.example, allowPlaintext: true, tlsNegotiation: NotSupported, saslNegotiation: NotSupported, supportDialbackNegotiation: true"),
    ]
}

#[test]
fn what_validate_finds_in_several_objects_is_listed() {
    let mut found = Vec::new();
    for manifests in manifests() {
        let said = validate(&manifests);
        assert!(!said.is_empty(), "validate finds nothing in:\n{manifests}");
        found.extend(said);
    }
    found.extend(validate(b"\xff"));
    // More than 64 MiB.
    found.extend(validate("#".repeat(1 << 26) + "#"));
    mistakes::compare("Several objects", &found);
}
