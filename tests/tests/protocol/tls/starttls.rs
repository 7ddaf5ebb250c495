//! STARTTLS: nothing before it counts, and no way leads around it.

use super::*;

#[test]
fn t_01_before_tls_nothing_but_starttls_is_offered_where_it_is_required() {
    RIG.test(1, async |s| {
        let mut peer = s.connect().await?;
        let features = peer.open(&s.domain, OWN).await?;
        ensure!(features.starttls() == Some(true), "{features:?}");
        ensure!(features.0.children.len() == 1, "more: {features:?}");
        s.rig.serves_the_good_partner().await
    });
}

#[test]
fn t_02_whatever_comes_before_required_tls_is_policy_violation() {
    RIG.test(2, async |s| {
        let (from, id) = (s.user("rob"), s.forbidden());
        let domain = &s.domain;
        for (bytes, answer) in [
            (
                format!(
                    "<message from='{from}' to='{ALICE}' id='{id}'><body>{id}</body></message>"
                ),
                None,
            ),
            (
                format!("<presence from='{from}' to='{ALICE}' id='{id}'/>"),
                None,
            ),
            (
                format!("<db:result from='{domain}' to='{OWN}'>{id}</db:result>"),
                Some("result"),
            ),
            (
                format!("<db:verify from='{domain}' to='{OWN}' id='x'>{id}</db:verify>"),
                Some("verify"),
            ),
            (
                format!("<auth xmlns='{}' mechanism='EXTERNAL'>=</auth>", ns::SASL),
                None,
            ),
            (format!("<enable xmlns='{}'/>", ns::ACKS), None),
        ] {
            let mut peer = s.connect().await?;
            peer.open(domain, OWN).await?;
            peer.send(&bytes).await?;
            if let Some(name) = answer {
                let condition = peer.db_answer(name, domain, OWN).await?;
                ensure!(condition == "policy-violation", "{condition} for {bytes}");
            }
            let condition = peer.stream_error().await?;
            ensure!(condition == "policy-violation", "{condition} for {bytes}");
            ensure!(!peer.received().contains("<failed"), "{}", peer.received());
        }
        s.unharmed(Moved::Attempt("TlsRequired")).await
    });
}

#[test]
fn t_03_what_is_sent_behind_starttls_in_plaintext_is_never_heard() {
    RIG.test(3, async |s| {
        let (from, id) = (s.user("rob"), s.forbidden());
        let header = Open::new(&s.domain, OWN).text();
        let result = format!("<db:result from='{}' to='{OWN}'>{id}</db:result>", s.domain);
        let auth = format!("<auth xmlns='{}' mechanism='EXTERNAL'>=</auth>", ns::SASL);
        let message =
            format!("<message from='{from}' to='{ALICE}' id='{id}'><body>{id}</body></message>");
        for injected in [
            result.clone(),
            message.clone(),
            format!("{header}{auth}{header}{message}"),
            format!("{result}{message}"),
            "<message from='".to_owned(),
            "\n ".to_owned(),
        ] {
            let mut peer = s.connect().await?;
            peer.open(&s.domain, OWN).await?;
            peer.send(format!("{STARTTLS}{injected}")).await?;
            ensure!(peer.element().await?.is("proceed", ns::TLS));
            peer.tls_client(&own_tls(s)?).await?;
            peer.external(&s.domain, OWN).await?;
            s.delivers_inwards(&mut peer).await?;
            let received = peer.received();
            ensure!(!received.contains("<db:"), "answered: {received}");
        }
        s.rig.serves_the_good_partner().await?;
        ensure!(!s.rig.inside.transcript().contains(&id));
        Ok(())
    });
}

#[test]
fn t_03_plaintext_after_proceed_ends_the_connection() {
    RIG.test(3, async |s| {
        let id = s.forbidden();
        let mut peer = s.connect().await?;
        peer.open(&s.domain, OWN).await?;
        peer.send(STARTTLS).await?;
        ensure!(peer.element().await?.is("proceed", ns::TLS));
        peer.send(format!(
            "<db:result from='{}' to='{OWN}'>{id}</db:result>",
            s.domain
        ))
        .await?;
        // An alert may come, in no stream.
        let mut bytes = Vec::new();
        loop {
            match peer.raw().await? {
                more if more.is_empty() => break,
                more => bytes.extend(more),
            }
        }
        ensure!(
            !bytes.contains(&b'<'),
            "{}",
            String::from_utf8_lossy(&bytes)
        );
        s.unharmed(Moved::Attempt("NotTls")).await
    });
}

#[test]
fn t_04_what_a_server_sends_behind_proceed_in_plaintext_is_never_heard() {
    RIG.test(4, async |s| {
        let listener = TcpListener::bind(s.address()).await?;
        let id = alice_writes(s).await?;
        let mut peer = Peer::accept(&listener).await?;
        respond(s, &mut peer, "plain", &starttls_feature()).await?;
        ensure!(peer.element().await?.is("starttls", ns::TLS));
        let (from, forbidden) = (s.user("rob"), s.forbidden());
        let injected = format!(
            "{}<stream:features>{}</stream:features>\
             <db:result from='{}' to='{OWN}' type='valid'/><success xmlns='{}'/>\
             <message from='{from}' to='{ALICE}' id='{forbidden}'><body>{forbidden}</body></message>",
            Open::new(&s.domain, OWN).text(),
            dialback(),
            s.domain,
            ns::SASL,
        );
        peer.send(format!("{PROCEED}{injected}")).await?;
        let tls = ServerTls::new(Identity::of(&s.identity)?);
        peer.tls_server(&tls).await?;
        respond(s, &mut peer, "secure", &mechanisms()).await?;
        ensure!(peer.element().await?.is("auth", ns::SASL));
        peer.send(format!("<success xmlns='{}'/>", ns::SASL)).await?;
        peer.restart();
        respond(s, &mut peer, "authenticated", "").await?;
        peer.stanza(&id).await?;
        s.rig.serves_the_good_partner().await?;
        ensure!(!s.rig.inside.transcript().contains(&forbidden));
        Ok(())
    });
}

#[test]
fn t_05_starttls_stripped_from_the_features_is_no_way_to_plaintext() {
    RIG.test(5, async |s| {
        let outside = s
            .serve(Behaviour {
                encryption: Encryption::Never,
                ..s.good_behaviour()?
            })
            .await?;
        let id = alice_writes(s).await?;
        bounced(s, &id, "remote-server-timeout", "STARTTLS").await?;
        nothing_was_told(&outside, &id)?;
        s.unharmed(Moved::Attempt("TlsNotOffered")).await
    });
}

/// The partner's server got neither the stanza, nor a key, nor an authentication.
fn nothing_was_told(outside: &PeerServer, id: &str) -> Result<()> {
    let transcript = outside.transcript();
    ensure!(outside.connections() > 0, "nobody came");
    ensure!(
        !transcript.contains(id)
            && !transcript.contains("<db:result")
            && !transcript.contains("<auth"),
        "{transcript}"
    );
    Ok(())
}

#[test]
fn t_06_a_refused_starttls_is_no_way_to_plaintext() {
    RIG.test(6, async |s| {
        let listener = TcpListener::bind(s.address()).await?;
        let id = alice_writes(s).await?;
        let mut peer = Peer::accept(&listener).await?;
        // Plaintext would be allowed and is offered: but TLS was, too.
        let features = starttls_feature() + &dialback();
        respond(s, &mut peer, "plain", &features).await?;
        ensure!(peer.element().await?.is("starttls", ns::TLS));
        peer.send(format!("<failure xmlns='{}'/>", ns::TLS)).await?;
        for event in peer.ended().await? {
            let expected = match &event {
                Event::Element(element) => element.is("error", ns::STREAM),
                event => *event == Event::Close,
            };
            ensure!(expected, "goes on: {event:?}");
        }
        bounced(s, &id, "remote-server-timeout", "STARTTLS").await?;
        s.unharmed(Moved::Attempt("TlsRefused")).await
    });
}

#[test]
fn t_07_after_tls_the_stream_has_another_id_and_other_features() {
    RIG.test(7, async |s| {
        let mut peer = s.connect().await?;
        let mut ids = Vec::new();
        let mut heard = Vec::new();
        for step in 0..3 {
            peer.open_with(&Open::new(&s.domain, OWN)).await?;
            let header = peer.header().await?;
            ids.push(header.attribute("id").context("an id")?.to_owned());
            heard.push(peer.features().await?);
            match step {
                0 => peer.starttls(&own_tls(s)?).await?,
                1 => ensure!(peer.auth("EXTERNAL", "=").await?.name == "success"),
                _ => {}
            }
        }
        ids.sort();
        ids.dedup();
        ensure!(ids.len() == 3, "{ids:?}");
        let offers: Vec<_> = heard
            .iter()
            .map(|f| (f.starttls().is_some(), f.external(), f.acks()))
            .collect();
        ensure!(
            offers
                == [
                    (true, false, false),
                    (false, true, false),
                    (false, false, true)
                ],
            "{heard:?}"
        );
        s.delivers_inwards(&mut peer).await
    });
}

#[test]
fn t_07_what_a_server_offered_before_tls_is_forgotten_after_it() {
    RIG.test(22, async |s| {
        let listener = TcpListener::bind(s.address()).await?;
        let id = alice_writes(s).await?;
        let mut peer = Peer::accept(&listener).await?;
        let features = starttls_feature() + &mechanisms() + &dialback();
        respond(s, &mut peer, "plain", &features).await?;
        ensure!(peer.element().await?.is("starttls", ns::TLS));
        peer.send(PROCEED).await?;
        peer.tls_server(&ServerTls::new(Identity::of(&s.identity)?))
            .await?;
        respond(s, &mut peer, "secure", "").await?;
        peer.expect_stream_error("policy-violation").await?;
        bounced(s, &id, "remote-server-timeout", "EXTERNAL").await?;
        s.unharmed(Moved::Attempt("ExternalNotOffered")).await
    });
}

#[test]
fn t_08_a_second_starttls_is_unsupported_stanza_type() {
    RIG.test(8, async |s| {
        let (mut peer, _) = s.secured(Some(&s.identity)).await?;
        peer.send(STARTTLS).await?;
        peer.expect_stream_error("unsupported-stanza-type").await?;
        let mut peer = s.partner().await?;
        peer.send(STARTTLS).await?;
        peer.expect_stream_error("unsupported-stanza-type").await?;
        ensure!(peer.received().matches("<proceed").count() == 1);
        s.unharmed(Moved::Attempt("UnexpectedElement")).await
    });
}
