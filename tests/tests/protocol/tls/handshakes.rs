//! Handshakes: versions, ciphers and compression; slow, broken and costly ones.

use super::*;

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
        let bounded = text.contains("it costs too much to verify");
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
