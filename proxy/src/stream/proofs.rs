//! What a stream's certificate has proved, and by which trust. Every pair is asked for anew with each
//! configuration; a chain that was good is verified again only where what it was judged by has changed,
//! or time may have made it bad.

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use xmpp_edge_crds::domain::DomainName;

use crate::{
    negotiation::MAX_PAIRS,
    tls::{CertificateFault, TrustStamp, Verified, not_after},
};

/// What the one chain of a stream has proved: a connection has one handshake. Failures are not kept.
#[derive(Debug, Default)]
pub struct Proofs {
    proved: Mutex<Vec<Proof>>,
    #[cfg(test)]
    pub(super) verified: std::sync::atomic::AtomicUsize,
}

#[derive(Debug)]
struct Proof {
    domain: DomainName,
    by: TrustStamp,
    /// When the next certificate of the chain is over; of those that are already the peer's own alone, which a pin
    /// may vouch for: some send more than is needed.
    until: Timestamp,
}

impl Proofs {
    /// Whether `chain` proves `domain`: as before where `by` is what judged it then, else as `verify`
    /// says now.
    ///
    /// # Errors
    /// What `verify` finds.
    pub fn prove(
        &self,
        domain: &DomainName,
        by: TrustStamp,
        chain: &[CertificateDer<'_>],
        verify: impl FnOnce() -> Result<Verified, CertificateFault>,
    ) -> Result<(), CertificateFault> {
        let mut proved = self.proved.lock();
        let now = Timestamp::now();
        if let Some(at) = proved.iter().position(|proof| proof.domain == *domain) {
            if proved[at].by == by && now < proved[at].until {
                return Ok(());
            }
            proved.swap_remove(at);
        }
        #[cfg(test)]
        self.verified
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        verify()?;
        let ends: Result<Vec<_>, _> = chain.iter().map(not_after).collect();
        let ends = ends.into_iter().flatten().map(over).enumerate();
        let counts = ends.filter(|(place, end)| *place == 0 || *end > now);
        if let Some(until) = counts.map(|(_, end)| end).min()
            && proved.len() < MAX_PAIRS
        {
            if proved.is_empty() {
                // Most streams have one peer.
                proved.reserve_exact(1);
            }
            proved.push(Proof {
                domain: domain.clone(),
                by,
                until,
            });
        }
        Ok(())
    }

    /// When the next certificate ends by which something was proved.
    #[must_use]
    pub fn next_end(&self, today: Timestamp) -> Option<Timestamp> {
        let proved = self.proved.lock();
        let ends = proved.iter().map(|proof| proof.until);
        ends.filter(|end| *end > today).min()
    }

    /// What was proved by certificates that have ended.
    #[must_use]
    pub fn ended(&self, today: Timestamp) -> Vec<DomainName> {
        let proved = self.proved.lock();
        let ended = proved.iter().filter(|proof| proof.until <= today);
        ended.map(|proof| proof.domain.clone()).collect()
    }

    /// What DNS says of the domain's server is another from here on.
    pub fn forget(&self, domain: &DomainName) {
        self.proved.lock().retain(|proof| proof.domain != *domain);
    }
}

/// A certificate holds through the second of its notAfter (RFC 5280 section 4.1.2.5).
fn over(not_after: Timestamp) -> Timestamp {
    let second = SignedDuration::from_secs(1);
    not_after.saturating_add(second).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use serde_json::{Value, json};

    use super::*;
    use crate::{
        config::{ActiveConfig, fixture::of_document},
        negotiation::{Environment, PeerRole, Side},
        stream::{environment::ConfigEnvironment, given_up::GivenUp},
        tls::pki::{Authority, Subject, authority, issue},
    };

    fn partner(name: &str) -> Value {
        json!({
            "name": name, "domains": [format!("{name}.example")], "partnerType": "Federated",
            "negotiation": {"tls": "Required", "sasl": "Required", "dialback": false},
            "methods": ["SaslOverTls"], "enableKeepAlive": true, "connectionLimit": 20,
        })
    }

    fn document(authorities: &[&Authority]) -> Value {
        json!({
            "version": {"major": 1, "minor": 0}, "generation": 1,
            "namespace": "default", "pool": "edge", "site": "a", "fqdn": "edge.org.example",
            "domains": ["org.example"], "namespaceDomains": ["org.example"],
            "listeners": {"s2s": 5269, "directTls": 0, "internal": 23456, "admin": 0, "dns": 0},
            "gateways": [],
            "partners": [partner("partner"), partner("other")],
            "trustCa": authorities.iter().map(|own| own.pem()).collect::<String>(),
            "access": {"policies": [], "homeSites": {}}, "settings": {}, "contacts": "Embedded",
        })
    }

    /// Asks as a stream does for each of its pairs; says whether all hold, and how often the chain was
    /// verified.
    fn ask(
        config: &ActiveConfig,
        proofs: &Proofs,
        chain: &[CertificateDer<'static>],
    ) -> (bool, usize) {
        let before = proofs.verified.load(Ordering::Relaxed);
        let peer = DomainName::parse("partner.example").expect("valid");
        let environment = ConfigEnvironment {
            config,
            tlsa: &[],
            chain,
            proofs,
            given_up: &GivenUp::default(),
        };
        let holds = (0..MAX_PAIRS).all(|_| {
            environment
                .verify_certificate(Side::Partner, PeerRole::Client, &peer)
                .is_ok()
        });
        (holds, proofs.verified.load(Ordering::Relaxed) - before)
    }

    #[test]
    fn a_certificate_beside_the_path_that_is_over_changes_nothing() {
        let (ours, theirs) = (authority("ours"), authority("theirs"));
        let leaf = issue(&ours, &Subject::default());
        let over = Subject {
            end: Subject::default().begin + 1,
            ..Subject::default()
        };
        let chain = [leaf.der, issue(&theirs, &over).der];
        let config = of_document(document(&[&ours]));
        let proofs = Proofs::default();
        assert_eq!(ask(&config, &proofs, &chain), (true, 1));
        let end = not_after(&chain[0]).expect("a certificate");
        let next = proofs.next_end(Timestamp::now());
        assert_eq!(
            next,
            Some(super::over(end)),
            "the stream ends with its leaf"
        );
    }

    #[test]
    fn a_configuration_verifies_a_chain_again_only_where_it_changes_what_judged_it() {
        let (ours, theirs) = (authority("ours"), authority("theirs"));
        let issued = issue(&ours, &Subject::default());
        let key = crate::tls::spki_sha256(&issued.der)
            .expect("a certificate")
            .to_string();
        let chain = [issued.der];
        let first = of_document(document(&[&ours]));
        let own = |change: &dyn Fn(&mut Value)| {
            let mut document = document(&[&ours]);
            change(&mut document["partners"][0]);
            document
        };
        let other = {
            let mut document = document(&[&ours]);
            document["partners"][1]["trust"] = json!({ "pinnedSpkiSha256": [key] });
            document["settings"] = json!({ "queueTimeoutSeconds": 7 });
            document
        };
        let table = [
            ("nothing", document(&[&ours]), (true, 0)),
            ("another partner, and settings", other, (true, 0)),
            (
                "what says nothing of certificates",
                own(&|partner| partner["stanzasPerSecond"] = json!(5)),
                (true, 0),
            ),
            (
                "a pin",
                own(&|partner| partner["trust"] = json!({ "pinnedSpkiSha256": [key] })),
                (true, 1),
            ),
            (
                "a known key",
                own(&|partner| partner["trust"] = json!({ "knownSpkiSha256": [key] })),
                (true, 1),
            ),
            (
                "what a changed key does",
                own(&|partner| partner["trust"] = json!({ "onKeyChange": "Warn" })),
                (true, 1),
            ),
            ("one authority more", document(&[&ours, &theirs]), (true, 1)),
            // The first pair that fails closes the stream.
            ("another authority", document(&[&theirs]), (false, 1)),
            (
                "an authority of the partner's own",
                own(&|partner| partner["trust"] = json!({ "ca": theirs.pem() })),
                (false, 1),
            ),
            (
                "a pin that is another key's",
                own(&|partner| {
                    partner["trust"] = json!({
                        "pinnedSpkiSha256": ["ab".repeat(32)], "onKeyChange": "Refuse",
                    });
                }),
                (false, 1),
            ),
        ];
        for (name, changed, expected) in table {
            let proofs = Proofs::default();
            assert_eq!(ask(&first, &proofs, &chain), (true, 1), "{name}");
            let changed = of_document(changed);
            assert_eq!(ask(&changed, &proofs, &chain), expected, "{name}");
            // What failed is not taken for good, what was good before is asked for anew.
            assert!(ask(&first, &proofs, &chain).0, "{name}");
        }
    }

    #[test]
    fn a_proof_ends_with_the_certificate_and_with_what_dns_proved() {
        let ours = authority("ours");
        let begin = u64::try_from(Timestamp::now().as_second()).expect("after 1970") - 3_600;
        let ended = Subject {
            begin: begin - 3_600,
            end: begin,
            ..Subject::default()
        };
        let chain = [issue(&ours, &ended).der];
        let domain = DomainName::parse("partner.example").expect("valid");
        let proofs = Proofs::default();
        let mut verified = 0;
        let mut prove = |proofs: &Proofs, chain: &[CertificateDer<'_>]| {
            let verify = || {
                verified += 1;
                Ok(Verified {
                    by: crate::tls::VerifiedBy::Pin,
                    spki_sha256: crate::tls::spki_sha256(&chain[0]).expect("a certificate"),
                    not_after: Timestamp::now(),
                    key_changed: false,
                })
            };
            proofs
                .prove(&domain, TrustStamp::default(), chain, verify)
                .expect("it says so");
            verified
        };
        // As a pinned key may: each time anew.
        assert_eq!((prove(&proofs, &chain), prove(&proofs, &chain)), (1, 2));
        let today = Timestamp::now();
        assert_eq!(proofs.ended(today), std::slice::from_ref(&domain));
        assert_eq!(proofs.next_end(today), None, "nothing is looked for again");
        let chain = [issue(&ours, &Subject::default()).der];
        let proofs = Proofs::default();
        assert_eq!((prove(&proofs, &chain), prove(&proofs, &chain)), (3, 3));
        let end = proofs.next_end(today).expect("it ends one day");
        assert!(proofs.ended(today).is_empty());
        assert_eq!(proofs.ended(end), std::slice::from_ref(&domain));
        proofs.forget(&domain);
        assert_eq!(prove(&proofs, &chain), 4);
    }
}
