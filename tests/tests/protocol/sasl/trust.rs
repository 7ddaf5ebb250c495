//! Whose certificates are trusted: an authority of the partner's own, pins, known keys; and our own new one.

use super::*;

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
        let known = KNOWN.lock().clone().context("a rig")?;
        accepted(s, &s.domain, &known).await?;
        let pin = s.identity.pin();
        let words = ["onKeyChange is Refuse", pin.as_str()];
        let outcome = "CertificateKeyChanged";
        refused_because(s, &s.domain, Some(&s.identity), &words, outcome).await?;
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

/// S-04: the key is replaced while its holder waits between `<success/>` and his next header.
#[test]
fn s_04_a_key_that_was_taken_away_after_success_is_not_used() {
    RIG.test(28, async |s| {
        let mut peer = secured_as(s, &s.domain, Some(pinned(28))).await?;
        ensure!(peer.open(&s.domain, OWN).await?.external());
        let answer = peer.auth("EXTERNAL", "=").await?;
        ensure!(answer.is("success", ns::SASL), "{answer:?}");

        let mut spec = trusting(&s.identity.pin());
        spec["domain"] = json!(s.domain);
        spec["partnerType"] = json!("Federated");
        let changed = manifest("XmppFederatedPartner", &s.name, spec);
        s.rig.edge.lock().await.apply(&changed)?;
        wait::until("the new key is good", wait::GENEROUS, || async {
            accepted(s, &s.domain, &s.identity).await.ok()
        })
        .await?;

        let id = s.forbidden();
        peer.send_anyway(Open::new(&s.domain, OWN).text()).await;
        let message = format!(
            "<message from='rob@{}' to='{ALICE}' id='{id}'><body>{id}</body></message>",
            s.domain
        );
        peer.send_anyway(message).await;
        peer.expect_stream_error("not-authorized").await?;
        s.unharmed(Moved::Attempt("CertificatePinMismatch")).await
    });
}

/// S-11: who controls the partner's DNS, and shows a key of his own, is not let in by dialback.
#[test]
fn s_11_a_pinned_partner_is_not_authenticated_by_dialback() {
    RIG.test(29, async |s| {
        let attacker = Draft::of(&[&s.domain]).self_signed();
        let mut behaviour = Behaviour::good(Identity::of(&attacker)?);
        behaviour.external = false;
        let server = s.serve(behaviour).await?;
        server.made("good");
        refused(s, &s.domain, Some(&attacker)).await?;

        // Nor where he says only in the key who he is.
        let mut open = Open::new(&s.domain, OWN);
        open.from = None;
        let mut peer = s.connect().await?;
        peer.open_with(&open).await?;
        peer.header().await?;
        peer.features().await?;
        let identity = Identity::of(&attacker)?;
        peer.starttls(&ClientTls::new(Some(OWN), Some(identity)))
            .await?;
        peer.open_with(&open).await?;
        peer.header().await?;
        peer.features().await?;
        let answer = peer.dialback(&s.domain, OWN, "good").await?;
        ensure!(answer == "policy-violation", "{answer}");

        // Towards him nothing goes either.
        let id = alice_writes(s).await?;
        let text = bounced(s, &id).await?;
        ensure!(text.contains("pinned"), "{text}");
        ensure!(!server.transcript().contains(&id));

        accepted(s, &s.domain, pinned(29)).await?;
        s.unharmed(Moved::Attempt("CertificatePinMismatch")).await
    });
}
