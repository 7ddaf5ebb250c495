//! Which certificates are good for a domain: dates, names, uses, chains.

use super::*;

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

#[test]
fn e_23_a_stream_ends_in_order_with_the_certificate_that_it_stands_on() {
    RIG.test(30, async |s| {
        let at = |validity| {
            s.rig.lab.authority().issue_as(&Draft {
                validity,
                ..Draft::of(&[&s.domain])
            })
        };
        let mut peer = s.connect().await?;
        let soon = at(Validity::Seconds(30));
        peer.authenticate(&s.domain, OWN, &Login::External(&soon))
            .await?;
        s.delivers_inwards(&mut peer).await?;
        peer.expect_stream_error("reset").await?;
        // Whoever has renewed it by then goes on.
        let mut peer = s.connect().await?;
        let new = at(Validity::Now);
        peer.authenticate(&s.domain, OWN, &Login::External(&new))
            .await?;
        s.delivers_inwards(&mut peer).await?;
        s.unharmed(Moved::Attempt("CertificateEnded")).await
    });
}
