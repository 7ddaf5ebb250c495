//! Direct TLS: ports, ALPN, and which certificate is shown.

use super::*;

#[test]
fn t_10_direct_tls_has_the_certificate_the_protocol_and_external_but_no_starttls() {
    RIG.test(10, async |s| {
        let mut peer = Peer::connect(s.rig.direct()).await?;
        peer.tls_client(&own_tls(s)?.with_alpn(&["xmpp-server"]))
            .await?;
        let session = peer.session().unwrap();
        ensure!(
            session.alpn.as_deref() == Some("xmpp-server"),
            "{session:?}"
        );
        ensure!(session.names()?.contains(&OWN.to_owned()), "{session:?}");
        let features = peer.open(&s.domain, OWN).await?;
        ensure!(
            features.starttls().is_none() && features.external(),
            "{features:?}"
        );
        ensure!(peer.auth("EXTERNAL", "=").await?.name == "success");
        peer.open(&s.domain, OWN).await?;
        s.delivers_inwards(&mut peer).await
    });
}

#[test]
fn t_11_alpn_is_optional_but_another_protocol_is_refused() {
    RIG.test(11, async |s| {
        for protocols in [&[][..], &["h2", "xmpp-server"]] {
            let mut peer = Peer::connect(s.rig.direct()).await?;
            peer.tls_client(&own_tls(s)?.with_alpn(protocols)).await?;
            peer.external(&s.domain, OWN).await?;
            s.delivers_inwards(&mut peer).await?;
        }
        for protocols in [&["h2"][..], &["xmpp-client", "http/1.1"]] {
            let mut peer = Peer::connect(s.rig.direct()).await?;
            let refused = peer.tls_client(&own_tls(s)?.with_alpn(protocols)).await;
            let error = format!("{:?}", refused.err().context("accepted")?);
            ensure!(error.contains("NoApplicationProtocol"), "{error}");
        }
        s.unharmed(Moved::Connection("TlsIncompatible")).await
    });
}

#[test]
fn t_12_plaintext_on_the_direct_tls_port_is_closed_at_once() {
    RIG.test(12, async |s| {
        let mut peer = Peer::connect(s.rig.direct()).await?;
        peer.open_with(&Open::new(&s.domain, OWN)).await?;
        let began = Instant::now();
        let events = peer.ended().await?;
        ensure!(events.is_empty(), "{events:?}");
        // By itself, not by a time-out.
        ensure!(began.elapsed() < ESTABLISHMENT / 2, "{:?}", began.elapsed());
        s.unharmed(Moved::Connection("NotTls")).await
    });
}

#[test]
fn t_13_a_client_hello_on_the_starttls_port_is_served_as_direct_tls() {
    RIG.test(13, async |s| {
        let login = Login::Direct(&s.identity);
        let mut peer = Peer::login(s.rig.public(), &s.domain, OWN, &login).await?;
        let session = peer.session().unwrap();
        ensure!(
            session.alpn.as_deref() == Some("xmpp-server"),
            "{session:?}"
        );
        s.delivers_inwards(&mut peer).await
    });
}

#[test]
fn t_14_without_sni_the_stream_s_to_chooses_the_certificate() {
    RIG.test(14, async |s| {
        let mut peer = s.connect().await?;
        peer.open(&s.domain, SECOND).await?;
        let tls = ClientTls::new(None, Some(Identity::of(&s.identity)?));
        peer.starttls(&tls).await?;
        let names = peer.session().unwrap().names()?;
        ensure!(names.contains(&SECOND.to_owned()), "{names:?}");
        peer.external(&s.domain, SECOND).await?;
        let id = s.fresh();
        let to = format!("carol@{SECOND}");
        peer.message(&s.user("rob"), &to, &id, "hello").await?;
        s.rig.second.stanza_id(&id).await?;
        // Towards inside each partner's domain has a certificate of its own.
        for domain in [s.domain.as_str(), GOOD] {
            let mut inside = Peer::connect(s.rig.internal()).await?;
            inside.open(OWN, domain).await?;
            inside.starttls(&ClientTls::new(None, None)).await?;
            let names = inside.session().unwrap().names()?;
            ensure!(names == [domain], "{names:?} for {domain}");
        }
        Ok(())
    });
}

#[test]
fn t_15_sni_and_to_may_differ_where_the_certificate_covers_both() {
    RIG.test(15, async |s| {
        for address in [s.rig.public(), s.rig.direct()] {
            let mut peer = Peer::connect(address).await?;
            let identity = Some(Identity::of(&s.identity)?);
            let tls = ClientTls::new(Some(SECOND), identity);
            if address == s.rig.direct() {
                peer.tls_client(&tls).await?;
            } else {
                peer.open(&s.domain, OWN).await?;
                peer.starttls(&tls).await?;
            }
            let names = peer.session().unwrap().names()?;
            for domain in [OWN, SECOND] {
                ensure!(names.contains(&domain.to_owned()), "{names:?}");
            }
            peer.external(&s.domain, OWN).await?;
            s.delivers_inwards(&mut peer).await?;
        }
        // A name that is not ours is no reason to show another certificate, or none.
        let mut peer = Peer::connect(s.rig.direct()).await?;
        let tls = ClientTls::new(Some("nowhere.example"), None);
        peer.tls_client(&tls).await?;
        let names = peer.session().unwrap().names()?;
        ensure!(names.contains(&OWN.to_owned()), "{names:?}");
        peer.open_with(&Open::new(&s.domain, "nowhere.example"))
            .await?;
        peer.header().await?;
        peer.expect_stream_error("host-unknown").await
    });
}
