//! SASL EXTERNAL of a peer that calls: who may say what, and how it ends.

use super::*;

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
