//! D: Server Dialback (XEP-0220, XEP-0185), in all three roles of the edge.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    dns::Fault,
    edge::{Edge, Place, manifest, texts},
    lab::Lab,
    peer::{
        Behaviour, ClientTls, Command, Features, Identity, Login, Open, Peer, PeerServer, Verdict,
        ns,
    },
    pki::{Authority, Leaf, Usage},
    rig::{ALICE, EVIL, GOOD, Moved, OWN, Plan, SECOND, Scene, Shared, alone},
    servers::S2S_PORT,
};

/// The shared edge's dialback secret: D-15 looks for it in the log.
const SECRET: &str = "this is never to be seen in a log";

static RIG: Shared = Shared::new(Plan {
    // Dialback is what is left to a peer without a certificate.
    partner: |test| match test {
        4 => with_more(&[
            "noservice.d04.example",
            "missing.d04.example",
            "refuses.d04.example",
            "closes.d04.example",
            "silent.d04.example",
        ]),
        7 => json!({}),
        17 => with_more(&["sub.d17.example"]),
        27 => with_more(&["sub.d13.example"]),
        19 => with_more(&["sub.d19.example"]),
        20 => with_more(&["*.d20.example"]),
        21 => with_more(&["sub.d21.example"]),
        22 => with_more(&["loop.d22.example"]),
        24 => json!({ "saslNegotiation": "Optional", "supportDialbackNegotiation": false }),
        _ => with_more(&[]),
    },
    settings: || {
        json!({
            "streamEstablishmentTimeoutSeconds": 12,
            "dialbackSecretRef": { "name": "known" },
        })
    },
    objects: |_| {
        let strict = json!({ "domain": "strict-d17.example", "partnerType": "Federated" });
        let suspended = json!({ "domain": "suspended-d17.example", "suspended": true });
        vec![
            texts(
                "Secret",
                "known",
                &BTreeMap::from([("secret", SECRET.to_owned())]),
            ),
            manifest("XmppFederatedPartner", "d-17-strict", strict),
            manifest("XmppFederatedPartner", "d-17-suspended", suspended),
        ]
    },
    ..Plan::standard("d", 27)
});

fn with_more(additional: &[&str]) -> Value {
    json!({ "saslNegotiation": "Optional", "additionalDomains": additional })
}

// ---- steps that many tests share ----

/// The partner's authoritative server, which knows these keys.
async fn authority(s: &Scene, keys: &[&str]) -> Result<PeerServer> {
    let server = s.outside().await?;
    for key in keys {
        server.made(key);
    }
    Ok(server)
}

/// A certificate that proves nothing.
fn untrusted(domain: &str) -> Leaf {
    Authority::new("Nobody's Root").issue(&[domain], Usage::ServerAndClientAuth)
}

/// A server of the partner that can only be told by dialback.
async fn dialback_server(s: &Scene, change: impl FnOnce(&mut Behaviour)) -> Result<PeerServer> {
    let identity = Identity::of(&untrusted(&s.domain))?;
    let mut behaviour = Behaviour::tls_dialback(identity);
    change(&mut behaviour);
    s.serve(behaviour).await
}

/// A connection inside TLS without a certificate, and the id of its stream.
async fn secured(s: &Scene) -> Result<(Peer, String)> {
    secured_as(s, &s.domain).await
}

async fn secured_as(s: &Scene, from: &str) -> Result<(Peer, String)> {
    let mut peer = s.connect().await?;
    let id = secure(&mut peer, from, OWN).await?;
    Ok((peer, id))
}

async fn secure(peer: &mut Peer, from: &str, to: &str) -> Result<String> {
    peer.open(from, to).await?;
    peer.starttls(&ClientTls::new(Some(to), None)).await?;
    peer.open_with(&Open::new(from, to)).await?;
    let header = peer.header().await?;
    let Features(_) = peer.features().await?;
    Ok(header.attribute("id").context("a stream id")?.to_owned())
}

/// A stream of the partner, its first pair authenticated by dialback with `key`.
async fn dialled_back(s: &Scene, key: &str) -> Result<Peer> {
    s.partner_by(&Login::TlsDialback(key)).await
}

/// Publishes one more domain at the partner's address.
fn publish(s: &Scene, domain: &str) {
    let target = format!("xmpp.{}", s.domain);
    s.rig.lab.dns().xmpp_server(domain, 0, 0, S2S_PORT, &target);
}

/// A message from `from` that must not get through.
async fn push(s: &Scene, peer: &mut Peer, from: &str) {
    let id = s.forbidden();
    let _ = peer.message(from, ALICE, &id, &id).await;
}

/// A message from `user` arrives inside.
async fn delivers(s: &Scene, peer: &mut Peer, user: &str, to: &str) -> Result<()> {
    let id = s.fresh();
    peer.message(user, to, &id, "hello").await?;
    let server = if to.ends_with(SECOND) {
        &s.rig.second
    } else {
        &s.rig.inside
    };
    let got = server.stanza_id(&id).await?;
    ensure!(got.attribute("from") == Some(user), "{got:?}");
    Ok(())
}

fn verify_answer(from: &str, to: &str, id: &str, verdict: &str) -> Command {
    Command::Send(format!(
        "<db:verify from='{from}' to='{to}' id='{id}' type='{verdict}'/>"
    ))
}

fn result_answer(from: &str, to: &str, verdict: &str) -> Command {
    Command::Send(format!(
        "<db:result from='{from}' to='{to}' type='{verdict}'/>"
    ))
}

// ---- edges of one's own ----

/// An edge with this secret, for what one shared edge cannot show.
async fn edge(lab: &Lab, host: u8, own: &[&str], partners: &[&str], secret: &str) -> Result<Edge> {
    let gateways: Vec<_> = own
        .iter()
        .map(|domain| {
            let address = format!("{}:{S2S_PORT}", lab.ip(30));
            json!({ "domains": [domain], "mode": "Direct", "address": address })
        })
        .collect();
    let pool = json!({
        "site": "here",
        "domains": own,
        "accessEdge": { "fqdn": "edge.example" },
        "gateways": gateways,
        "certificate": { "selfSigned": {} },
        "settings": { "dialbackSecretRef": { "name": "shared" } },
    });
    let access = json!({
        "scope": "Global",
        "enableFederationAccess": true,
        "enableXmppAccess": true,
    });
    let mut manifests = vec![
        manifest("EdgePool", "edge", pool),
        texts(
            "Secret",
            "shared",
            &BTreeMap::from([("secret", secret.to_owned())]),
        ),
        manifest("ExternalAccessPolicy", "everyone", access),
    ];
    for (number, domain) in partners.iter().enumerate() {
        let mut spec = with_more(&[]);
        spec["domain"] = json!(domain);
        spec["partnerType"] = json!("Federated");
        spec.as_object_mut().unwrap().remove("additionalDomains");
        manifests.push(manifest(
            "XmppFederatedPartner",
            &format!("p{number}"),
            spec,
        ));
    }
    Edge::start(Place::in_lab(lab, host, host + 1), &manifests).await
}

/// What the edge says about a key that `sending` is said to have sent to `receiving`.
async fn asked(edge: &Edge, receiving: &str, sending: &str, id: &str, key: &str) -> Result<String> {
    let mut peer = Peer::connect(SocketAddr::from((edge.place().bind, S2S_PORT))).await?;
    secure(&mut peer, receiving, sending).await?;
    peer.db_verify(receiving, sending, id, key).await
}

#[test]
fn d_01_keys_are_those_of_the_specification() {
    alone(async {
        let lab = Lab::new().await?;
        let secret = "s3cr3tf0rd14lb4ck";
        let partners = ["xmpp.example.com", "montague.example"];
        let edge = edge(
            &lab,
            20,
            &["example.org", "capulet.example"],
            &partners,
            secret,
        )
        .await?;
        for (receiving, sending, id, key) in [
            (
                "xmpp.example.com",
                "example.org",
                "D60000229F",
                "37c69b1cf07a3f67c04a5ef5902fa5114f2c76fe4a2686482ba5b89323075643",
            ),
            (
                "montague.example",
                "capulet.example",
                "D60000229F",
                "b4835385f37fe2895af6c196b59097b16862406db80559900d96bf6fa7d23df3",
            ),
        ] {
            ensure!(asked(&edge, receiving, sending, id, key).await? == "valid");
            let nearly = format!("{}0", &key[..63]);
            ensure!(asked(&edge, receiving, sending, id, &nearly).await? == "invalid");
        }
        Ok(())
    });
}

#[test]
fn d_02_a_key_is_verified_by_the_authoritative_server() {
    RIG.test(2, async |s| {
        let server = authority(s, &["good"]).await?;
        let (mut peer, id) = secured(s).await?;
        ensure!(peer.dialback(&s.domain, OWN, "good").await? == "valid");
        s.delivers_inwards(&mut peer).await?;
        // The key went to where DNS says the domain is, with the domains and the id it came with.
        let seen = server.seen();
        ensure!(seen.len() == 1 && seen[0].asked == 1, "{seen:?}");
        ensure!(seen[0].from == OWN && seen[0].to == s.domain, "{seen:?}");
        ensure!(seen[0].tls.is_some(), "the key is asked about inside TLS");
        ensure!(seen[0].text.contains(&format!("id='{id}'")), "{seen:?}");
        s.rig.serves_the_good_partner().await
    });
}

#[test]
fn d_03_an_invalid_key_closes_a_stream_that_has_nothing_else() {
    RIG.test(3, async |s| {
        let _server = authority(s, &[]).await?;
        let (mut peer, _) = secured(s).await?;
        ensure!(peer.dialback(&s.domain, OWN, "bad").await? == "invalid");
        push(s, &mut peer, &s.user("rob")).await;
        peer.expect_stream_error("not-authorized").await?;
        s.unharmed(Moved::Attempt("DialbackFailed")).await
    });
}

#[test]
fn d_04_an_authoritative_server_that_cannot_be_asked_is_an_error_and_the_stream_stays() {
    RIG.test(4, async |s| {
        let _server = authority(s, &["good"]).await?;
        let dns = s.rig.lab.dns();
        let mut others = Vec::new();
        let host = |number: u8| s.rig.lab.ip(200 + number);
        for (number, name) in ["refuses", "closes", "silent"].into_iter().enumerate() {
            let number = u8::try_from(number)?;
            let domain = format!("{name}.{}", s.domain);
            let target = format!("xmpp.{domain}");
            dns.host(&target, host(number));
            dns.xmpp_server(&domain, 0, 0, S2S_PORT, &target);
            let verdict = match name {
                "closes" => Verdict::Close,
                "silent" => Verdict::Never,
                // Nobody listens there.
                _ => continue,
            };
            let mut behaviour = s.good_behaviour()?;
            behaviour.verify = Some(verdict);
            let at = SocketAddr::from((host(number), S2S_PORT));
            others.push(PeerServer::listen(at, behaviour).await?);
        }
        dns.xmpp_server(&format!("noservice.{}", s.domain), 0, 0, 0, ".");
        let mut peer = dialled_back(s, "good").await?;
        for (name, condition) in [
            ("noservice", "remote-server-not-found"),
            ("missing", "remote-server-not-found"),
            ("refuses", "remote-connection-failed"),
            ("closes", "remote-connection-failed"),
            ("silent", "remote-server-timeout"),
        ] {
            let domain = format!("{name}.{}", s.domain);
            let got = peer.dialback(&domain, OWN, "good").await?;
            ensure!(got == condition, "{name}: {got}, not {condition}");
        }
        s.delivers_inwards(&mut peer).await?;
        push(s, &mut peer, &format!("rob@silent.{}", s.domain)).await;
        peer.expect_stream_error("invalid-from").await?;
        for outcome in [
            "AuthoritativeNotFound",
            "AuthoritativeConnectionFailed",
            "AuthoritativeTimedOut",
        ] {
            let label = format!("outcome=\"{outcome}\"");
            s.moved("attempts_total", &[&label]).await?;
        }
        s.unharmed(Moved::Attempt("StanzaFrom")).await
    });
}

#[test]
fn d_04_a_name_server_that_fails_is_an_error_and_the_stream_stays() {
    RIG.test(26, async |s| {
        let server = authority(s, &["good"]).await?;
        let owner = format!("_xmpp-server._tcp.{}", s.domain);
        s.rig.lab.dns().fault(&owner, Fault::Fails);
        let (mut peer, _) = secured(s).await?;
        let got = peer.dialback(&s.domain, OWN, "good").await?;
        ensure!(got == "remote-connection-failed", "{got}");
        ensure!(server.connections() == 0);
        push(s, &mut peer, &s.user("rob")).await;
        peer.expect_stream_error("not-authorized").await?;
        s.unharmed(Moved::Attempt("AuthoritativeConnectionFailed"))
            .await
    });
}

#[test]
fn d_05_a_domain_not_served_is_item_not_found_and_the_stream_stays() {
    RIG.test(5, async |s| {
        let _server = authority(s, &["good"]).await?;
        let (mut peer, _) = secured(s).await?;
        let got = peer.dialback(&s.domain, "nowhere.example", "good").await?;
        ensure!(got == "item-not-found", "{got}");
        ensure!(peer.dialback(&s.domain, OWN, "good").await? == "valid");
        s.delivers_inwards(&mut peer).await?;
        s.unharmed(Moved::Attempt("HostUnknown")).await
    });
}

#[test]
fn d_06_dialback_outside_tls_is_policy_violation() {
    RIG.test(6, async |s| {
        let server = authority(s, &["good"]).await?;
        let mut peer = s.connect().await?;
        let features = peer.open(&s.domain, OWN).await?;
        ensure!(!features.dialback(), "{features:?}");
        let got = peer.dialback(&s.domain, OWN, "good").await?;
        ensure!(got == "policy-violation", "{got}");
        push(s, &mut peer, &s.user("rob")).await;
        peer.expect_stream_error("policy-violation").await?;
        ensure!(server.connections() == 0, "nobody is asked");
        s.unharmed(Moved::Attempt("TlsRequired")).await
    });
}

#[test]
fn d_07_dialback_where_sasl_is_required_is_policy_violation() {
    RIG.test(7, async |s| {
        let server = authority(s, &["good"]).await?;
        let (mut peer, features) = s.secured(Some(&s.identity)).await?;
        ensure!(!features.dialback(), "{features:?}");
        let got = peer.dialback(&s.domain, OWN, "good").await?;
        ensure!(got == "policy-violation", "{got}");
        push(s, &mut peer, &s.user("rob")).await;
        peer.expect_stream_error("not-authorized").await?;
        ensure!(server.connections() == 0, "nobody is asked");
        s.unharmed(Moved::Attempt("DialbackNotAllowed")).await
    });
}

#[test]
fn d_08_an_unsolicited_result_authorises_nobody() {
    RIG.test(8, async |s| {
        let _server = authority(s, &[]).await?;
        let (mut peer, _) = secured(s).await?;
        for (from, to) in [(&*s.domain, OWN), (OWN, &*s.domain), (EVIL, OWN)] {
            peer.send(format!("<db:result from='{from}' to='{to}' type='valid'/>"))
                .await?;
        }
        push(s, &mut peer, &s.user("rob")).await;
        peer.expect_stream_error("not-authorized").await?;
        s.unharmed(Moved::Attempt("NotAuthorized")).await
    });
}

#[test]
fn d_09_an_unsolicited_verify_authorises_nobody() {
    RIG.test(9, async |s| {
        let outside = authority(s, &[]).await?;
        // On a stream of the edge's own, which lives on.
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &outside).await?;
        for id in ["1", "xmpp-edge-probe-1", ""] {
            outside.tell_all(&verify_answer(&s.domain, OWN, id, "valid"));
        }
        s.delivers_outwards(&mut inside, &outside).await?;
        ensure!(outside.connections() == 1, "the stream went on");
        // On the peer's, with the very id of the stream.
        let (mut peer, id) = secured(s).await?;
        peer.send(format!(
            "<db:verify from='{}' to='{OWN}' id='{id}' type='valid'/>",
            s.domain
        ))
        .await?;
        push(s, &mut peer, &s.user("rob")).await;
        peer.expect_stream_error("not-authorized").await?;
        s.unharmed(Moved::Attempt("NotAuthorized")).await
    });
}

#[test]
fn d_10_only_the_answer_to_the_question_counts() {
    RIG.test(10, async |s| {
        let mut behaviour = s.good_behaviour()?;
        behaviour.verify = Some(Verdict::Never);
        let server = s.serve(behaviour).await?;
        let (mut peer, id) = secured(s).await?;
        peer.db_result(&s.domain, OWN, "bad").await?;
        server
            .until("the key is asked about", |seen| {
                seen.iter().any(|c| c.asked > 0)
            })
            .await?;
        for (from, to, id) in [
            (&*s.domain, OWN, "another"),
            (&*s.domain, OWN, ""),
            (EVIL, OWN, &*id),
            (&*s.domain, SECOND, &*id),
            (OWN, &*s.domain, &*id),
        ] {
            server.tell_all(&verify_answer(from, to, id, "valid"));
        }
        server.tell_all(&result_answer(&s.domain, OWN, "valid"));
        // On another stream than it was asked on.
        peer.send(format!(
            "<db:verify from='{}' to='{OWN}' id='{id}' type='valid'/>",
            s.domain
        ))
        .await?;
        server.tell_all(&verify_answer(&s.domain, OWN, &id, "invalid"));
        let got = peer.db_answer("result", &s.domain, OWN).await?;
        ensure!(got == "invalid", "{got}");
        push(s, &mut peer, &s.user("rob")).await;
        peer.expect_stream_error("not-authorized").await?;
        s.unharmed(Moved::Attempt("DialbackFailed")).await
    });
}

#[test]
fn d_11_a_result_for_a_pair_never_asked_lets_nothing_out() {
    RIG.test(11, async |s| {
        let server = dialback_server(s, |b| b.result = Some(Verdict::Never)).await?;
        let mut inside = s.inside().await?;
        let id = s.forbidden();
        inside.message(ALICE, &s.user("rob"), &id, "hello").await?;
        server
            .until("the edge sends its key", |seen| {
                seen.iter().any(|c| !c.keys.is_empty())
            })
            .await?;
        for (from, to) in [(&*s.domain, SECOND), (EVIL, OWN), (OWN, &*s.domain)] {
            server.tell_all(&result_answer(from, to, "valid"));
        }
        server.tell_all(&verify_answer(&s.domain, OWN, "1", "valid"));
        server.tell_all(&result_answer(&s.domain, OWN, "invalid"));
        let error = s.inside_gets(&id).await?;
        ensure!(error.attribute("type") == Some("error"), "{error:?}");
        ensure!(server.stanzas().is_empty(), "{:?}", server.stanzas());
        s.rig.serves_the_good_partner().await?;
        s.moved("attempts_total", &["outcome=\"DialbackRejected\""])
            .await
    });
}

#[test]
fn d_12_a_second_key_for_a_pair_changes_nothing() {
    RIG.test(12, async |s| {
        let _server = authority(s, &["good"]).await?;
        let (mut peer, _) = secured(s).await?;
        let both: String = ["good", "bad"]
            .map(|key| {
                format!(
                    "<db:result from='{}' to='{OWN}'>{key}</db:result>",
                    s.domain
                )
            })
            .concat();
        peer.send(both).await?;
        ensure!(peer.db_answer("result", &s.domain, OWN).await? == "valid");
        s.delivers_inwards(&mut peer).await?;
        peer.db_result(&s.domain, OWN, "bad").await?;
        s.delivers_inwards(&mut peer).await?;
        peer.send("</stream:stream>").await?;
        peer.ended().await?;
        let answers = peer.received().matches("type='valid'").count();
        ensure!(answers == 1, "{answers} in {}", peer.received());
        // Bad before good: the good one does not rescue it.
        let (mut peer, _) = secured(s).await?;
        let both: String = ["bad", "good"]
            .map(|key| {
                format!(
                    "<db:result from='{}' to='{OWN}'>{key}</db:result>",
                    s.domain
                )
            })
            .concat();
        peer.send(both).await?;
        ensure!(peer.db_answer("result", &s.domain, OWN).await? == "invalid");
        peer.expect_stream_error("not-authorized").await?;
        s.unharmed(Moved::Attempt("DialbackFailed")).await
    });
}

#[test]
fn d_13_a_stanza_before_the_verdict_ends_the_stream() {
    RIG.test(13, async |s| {
        let mut behaviour = s.good_behaviour()?;
        behaviour.verify = Some(Verdict::Never);
        let server = s.serve(behaviour).await?;
        let (mut peer, id) = secured(s).await?;
        peer.db_result(&s.domain, OWN, "good").await?;
        server
            .until("the key is asked about", |seen| {
                seen.iter().any(|c| c.asked > 0)
            })
            .await?;
        push(s, &mut peer, &s.user("rob")).await;
        peer.expect_stream_error("not-authorized").await?;
        // The verdict that comes after releases nothing.
        server.tell_all(&verify_answer(&s.domain, OWN, &id, "valid"));
        s.unharmed(Moved::Attempt("NotAuthorized")).await
    });
}

#[test]
fn d_13_a_stanza_of_a_further_pair_before_its_verdict_is_invalid_from() {
    RIG.test(27, async |s| {
        let server = authority(s, &["good"]).await?;
        let mut peer = dialled_back(s, "good").await?;
        server.behave(|b| b.verify = Some(Verdict::Never));
        publish(s, "sub.d13.example");
        peer.db_result("sub.d13.example", OWN, "good").await?;
        push(s, &mut peer, "rob@sub.d13.example").await;
        peer.expect_stream_error("invalid-from").await?;
        s.unharmed(Moved::Attempt("StanzaFrom")).await
    });
}

#[test]
fn d_14_domains_and_ids_cannot_be_shifted_into_each_other() {
    RIG.test(14, async |s| {
        let server = dialback_server(s, |b| b.result = Some(Verdict::Never)).await?;
        let mut inside = s.inside().await?;
        let id = s.forbidden();
        inside.message(ALICE, &s.user("rob"), &id, "hello").await?;
        let seen = server
            .until("the edge sends its key", |seen| {
                seen.iter().any(|c| !c.keys.is_empty())
            })
            .await?;
        let (_, _, id, key) = seen
            .iter()
            .find_map(|c| c.keys.first())
            .context("a key")?
            .clone();
        server.tell_all(&result_answer(&s.domain, OWN, "invalid"));
        let (mut peer, _) = secured(s).await?;
        for (from, to, id, expected) in [
            (&*s.domain, OWN, &*id, "valid"),
            (&*s.domain, SECOND, &*id, "invalid"),
            (GOOD, OWN, &*id, "invalid"),
            (&*s.domain, OWN, &*format!("{id} "), "invalid"),
            (&*s.domain, OWN, &*format!("{id} x"), "invalid"),
            (&*s.domain, OWN, &*format!("{OWN} {id}"), "invalid"),
            (&*s.domain, OWN, &id[1..], "invalid"),
        ] {
            let got = peer.db_verify(from, to, id, &key).await?;
            ensure!(got == expected, "{from} {to} {id}: {got}");
        }
        // Prepared before it is hashed.
        let upper = s.domain.to_uppercase();
        peer.send(format!(
            "<db:verify from='{upper}' to='ORG.example' id='{id}'>{key}</db:verify>"
        ))
        .await?;
        ensure!(peer.db_answer("verify", &s.domain, OWN).await? == "valid");
        for from in [
            format!("{} {OWN}", s.domain),
            format!("{}&#9;x", s.domain),
            format!("{}\u{3000}x", s.domain),
            format!("rob@{}", s.domain),
            format!("{}/x", s.domain),
            String::new(),
        ] {
            let (mut peer, _) = secured(s).await?;
            peer.db_result(&from, OWN, &key).await?;
            peer.expect_stream_error("improper-addressing").await?;
        }
        s.rig.serves_the_good_partner().await?;
        s.moved("attempts_total", &["outcome=\"StanzaAddressing\""])
            .await
    });
}

#[test]
fn d_15_stream_ids_are_random_and_the_secret_is_never_told() {
    RIG.test(15, async |s| {
        const STREAMS: usize = 400;
        let mut ids = std::collections::BTreeSet::new();
        for _ in 0..STREAMS {
            let mut peer = s.connect().await?;
            peer.open_with(&Open::new(&s.domain, OWN)).await?;
            let header = peer.header().await?;
            ids.insert(header.attribute("id").context("an id")?.to_owned());
        }
        ensure!(ids.len() == STREAMS, "all are different");
        for at in 0..32 {
            // A hexadecimal digit at each of 32 places, and all 16 of them there.
            let digits: std::collections::BTreeSet<_> =
                ids.iter().map(|id| id.as_bytes()[at]).collect();
            ensure!(digits.len() == 16, "place {at} has {digits:?}");
            ensure!(digits.iter().all(u8::is_ascii_hexdigit));
        }
        let log = s.rig.edge.lock().await.log();
        ensure!(!log.contains(SECRET));
        ensure!(!s.rig.metrics().await?.contains(SECRET));
        s.rig.serves_the_good_partner().await
    });
}

#[test]
fn d_16_any_replica_verifies_the_key_that_another_made() {
    alone(async {
        let lab = Lab::new().await?;
        let (own, partner) = ("org.example", "partner.example");
        let mut one = edge(&lab, 20, &[own], &[partner], SECRET).await?;
        let two = edge(&lab, 22, &[own], &[partner], SECRET).await?;
        let stranger = edge(
            &lab,
            24,
            &[own],
            &[partner],
            "another secret, as long as it has to be",
        )
        .await?;
        lab.dns().host("xmpp.partner.example", lab.ip(60));
        lab.dns()
            .xmpp_server(partner, 0, 0, S2S_PORT, "xmpp.partner.example");
        let mut behaviour = Behaviour::tls_dialback(Identity::of(&untrusted(partner))?);
        behaviour.result = Some(Verdict::Never);
        let at = SocketAddr::from((lab.ip(60), S2S_PORT));
        let server = PeerServer::listen(at, behaviour).await?;
        let leaf = one.gateway_identity(own)?;
        let internal = SocketAddr::from((one.place().internal_bind, 23456));
        let mut inside = Peer::login(internal, own, partner, &Login::External(&leaf)).await?;
        inside
            .message(ALICE, "rob@partner.example", "m", "hello")
            .await?;
        let seen = server
            .until("the edge sends its key", |seen| {
                seen.iter().any(|c| !c.keys.is_empty())
            })
            .await?;
        let (_, _, id, key) = seen
            .iter()
            .find_map(|c| c.keys.first())
            .context("a key")?
            .clone();
        one.kill();
        ensure!(asked(&two, partner, own, &id, &key).await? == "valid");
        ensure!(asked(&stranger, partner, own, &id, &key).await? == "invalid");
        Ok(())
    });
}

#[test]
fn d_17_each_sender_on_a_stream_is_judged_by_its_own_terms() {
    RIG.test(17, async |s| {
        let server = authority(s, &["good"]).await?;
        for domain in [
            "sub.d17.example",
            "strict-d17.example",
            "suspended-d17.example",
        ] {
            publish(s, domain);
        }
        let mut peer = dialled_back(s, "good").await?;
        let connections = server.connections();
        for domain in ["strict-d17.example", "suspended-d17.example", EVIL] {
            let got = peer.dialback(domain, OWN, "good").await?;
            ensure!(got == "policy-violation", "{domain}: {got}");
        }
        ensure!(server.connections() == connections, "nobody is asked");
        ensure!(peer.dialback("sub.d17.example", OWN, "bad").await? == "invalid");
        s.delivers_inwards(&mut peer).await?;
        ensure!(peer.dialback("sub.d17.example", OWN, "good").await? == "valid");
        delivers(s, &mut peer, "rob@sub.d17.example", ALICE).await?;
        s.delivers_inwards(&mut peer).await?;
        push(s, &mut peer, "rob@strict-d17.example").await;
        peer.expect_stream_error("invalid-from").await?;
        s.moved_anywhere(
            "attempts_total",
            &["partner=\"d-17-strict\"", "outcome=\"DialbackNotAllowed\""],
        )
        .await?;
        s.unharmed(Moved::Stranger("PartnerNotAllowed")).await
    });
}

#[test]
fn d_18_one_stream_reaches_a_second_domain_of_ours() {
    RIG.test(18, async |s| {
        let _server = authority(s, &["good"]).await?;
        let mut peer = dialled_back(s, "good").await?;
        ensure!(peer.dialback(&s.domain, SECOND, "good").await? == "valid");
        delivers(s, &mut peer, &s.user("rob"), "carol@second.example").await?;
        s.delivers_inwards(&mut peer).await
    });
}

#[test]
fn d_19_a_peer_without_errors_gets_a_stream_for_each_target() {
    RIG.test(19, async |s| {
        let server = dialback_server(s, |b| b.errors = false).await?;
        publish(s, "sub.d19.example");
        for user in [s.user("rob"), "rob@sub.d19.example".to_owned()] {
            let domain = user.split_once('@').unwrap().1;
            let mut inside = s.inside_to(domain).await?;
            let id = s.fresh();
            inside.message(ALICE, &user, &id, "hello").await?;
            server.stanza_id(&id).await?;
        }
        let seen = server.seen();
        ensure!(seen.len() == 2, "{seen:#?}");
        ensure!(seen.iter().all(|c| c.keys.len() == 1), "{seen:#?}");
        Ok(())
    });
}

#[test]
fn d_20_pairs_on_one_stream_are_bounded() {
    RIG.test(20, async |s| {
        const SENDERS: usize = 1000;
        let server = authority(s, &["good"]).await?;
        let mut peer = dialled_back(s, "good").await?;
        server.behave(|b| b.verify = Some(Verdict::Never));
        let mut keys = String::new();
        for number in 0..SENDERS {
            let domain = format!("n{number}.d20.example");
            publish(s, &domain);
            keys += &format!("<db:result from='{domain}' to='{OWN}'>good</db:result>");
        }
        peer.send(keys).await?;
        let mut refused = 0;
        while refused < SENDERS - 128 {
            let answer = peer
                .expect("an answer to db:result", |e| e.is("result", ns::DIALBACK))
                .await?;
            let condition = answer.error_condition();
            ensure!(condition == Some("resource-constraint"), "{answer:?}");
            refused += 1;
        }
        ensure!(server.connections() <= 129, "{}", server.connections());
        s.delivers_inwards(&mut peer).await?;
        s.unharmed(Moved::Attempt("TooManyPairs")).await
    });
}

#[test]
fn d_21_a_storm_of_keys_is_no_amplifier() {
    RIG.test(21, async |s| {
        let victim = authority(s, &["good"]).await?;
        publish(s, "sub.d21.example");
        // Strangers cost not even a question to DNS.
        let (mut peer, _) = secured(s).await?;
        for number in 0..200 {
            let got = peer
                .dialback(&format!("n{number}.{EVIL}"), OWN, "bad")
                .await?;
            ensure!(got == "policy-violation", "{got}");
        }
        let asked = s.rig.lab.dns().asked();
        ensure!(
            !asked.iter().any(|(name, _)| name.ends_with(EVIL)),
            "{asked:?}"
        );
        // One who may talk names itself, or another of its domains, over and over.
        ensure!(peer.dialback("sub.d21.example", OWN, "good").await? == "valid");
        let mut verdicts = Vec::new();
        for _ in 0..100 {
            verdicts.push(peer.dialback(&s.domain, OWN, "bad").await?);
        }
        ensure!(verdicts.first().unwrap() == "invalid", "{verdicts:?}");
        ensure!(
            verdicts.last().unwrap() == "resource-constraint",
            "{verdicts:?}"
        );
        // 60 a minute, and the one that was good.
        ensure!(victim.connections() <= 61, "{}", victim.connections());
        delivers(s, &mut peer, "rob@sub.d21.example", ALICE).await?;
        s.unharmed(Moved::Attempt("AuthoritativeBusy")).await
    });
}

#[test]
fn d_22_a_question_does_not_lead_to_a_question() {
    RIG.test(22, async |s| {
        let mut behaviour = s.good_behaviour()?;
        behaviour.verify = Some(Verdict::Never);
        let server = s.serve(behaviour).await?;
        let (mut peer, id) = secured(s).await?;
        peer.db_result(&s.domain, OWN, "good").await?;
        server
            .until("the key is asked about", |seen| {
                seen.iter().any(|c| c.asked > 0)
            })
            .await?;
        for _ in 0..50 {
            server.tell_all(&Command::Send(format!(
                "<db:result from='{0}' to='{OWN}'>x</db:result>\
                 <db:verify from='{0}' to='{OWN}' id='{id}'>x</db:verify>",
                s.domain
            )));
        }
        server.tell_all(&verify_answer(&s.domain, OWN, &id, "valid"));
        ensure!(peer.db_answer("result", &s.domain, OWN).await? == "valid");
        s.delivers_inwards(&mut peer).await?;
        ensure!(server.connections() == 1, "{:#?}", server.seen());
        // A domain whose server, by DNS, is the edge itself.
        let dns = s.rig.lab.dns();
        dns.xmpp_server("loop.d22.example", 0, 0, S2S_PORT, "edge.example");
        let got = peer.dialback("loop.d22.example", OWN, "good").await?;
        ensure!(got == "remote-connection-failed", "{got}");
        s.delivers_inwards(&mut peer).await?;
        s.unharmed(Moved::Attempt("AuthoritativeConnectionFailed"))
            .await
    });
}

#[test]
fn d_23_any_prefix_is_read_and_db_is_written() {
    RIG.test(23, async |s| {
        let server = dialback_server(s, |_| {}).await?;
        server.made("good");
        let (mut peer, _) = secured(s).await?;
        peer.send(format!(
            "<x:result xmlns:x='{}' from='{}' to='{OWN}'>good</x:result>",
            ns::DIALBACK,
            s.domain
        ))
        .await?;
        ensure!(peer.db_answer("result", &s.domain, OWN).await? == "valid");
        ensure!(
            peer.received().contains("<db:result"),
            "{}",
            peer.received()
        );
        s.delivers_inwards(&mut peer).await?;
        let (mut peer, _) = secured(s).await?;
        peer.send(format!(
            "<result xmlns='{}' from='{}' to='{OWN}'>good</result>",
            ns::DIALBACK,
            s.domain
        ))
        .await?;
        ensure!(peer.db_answer("result", &s.domain, OWN).await? == "valid");
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &server).await?;
        let text = server.transcript();
        ensure!(
            text.contains("<db:result") && text.contains("<db:verify"),
            "{text}"
        );
        Ok(())
    });
}

#[test]
fn d_24_dialback_that_is_switched_off_is_answered() {
    RIG.test(24, async |s| {
        let server = authority(s, &["good"]).await?;
        let (mut peer, _) = s.secured(Some(&s.identity)).await?;
        let got = peer.dialback(&s.domain, OWN, "good").await?;
        ensure!(got == "policy-violation", "{got}");
        ensure!(server.connections() == 0, "nobody is asked");
        // The way that is left works on the same stream.
        let answer = peer.auth("EXTERNAL", "=").await?;
        ensure!(answer.name == "success", "{answer:?}");
        peer.open(&s.domain, OWN).await?;
        s.delivers_inwards(&mut peer).await?;
        s.unharmed(Moved::Attempt("DialbackNotAllowed")).await
    });
}

#[test]
fn d_25_a_question_without_id_is_an_error() {
    RIG.test(25, async |s| {
        let _server = authority(s, &["good"]).await?;
        let (mut peer, _) = secured(s).await?;
        for id in ["", "id=''"] {
            peer.send(format!(
                "<db:verify from='{}' to='{OWN}' {id}>key</db:verify>",
                s.domain
            ))
            .await?;
            let got = peer.db_answer("verify", &s.domain, OWN).await?;
            ensure!(got == "bad-request", "{got}");
        }
        ensure!(peer.dialback(&s.domain, OWN, "").await? == "bad-request");
        ensure!(peer.dialback(&s.domain, OWN, "good").await? == "valid");
        s.delivers_inwards(&mut peer).await?;
        s.rig.serves_the_good_partner().await
    });
}

#[test]
fn d_26_a_key_that_we_never_made_is_invalid() {
    RIG.test(1, async |s| {
        let (mut peer, id) = secured(s).await?;
        for key in ["", "x", &"0".repeat(64), &"é".repeat(32)] {
            for id in [&*id, "unknown"] {
                let got = peer.db_verify(&s.domain, OWN, id, key).await?;
                ensure!(got == "invalid", "{key} of {id}: {got}");
            }
        }
        // Nor does asking authorise.
        push(s, &mut peer, &s.user("rob")).await;
        peer.expect_stream_error("not-authorized").await?;
        s.unharmed(Moved::Attempt("NotAuthorized")).await
    });
}
