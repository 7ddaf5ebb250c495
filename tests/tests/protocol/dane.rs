//! DANE (RFC 7673) on a signed tree of zones: real Knot signs it, real Unbound resolves it, with and
//! without validating, and once more behind a forwarder that takes the signatures off or forges.
//!
//! Partners here may log in by a certificate alone, so that one that does not verify ends in an error.

use std::{collections::BTreeMap, net::SocketAddr, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    dns::{
        meddling::{Meddler, Meddling},
        signed::{SignedTree, Signing, Zone},
        unbound::Unbound,
    },
    edge::{self, Edge, INTERNAL_PORT, Place, manifest, texts},
    lab::Lab,
    peer::{Behaviour, Identity, Login, Peer, PeerServer},
    pki::{Authority, Leaf, Usage},
    rig::{ALICE, OWN, alone},
    servers::S2S_PORT,
};

const FQDN: &str = "edge.example";
const EDGE_HOST: u8 = 20;
const EDGE_INTERNAL_HOST: u8 = 21;
const INSIDE_HOST: u8 = 30;
const KNOT_HOST: u8 = 40;
const UNBOUND_HOST: u8 = 41;
const MEDDLER_HOST: u8 = 42;
const FIRST_PARTNER_HOST: u8 = 60;

/// A partner in a zone of its own.
struct Partner {
    name: &'static str,
    signing: Signing,
    /// By the authority that the edge trusts, or by nobody's.
    public: bool,
    tlsa: TlsaRecord,
    /// Zone file lines in place of an address and an SRV record; `@IP@` is the server's.
    records: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq)]
enum TlsaRecord {
    None,
    /// 3 1 1 of its own certificate.
    Own,
    /// 3 1 1 of another key.
    Other,
}

const PARTNERS: [Partner; 19] = [
    partner("match", Signing::Nsec, false, TlsaRecord::Own),
    partner("matchthree", Signing::Nsec3, false, TlsaRecord::Own),
    partner("mismatch", Signing::Nsec3, true, TlsaRecord::Other),
    partner("absent", Signing::Nsec3, true, TlsaRecord::None),
    partner("unsigned", Signing::Unsigned, true, TlsaRecord::Other),
    partner("offline", Signing::Offline, true, TlsaRecord::None),
    partner("forged", Signing::Forged, true, TlsaRecord::None),
    partner("expired", Signing::Expired, true, TlsaRecord::None),
    Partner {
        records: Some(WILDCARD),
        ..partner("wild", Signing::Nsec, true, TlsaRecord::None)
    },
    Partner {
        records: Some(WILDCARD),
        ..partner("wildthree", Signing::Nsec3, true, TlsaRecord::None)
    },
    Partner {
        records: Some(WILDCARD_ALIAS),
        ..partner("alias", Signing::Nsec, true, TlsaRecord::None)
    },
    Partner {
        records: Some(WILDCARD_ALIAS),
        ..partner("aliasthree", Signing::Nsec3, true, TlsaRecord::None)
    },
    // s18: signed, and the root proves that it vouches for nothing.
    partner("island", Signing::Island, true, TlsaRecord::Other),
    // And one that shows signatures, but no keys.
    partner("keyless", Signing::Keyless, true, TlsaRecord::Other),
    // Whose algorithm nobody knows is as one without keys (RFC 4035 section 5.2).
    partner(
        "unknown",
        Signing::UnknownAlgorithm,
        true,
        TlsaRecord::Other,
    ),
    partner("sha", Signing::Sha1, true, TlsaRecord::None),
    partner("iterated", Signing::Iterated, true, TlsaRecord::None),
    // From a signed zone into one without keys and back.
    Partner {
        records: Some(HOP),
        ..partner("between", Signing::Unsigned, true, TlsaRecord::None)
    },
    Partner {
        records: Some(ACROSS),
        ..partner("across", Signing::Nsec, true, TlsaRecord::None)
    },
];

const HOP: &str =
    "xmpp A @IP@\n_xmpp-server._tcp SRV 0 0 5269 xmpp\nhop CNAME end.across.example.\n";
const ACROSS: &str =
    "xmpp A @IP@\n_xmpp-server._tcp CNAME hop.between.example.\nend SRV 0 0 5269 xmpp\n";

/// Every host exists, by a wildcard; no name has TLSA records.
const WILDCARD: &str = "* A @IP@\n_xmpp-server._tcp SRV 0 0 5269 any\n";
/// Every name is an alias of one that has no SRV records.
const WILDCARD_ALIAS: &str = "@ A @IP@\n* CNAME @\n";

const fn partner(name: &'static str, signing: Signing, public: bool, tlsa: TlsaRecord) -> Partner {
    Partner {
        name,
        signing,
        public,
        tlsa,
        records: None,
    }
}

/// What becomes of a message to a partner.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// It arrives by `SaslOverTls`; a step of the attempt says this.
    Arrives(&'static str),
    /// It comes back; the attempt has a step with this outcome.
    Fails(&'static str),
}

/// Which resolver the edge asks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Asked {
    /// Unbound that hands on: the edge validates.
    Plain,
    /// Unbound that validates, on loopback: its word counts.
    Validating,
    /// One that hands on, behind a forwarder that does not.
    Behind(Meddling),
}

impl Partner {
    fn domain(&self) -> String {
        format!("{}.example", self.name)
    }
}

/// The edge, a server inside, and a server for each partner, around one resolver.
struct Scenery {
    edge: Edge,
    inside: PeerServer,
    own: Leaf,
    partners: Vec<PeerServer>,
    resolver: SocketAddr,
    tree: SignedTree,
    _unbound: Unbound,
    _meddler: Option<Meddler>,
    lab: Lab,
}

impl Scenery {
    async fn build(asked: Asked) -> Result<Self> {
        let lab = Lab::new().await?;
        let nobody = Authority::new("Nobody's Root");
        let mut partners = Vec::new();
        let mut zones = Vec::new();
        for (host, partner) in (FIRST_PARTNER_HOST..).zip(&PARTNERS) {
            let domain = partner.domain();
            let authority = if partner.public {
                lab.authority()
            } else {
                &nobody
            };
            let leaf = authority.issue(&[&domain], Usage::ServerAuth);
            let at = SocketAddr::from((lab.ip(host), S2S_PORT));
            partners.push(PeerServer::listen(at, Behaviour::good(Identity::of(&leaf)?)).await?);
            let tlsa = match partner.tlsa {
                TlsaRecord::None => String::new(),
                TlsaRecord::Own => format!("_{S2S_PORT}._tcp.xmpp TLSA 3 1 1 {}\n", leaf.pin()),
                TlsaRecord::Other => {
                    let other = nobody.issue(&[&domain], Usage::ServerAuth);
                    format!("_{S2S_PORT}._tcp.xmpp TLSA 3 1 1 {}\n", other.pin())
                }
            };
            zones.push(Zone {
                records: match partner.records {
                    Some(records) => records.replace("@IP@", &lab.ip(host).to_string()),
                    None => format!(
                        "xmpp A {}\n_xmpp-server._tcp SRV 0 0 {S2S_PORT} xmpp\n{tlsa}",
                        lab.ip(host)
                    ),
                },
                name: domain,
                signing: partner.signing,
            });
        }
        let tree = SignedTree::start(lab.ip(KNOT_HOST), &lab.path("knot"), &zones).await?;
        let unbound = Unbound::start(
            lab.ip(UNBOUND_HOST),
            &lab.path("unbound"),
            &tree,
            asked == Asked::Validating,
        )
        .await?;
        let meddler = match asked {
            Asked::Behind(meddling) => {
                Some(Meddler::start(lab.ip(MEDDLER_HOST), unbound.address(), meddling).await?)
            }
            Asked::Plain | Asked::Validating => None,
        };
        let resolver = match &meddler {
            Some(meddler) => meddler.address(),
            None => unbound.address(),
        };
        let place = Place {
            resolver,
            trust_anchors: Some(tree.anchors().to_owned()),
            ..Place::in_lab(&lab, EDGE_HOST, EDGE_INTERNAL_HOST)
        };
        let edge = Edge::start(place, &manifests(&lab)).await?;
        let own = edge.gateway_identity(OWN)?;
        let at = SocketAddr::from((lab.ip(INSIDE_HOST), S2S_PORT));
        Ok(Self {
            inside: PeerServer::listen(at, Behaviour::good(Identity::of(&own)?)).await?,
            edge,
            own,
            partners,
            resolver,
            tree,
            _unbound: unbound,
            _meddler: meddler,
            lab,
        })
    }

    /// A message from alice meets its fate, and `/status` says why.
    async fn meets(&self, number: usize, fate: Fate) -> Result<()> {
        let domain = PARTNERS[number].domain();
        let internal = SocketAddr::from((self.lab.ip(EDGE_INTERNAL_HOST), INTERNAL_PORT));
        let mut alice = Peer::login(internal, OWN, &domain, &Login::External(&self.own)).await?;
        let id = format!("id-{number}");
        alice
            .message(ALICE, &format!("rob@{domain}"), &id, "hello")
            .await?;
        match fate {
            Fate::Arrives(says) => {
                self.partners[number]
                    .stanza_id(&id)
                    .await
                    .with_context(|| format!("{domain}: nothing arrived: {}", self.edge.log()))?;
                let steps = self.steps(&domain).await?;
                ensure!(
                    steps.iter().any(|step| told(step).contains(says)),
                    "no step says {says:?}: {steps:#?}"
                );
                let status = self.edge.status().await?;
                let by = status["streams"].as_array().context("no streams")?.iter();
                let mut by = by.filter(|stream| stream["peerDomains"] == json!([domain]));
                ensure!(
                    by.any(|stream| stream["method"] == "SaslOverTls"),
                    "{domain} is not connected by SaslOverTls: {status:#}"
                );
            }
            Fate::Fails(outcome) => {
                let error = self.inside.stanza_id(&id).await?;
                ensure!(error.attribute("type") == Some("error"), "{error:?}");
                let steps = self.steps(&domain).await?;
                ensure!(
                    steps.iter().any(|step| step["outcome"] == outcome),
                    "no step is {outcome}: {steps:#?}"
                );
                let bogus = outcome == "DnsBogus";
                ensure!(
                    !bogus || steps.iter().all(|step| step["step"] == "dns"),
                    "something was dialled after a bogus answer: {steps:#?}"
                );
                ensure!(
                    !bogus || error.error_text().contains("bogus"),
                    "the sender does not learn why: {error:?}"
                );
            }
        }
        Ok(())
    }

    async fn steps(&self, domain: &str) -> Result<Vec<Value>> {
        let status = self.edge.status().await?;
        let partners = status["partners"].as_array().context("no partners")?;
        let partner = partners.iter().find(|partner| partner["domain"] == domain);
        let steps = &partner.context("no such partner")?["lastAttempt"];
        steps.as_array().cloned().context("no lastAttempt")
    }

    /// What `xmpp-edge-proxy probe` reports.
    fn probe(&self, domain: &str, anchors: bool) -> Result<Value> {
        let authority = self.lab.path("authority.pem");
        std::fs::write(&authority, self.lab.authority().certificate())?;
        let mut command = Command::new(edge::binary()?.with_file_name("xmpp-edge-proxy"));
        command
            .args(["probe", domain, "--from", OWN, "--json", "--resolver"])
            .arg(self.resolver.to_string())
            .arg("--ca")
            .arg(authority);
        if anchors {
            command.arg("--trust-anchors").arg(self.tree.anchors());
        }
        let done = command.output()?;
        serde_json::from_slice(&done.stdout)
            .with_context(|| String::from_utf8_lossy(&done.stderr).into_owned())
    }
}

fn says(value: &Value, part: &str) -> bool {
    value.as_str().is_some_and(|text| text.contains(part))
}

fn told(step: &Value) -> &str {
    step["text"].as_str().unwrap_or_default()
}

fn manifests(lab: &Lab) -> Vec<Value> {
    let certificate = lab
        .authority()
        .issue(&[OWN, FQDN], Usage::ServerAndClientAuth);
    let roots = BTreeMap::from([("ca.crt", lab.authority().certificate())]);
    let pair = BTreeMap::from([
        ("tls.crt", certificate.certificate),
        ("tls.key", certificate.key),
    ]);
    let inside = format!("{}:{S2S_PORT}", lab.ip(INSIDE_HOST));
    let mut all = vec![
        texts("ConfigMap", "public-roots", &roots),
        texts("Secret", "edge-certificate", &pair),
        manifest(
            "EdgePool",
            "edge",
            json!({
                "site": "here",
                "domains": [OWN],
                "accessEdge": { "fqdn": FQDN },
                "gateways": [{ "domains": [OWN], "mode": "Direct", "address": inside }],
                "certificate": { "secretRef": { "name": "edge-certificate" } },
                "trust": { "caConfigMapRef": { "name": "public-roots", "key": "ca.crt" } },
            }),
        ),
        manifest(
            "ExternalAccessPolicy",
            "everyone",
            json!({
                "scope": "Global",
                "enableFederationAccess": true,
                "enableXmppAccess": true,
                "enablePublicCloudAccess": true,
            }),
        ),
    ];
    all.extend(PARTNERS.iter().map(|partner| {
        let spec = json!({
            "domain": partner.domain(),
            "partnerType": "Federated",
            "saslNegotiation": "Required",
            "supportDialbackNegotiation": false,
        });
        manifest("XmppFederatedPartner", partner.name, spec)
    }));
    all
}

/// Each partner meets the fate that stands at its place.
async fn all_meet(scenery: &Scenery, fates: [Fate; PARTNERS.len()]) -> Result<()> {
    for (number, fate) in fates.into_iter().enumerate() {
        scenery
            .meets(number, fate)
            .await
            .with_context(|| format!("{}: {fate:?}", PARTNERS[number].name))?;
    }
    Ok(())
}

const MISMATCH: Fate = Fate::Fails("CertificateDaneMismatch");
const PROVEN: Fate = Fate::Arrives("no TLSA record, which is proven");
const NO_SRV: Fate = Fate::Arrives("no SRV record");
const INSECURE: Fate = Fate::Arrives("not secure (no DNSSEC signatures)");
const BOGUS: Fate = Fate::Fails("DnsBogus");

/// Where signatures are looked at, here or by the resolver; what is told of the first partner, and of one whose denials
/// take many iterations.
fn validated(first: &'static str, iterated: Fate) -> [Fate; PARTNERS.len()] {
    [
        Fate::Arrives(first),
        Fate::Arrives("DANE counts: 1 TLSA record"),
        MISMATCH,
        PROVEN,
        Fate::Arrives("not secure (no DNSSEC signatures)"),
        PROVEN,
        BOGUS,
        BOGUS,
        PROVEN,
        PROVEN,
        NO_SRV,
        NO_SRV,
        INSECURE,
        INSECURE,
        INSECURE,
        PROVEN,
        iterated,
        INSECURE,
        INSECURE,
    ]
}

#[test]
fn dane_is_validated_by_the_edge() {
    alone(async {
        let scenery = Scenery::build(Asked::Plain).await?;
        let fates = validated("DANE counts: 1 TLSA record", INSECURE);
        all_meet(&scenery, fates).await?;
        let first = scenery.steps("match.example").await?;
        ensure!(
            first
                .iter()
                .any(|step| told(step).contains("validated here")),
            "{first:#?}"
        );

        let report = scenery.probe("match.example", true)?;
        ensure!(report["secure"] == true, "{report:#}");
        let target = &report["targets"][0];
        ensure!(target["certificate"]["verifiedBy"] == "Dane", "{report:#}");
        ensure!(says(&target["dane"], "DANE counts"), "{report:#}");
        let report = scenery.probe("expired.example", true)?;
        ensure!(says(&report["error"], "bogus"), "{report:#}");
        // By the root's own keys nothing in this tree can be validated: DANE is not used.
        let report = scenery.probe("mismatch.example", false)?;
        ensure!(report["secure"] == false, "{report:#}");
        ensure!(says(&report["dnssec"], "no trust anchor"), "{report:#}");
        ensure!(
            report["targets"][0]["certificate"]["valid"] == true,
            "{report:#}"
        );
        Ok(())
    });
}

#[test]
fn dane_is_validated_by_a_resolver_on_loopback() {
    alone(async {
        let scenery = Scenery::build(Asked::Validating).await?;
        // Unbound puts its limit of iterations higher.
        let fates = validated("validated by the resolver on loopback", PROVEN);
        all_meet(&scenery, fates).await
    });
}

#[test]
fn dane_is_not_used_behind_a_resolver_that_strips_signatures() {
    alone(async {
        let scenery = Scenery::build(Asked::Behind(Meddling::Strip)).await?;
        let plain = Fate::Arrives("not secure (no DNSSEC signatures)");
        let untrusted = Fate::Fails("CertificateChainIncomplete");
        all_meet(
            &scenery,
            [
                untrusted, untrusted, plain, plain, plain, plain, plain, plain, plain, plain,
                NO_SRV, NO_SRV, plain, plain, plain, plain, plain, plain, plain,
            ],
        )
        .await
    });
}

#[test]
fn a_record_that_was_changed_under_its_signature_is_not_dialled() {
    alone(async {
        let scenery = Scenery::build(Asked::Behind(Meddling::Forge)).await?;
        for number in [0, 1] {
            scenery.meets(number, BOGUS).await?;
        }
        Ok(())
    });
}

/// RFC 7673 section 3.3: whoever hides the records does not decide that there are none.
#[test]
fn a_target_whose_tlsa_records_are_hidden_is_passed_by() {
    alone(async {
        let scenery = Scenery::build(Asked::Behind(Meddling::HideTlsa)).await?;
        for number in [0, 2] {
            scenery.meets(number, BOGUS).await?;
        }
        Ok(())
    });
}
