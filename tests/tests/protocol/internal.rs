//! I: the internal listener, which speaks s2s with the organisation's own servers.

use anyhow::{Context, Result, ensure};
use x509_parser::prelude::{FromDer, X509Certificate};
use xmpp_edge_tests::{
    peer::{ClientTls, Command, Identity, Login, Open, Peer},
    pki::{Authority, Leaf, Usage},
    rig::{ALICE, EVIL, Moved, OWN, Plan, SECOND, Scene, Shared},
};

static RIG: Shared = Shared::new(Plan::standard("i", 11));

/// A connection to the internal listener after STARTTLS, its new stream open from `from` towards the
/// partner; nothing is authenticated.
async fn secured(s: &Scene, leaf: Option<&Leaf>, from: &str) -> Result<Peer> {
    let mut peer = Peer::connect(s.rig.internal()).await?;
    peer.open(from, &s.domain).await?;
    let identity = leaf.map(Identity::of).transpose()?;
    peer.starttls(&ClientTls::new(Some(&s.domain), identity))
        .await?;
    peer.open_with(&Open::new(from, &s.domain)).await?;
    peer.header().await?;
    Ok(peer)
}

/// Tries every way in for one without a right to it: EXTERNAL unasked, a dialback key that nobody
/// made, a stanza.
async fn stays_out(s: &Scene, leaf: Option<&Leaf>) -> Result<()> {
    let outside = s.outside().await?;
    let mut peer = secured(s, leaf, OWN).await?;
    let features = peer.features().await?;
    ensure!(!features.external(), "EXTERNAL is offered");
    let answer = peer.auth("EXTERNAL", "=").await?;
    ensure!(answer.name == "failure", "{answer:?}");
    let forbidden = s.forbidden();
    peer.message(ALICE, &s.user("rob"), &forbidden, &forbidden)
        .await?;
    peer.expect_stream_error("not-authorized").await?;
    let mut peer = secured(s, leaf, OWN).await?;
    peer.features().await?;
    let verdict = peer.dialback(OWN, &s.domain, "made-up").await?;
    ensure!(verdict == "invalid", "{verdict}");
    ensure!(!outside.transcript().contains(&forbidden));
    outside.kill().await;
    Ok(())
}

#[test]
fn i_01_without_a_certificate_of_the_internal_ca_nobody_is_the_organisation() {
    RIG.test(1, async |s| {
        stays_out(s, None).await?;
        // Not of a public CA either, nor of one with the internal CA's name.
        let public = s
            .rig
            .lab
            .authority()
            .issue(&[OWN], Usage::ServerAndClientAuth);
        stays_out(s, Some(&public)).await?;
        let forged =
            Authority::new("xmpp-edge internal CA").issue(&[OWN], Usage::ServerAndClientAuth);
        stays_out(s, Some(&forged)).await?;
        s.unharmed(Moved::Connection("DialbackFailed")).await
    });
}

#[test]
fn i_02_a_server_inside_is_taken_for_its_own_domain_alone() {
    RIG.test(2, async |s| {
        // A domain of another gateway: EXTERNAL is not for it.
        let mut peer = secured(s, Some(s.rig.own_identity()), SECOND).await?;
        ensure!(!peer.features().await?.external());
        let answer = peer.auth("EXTERNAL", "=").await?;
        ensure!(answer.name == "failure", "{answer:?}");
        let forbidden = s.forbidden();
        peer.message("eve@second.example", &s.user("rob"), &forbidden, &forbidden)
            .await?;
        peer.expect_stream_error("not-authorized").await?;
        // A domain of nobody inside.
        let mut peer = Peer::connect(s.rig.internal()).await?;
        peer.open_with(&Open::new("other.example", &s.domain))
            .await?;
        peer.header().await?;
        peer.expect_stream_error("policy-violation").await?;
        s.unharmed(Moved::Connection("NotAuthorized")).await
    });
}

#[test]
fn i_03_a_stanza_from_a_domain_that_is_not_its_own_is_invalid_from() {
    RIG.test(3, async |s| {
        let outside = s.outside().await?;
        for from in ["eve@second.example", "eve@evil.example", &s.user("rob")] {
            let mut inside = s.inside().await?;
            let forbidden = s.forbidden();
            inside
                .message(from, &s.user("rob"), &forbidden, &forbidden)
                .await?;
            inside.expect_stream_error("invalid-from").await?;
        }
        ensure!(!outside.transcript().contains(&s.forbidden()));
        s.unharmed(Moved::Logged("outcome=\"StanzaFrom\"")).await
    });
}

#[test]
fn i_03_nobody_inside_reaches_another_server_inside_by_the_edge() {
    RIG.test(7, async |s| {
        let mut peer = Peer::connect(s.rig.internal()).await?;
        peer.open_with(&Open::new(OWN, SECOND)).await?;
        peer.header().await?;
        peer.expect_stream_error("host-unknown").await?;
        s.unharmed(Moved::Connection("HostUnknown")).await
    });
}

#[test]
fn i_04_without_sni_the_certificate_is_that_of_the_stream_s_to() {
    RIG.test(4, async |s| {
        let outside = s.outside().await?;
        let mut peer = Peer::connect(s.rig.internal()).await?;
        // As Prosody 0.12 opens: an empty id.
        let mut open = Open::new(OWN, &s.domain);
        open.id = Some(String::new());
        peer.open_with(&open).await?;
        peer.header().await?;
        peer.features().await?;
        let identity = Some(Identity::of(s.rig.own_identity())?);
        peer.starttls(&ClientTls::new(None, identity)).await?;
        let names = peer.session().context("no TLS")?.names()?;
        ensure!(names == [s.domain.as_str()], "{names:?}");
        peer.external(OWN, &s.domain).await?;
        s.delivers_outwards(&mut peer, &outside).await
    });
}

#[test]
fn i_05_a_server_inside_without_external_verifies_the_edge_s_keys_on_a_stream_of_its_own() {
    RIG.test(5, async |s| {
        // The server of the second domain stands in for one that knows dialback alone: it asks the
        // internal listener, as authoritative server of the partner's domain.
        let internal = s.rig.internal();
        s.rig.second.behave(|b| {
            b.external = false;
            b.result = None;
            b.authority = Some(internal);
        });
        let login = Login::External(&s.identity);
        let mut peer = Peer::login(s.rig.public(), &s.domain, SECOND, &login).await?;
        let id = s.fresh();
        peer.message(&s.user("rob"), "sue@second.example", &id, "hello")
            .await?;
        s.rig.second.stanza_id(&id).await?;
        let seen = s.rig.second.seen();
        let stream = seen.iter().find(|c| c.from == s.domain).unwrap();
        ensure!(stream.method == "Dialback", "{stream:?}");
        Ok(())
    });
}

#[test]
fn i_06_the_edge_shows_inside_a_certificate_for_both_uses() {
    RIG.test(6, async |s| {
        let mut peer = s.partner().await?;
        s.delivers_inwards(&mut peer).await?;
        let seen = s.rig.inside.seen();
        let stream = seen.iter().find(|c| c.from == s.domain).unwrap();
        ensure!(stream.method == "External");
        let tls = stream.tls.as_ref().context("no TLS")?;
        ensure!(tls.names()? == [s.domain.as_str()]);
        ensure!(tls.certificates.len() >= 2, "the intermediate is not sent");
        let (_, leaf) = X509Certificate::from_der(&tls.certificates[0])?;
        let usage = leaf
            .extended_key_usage()?
            .context("no extended key usage")?;
        ensure!(usage.value.server_auth && usage.value.client_auth);
        Ok(())
    });
}

#[test]
fn i_08_to_a_partner_that_is_not_allowed_the_stanza_comes_back_and_the_stream_stays() {
    RIG.test(8, async |s| {
        let outside = s.outside().await?;
        let mut inside = s.inside_to(EVIL).await?;
        for _ in 0..2 {
            let id = s.fresh();
            inside
                .message(ALICE, &format!("eve@{EVIL}"), &id, &s.forbidden())
                .await?;
            let error = s.inside_gets(&id).await?;
            ensure!(
                error.error_condition() == Some("remote-server-not-found"),
                "{error:?}"
            );
            let child = error.child("error").unwrap();
            let policy = child
                .child_in("policy", "urn:xmpp-edge:errors:0")
                .context("no <policy/>")?;
            ensure!(policy.attribute("reason") == Some("PartnerNotAllowed"));
        }
        let asked = s.rig.lab.dns().asked();
        ensure!(
            !asked.iter().any(|(name, _)| name.ends_with(EVIL)),
            "DNS was asked for it"
        );
        inside.send("</stream:stream>").await?;
        ensure!(inside.next().await? == xmpp_edge_tests::peer::Event::Close);
        drop(outside);
        let refused = "reason=\"PartnerNotAllowed\"";
        s.moved_anywhere("stanzas_refused_total", &[refused, "partner=\"other\""])
            .await?;
        s.rig.serves_the_good_partner().await
    });
}

#[test]
fn i_09_two_servers_inside_get_each_their_own() {
    RIG.test(9, async |s| {
        let mut peer = s.partner().await?;
        s.delivers_inwards(&mut peer).await?;
        let login = Login::External(&s.identity);
        let mut other = Peer::login(s.rig.public(), &s.domain, SECOND, &login).await?;
        let id = s.fresh();
        other
            .message(&s.user("rob"), "sue@second.example", &id, "hello")
            .await?;
        s.rig.second.stanza_id(&id).await?;
        let crossed = |server: &xmpp_edge_tests::peer::PeerServer, foreign: &str| {
            server.stanzas().iter().any(|r| {
                let to = r.stanza.attribute("to").unwrap_or_default();
                to.ends_with(foreign)
            })
        };
        ensure!(!crossed(&s.rig.inside, SECOND) && !crossed(&s.rig.second, OWN));
        Ok(())
    });
}

#[test]
fn i_10_a_server_inside_may_close_and_come_back_unnoticed_by_the_partner() {
    RIG.test(10, async |s| {
        let outside = s.outside().await?;
        let mut peer = s.partner().await?;
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &outside).await?;
        s.delivers_inwards(&mut peer).await?;
        inside.send("</stream:stream>").await?;
        inside.ended().await?;
        let stream = s.rig.inside.stanzas().iter().rev().find_map(|r| {
            (r.stanza.attribute("from") == Some(&s.user("rob"))).then_some(r.connection)
        });
        s.rig
            .inside
            .tell(stream.unwrap(), Command::Send("</stream:stream>".into()));
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &outside).await?;
        s.delivers_inwards(&mut peer).await?;
        ensure!(outside.connections() == 1, "the partner saw a new stream");
        Ok(())
    });
}

#[test]
fn i_01_the_gateway_s_own_server_may_use_dialback() {
    RIG.test(11, async |s| {
        // The authoritative server of an own domain is the gateway's address, never DNS, which
        // points at the edge.
        let outside = s.outside().await?;
        let key = s.fresh();
        s.rig.inside.made(&key);
        let mut peer = secured(s, None, OWN).await?;
        peer.features().await?;
        ensure!(peer.dialback(OWN, &s.domain, &key).await? == "valid");
        s.delivers_outwards(&mut peer, &outside).await?;
        outside.kill().await;
        Ok(())
    });
}
