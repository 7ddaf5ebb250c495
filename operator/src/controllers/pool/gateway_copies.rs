//! Copies of gateways' certificates that were not renewed: the operator knows what it issued, the proxies
//! what the servers inside show. A server elsewhere has a copy of the Secret, which somebody has to
//! renew (docs/guide/connect-in-a-cluster.md).

use jiff::{SignedDuration, Timestamp};
use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::EdgeConfig,
    kinds::conditions::{ConditionType, Reason},
};

use crate::{
    compile::{Diagnostic, Kind, ObjectRef, Severity},
    proxy_status::merge::{GatewayFacts, ShownCertificate},
    secrets::{chain::CertificateFacts, store::ManagedSecret},
};

/// So long a copy may take after the certificate was issued.
const COPIED: SignedDuration = SignedDuration::from_hours(24);
/// A certificate that ends within this is told, whenever it was seen.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

/// What there is to say of the pool's gateways. One with a PKI of its own (`trust`) shows no copy.
#[must_use]
pub(super) fn stale(
    config: &EdgeConfig,
    issued: &[(Vec<DomainName>, CertificateFacts)],
    seen: &[GatewayFacts],
    now: Timestamp,
) -> Vec<Diagnostic> {
    let mut told = Vec::new();
    for (domains, facts) in issued {
        let Some(first) = domains.first() else {
            continue;
        };
        let own_pki = config.gateways.iter().any(|gateway| {
            gateway.domains == *domains
                && (gateway.trust_ca.is_some() || gateway.trust_public_roots)
        });
        let shown = seen
            .iter()
            .find(|gateway| gateway.domains.iter().any(|it| it == first.as_str()))
            .and_then(|gateway| gateway.shown);
        if let Some(shown) = shown.filter(|shown| !own_pki && is_stale(facts, *shown, now)) {
            let secret = ManagedSecret::Gateway(first.to_string());
            told.push(Diagnostic {
                object: ObjectRef::new(Kind::EdgePool, &config.pool),
                condition: ConditionType::GatewayReachable,
                status: true,
                reason: Reason::GatewayCertificateStale,
                message: format!(
                    "the server of {first} shows a certificate that ends at {}, where Secret {:?} holds one until {}: copy it again, and let the server read it",
                    shown.not_after,
                    secret.to_string(),
                    facts.not_after
                ),
                severity: Severity::Warning,
            });
        }
    }
    told
}

fn is_stale(issued: &CertificateFacts, shown: ShownCertificate, now: Timestamp) -> bool {
    let is_older = shown.not_after < issued.not_after;
    let had_time = shown.seen.duration_since(issued.not_before) > COPIED;
    let ends = shown.not_after.duration_since(now) < SOON;
    is_older && (had_time || ends)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::secrets::issue;

    fn config(more: &str) -> EdgeConfig {
        let documents = crate::standalone::documents::read(&format!(
            "apiVersion: xmpp-edge.dev/v1alpha1\nkind: EdgePool\nmetadata: {{name: hq}}\nspec: {{site: hq, domains: [org.example], accessEdge: {{fqdn: e.org.example}}, gateways: [{{domains: [org.example], address: 'i.example:5269'{more}}}], certificate: {{selfSigned: {{}}}}}}"
        ))
        .unwrap();
        let stored = crate::standalone::manifests::Stored::new();
        let mut gathered =
            crate::standalone::manifests::gather([("pool.yaml", documents.as_slice())], &stored);
        let world = gathered.worlds.remove("default").unwrap();
        let compiled = crate::compile::compile(&world, &std::collections::BTreeMap::new());
        compiled.configs["hq"].clone()
    }

    #[test]
    fn a_copy_that_was_not_renewed_is_told() {
        let made: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
        let hours = SignedDuration::from_hours;
        let root = issue::root("Root", made).unwrap();
        let domains = vec![DomainName::parse("org.example").unwrap()];
        let leaf = issue::leaf(&root, &domains, made).unwrap();
        let facts = CertificateFacts::of_chain(&leaf.chain).unwrap();
        let old = facts.not_after - hours(60 * 24);
        let issued = [(domains, facts.clone())];
        let plain = config("");
        let trusting = config(", trust: {publicRoots: true}");
        for (config, not_after, seen, now, expected) in [
            // Just renewed: somebody needs time to copy it.
            (&plain, old, made + hours(2), made + hours(2), false),
            (&plain, old, made + hours(48), made + hours(48), true),
            // A stream of before the renewal says nothing of what the server has now,
            (&plain, old, made - hours(48), made + hours(48), false),
            // until what it showed ends.
            (&plain, old, made - hours(48), old - hours(24), true),
            (
                &plain,
                facts.not_after,
                made + hours(48),
                made + hours(48),
                false,
            ),
            (&trusting, old, made + hours(48), made + hours(48), false),
        ] {
            let gateway = GatewayFacts {
                domains: vec!["org.example".to_owned()],
                shown: Some(ShownCertificate { not_after, seen }),
                ..GatewayFacts::default()
            };
            let told = stale(config, &issued, &[gateway], now);
            assert_eq!(
                told.len(),
                usize::from(expected),
                "{not_after} {seen} {now}"
            );
            if let Some(diagnostic) = told.first() {
                assert!(diagnostic.message.contains("xmpp-edge-gateway-org.example"));
            }
        }
        assert!(stale(&plain, &issued, &[], made).is_empty());
    }
}
