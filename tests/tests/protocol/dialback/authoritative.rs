//! The edge as authoritative server: the keys that it made, on any replica, and those it did not.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use xmpp_edge_tests::{
    edge::{Edge, Place, manifest, texts},
    lab::Lab,
    peer::{Behaviour, Identity, Login, Open, Peer, PeerServer, Verdict},
    rig::{ALICE, GOOD, Moved, OWN, SECOND, alone},
    servers::S2S_PORT,
};

use super::{
    RIG, SECRET, authority, dialback_server, push, result_answer, secure, secured, untrusted,
    with_more,
};

/// An edge with this secret, for what one shared edge cannot show.
async fn edge(lab: &Lab, host: u8, own: &[&str], partners: &[&str], secret: &str) -> Result<Edge> {
    let gateways: Vec<_> = own
        .iter()
        .map(|domain| {
            let address = format!("{}:{S2S_PORT}", lab.ip(30));
            json!({ "name": domain, "domains": [domain], "mode": "Direct", "address": address })
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
