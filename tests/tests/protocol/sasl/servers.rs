//! SASL EXTERNAL of the edge towards a server: whom it tells anything, and what follows a refusal.

use super::*;

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
