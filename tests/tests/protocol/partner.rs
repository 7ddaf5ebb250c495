//! P: whose stanzas a stream may carry, and which partner a domain belongs to. What may be in them:
//! `partner_content.rs`.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    crossing::{Crossing, Fate, stanza},
    edge::manifest,
    lab::Lab,
    peer::{Behaviour, Identity, Login, Peer},
    pki::Usage,
    rig::{ALICE, GOOD, Moved, OWN, Plan, Scene, Shared},
    servers::S2S_PORT,
    wait,
};

const DISCO_INFO: &str = "<query xmlns='http://jabber.org/protocol/disco#info'/>";

fn partner(test: u8) -> Value {
    match test {
        // These are in no partner object.
        5 | 6 => Value::Null,
        8 => json!({ "tlsNegotiation": "Optional", "allowPlaintext": true }),
        9 => json!({ "additionalDomains": ["*.agency.example"] }),
        10 => json!({ "additionalDomains": ["*.wild10.example"] }),
        11 => json!({ "additionalDomains": ["xn--bcher-kva.example"] }),
        17 => json!({ "connectionLimit": 2 }),
        20 => json!({ "additionalDomains": ["conference.p20.example", "rooms.p20.example"] }),
        _ => json!({}),
    }
}

fn objects(_: &Lab) -> Vec<Value> {
    let partner = |name: &str, spec: Value| manifest("XmppFederatedPartner", name, spec);
    vec![
        partner(
            "p-05-suspended",
            json!({ "domain": "suspended05.example", "suspended": true }),
        ),
        partner(
            "p-10-exact",
            json!({ "domain": "exact.wild10.example", "partnerType": "Federated" }),
        ),
        partner(
            "p-10-longer",
            json!({
                "domain": "longer10.example",
                "additionalDomains": ["*.deep.wild10.example"],
                "partnerType": "Federated",
            }),
        ),
    ]
}

pub(crate) static RIG: Shared = Shared::new(Plan {
    partner,
    objects,
    ..Plan::standard("p", 23)
});

/// Sends this on an authenticated stream of the partner and expects this stream error.
async fn refused(s: &Scene, text: &str, condition: &str) -> Result<()> {
    let mut peer = s.partner().await?;
    peer.send_anyway(text).await;
    peer.expect_stream_error(condition)
        .await
        .with_context(|| text.to_owned())
}

/// A message that must not get through, with these addresses as they stand.
fn forbidden(s: &Scene, addresses: &str) -> String {
    let text = s.forbidden();
    format!("<message type='chat' id='{text}' {addresses}><body>{text}</body></message>")
}

/// A stream from a domain with a certificate of its own.
async fn login_as(s: &Scene, domain: &str) -> Result<Peer> {
    let leaf = s.rig.lab.authority().issue(&[domain], Usage::ServerAuth);
    Peer::login(s.rig.public(), domain, OWN, &Login::External(&leaf)).await
}

/// A message from somebody of `domain` to alice arrives inside.
async fn delivers_from(s: &Scene, peer: &mut Peer, domain: &str) -> Result<()> {
    let id = s.fresh();
    peer.message(&format!("rob@{domain}"), ALICE, &id, "hello")
        .await?;
    s.inside_gets(&id).await?;
    Ok(())
}

/// Opens a plaintext stream from `domain`, which must be refused at once; gives the error's text as
/// it was sent.
pub(crate) async fn turned_away(s: &Scene, domain: &str) -> Result<String> {
    let mut peer = s.connect().await?;
    peer.open_with(&xmpp_edge_tests::peer::Open::new(domain, OWN))
        .await?;
    peer.header().await?;
    peer.expect_stream_error("policy-violation").await?;
    let received = peer.received();
    let at = received.find("<stream:error").context("no error")?;
    Ok(received[at..].to_owned())
}

/// Whether DNS was asked for anything of this domain.
fn dns_asked(s: &Scene, domain: &str) -> bool {
    let asked = s.rig.lab.dns().asked();
    asked
        .iter()
        .any(|(name, _)| name.trim_end_matches('.').ends_with(domain))
}

#[test]
fn p_01_another_domain_in_from_is_invalid_from() {
    RIG.test(1, async |s| {
        for from in [
            "x@evil.example",
            "x@good.example",
            "evil.example",
            "alice@org.example",
        ] {
            let text = forbidden(s, &format!("from='{from}' to='{ALICE}'"));
            refused(s, &text, "invalid-from").await?;
        }
        s.unharmed(Moved::Attempt("StanzaFrom")).await
    });
}

#[test]
fn p_02_a_sub_domain_in_from_is_invalid_from() {
    RIG.test(2, async |s| {
        for from in [
            "x@sub.p02.example",
            "sub.p02.example",
            "x@example",
            "x@xp02.example",
        ] {
            let text = forbidden(s, &format!("from='{from}' to='{ALICE}'"));
            refused(s, &text, "invalid-from").await?;
        }
        s.unharmed(Moved::Attempt("StanzaFrom")).await
    });
}

#[test]
fn p_03_a_stanza_that_does_not_say_whom_to_answer_is_dropped_alone() {
    RIG.test(3, async |s| {
        let text = forbidden(s, &format!("from='a@b/c@d/' to='{ALICE}'"));
        refused(s, &text, "invalid-from").await?;
        let mut peer = s.partner().await?;
        for from in [
            "",
            "from=''",
            "from='rob@'",
            "from='rob@p03..example'",
            "from='rob@p03.example@evil.example'",
            "from='rob@[p03.example]'",
        ] {
            peer.send(forbidden(s, &format!("{from} to='{ALICE}'")))
                .await?;
        }
        s.delivers_inwards(&mut peer).await?;
        s.unharmed(Moved::Refused("JidMalformed")).await
    });
}

#[test]
fn p_03_a_bad_local_part_or_resource_is_jid_malformed() {
    RIG.test(3, async |s| {
        let mut c = Crossing::of(s).await?;
        let long = "r".repeat(2000);
        let text = format!("<body>{}</body>", s.forbidden());
        for from in [
            "@p03.example".to_owned(),
            "p03.example/".to_owned(),
            format!("{long}@p03.example"),
            format!("rob@p03.example/{long}"),
            "r&quot;b@p03.example".to_owned(),
            "r b@p03.example".to_owned(),
            // Two servers could read these as two people (RFC 8265 and Nodeprep differ).
            "stra\u{df}e@p03.example".to_owned(),
        ] {
            let Fate::Answered(error) = c.inwards("message chat", &from, ALICE, &text).await?
            else {
                anyhow::bail!("{from} is not answered");
            };
            ensure!(
                error.error_condition() == Some("jid-malformed"),
                "{error:?}"
            );
            // What may not be answered is dropped.
            c.inwards("presence", &from, ALICE, "").await?.dropped()?;
        }
        s.unharmed(Moved::Refused("JidMalformed")).await
    });
}

#[test]
fn p_04_there_is_no_relay_from_partner_to_partner() {
    RIG.test(4, async |s| {
        let outside = s.outside().await?;
        let mut peer = s.partner().await?;
        for (to, condition) in [
            ("", "jid-malformed"),
            ("to=''", "jid-malformed"),
            ("to='x@org..example'", "jid-malformed"),
            ("to='someone@nowhere.example'", "service-unavailable"),
            ("to='friend@good.example'", "service-unavailable"),
            ("to='good.example'", "service-unavailable"),
            ("to='x@sub.org.example'", "service-unavailable"),
            // Served, but not agreed on for this stream.
            ("to='vera@second.example'", "service-unavailable"),
        ] {
            let (id, text) = (s.fresh(), s.forbidden());
            peer.send(format!(
                "<message type='chat' id='{id}' from='{}' {to}><body>{text}</body></message>",
                s.user("rob")
            ))
            .await?;
            let error = outside.stanza_id(&id).await?;
            ensure!(
                error.error_condition() == Some(condition),
                "{to}: {error:?}"
            );
            // No answer of ours is in anybody else's name.
            ensure!(error.attribute("from") == Some(OWN), "{error:?}");
        }
        s.delivers_inwards(&mut peer).await?;
        s.unharmed(Moved::Refused("StanzaTo")).await
    });
}

#[test]
fn p_05_an_unlisted_domain_is_refused_before_any_look_up() {
    RIG.test(5, async |s| {
        let unlisted = turned_away(s, &s.domain).await?;
        ensure!(unlisted.contains("<text"), "no text: {unlisted}");
        // Somebody who is known and suspended reads the same.
        ensure!(turned_away(s, "suspended05.example").await? == unlisted);
        // As a further pair of a partner's stream.
        let mut peer = login_as(s, GOOD).await?;
        for domain in [s.domain.as_str(), "suspended05.example"] {
            let answer = peer.dialback(domain, OWN, "key").await?;
            ensure!(answer == "policy-violation", "{domain}: {answer}");
            ensure!(!dns_asked(s, domain), "DNS was asked for {domain}");
        }
        delivers_from(s, &mut peer, GOOD).await?;
        peer.send(forbidden(s, &format!("from='x@{}' to='{ALICE}'", s.domain)))
            .await?;
        peer.expect_stream_error("invalid-from").await?;
        s.unharmed(Moved::Connection("PartnerSuspended")).await?;
        s.unharmed(Moved::Connection("PartnerNotAllowed")).await
    });
}

#[test]
fn p_06_an_unlisted_domain_is_refused_to_our_own_users_with_a_reason() {
    RIG.test(6, async |s| {
        for what in ["message chat", "iq get", "presence subscribe"] {
            let mut inside = s.inside().await?;
            let id = s.fresh();
            let content = if what == "iq get" { DISCO_INFO } else { "" };
            inside
                .send(stanza(what, &id, ALICE, &s.user("rob"), content))
                .await?;
            let answer = Fate::Answered(s.inside_gets(&id).await?);
            let text = answer.explained("remote-server-not-found", "PartnerNotAllowed")?;
            ensure!(text.contains("Federation policy"), "{text}");
        }
        ensure!(!dns_asked(s, &s.domain), "DNS was asked");
        s.rig.serves_the_good_partner().await?;
        let labels = ["reason=\"PartnerNotAllowed\"", "partner=\"other\""];
        s.moved_anywhere("stanzas_refused_total", &labels).await
    });
}

#[test]
fn p_08_plaintext_streams_end_when_tls_becomes_required() {
    RIG.test(8, async |s| {
        let outside = s.serve(Behaviour::plain()).await?;
        outside.made("key");
        let mut peer = s.partner_by(&Login::TcpDialback("key")).await?;
        let mut inside = s.inside().await?;
        s.delivers_inwards(&mut peer).await?;
        s.delivers_outwards(&mut inside, &outside).await?;
        let identity = Identity::of(&s.identity)?;
        outside.behave(|behaviour| *behaviour = Behaviour::good(identity));
        let before = outside.connections();
        s.rig.edge.lock().await.apply(&manifest(
            "XmppFederatedPartner",
            &s.name,
            json!({ "domain": s.domain, "partnerType": "Federated", "tlsNegotiation": "Required" }),
        ))?;
        peer.expect_stream_error("policy-violation").await?;
        outside
            .until("our plaintext streams end", |seen| {
                seen[..before].iter().all(|seen| seen.ended)
            })
            .await?;
        // Both ways again, with TLS.
        s.delivers_outwards(&mut inside, &outside).await?;
        let seen = outside.seen();
        let last = seen.last().unwrap();
        ensure!(last.tls.is_some() && last.method == "External", "{last:?}");
        let mut peer = s.partner().await?;
        s.delivers_inwards(&mut peer).await?;
        ensure!(s.partner_by(&Login::TcpDialback("key")).await.is_err());
        s.unharmed(Moved::Attempt("TlsRequired")).await
    });
}

#[test]
fn p_09_a_wildcard_covers_what_is_below_it_and_nothing_else() {
    RIG.test(9, async |s| {
        for domain in ["p09.example", "x.agency.example", "a.b.agency.example"] {
            let mut peer = login_as(s, domain).await?;
            delivers_from(s, &mut peer, domain).await?;
        }
        let counted = s.grown("stanzas_total", &["direction=\"inbound\""]).await?;
        ensure!(
            (counted - 3.0).abs() < 0.1,
            "{counted} stanzas were counted"
        );
        for domain in [
            "agency.example",
            "xagency.example",
            "x.agency.example.evil.example",
            "sub.p09.example",
        ] {
            turned_away(s, domain).await.context(domain)?;
        }
        s.unharmed(Moved::Connection("PartnerNotAllowed")).await
    });
}

#[test]
fn p_10_the_most_specific_entry_has_the_domain() {
    RIG.test(10, async |s| {
        for (domain, object) in [
            ("x.wild10.example", "p-10"),
            ("deep.wild10.example", "p-10"),
            ("sub.exact.wild10.example", "p-10"),
            ("exact.wild10.example", "p-10-exact"),
            ("x.deep.wild10.example", "p-10-longer"),
        ] {
            let labels = [
                &format!("partner=\"{object}\"") as &str,
                "direction=\"inbound\"",
            ];
            let count = async || {
                s.rig
                    .edge
                    .lock()
                    .await
                    .metric("stanzas_total", &labels)
                    .await
            };
            let before = count().await?;
            let mut peer = login_as(s, domain).await?;
            delivers_from(s, &mut peer, domain).await.context(domain)?;
            let grown = count().await? - before;
            ensure!((grown - 1.0).abs() < 0.1, "{domain} is not {object}'s");
        }
        Ok(())
    });
}

#[test]
fn p_10_who_has_a_domain_in_force_keeps_it() {
    RIG.test(12, async |s| {
        let mut peer = s.partner().await?;
        s.delivers_inwards(&mut peer).await?;
        // Its name comes first, and it would suspend the partner.
        s.rig.edge.lock().await.apply(&manifest(
            "XmppFederatedPartner",
            "a-second-claim",
            json!({
                "domain": "second-claim.example",
                "additionalDomains": [s.domain],
                "suspended": true,
            }),
        ))?;
        wait::until("the conflict is told", wait::GENEROUS, || async {
            let log = s.rig.edge.lock().await.log();
            log.lines()
                .any(|line| {
                    ["a-second-claim", "DomainConflict", &s.name]
                        .iter()
                        .all(|word| line.contains(word))
                })
                .then_some(())
        })
        .await?;
        s.delivers_inwards(&mut peer).await?;
        // The other is left out whole.
        turned_away(s, "second-claim.example").await?;
        s.unharmed(Moved::Connection("PartnerNotAllowed")).await
    });
}

#[test]
fn p_11_one_domain_has_many_spellings() {
    RIG.test(11, async |s| {
        for (domain, spellings) in [
            (
                "p11.example",
                ["P11.EXAMPLE", "p11.example.", "P11.Example."],
            ),
            (
                "xn--bcher-kva.example",
                [
                    "b\u{fc}cher.example",
                    "B\u{dc}CHER.example",
                    "XN--BCHER-KVA.example",
                ],
            ),
        ] {
            let leaf = s.rig.lab.authority().issue(&[domain], Usage::ServerAuth);
            for spelling in spellings {
                let login = Login::External(&leaf);
                let mut peer = Peer::login(s.rig.public(), spelling, OWN, &login)
                    .await
                    .with_context(|| spelling.to_owned())?;
                for from in [domain, spelling] {
                    delivers_from(s, &mut peer, from)
                        .await
                        .with_context(|| format!("{from} on a stream of {spelling}"))?;
                }
            }
        }
        let counted = s.grown("stanzas_total", &["direction=\"inbound\""]).await?;
        ensure!(
            (counted - 12.0).abs() < 0.1,
            "{counted} stanzas were counted"
        );
        Ok(())
    });
}

#[test]
fn p_17_one_connection_too_many_is_resource_constraint() {
    RIG.test(17, async |s| {
        let mut first = s.partner().await?;
        let mut second = s.partner().await?;
        let (mut third, _) = s.secured(Some(&s.identity)).await?;
        third.auth("EXTERNAL", "=").await?;
        third
            .open_with(&xmpp_edge_tests::peer::Open::new(&s.domain, OWN))
            .await?;
        third
            .send_anyway(forbidden(
                s,
                &format!("from='{}' to='{ALICE}'", s.user("rob")),
            ))
            .await;
        third.expect_stream_error("resource-constraint").await?;
        for peer in [&mut first, &mut second] {
            s.delivers_inwards(peer).await?;
        }
        // Once one has ended, there is room.
        first.send("</stream:stream>").await?;
        first.ended().await?;
        wait::until("there is room again", wait::GENEROUS, || async {
            s.partner().await.ok()
        })
        .await?;
        s.unharmed(Moved::Connection("PartnerConnectionLimit"))
            .await
    });
}

#[test]
fn p_20_a_service_below_the_partner_is_a_domain_of_its_own() {
    RIG.test(20, async |s| {
        let names = ["p20.example", "conference.p20.example"];
        let leaf = s.rig.lab.authority().issue(&names, Usage::ServerAuth);
        let outside = s.serve(Behaviour::good(Identity::of(&leaf)?)).await?;
        // Listed, without SRV, with an address: RFC 6120 section 3.2.2.
        let dns = s.rig.lab.dns();
        let std::net::IpAddr::V4(ip) = s.address().ip() else {
            anyhow::bail!("the lab is IPv4");
        };
        dns.host("conference.p20.example", ip);
        ensure!(s.address().port() == S2S_PORT);
        let mut inside = s.inside_to("conference.p20.example").await?;
        let id = s.fresh();
        inside
            .message(ALICE, "a@conference.p20.example", &id, "hello")
            .await?;
        outside.stanza_id(&id).await?;
        // Listed, with neither.
        let mut inside = s.inside_to("rooms.p20.example").await?;
        let id = s.fresh();
        inside
            .message(ALICE, "a@rooms.p20.example", &id, &s.forbidden())
            .await?;
        let answer = s.inside_gets(&id).await?;
        ensure!(
            answer.error_condition() == Some("remote-server-not-found"),
            "{answer:?}"
        );
        let status = s.rig.edge.lock().await.status().await?;
        let attempts = status["partners"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|partner| partner["name"] == s.name)
            .and_then(|partner| partner["lastAttempt"].as_array())
            .context("no lastAttempt")?;
        let told = attempts
            .iter()
            .any(|attempt| attempt["step"] == "dns" && attempt["domain"] == "rooms.p20.example");
        ensure!(told, "{attempts:?}");
        // Not listed: sub-domains are never implied.
        let mut inside = s.inside_to("music.p20.example").await?;
        let id = s.fresh();
        inside
            .message(ALICE, "a@music.p20.example", &id, &s.forbidden())
            .await?;
        Fate::Answered(s.inside_gets(&id).await?)
            .explained("remote-server-not-found", "PartnerNotAllowed")?;
        ensure!(!dns_asked(s, "music.p20.example"));
        ensure!(!outside.transcript().contains(&s.forbidden()));
        s.unharmed(Moved::Attempt("DnsNotFound")).await
    });
}
