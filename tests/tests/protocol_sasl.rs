//! E: certificates and SASL EXTERNAL, in both roles.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    sync::{Mutex, OnceLock},
};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use tokio::net::TcpListener;
use xmpp_edge_tests::{
    edge::texts,
    peer::{Behaviour, ClientTls, Identity, Login, Open, Peer, ServerTls, Session, Verdict, ns},
    pki::{Authority, Draft, Leaf, Usage, Validity},
    rig::{ALICE, Moved, OWN, Plan, Scene, Shared},
    servers::S2S_PORT,
    wait,
    xml::Element,
};

static RIG: Shared = Shared::new(Plan {
    partner: |test| match test {
        // Dialback inside TLS is left where a certificate is of no use.
        5 | 6 | 13 | 17 | 23 | 24 => json!({ "saslNegotiation": "Optional" }),
        7 => json!({ "additionalDomains": ["sub.e07.example", "a.sub.e07.example"] }),
        8 => json!({ "additionalDomains": ["sub.e08.example"] }),
        10 => json!({ "additionalDomains": [IDN] }),
        18 => json!({ "trust": { "caConfigMapRef": { "name": "e-18", "key": "ca.crt" } } }),
        19 | 25 => json!({ "trust": {
            "pinnedSpkiSha256": [pinned(test).pin()],
            "onKeyChange": if test == 19 { "Refuse" } else { "Warn" },
        } }),
        27 => json!({ "additionalDomains": BAD_SERVERS }),
        21 => json!({ "trust": { "onKeyChange": "Refuse" } }),
        _ => json!({}),
    },
    objects: |lab| {
        let ca = own_authority().certificate();
        let known = lab.authority().issue(&["e21.example"], Usage::ServerAuth);
        let pin = known.pin();
        *KNOWN.lock().unwrap() = Some(known);
        let config_map =
            |name, key, value| texts("ConfigMap", name, &BTreeMap::from([(key, value)]));
        vec![
            config_map("e-18", "ca.crt", ca),
            config_map("edge-peer-keys", "e-21", pin),
        ]
    },
    ..Plan::standard("e", 27)
});

/// One for each bad certificate.
const BAD_SERVERS: [&str; 6] = [
    "a.e27.example",
    "b.e27.example",
    "c.e27.example",
    "d.e27.example",
    "e.e27.example",
    "f.e27.example",
];
const IDN: &str = "xn--bcher-kva.example";

/// The certificate whose key the newest rig knows as that of partner 21.
static KNOWN: Mutex<Option<Leaf>> = Mutex::new(None);

/// The private authority of one partner.
fn own_authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| Authority::new("Private Root"))
}

/// The certificate whose key is pinned for a partner: of no authority.
fn pinned(test: u8) -> &'static Leaf {
    static LEAVES: [OnceLock<Leaf>; 2] = [const { OnceLock::new() }; 2];
    let leaf = &LEAVES[usize::from(test == 25)];
    leaf.get_or_init(|| Draft::of(&[&format!("e{test:02}.example")]).self_signed())
}

/// Connects, and does TLS with this certificate as `domain`; the new stream is not opened.
async fn secured_as(s: &Scene, domain: &str, leaf: Option<&Leaf>) -> Result<Peer> {
    let mut peer = s.connect().await?;
    peer.open(domain, OWN).await?;
    let identity = leaf.map(Identity::of).transpose()?;
    peer.starttls(&ClientTls::new(Some(OWN), identity)).await?;
    Ok(peer)
}

/// The certificate is good for `domain`: EXTERNAL succeeds.
async fn accepted(s: &Scene, domain: &str, leaf: &Leaf) -> Result<()> {
    let mut peer = secured_as(s, domain, Some(leaf)).await?;
    peer.external(domain, OWN).await?;
    let id = s.fresh();
    peer.message(&format!("rob@{domain}"), ALICE, &id, "hello")
        .await?;
    s.inside_gets(&id).await?;
    Ok(())
}

/// The certificate is not good for `domain`, and nothing else may be used: the stream ends; the text
/// of its error.
async fn refused(s: &Scene, domain: &str, leaf: Option<&Leaf>) -> Result<String> {
    let mut peer = secured_as(s, domain, leaf).await?;
    peer.open_with(&Open::new(domain, OWN)).await?;
    peer.header().await?;
    let error = peer
        .expect("a stream error", |e| e.is("error", ns::STREAM))
        .await?;
    ensure!(
        error.child("not-authorized").is_some(),
        "not not-authorized: {error:?}"
    );
    peer.ended().await?;
    let text = error.child("text").context("a text")?.text.clone();
    Ok(text)
}

/// As [`refused`], with these words in the text and this outcome.
async fn refused_because(
    s: &Scene,
    domain: &str,
    leaf: Option<&Leaf>,
    words: &[&str],
    outcome: &str,
) -> Result<()> {
    let text = refused(s, domain, leaf).await?;
    for word in words {
        ensure!(text.contains(word), "no {word:?} in {text:?}");
    }
    let label = format!("outcome=\"{outcome}\"");
    s.moved("attempts_total", &[&label]).await
}

/// Sends `<auth/>` on a fresh connection with the partner's certificate; the answer, and whether
/// the stream takes a message afterwards.
async fn auth(s: &Scene, leaf: &Leaf, mechanism: &str, text: &str) -> Result<(Peer, Element)> {
    let mut peer = secured_as(s, &s.domain, Some(leaf)).await?;
    ensure!(peer.open(&s.domain, OWN).await?.external());
    let answer = peer.auth(mechanism, text).await?;
    Ok((peer, answer))
}

/// Authentication failed with this condition, and a message is refused.
async fn failed(s: &Scene, mut peer: Peer, answer: &Element, condition: &str) -> Result<()> {
    ensure!(
        answer.is("failure", ns::SASL) && answer.child(condition).is_some(),
        "not {condition}: {answer:?}"
    );
    let id = s.forbidden();
    peer.message(&s.user("rob"), ALICE, &id, &id).await?;
    peer.expect_stream_error("not-authorized").await
}

/// A message from alice to the partner; its id.
async fn alice_writes(s: &Scene) -> Result<String> {
    let id = s.fresh();
    let mut inside = s.inside().await?;
    inside.message(ALICE, &s.user("rob"), &id, &id).await?;
    Ok(id)
}

/// The text of the error that alice gets for a message.
async fn bounced(s: &Scene, id: &str) -> Result<String> {
    let error = s.inside_gets(id).await?;
    ensure!(
        error.error_condition() == Some("remote-server-timeout"),
        "{error:?}"
    );
    Ok(error.error_text().to_owned())
}

#[test]
fn e_01_a_certificate_for_the_domain_authenticates_by_external() {
    RIG.test(1, async |s| {
        let mut peer = secured_as(s, &s.domain, Some(&s.identity)).await?;
        let features = peer.open(&s.domain, OWN).await?;
        ensure!(features.mechanisms() == ["EXTERNAL"], "{features:?}");
        let answer = peer.auth("EXTERNAL", "=").await?;
        ensure!(answer.name == "success", "{answer:?}");
        let features = peer.open(&s.domain, OWN).await?;
        ensure!(features.mechanisms().is_empty(), "{features:?}");
        ensure!(features.starttls().is_none(), "{features:?}");
        s.delivers_inwards(&mut peer).await?;
        s.moved("attempts_total", &["step=\"sasl\"", "outcome=\"Ok\""])
            .await?;
        let streams = s.rig.edge.lock().await.streams("Partner").await?;
        let stream = streams
            .iter()
            .find(|stream| stream["peerDomains"][0] == s.domain.as_str())
            .context("no stream in /status")?;
        ensure!(stream["method"] == "SaslOverTls", "{stream}");
        Ok(())
    });
}

#[test]
fn e_02_the_domain_may_be_named_as_authorization_identity() {
    RIG.test(2, async |s| {
        for authzid in [s.domain.clone(), s.domain.to_uppercase(), String::new()] {
            let (mut peer, answer) =
                auth(s, &s.identity, "EXTERNAL", &STANDARD.encode(&authzid)).await?;
            ensure!(answer.name == "success", "{answer:?} for {authzid:?}");
            peer.open(&s.domain, OWN).await?;
            s.delivers_inwards(&mut peer).await?;
        }
        Ok(())
    });
}

#[test]
fn e_03_no_other_domain_can_be_claimed_even_if_the_certificate_has_it() {
    RIG.test(3, async |s| {
        let other = "e04.example";
        let draft = Draft::of(&[&s.domain, other, "*.e03.example"]);
        let leaf = s.rig.lab.authority().issue_as(&draft);
        let user = s.user("rob");
        for authzid in [
            other,
            "sub.e03.example",
            user.as_str(),
            "e03.example\0",
            " ",
        ] {
            let text = STANDARD.encode(authzid);
            let (peer, answer) = auth(s, &leaf, "EXTERNAL", &text).await?;
            failed(s, peer, &answer, "invalid-authzid").await?;
        }
        s.unharmed(Moved::Attempt("Refused")).await
    });
}

#[test]
fn e_04_an_authorization_identity_that_cannot_be_read_is_refused() {
    RIG.test(4, async |s| {
        let good = STANDARD.encode(&s.domain);
        let spaced = format!(" {good} ");
        let broken = format!("{}\n{}", &good[..4], &good[4..]);
        let long = "A".repeat(9000);
        for (text, condition) in [
            ("not base64!", "incorrect-encoding"),
            (spaced.as_str(), "incorrect-encoding"),
            (&broken, "incorrect-encoding"),
            ("==", "incorrect-encoding"),
            ("ZTA0LmV4YW1wbGU", "incorrect-encoding"),
            ("//4=", "malformed-request"),
            (&long, "malformed-request"),
        ] {
            let (peer, answer) = auth(s, &s.identity, "EXTERNAL", text).await?;
            failed(s, peer, &answer, condition)
                .await
                .with_context(|| format!("{text:.40}"))?;
        }
        // More than unauthenticatedStanzaBytes is not even read.
        let mut peer = secured_as(s, &s.domain, Some(&s.identity)).await?;
        peer.open(&s.domain, OWN).await?;
        peer.send_anyway(format!(
            "<auth xmlns='{}' mechanism='EXTERNAL'>{}</auth>",
            ns::SASL,
            "A".repeat(10_240)
        ))
        .await;
        peer.expect_stream_error("policy-violation").await?;
        s.unharmed(Moved::Attempt("Refused")).await
    });
}

/// Certificates that do not verify for a domain: what they are, words that the peer is
/// told, the outcome in metrics.
fn bad_certificates(s: &Scene, domain: &str) -> Vec<(Leaf, &'static [&'static str], &'static str)> {
    let authority = s.rig.lab.authority();
    let draft = Draft::of(&[domain]);
    let at = |validity| {
        authority.issue_as(&Draft {
            validity,
            ..draft.clone()
        })
    };
    let stranger = Authority::new("Nobody's Root");
    let mut with_root = stranger.issue_as(&draft);
    with_root.certificate += &stranger.certificate();
    vec![
        (at(Validity::Expired), &["expired"], "CertificateExpired"),
        (
            at(Validity::NotYet),
            &["not valid before"],
            "CertificateNotYetValid",
        ),
        (
            draft.self_signed(),
            &["self-signed"],
            "CertificateSelfSigned",
        ),
        (
            stranger.issue_as(&draft),
            &["Nobody's Root"],
            "CertificateChainIncomplete",
        ),
        (
            with_root,
            &["Nobody's Root", "not trusted"],
            "CertificateUnknownIssuer",
        ),
        (
            authority.issue_as(&Draft::of(&["other.example"])),
            &["other.example"],
            "PeerCertificateName",
        ),
    ]
}

#[test]
fn e_05_a_bad_certificate_leaves_dialback_where_it_is_allowed() {
    RIG.test(5, async |s| {
        let outside = s.outside().await?;
        outside.made("the key");
        for (leaf, words, outcome) in bad_certificates(s, &s.domain) {
            let mut peer = secured_as(s, &s.domain, Some(&leaf)).await?;
            let features = peer.open(&s.domain, OWN).await?;
            ensure!(!features.external(), "{words:?}: {features:?}");
            ensure!(features.dialback(), "{words:?}: {features:?}");
            let verdict = peer.dialback(&s.domain, OWN, "the key").await?;
            ensure!(verdict == "valid", "{verdict}");
            s.delivers_inwards(&mut peer).await?;
            let label = format!("outcome=\"{outcome}\"");
            s.moved("attempts_total", &[&label, "step=\"certificate\""])
                .await?;
        }
        Ok(())
    });
}

#[test]
fn e_05_a_bad_certificate_is_not_authorized_where_external_is_all_there_is() {
    RIG.test(26, async |s| {
        for (leaf, words, outcome) in bad_certificates(s, &s.domain) {
            refused_because(s, &s.domain, Some(&leaf), words, outcome).await?;
        }
        refused_because(s, &s.domain, None, &[], "CertificateNotPresented").await?;
        s.unharmed(Moved::Attempt("CertificateExpired")).await
    });
}

#[test]
fn e_05_a_bad_certificate_and_a_wrong_key_are_nothing() {
    RIG.test(23, async |s| {
        let _outside = s.outside().await?;
        for (leaf, _, _) in bad_certificates(s, &s.domain) {
            let mut peer = secured_as(s, &s.domain, Some(&leaf)).await?;
            peer.open(&s.domain, OWN).await?;
            let answer = peer.auth("EXTERNAL", "=").await?;
            ensure!(answer.child("invalid-mechanism").is_some(), "{answer:?}");
            ensure!(peer.dialback(&s.domain, OWN, "a guess").await? == "invalid");
            let id = s.forbidden();
            let message = format!(
                "<message from='{}' to='{ALICE}' id='{id}'><body>{id}</body></message>",
                s.user("rob")
            );
            peer.send_anyway(message).await;
            peer.ended().await?;
        }
        s.unharmed(Moved::Attempt("DialbackFailed")).await
    });
}

#[test]
fn e_05_a_server_with_a_bad_certificate_gets_nothing() {
    RIG.test(27, async |s| {
        let outside = s.outside().await?;
        for (index, domain) in BAD_SERVERS.into_iter().enumerate() {
            let (leaf, words, outcome) = bad_certificates(s, domain).swap_remove(index);
            let identity = Identity::of(&leaf)?;
            outside.behave(|behaviour| behaviour.identity = Some(identity));
            let target = format!("xmpp.{}", s.domain);
            s.rig.lab.dns().xmpp_server(domain, 0, 0, S2S_PORT, &target);
            let mut inside = s.inside_to(domain).await?;
            let id = s.fresh();
            let to = format!("rob@{domain}");
            inside.message(ALICE, &to, &id, &id).await?;
            let text = bounced(s, &id).await?;
            for word in words {
                ensure!(text.contains(word), "no {word:?} in {text:?}");
            }
            let transcript = outside.transcript();
            let told = ["<auth", "<db:result", id.as_str()];
            ensure!(!told.iter().any(|t| transcript.contains(t)), "{transcript}");
            s.unharmed(Moved::Attempt(outcome)).await?;
        }
        ensure!(outside.connections() == BAD_SERVERS.len());
        Ok(())
    });
}

#[test]
fn e_06_a_common_name_is_no_name() {
    RIG.test(26, async |s| {
        let leaf = s.rig.lab.authority().issue_as(&Draft {
            names: Vec::new(),
            common_name: s.domain.clone(),
            ..Draft::of(&[])
        });
        let words = ["common name does not count", s.domain.as_str()];
        refused_because(s, &s.domain, Some(&leaf), &words, "PeerCertificateName").await?;
        s.unharmed(Moved::Attempt("PeerCertificateName")).await
    });
}

#[test]
fn e_07_a_wildcard_is_one_whole_leftmost_label_above_two() {
    RIG.test(7, async |s| {
        let issue = |name: &str| s.rig.lab.authority().issue_as(&Draft::of(&[name]));
        for name in ["*.e07.example", "*.E07.Example", "sub.e07.example"] {
            accepted(s, "sub.e07.example", &issue(name))
                .await
                .with_context(|| name.to_owned())?;
        }
        for (domain, name) in [
            ("e07.example", "*.example"),
            ("e07.example", "e*.example"),
            ("e07.example", "*"),
            ("e07.example", "*.e07.example"),
            ("e07.example", "e07.*"),
            ("sub.e07.example", "s*.e07.example"),
            ("sub.e07.example", "*b.e07.example"),
            ("sub.e07.example", "*.*.example"),
            ("a.sub.e07.example", "*.e07.example"),
            ("a.sub.e07.example", "a.*.e07.example"),
        ] {
            refused_because(s, domain, Some(&issue(name)), &[], "PeerCertificateName")
                .await
                .with_context(|| format!("{name} for {domain}"))?;
        }
        s.unharmed(Moved::Attempt("PeerCertificateName")).await
    });
}

#[test]
fn e_08_a_domain_s_certificate_says_nothing_of_its_sub_domains() {
    RIG.test(8, async |s| {
        let words = ["sub.e08.example was expected", "e08.example"];
        refused_because(
            s,
            "sub.e08.example",
            Some(&s.identity),
            &words,
            "PeerCertificateName",
        )
        .await?;
        s.unharmed(Moved::Attempt("PeerCertificateName")).await
    });
}

#[test]
fn e_09_an_xmpp_addr_alone_is_refused_and_says_why() {
    RIG.test(9, async |s| {
        let leaf = s.rig.lab.authority().issue_as(&Draft {
            names: Vec::new(),
            addresses: vec![s.domain.clone()],
            ..Draft::of(&[])
        });
        let words = ["xmppAddr and SRVName do not count"];
        refused_because(s, &s.domain, Some(&leaf), &words, "PeerCertificateName").await?;
        s.unharmed(Moved::Attempt("PeerCertificateName")).await
    });
}

#[test]
fn e_10_names_are_compared_whole_and_without_regard_to_case() {
    RIG.test(10, async |s| {
        let authority = s.rig.lab.authority();
        let issue = |names: &[&str]| authority.issue_as(&Draft::of(names));
        let upper = s.domain.to_uppercase();
        accepted(s, &s.domain, &issue(&[&upper])).await?;
        // Said as A-label and as U-label, it is one domain, and its certificate has the A-label.
        accepted(s, IDN, &issue(&[IDN])).await?;
        let mut peer = secured_as(s, "bücher.example", Some(&issue(&[IDN]))).await?;
        peer.external("bücher.example", OWN).await?;
        let trick = |common_name: &str, unit: &str| {
            authority.issue_as(&Draft {
                common_name: common_name.to_owned(),
                organisational_unit: Some(unit.to_owned()),
                ..Draft::of(&["evil.example"])
            })
        };
        for leaf in [
            trick(&s.domain, &format!("CN={}", s.domain)),
            trick("evil.example", &format!("CN={}", s.domain)),
            issue(&["e10.example\0.evil.example"]),
            issue(&["e10.example\0"]),
            issue(&["\0e10.example"]),
            issue(&["e10.example "]),
            issue(&["e10.example.evil.example"]),
            issue(&["evil-e10.example"]),
            issue(&["10.example"]),
            issue(&["DNS:e10.example"]),
        ] {
            refused_because(s, &s.domain, Some(&leaf), &[], "PeerCertificateName").await?;
        }
        s.unharmed(Moved::Attempt("PeerCertificateName")).await
    });
}

#[test]
fn e_11_a_certificate_for_server_auth_alone_is_accepted_from_who_calls() {
    RIG.test(11, async |s| {
        for usage in [Usage::ServerAuth, Usage::ServerAndClientAuth] {
            let leaf = s.rig.lab.authority().issue(&[&s.domain], usage);
            accepted(s, &s.domain, &leaf).await?;
        }
        Ok(())
    });
}

#[test]
fn e_12_a_server_whose_certificate_is_for_clients_alone_is_refused() {
    RIG.test(12, async |s| {
        let authority = s.rig.lab.authority();
        let leaf = authority.issue(&[&s.domain], Usage::ClientAuth);
        let outside = s.serve(Behaviour::good(Identity::of(&leaf)?)).await?;
        let id = alice_writes(s).await?;
        let text = bounced(s, &id).await?;
        ensure!(text.contains("serverAuth"), "{text}");
        ensure!(!outside.transcript().contains(&id));
        s.unharmed(Moved::Attempt("CertificateNotForUse")).await
    });
}

#[test]
fn e_13_who_has_no_certificate_is_offered_dialback_and_not_external() {
    RIG.test(13, async |s| {
        let outside = s.outside().await?;
        outside.made("the key");
        let mut peer = secured_as(s, &s.domain, None).await?;
        let features = peer.open(&s.domain, OWN).await?;
        ensure!(!features.external() && features.dialback(), "{features:?}");
        let verdict = peer.dialback(&s.domain, OWN, "the key").await?;
        ensure!(verdict == "valid", "{verdict}");
        s.delivers_inwards(&mut peer).await
    });
}

#[test]
fn e_14_a_mechanism_that_is_not_offered_is_invalid() {
    RIG.test(14, async |s| {
        for (mechanism, text) in [
            ("PLAIN", "AGFsaWNlAHNlY3JldA=="),
            ("ANONYMOUS", ""),
            ("SCRAM-SHA-1", "biwsbj11c2VyLHI9eA=="),
            ("external", "="),
            ("EXTERNAL ", "="),
            ("", "="),
        ] {
            let (peer, answer) = auth(s, &s.identity, mechanism, text).await?;
            failed(s, peer, &answer, "invalid-mechanism")
                .await
                .with_context(|| mechanism.to_owned())?;
        }
        s.unharmed(Moved::Attempt("Refused")).await
    });
}

#[test]
fn e_14_external_that_was_not_offered_is_invalid() {
    RIG.test(24, async |s| {
        let mut peer = secured_as(s, &s.domain, None).await?;
        ensure!(!peer.open(&s.domain, OWN).await?.external());
        let answer = peer.auth("EXTERNAL", "=").await?;
        failed(s, peer, &answer, "invalid-mechanism").await?;
        s.unharmed(Moved::Attempt("Refused")).await
    });
}

#[test]
fn e_15_who_fails_again_and_again_is_cut_off() {
    RIG.test(15, async |s| {
        let (mut peer, mut answer) = auth(s, &s.identity, "EXTERNAL", "!").await?;
        let mut failures = 0;
        // Each failure may be followed by another try, a few times (RFC 6120 section 6.4.5).
        while answer.is("failure", ns::SASL) {
            failures += 1;
            ensure!(failures <= 5, "never ends");
            peer.send_anyway(format!(
                "<auth xmlns='{}' mechanism='EXTERNAL'>!</auth>",
                ns::SASL
            ))
            .await;
            answer = peer.element().await?;
        }
        ensure!((2..=5).contains(&failures), "{failures}");
        ensure!(answer.child("policy-violation").is_some(), "{answer:?}");
        peer.ended().await?;
        s.unharmed(Moved::Attempt("TooManySaslFailures")).await
    });
}

#[test]
fn e_16_a_server_with_another_s_certificate_gets_nothing() {
    RIG.test(16, async |s| {
        let authority = s.rig.lab.authority();
        let leaf = authority.issue(&["other.example"], Usage::ServerAuth);
        let outside = s.serve(Behaviour::good(Identity::of(&leaf)?)).await?;
        let id = alice_writes(s).await?;
        let text = bounced(s, &id).await?;
        for name in [s.domain.as_str(), "other.example"] {
            ensure!(text.contains(name), "no {name} in {text}");
        }
        let seen = outside
            .until("the end", |seen| seen.first().is_some_and(|s| s.ended))
            .await?;
        ensure!(seen[0].text.contains("<not-authorized"), "{seen:?}");
        ensure!(!seen[0].text.contains("<auth") && !seen[0].text.contains(&id));
        s.unharmed(Moved::Attempt("PeerCertificateName")).await
    });
}

#[test]
fn e_17_dialback_follows_where_a_server_refuses_external() {
    RIG.test(17, async |s| {
        let outside = s
            .serve(Behaviour {
                external_verdict: Verdict::Invalid,
                ..s.good_behaviour()?
            })
            .await?;
        let id = alice_writes(s).await?;
        outside.stanza_id(&id).await?;
        let seen = outside.seen();
        ensure!(seen.len() == 1, "{seen:#?}");
        ensure!(seen[0].method == "Dialback", "{seen:#?}");
        ensure!(seen[0].text.matches("<auth").count() == 1, "{seen:#?}");
        s.moved("attempts_total", &["outcome=\"SaslRejected\""])
            .await
    });
}

/// A server that ends the connection over EXTERNAL, in one way or another, is asked by dialback on
/// the next, where the certificate is not tried again.
async fn dialback_on_a_new_stream(s: &Scene, last_words: &str) -> Result<()> {
    let listener = TcpListener::bind(s.address()).await?;
    let id = alice_writes(s).await?;
    let mut tries = 0;
    loop {
        let mut peer = Peer::accept(&listener).await?;
        respond(
            s,
            &mut peer,
            "plain",
            &format!("<starttls xmlns='{}'/>", ns::TLS),
        )
        .await?;
        ensure!(peer.element().await?.is("starttls", ns::TLS));
        peer.send(format!("<proceed xmlns='{}'/>", ns::TLS)).await?;
        let identity = Identity::of(&s.identity)?;
        peer.tls_server(&ServerTls::new(identity)).await?;
        let features = format!(
            "<mechanisms xmlns='{}'><mechanism>EXTERNAL</mechanism></mechanisms>\
             <dialback xmlns='{}'/>",
            ns::SASL,
            ns::DIALBACK_FEATURE
        );
        respond(s, &mut peer, "secure", &features).await?;
        let element = peer.element().await?;
        if element.is("auth", ns::SASL) {
            tries += 1;
            ensure!(tries == 1, "EXTERNAL again and again");
            peer.send_anyway(last_words).await;
            continue;
        }
        ensure!(element.is("result", ns::DIALBACK), "{element:?}");
        peer.send(format!(
            "<db:result from='{}' to='{OWN}' type='valid'/>",
            s.domain
        ))
        .await?;
        peer.stanza(&id).await?;
        ensure!(tries == 1, "EXTERNAL was not tried");
        return Ok(());
    }
}

async fn respond(s: &Scene, peer: &mut Peer, id: &str, features: &str) -> Result<()> {
    peer.header().await?;
    let mut open = Open::new(&s.domain, OWN);
    open.id = Some(id.to_owned());
    peer.send(open.text() + &format!("<stream:features>{features}</stream:features>"))
        .await
}

#[test]
fn e_17_a_server_that_ends_the_stream_over_external_is_tried_by_dialback() {
    RIG.test(5, async |s| {
        dialback_on_a_new_stream(
            s,
            "<stream:error><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>",
        )
        .await
    });
}

#[test]
fn e_17_a_server_that_hangs_up_over_external_is_tried_by_dialback() {
    RIG.test(6, async |s| dialback_on_a_new_stream(s, "").await);
}

#[test]
fn e_17_a_server_that_refuses_external_and_hangs_up_is_tried_by_dialback() {
    RIG.test(24, async |s| {
        dialback_on_a_new_stream(
            s,
            "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure></stream:stream>",
        )
        .await
    });
}

#[test]
fn e_18_a_partner_s_own_authority_takes_the_place_of_the_public_ones() {
    RIG.test(18, async |s| {
        let draft = Draft::of(&[&s.domain, "e20.example"]);
        let private = own_authority().issue_as(&draft);
        let public = s.rig.lab.authority().issue_as(&draft);
        accepted(s, &s.domain, &private).await?;
        refused_because(
            s,
            &s.domain,
            Some(&public),
            &["Root of the Internet"],
            "CertificateChainIncomplete",
        )
        .await?;
        // For others it is the other way round.
        accepted(s, "e20.example", &public).await?;
        refused(s, "e20.example", Some(&private)).await?;
        s.unharmed(Moved::Attempt("CertificateChainIncomplete"))
            .await
    });
}

#[test]
fn e_19_a_key_that_is_not_pinned_is_refused_where_changes_are() {
    RIG.test(19, async |s| {
        accepted(s, &s.domain, pinned(19)).await?;
        let words = ["pinned"];
        let outcome = "CertificatePinMismatch";
        refused_because(s, &s.domain, Some(&s.identity), &words, outcome).await?;
        let outside = s.outside().await?;
        let id = alice_writes(s).await?;
        let text = bounced(s, &id).await?;
        ensure!(text.contains("pinned"), "{text}");
        ensure!(!outside.transcript().contains(&id));
        s.unharmed(Moved::Attempt(outcome)).await
    });
}

#[test]
fn e_19_a_key_that_is_not_pinned_is_told_where_changes_are_warned_of() {
    RIG.test(25, async |s| {
        accepted(s, &s.domain, pinned(25)).await?;
        accepted(s, &s.domain, &s.identity).await?;
        let log = s.rig.edge.lock().await.log();
        let warned = log.lines().any(|line| {
            line.contains("WARN") && line.contains(&s.domain) && line.contains(&s.identity.pin())
        });
        ensure!(warned, "no warning with the key {}", s.identity.pin());
        // Of no authority and not pinned, it is nothing.
        let leaf = Draft::of(&[&s.domain]).self_signed();
        refused(s, &s.domain, Some(&leaf)).await?;
        s.unharmed(Moved::Attempt("CertificatePinMismatch")).await
    });
}

#[test]
fn e_19_a_key_that_is_not_the_known_one_is_refused_where_changes_are() {
    RIG.test(21, async |s| {
        let known = KNOWN.lock().unwrap().clone().context("a rig")?;
        accepted(s, &s.domain, &known).await?;
        let pin = s.identity.pin();
        let words = ["onKeyChange is Refuse", pin.as_str()];
        let outcome = "CertificateKeyChanged";
        refused_because(s, &s.domain, Some(&s.identity), &words, outcome).await?;
        s.unharmed(Moved::Attempt(outcome)).await
    });
}

#[test]
fn e_20_a_chain_without_its_intermediate_is_incomplete() {
    RIG.test(20, async |s| {
        let authority = s.rig.lab.authority().below("The Middle");
        let whole = authority.issue_as(&Draft::of(&[&s.domain]));
        accepted(s, &s.domain, &whole).await?;
        let end = "-----END CERTIFICATE-----\n";
        let (leaf, rest) = whole.certificate.split_once(end).context("a chain")?;
        ensure!(rest.contains("BEGIN"), "no intermediate: {rest}");
        let alone = Leaf {
            certificate: leaf.to_owned() + end,
            key: whole.key.clone(),
        };
        let words = ["intermediate certificate is missing", "The Middle"];
        let outcome = "CertificateChainIncomplete";
        refused_because(s, &s.domain, Some(&alone), &words, outcome).await?;
        s.unharmed(Moved::Attempt(outcome)).await
    });
}

/// What a new handshake with the public listener brings.
async fn shown(s: &Scene) -> Result<Session> {
    let mut peer = Peer::connect(s.rig.direct()).await?;
    peer.tls_client(&ClientTls::new(Some(OWN), None)).await?;
    peer.session().cloned().context("TLS")
}

#[test]
fn e_22_a_new_certificate_is_for_new_handshakes_and_open_streams_live_on() {
    RIG.test(22, async |s| {
        let mut peer = s.partner().await?;
        s.delivers_inwards(&mut peer).await?;
        let before = shown(s).await?;
        let names = before.names()?;
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let authority = s.rig.lab.authority();
        let fresh = authority.issue(&names, Usage::ServerAndClientAuth);
        let expected = Identity::of(&fresh)?.chain;
        ensure!(before.certificates != expected);
        let secret = texts(
            "Secret",
            "edge-certificate",
            &BTreeMap::from([("tls.crt", fresh.certificate), ("tls.key", fresh.key)]),
        );
        s.rig.edge.lock().await.apply(&secret)?;
        wait::until("the new certificate is shown", wait::GENEROUS, || async {
            (shown(s).await.ok()?.certificates == expected).then_some(())
        })
        .await?;
        s.delivers_inwards(&mut peer).await?;
        let mut another = s.partner_by(&Login::Direct(&s.identity)).await?;
        s.delivers_inwards(&mut another).await?;
        // What cannot be used changes nothing.
        let broken = texts(
            "Secret",
            "edge-certificate",
            &BTreeMap::from([
                ("tls.crt", s.identity.certificate.clone()),
                ("tls.key", Draft::of(&[OWN]).self_signed().key),
            ]),
        );
        let before = s.rig.edge.lock().await.log().len();
        s.rig.edge.lock().await.apply(&broken)?;
        wait::until("the edge tells what is wrong", wait::GENEROUS, || async {
            let log = s.rig.edge.lock().await.log();
            log[before..].contains("edge-certificate").then_some(())
        })
        .await?;
        ensure!(shown(s).await?.certificates == expected);
        s.delivers_inwards(&mut peer).await
    });
}
