//! T: STARTTLS and direct TLS, in both roles.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustls::version::{TLS12, TLS13};
use serde_json::json;
use tokio::{net::TcpListener, time::Instant};
use xmpp_edge_tests::{
    peer::{
        Behaviour, ClientTls, Encryption, Event, Features, Identity, Login, Open, Peer, PeerServer,
        ServerTls,
        hello::{self, Answer, Hello, TLS_1_0, TLS_1_1, TLS_1_2},
        ns,
    },
    pki::{Authority, Draft, Leaf},
    rig::{ALICE, GOOD, Moved, OWN, Plan, SECOND, Scene, Shared},
    xml::Element,
};

/// Short, so that what never ends a handshake is seen to be cut off.
const ESTABLISHMENT: Duration = Duration::from_secs(10);

/// ECDHE with ECDSA and AES-GCM: the edge has it.
const GOOD_CIPHER: u16 = 0xc02b;
/// TLS alert descriptions (RFC 8446 section 6).
const HANDSHAKE_FAILURE: u8 = 40;
const PROTOCOL_VERSION: u8 = 70;

static RIG: Shared = Shared::new(Plan {
    partner: |test| match test {
        // Everything is allowed, so that nothing but the order of things refuses.
        3 | 4 | 6 | 7 => json!({
            "tlsNegotiation": "Optional",
            "saslNegotiation": "Optional",
            "allowPlaintext": true,
        }),
        _ => json!({}),
    },
    settings: || json!({ "streamEstablishmentTimeoutSeconds": ESTABLISHMENT.as_secs() }),
    ..Plan::standard("t", 22)
});

const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
const PROCEED: &str = "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
const COMPRESS: &str = "http://jabber.org/protocol/compress";

/// TLS of a client of the public listener with the partner's certificate.
fn own_tls(s: &Scene) -> Result<ClientTls> {
    Ok(ClientTls::new(Some(OWN), Some(Identity::of(&s.identity)?)))
}

/// A message from alice to the partner; its id.
async fn alice_writes(s: &Scene) -> Result<String> {
    let id = s.fresh();
    let mut inside = s.inside().await?;
    inside.message(ALICE, &s.user("rob"), &id, &id).await?;
    Ok(id)
}

/// The error that alice gets for a message.
async fn bounced(s: &Scene, id: &str, condition: &str, text: &str) -> Result<()> {
    let error = s.inside_gets(id).await?;
    ensure!(
        error.error_condition() == Some(condition) && error.error_text().contains(text),
        "not {condition} with {text:?}: {error:?}"
    );
    Ok(())
}

/// As responder: reads the edge's header, which is given back, and answers with this header's id and
/// these features.
async fn respond(s: &Scene, peer: &mut Peer, id: &str, features: &str) -> Result<Element> {
    let header = peer.header().await?;
    let mut open = Open::new(&s.domain, OWN);
    open.id = Some(id.to_owned());
    let features = format!("<stream:features>{features}</stream:features>");
    peer.send(open.text() + &features).await?;
    Ok(header)
}

fn mechanisms() -> String {
    format!(
        "<mechanisms xmlns='{}'><mechanism>EXTERNAL</mechanism></mechanisms>",
        ns::SASL
    )
}

fn dialback() -> String {
    format!("<dialback xmlns='{}'/>", ns::DIALBACK_FEATURE)
}

fn starttls_feature() -> String {
    format!("<starttls xmlns='{}'/>", ns::TLS)
}

/// Sends a ClientHello and reads what the edge chooses or refuses it with.
async fn offer(peer: &mut Peer, hello: &Hello) -> Result<Answer> {
    peer.send(hello.record()).await?;
    let mut bytes = Vec::new();
    loop {
        let more = peer.raw().await?;
        bytes.extend(&more);
        match Answer::read(&bytes) {
            Ok(answer) => return Ok(answer),
            Err(_) if !more.is_empty() => {}
            Err(error) => return Err(error.context("the edge ends the connection")),
        }
    }
}

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

#[test]
fn t_09_tls_1_0_and_1_1_are_refused_on_both_ports() {
    RIG.test(9, async |s| {
        for version in [TLS_1_0, TLS_1_1] {
            let hello = Hello::new(version, &[GOOD_CIPHER, 0xc009, 0x002f], OWN);
            let mut direct = Peer::connect(s.rig.direct()).await?;
            let mut starttls = s.connect().await?;
            starttls.open(&s.domain, OWN).await?;
            starttls.send(STARTTLS).await?;
            ensure!(starttls.element().await?.is("proceed", ns::TLS));
            for peer in [&mut direct, &mut starttls] {
                let answer = offer(peer, &hello).await?;
                ensure!(
                    answer == Answer::Alert(PROTOCOL_VERSION),
                    "{answer:?} for {version:#x}"
                );
                peer.ended().await?;
            }
        }
        s.unharmed(Moved::Connection("TlsIncompatible")).await?;
        // Who names itself before the handshake is told of by name.
        s.unharmed(Moved::Attempt("TlsIncompatible")).await
    });
}

#[test]
fn t_09_ciphers_without_forward_secrecy_or_aead_are_refused() {
    RIG.test(9, async |s| {
        for (cipher, name) in [
            (0x0001, "NULL"),
            (0x0003, "EXPORT RC4"),
            (0x0005, "RC4"),
            (0x000a, "3DES"),
            (0x0034, "DH anon"),
            (0x002f, "RSA with AES-CBC"),
            (0x009c, "RSA with AES-GCM"),
            (0xc007, "ECDHE with RC4"),
            (0xc008, "ECDHE with 3DES"),
            (0xc009, "ECDHE with AES-CBC"),
            (0xc018, "ECDH anon"),
        ] {
            let mut peer = Peer::connect(s.rig.direct()).await?;
            let answer = offer(&mut peer, &Hello::new(TLS_1_2, &[cipher], OWN)).await?;
            ensure!(
                answer == Answer::Alert(HANDSHAKE_FAILURE),
                "{answer:?} for {name}"
            );
            peer.ended().await?;
        }
        s.unharmed(Moved::Connection("TlsIncompatible")).await
    });
}

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

/// Sends these bytes one at a time, slowly, until the edge ends the connection.
async fn drip(mut peer: Peer, bytes: &[u8]) -> Result<()> {
    let end = Instant::now() + ESTABLISHMENT * 2;
    for byte in bytes {
        if peer.send([*byte]).await.is_err() {
            return Ok(());
        }
        // The pace, and the end where it comes.
        let quiet = tokio::time::timeout(Duration::from_millis(500), peer.raw()).await;
        match quiet {
            Ok(Ok(bytes)) if bytes.is_empty() => return Ok(()),
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(error)) => return Err(error),
        }
        if Instant::now() > end {
            break;
        }
    }
    bail!("the edge waits for ever")
}

#[test]
fn t_16_a_handshake_that_never_ends_is_cut_off() {
    RIG.test(16, async |s| {
        let record = Hello::new(TLS_1_2, &[GOOD_CIPHER], OWN).record();
        let direct = Peer::connect(s.rig.direct()).await?;
        let mut starttls = s.connect().await?;
        starttls.open(&s.domain, OWN).await?;
        starttls.send(STARTTLS).await?;
        ensure!(starttls.element().await?.is("proceed", ns::TLS));
        tokio::try_join!(drip(direct, &record), drip(starttls, &record))?;
        s.unharmed(Moved::Connection("TlsTimeout")).await
    });
}

#[test]
fn t_17_a_broken_client_hello_harms_nobody() {
    RIG.test(17, async |s| {
        let hello = Hello::new(TLS_1_2, &[GOOD_CIPHER], OWN);
        let (record, message) = (hello.record(), hello.message());
        let (first, second) = message.split_at(20);
        let mut corpus = vec![
            hello::alert(2, 0),
            hello::alert(1, 0),
            [hello::record(22, first), hello::alert(2, 80)].concat(),
            [
                hello::record(22, first),
                hello::alert(1, 0),
                hello::record(22, second),
            ]
            .concat(),
            [hello::record(22, first), hello::record(23, second)].concat(),
            hello::record(22, &[]),
            hello::record(22, &[1, 0xff, 0xff, 0xff]),
            hello::record(22, &[0; 64]),
            hello::record(20, &[1]),
            hello::record(23, b"application data"),
            vec![22, 3, 1, 0xff, 0xff],
            [&[22, 3, 1, 0x40, 0x00][..], &[1; 0x4000]].concat(),
            vec![0x16; 5000],
            vec![0x80, 0x2e, 1, 0, 2],
            record[..record.len() - 1].to_vec(),
        ];
        // Each octet of the structure in turn, with its bits turned over.
        corpus.extend((0..record.len()).step_by(3).map(|index| {
            let mut broken = record.clone();
            broken[index] ^= 0xff;
            broken
        }));
        for bytes in corpus {
            for address in [s.rig.direct(), s.rig.public()] {
                let mut peer = Peer::connect(address).await?;
                peer.send_anyway(&bytes).await;
                // It gets no more: whatever the edge still waits for, it has to end.
                let _ = peer.half_close().await;
                loop {
                    match peer.raw().await {
                        Ok(more) if more.is_empty() => break,
                        Ok(_) => {}
                        Err(error) => bail!("{error} for {bytes:02x?}"),
                    }
                }
            }
        }
        ensure!(!s.rig.edge.lock().await.log().contains("panicked"));
        s.unharmed(Moved::Connection("NotTls")).await
    });
}

#[test]
fn t_18_close_notify_amid_the_handshake_costs_no_time_of_the_processor() {
    RIG.test(18, async |s| {
        let record = Hello::new(TLS_1_2, &[GOOD_CIPHER], OWN).record();
        let mut waiting = Vec::new();
        for address in [s.rig.direct(), s.rig.public()] {
            for bytes in [
                [record.clone(), hello::alert(1, 0)].concat(),
                [&record[..30], &hello::alert(1, 0)].concat(),
                [record.clone(), hello::alert(1, 0), hello::alert(1, 0)].concat(),
            ] {
                let mut peer = Peer::connect(address).await?;
                peer.send(&bytes).await?;
                waiting.push(peer);
            }
        }
        let (began, before) = (Instant::now(), processor_time(s).await?);
        // Our side stays open: nothing but the edge ends this.
        for peer in &mut waiting {
            while !peer.raw().await?.is_empty() {}
        }
        // Other tests need some, but a loop takes a whole processor.
        let used = processor_time(s).await?.saturating_sub(before);
        let most = began.elapsed() / 2 + Duration::from_secs(1);
        ensure!(used < most, "{used:?} in {:?}", began.elapsed());
        s.unharmed(Moved::Connection("TlsTimeout")).await
    });
}

/// What the edge's process has used.
async fn processor_time(s: &Scene) -> Result<Duration> {
    let pid = s.rig.edge.lock().await.pid().context("it runs")?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("a name in brackets")?;
    // utime and stime are fields 14 and 15 of the whole line, in ticks of 10 ms.
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(|t| t.parse::<u64>().unwrap_or(0)).sum();
    Ok(Duration::from_millis(ticks * 10))
}

#[test]
fn t_19_a_chain_of_fifty_is_refused_unread() {
    RIG.test(19, async |s| {
        let authority = (0..50).fold(Authority::new("Root of Fifty"), |above, number| {
            above.below(&format!("Number {number}"))
        });
        let leaf = authority.issue_as(&Draft::of(&[&s.domain]));
        let text = refused_certificate(s, &leaf, "CertificateChainTooLong").await?;
        ensure!(text.contains("51 certificates"), "{text}");
        Ok(())
    });
}

#[test]
fn t_19_name_constraints_by_the_thousand_are_not_all_compared() {
    RIG.test(19, async |s| {
        // Each name is looked for in all trees and found in the last: a million comparisons.
        let mut trees: Vec<_> = (0..1000).map(|n| format!("c{n}.example")).collect();
        trees.push(s.domain.clone());
        let names: Vec<_> = (0..1000).map(|n| format!("x{n}.{}", s.domain)).collect();
        let names: Vec<_> = names
            .iter()
            .map(String::as_str)
            .chain([s.domain.as_str()])
            .collect();
        let authority = s.rig.lab.authority().below_for("Bomb", &trees);
        let leaf = authority.issue_as(&Draft::of(&names));
        let text = refused_certificate(s, &leaf, "CertificateInvalid").await?;
        let bounded = text.contains("MaximumNameConstraintComparisonsExceeded");
        ensure!(bounded, "{text}");
        Ok(())
    });
}

/// EXTERNAL is all that this partner may use, so its stream ends: what the edge sent.
async fn refused_certificate(s: &Scene, leaf: &Leaf, label: &str) -> Result<String> {
    let mut peer = s.connect().await?;
    peer.open(&s.domain, OWN).await?;
    let tls = ClientTls::new(Some(OWN), Some(Identity::of(leaf)?));
    peer.starttls(&tls).await?;
    peer.open_with(&Open::new(&s.domain, OWN)).await?;
    peer.header().await?;
    peer.expect_stream_error("not-authorized").await?;
    s.unharmed(Moved::Attempt(label)).await?;
    Ok(peer.received())
}

#[test]
fn t_20_only_tls_1_2_and_1_3_with_good_ciphers_are_spoken() {
    RIG.test(20, async |s| {
        for version in [&TLS12, &TLS13] {
            let mut peer = Peer::connect(s.rig.direct()).await?;
            let tls = ClientTls {
                versions: vec![version],
                ..own_tls(s)?
            };
            peer.tls_client(&tls).await?;
            ensure!(peer.session().unwrap().version == Some(version.version));
            peer.external(&s.domain, OWN).await?;
            s.delivers_inwards(&mut peer).await?;
        }
        // All there are, the good ones last: the edge chooses by its own order.
        let weak = [0x0005, 0x000a, 0x002f, 0x009c, 0xc007, 0xc009];
        let good = [0xc02b, 0xc02c, 0xcca9];
        for cipher in good {
            let mut peer = Peer::connect(s.rig.direct()).await?;
            let all: Vec<_> = weak.into_iter().chain([cipher]).collect();
            let answer = offer(&mut peer, &Hello::new(TLS_1_2, &all, OWN)).await?;
            let chosen = matches!(answer, Answer::ServerHello { cipher: c, .. } if c == cipher);
            ensure!(chosen, "{answer:?} for {cipher:#x}");
        }
        Ok(())
    });
}

#[test]
fn t_21_tls_compression_is_never_chosen() {
    RIG.test(21, async |s| {
        let mut hello = Hello::new(TLS_1_2, &[GOOD_CIPHER], OWN);
        hello.compressions = vec![1, 64, 0];
        let mut peer = Peer::connect(s.rig.direct()).await?;
        let answer = offer(&mut peer, &hello).await?;
        let none = matches!(answer, Answer::ServerHello { compression: 0, .. });
        ensure!(none, "{answer:?}");
        Ok(())
    });
}

#[test]
fn t_21_stream_compression_is_not_offered_and_refused() {
    RIG.test(21, async |s| {
        let compress = format!("<compress xmlns='{COMPRESS}'><method>zlib</method></compress>");
        let is_offered = |features: &Features| format!("{features:?}").contains("compress");
        let mut plain = s.connect().await?;
        ensure!(!is_offered(&plain.open(&s.domain, OWN).await?));
        let (mut secured, features) = s.secured(Some(&s.identity)).await?;
        ensure!(!is_offered(&features));
        let mut authenticated = s.connect().await?;
        let login = Login::External(&s.identity);
        let features = authenticated.authenticate(&s.domain, OWN, &login).await?;
        ensure!(!is_offered(&features));
        for peer in [&mut plain, &mut secured, &mut authenticated] {
            peer.send(&compress).await?;
            let answer = peer.element().await?;
            ensure!(answer.is("failure", COMPRESS), "{answer:?}");
            ensure!(answer.child("unsupported-method").is_some(), "{answer:?}");
        }
        s.delivers_inwards(&mut authenticated).await
    });
}
