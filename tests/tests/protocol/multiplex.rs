//! Multiplexing outbound (XEP-0220 section 2.6): pairs of one partner object on one stream, by the
//! scripted server; and by Prosody.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    edge::manifest,
    peer::{Behaviour, Command, Identity, Login, Peer, PeerServer, Verdict},
    pki::Usage,
    rig::{ALICE, OWN, Plan, SECOND, Scene, Shared},
    servers::S2S_PORT,
    wait,
};

static RIG: Shared = Shared::new(Plan {
    partner: |test| json!({ "additionalDomains": [more(test)] }),
    settings: || json!({ "queueTimeoutSeconds": 12 }),
    ..Plan::standard("m", 10)
});

const CAROL: &str = "carol@second.example";

/// The partner's second domain.
fn more(test: u8) -> String {
    format!("more.m{test:02}.example")
}

/// A stream inside from the server of [`SECOND`] towards the partner.
async fn second_inside(s: &Scene) -> Result<Peer> {
    let leaf = s.rig.edge.lock().await.gateway_identity(SECOND)?;
    Peer::login(s.rig.internal(), SECOND, &s.domain, &Login::External(&leaf)).await
}

/// The partner's server, with a certificate for these domains.
fn behaviour(s: &Scene, domains: &[&str]) -> Result<Behaviour> {
    let leaf = s.rig.lab.authority().issue(domains, Usage::ServerAuth);
    Ok(Behaviour::good(Identity::of(&leaf)?))
}

/// Publishes the partner's second domain at the partner's own server.
fn publish(s: &Scene, domain: &str) {
    let dns = s.rig.lab.dns();
    dns.xmpp_server(domain, 0, 0, S2S_PORT, &s.target());
}

/// Sends one message and waits for it outside; says on which connection it came.
async fn crosses(
    s: &Scene,
    inside: &mut Peer,
    outside: &PeerServer,
    from: &str,
    to: &str,
) -> Result<usize> {
    let id = s.fresh();
    inside.message(from, to, &id, "hello").await?;
    let came = outside.stanza(&id, |e| e.attribute("id") == Some(&id));
    Ok(came.await?.connection)
}

/// The partner's streams that the edge opened, as `/status` shows them.
async fn shown(s: &Scene) -> Result<Vec<Value>> {
    let streams = s.rig.edge.lock().await.streams("Partner").await?;
    let of_scene = |stream: &Value| {
        let domains = stream["peerDomains"].as_array();
        domains.is_some_and(|all| all.iter().any(|domain| domain == s.domain.as_str()))
    };
    Ok(streams.into_iter().filter(of_scene).collect())
}

#[test]
fn two_own_domains_share_the_stream_to_a_partner() {
    RIG.test(1, async |s| {
        let outside = s.outside().await?;
        let (mut first, mut second) = (s.inside().await?, second_inside(s).await?);
        let rob = s.user("rob");
        for _ in 0..3 {
            ensure!(crosses(s, &mut first, &outside, ALICE, &rob).await? == 1);
            ensure!(crosses(s, &mut second, &outside, CAROL, &rob).await? == 1);
        }
        let seen = outside.seen();
        ensure!(seen.len() == 1 && seen[0].keys.len() == 1, "{seen:#?}");
        let (from, to, ..) = &seen[0].keys[0];
        ensure!(from == SECOND && *to == s.domain);
        let shown = shown(s).await?;
        ensure!(shown.len() == 1, "{shown:#?}");
        ensure!(shown[0]["localDomains"] == json!([OWN, SECOND]));
        ensure!(shown[0]["direction"] == "Outbound" && shown[0]["method"] == "SaslOverTls");
        let labels = [&*format!("partner=\"{}\"", s.name), "side=\"partner\""];
        let gauge = s.rig.edge.lock().await.metric("streams", &labels).await?;
        ensure!(gauge == 1.0, "it counts once, not {gauge}");
        let edge = s.rig.edge.lock().await;
        for (name, labels) in [
            ("connections_total", &["listener=\"internal\""][..]),
            (
                "tls_streams",
                &["side=\"partner\"", "version=\"TLSv1.3\"", "cipher=\"TLS_"],
            ),
            ("stanza_size_bytes_count", &[]),
        ] {
            let value = edge.metric(name, labels).await?;
            ensure!(value >= 1.0, "{name}: {value}");
        }
        ensure!(edge.metric("draining", &[]).await? == 0.0);
        Ok(())
    });
}

#[test]
fn two_domains_of_a_partner_share_where_one_certificate_covers_them() {
    RIG.test(2, async |s| {
        let domain = more(2);
        publish(s, &domain);
        let outside = s.serve(behaviour(s, &[&s.domain, &domain])?).await?;
        let mut first = s.inside().await?;
        let mut second = s.inside_to(&domain).await?;
        let eve = format!("eve@{domain}");
        ensure!(crosses(s, &mut first, &outside, ALICE, &s.user("rob")).await? == 1);
        ensure!(crosses(s, &mut second, &outside, ALICE, &eve).await? == 1);
        let shown = shown(s).await?;
        ensure!(shown.len() == 1, "{shown:#?}");
        let mut domains = vec![s.domain.clone(), domain];
        domains.sort();
        ensure!(shown[0]["peerDomains"] == json!(domains), "{shown:#?}");
        Ok(())
    });
}

#[test]
fn a_domain_that_the_certificate_does_not_cover_gets_its_own_stream() {
    RIG.test(3, async |s| {
        let domain = more(3);
        publish(s, &domain);
        let outside = s.outside().await?;
        let mut first = s.inside().await?;
        ensure!(crosses(s, &mut first, &outside, ALICE, &s.user("rob")).await? == 1);
        let both = behaviour(s, &[&s.domain, &domain])?;
        outside.behave(|b| *b = both);
        let mut second = s.inside_to(&domain).await?;
        let eve = format!("eve@{domain}");
        ensure!(crosses(s, &mut second, &outside, ALICE, &eve).await? == 2);
        let seen = outside.seen();
        ensure!(seen.iter().all(|c| c.keys.is_empty()), "{seen:#?}");
        ensure!(seen.iter().all(|c| c.method == "External"), "{seen:#?}");
        Ok(())
    });
}

#[test]
fn a_domain_whose_records_lead_elsewhere_gets_its_own_stream() {
    RIG.test(4, async |s| {
        let domain = more(4);
        let other = s.at(5333);
        let dns = s.rig.lab.dns();
        dns.xmpp_server(&domain, 0, 0, other.port(), &s.target());
        // The partner's first server would take it, only as a backup.
        dns.xmpp_server(&domain, 9, 0, S2S_PORT, &s.target());
        let both = behaviour(s, &[&s.domain, &domain])?;
        let outside = s.serve(both.clone()).await?;
        let elsewhere = PeerServer::listen(other, both).await?;
        let mut first = s.inside().await?;
        ensure!(crosses(s, &mut first, &outside, ALICE, &s.user("rob")).await? == 1);
        let mut second = s.inside_to(&domain).await?;
        let eve = format!("eve@{domain}");
        ensure!(crosses(s, &mut second, &elsewhere, ALICE, &eve).await? == 1);
        ensure!(outside.seen()[0].keys.is_empty(), "nothing was asked there");
        Ok(())
    });
}

#[test]
fn a_peer_without_errors_and_acks_is_not_asked() {
    RIG.test(5, async |s| {
        let mut plain = s.good_behaviour()?;
        (plain.errors, plain.acks) = (false, false);
        let outside = s.serve(plain).await?;
        let (mut first, mut second) = (s.inside().await?, second_inside(s).await?);
        let rob = s.user("rob");
        ensure!(crosses(s, &mut first, &outside, ALICE, &rob).await? == 1);
        ensure!(crosses(s, &mut second, &outside, CAROL, &rob).await? == 2);
        ensure!(outside.seen().iter().all(|c| c.keys.is_empty()));
        Ok(())
    });
}

/// Whatever the peer does about the second pair, that gets its own stream and the first loses
/// nothing.
async fn refused(s: &Scene, verdict: Verdict) -> Result<()> {
    let mut refusing = s.good_behaviour()?;
    // EXTERNAL is still granted: only further pairs come by dialback.
    refusing.result = Some(verdict);
    let outside = s.serve(refusing).await?;
    let (mut first, mut second) = (s.inside().await?, second_inside(s).await?);
    let rob = s.user("rob");
    crosses(s, &mut first, &outside, ALICE, &rob).await?;
    let (mut firsts, mut seconds) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let (one, two) = (s.fresh(), s.fresh());
        second.message(CAROL, &rob, &two, "hello").await?;
        first.message(ALICE, &rob, &one, "hello").await?;
        firsts.push(one);
        seconds.push(two);
    }
    for ids in [&firsts, &seconds] {
        for id in ids {
            outside.stanza_id(id).await?;
        }
        let mut came: Vec<_> = outside
            .stanzas()
            .iter()
            .filter_map(|r| r.stanza.attribute("id").map(str::to_owned))
            .filter(|id| ids.contains(id))
            .collect();
        // What was unacknowledged when the peer closed the stream may come twice.
        let mut once = std::collections::BTreeSet::new();
        came.retain(|id| once.insert(id.clone()));
        ensure!(came == *ids, "order was lost: {came:?}");
    }
    let asked: usize = outside.seen().iter().map(|c| c.keys.len()).sum();
    ensure!(asked == 1, "asked {asked} times");
    let bounced = s.grown("stanzas_bounced_total", &[]).await?;
    ensure!(bounced == 0.0, "{bounced} bounced");
    Ok(())
}

#[test]
fn an_error_for_the_second_pair_costs_the_first_nothing() {
    RIG.test(6, async |s| {
        refused(s, Verdict::Error("item-not-found")).await
    });
}

#[test]
fn no_answer_for_the_second_pair_costs_it_a_little_time_only() {
    RIG.test(7, async |s| refused(s, Verdict::Never).await);
}

#[test]
fn a_peer_that_closes_the_stream_over_the_second_pair_loses_nothing() {
    RIG.test(8, async |s| refused(s, Verdict::Close).await);
}

#[test]
fn a_pair_that_becomes_forbidden_takes_its_stream_with_it_and_nothing_of_the_others() {
    RIG.test(9, async |s| {
        let domain = more(9);
        publish(s, &domain);
        let outside = s.serve(behaviour(s, &[&s.domain, &domain])?).await?;
        let mut first = s.inside().await?;
        let mut second = s.inside_to(&domain).await?;
        let (rob, eve) = (s.user("rob"), format!("eve@{domain}"));
        ensure!(crosses(s, &mut first, &outside, ALICE, &rob).await? == 1);
        ensure!(crosses(s, &mut second, &outside, ALICE, &eve).await? == 1);
        // Neither is read, so that neither is acknowledged.
        outside.freeze(1).await?;
        let (one, two) = (s.fresh(), s.fresh());
        first.message(ALICE, &rob, &one, "hello").await?;
        second.message(ALICE, &eve, &two, "hello").await?;
        let spec = json!({ "domain": s.domain, "partnerType": "Federated" });
        let edge = s.rig.edge.lock().await;
        edge.apply(&manifest("XmppFederatedPartner", &s.name, spec))?;
        drop(edge);
        let came = outside.stanza(&one, |e| e.attribute("id") == Some(&one));
        ensure!(came.await?.connection == 2, "on a stream of its own");
        let error = s.inside_gets(&two).await?;
        ensure!(error.error_condition() == Some("not-allowed"), "{error:?}");
        outside.tell(1, Command::Drop);
        Ok(())
    });
}

#[test]
fn order_of_each_pair_survives_the_death_of_a_shared_stream() {
    RIG.test(10, async |s| {
        let outside = s.outside().await?;
        let (mut first, mut second) = (s.inside().await?, second_inside(s).await?);
        let rob = s.user("rob");
        ensure!(crosses(s, &mut first, &outside, ALICE, &rob).await? == 1);
        ensure!(crosses(s, &mut second, &outside, CAROL, &rob).await? == 1);
        let (mut firsts, mut seconds) = (Vec::new(), Vec::new());
        for number in 0..400 {
            if number == 200 {
                // What comes from here on is unacknowledged when the stream dies.
                outside.freeze(1).await?;
            }
            firsts.push(s.fresh());
            seconds.push(s.fresh());
            first.message(ALICE, &rob, &firsts[number], "hello").await?;
            second
                .message(CAROL, &rob, &seconds[number], "hello")
                .await?;
        }
        outside.tell(1, Command::Drop);
        outside.stanza_id(&firsts[399]).await?;
        outside.stanza_id(&seconds[399]).await?;
        for ids in [&firsts, &seconds] {
            let mut once = std::collections::BTreeSet::new();
            let came: Vec<_> = outside
                .stanzas()
                .iter()
                .filter_map(|r| r.stanza.attribute("id").map(str::to_owned))
                .filter(|id| ids.contains(id) && once.insert(id.clone()))
                .collect();
            ensure!(came == *ids, "lost, or out of order: {came:?}");
        }
        ensure!(outside.connections() == 2, "the next one is shared too");
        Ok(())
    });
}

mod real {
    use super::*;
    use std::collections::BTreeMap;
    use xmpp_edge_tests::{
        edge::{Edge, Place, texts},
        federation::everyone_may,
        lab::Lab,
        rig::alone,
        servers::{Kind, Security, Server},
    };

    const PARTNER: &str = "partner.example";
    const FQDN: &str = "edge.example";

    /// Prosody announces no `<errors/>`, but acks: a further sender may be asked for, and it asks
    /// that domain's authoritative server, the edge, back.
    #[test]
    fn prosody_takes_a_second_sender_on_the_stream_of_the_first() {
        alone(async {
            let lab = Lab::new().await?;
            // As packaged: EXTERNAL for whoever has a good certificate, dialback too.
            let mut spec = lab.spec(PARTNER, 10, "bob", Security::TlsDialback);
            spec.identity = lab.identity(PARTNER, Security::Certificates);
            lab.publish(&spec);
            let place = Place::in_lab(&lab, 20, 21);
            lab.dns().host(FQDN, place.bind);
            for domain in [OWN, SECOND] {
                lab.dns().xmpp_server(domain, 0, 0, S2S_PORT, FQDN);
            }
            let own = lab
                .authority()
                .issue(&[OWN, SECOND, FQDN], Usage::ServerAndClientAuth);
            let certificate = BTreeMap::from([("tls.crt", own.certificate), ("tls.key", own.key)]);
            let inside = std::net::SocketAddr::from((lab.ip(30), S2S_PORT));
            let pool = json!({
                "site": "here",
                "domains": [OWN, SECOND],
                "accessEdge": { "fqdn": FQDN },
                "gateways": [{
                    "domains": [OWN, SECOND], "mode": "Direct", "address": inside.to_string(),
                }],
                "certificate": { "secretRef": { "name": "edge-certificate" } },
                "trust": { "caConfigMapRef": { "name": "public-roots", "key": "ca.crt" } },
            });
            let roots = BTreeMap::from([("ca.crt", lab.authority().certificate())]);
            let partner = json!({ "domain": PARTNER, "partnerType": "Federated" });
            let manifests = [
                texts("Secret", "edge-certificate", &certificate),
                texts("ConfigMap", "public-roots", &roots),
                manifest("EdgePool", "edge", pool),
                manifest("XmppFederatedPartner", "partner", partner),
                everyone_may(),
            ];
            let (edge, prosody) = tokio::try_join!(
                Edge::start(place.clone(), &manifests),
                Server::start(Kind::Prosody, spec, lab.directory()),
            )?;
            let bob = prosody.login("bob").await?;
            let leaf = edge.gateway_identity(OWN)?;
            let server = PeerServer::listen(inside, Behaviour::good(Identity::of(&leaf)?)).await?;
            let login = Login::External(&leaf);
            let internal = std::net::SocketAddr::from((place.internal_bind, 23456));
            for (round, (from, domain)) in [(ALICE, OWN), (CAROL, SECOND), (ALICE, OWN)]
                .into_iter()
                .enumerate()
            {
                let mut peer = Peer::login(internal, domain, PARTNER, &login).await?;
                let id = format!("round-{round}");
                peer.message(from, bob.full(), &id, "hello").await?;
                bob.expect_message(&id)
                    .await
                    .with_context(|| format!("{}\n{}", edge.log(), prosody.log()))?;
            }
            let sent = wait::until("one stream to Prosody", wait::GENEROUS, async || {
                let streams = edge.streams("Partner").await.ok()?;
                let ours: Vec<_> = streams
                    .into_iter()
                    .filter(|s| s["initiator"] == "Edge")
                    .collect();
                (ours.len() == 1).then(|| ours[0].clone())
            })
            .await
            .with_context(|| format!("{}\n{}", edge.log(), prosody.log()))?;
            ensure!(sent["localDomains"] == json!([OWN, SECOND]), "{sent:#}");
            ensure!(sent["acknowledged"] == true, "{sent:#}");
            drop(server);
            Ok(())
        });
    }
}
