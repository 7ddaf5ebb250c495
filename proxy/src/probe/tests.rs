#![allow(clippy::unwrap_used)]

use hickory_proto::rr::RecordType;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use xmpp_edge_crds::negotiation::Method;

use super::*;
use crate::{
    dns::{
        Resolver,
        fake::{Fake, FakeReply, a, srv},
    },
    tls::{
        Roots,
        pki::{Authority, Subject, authority, issue},
    },
};

const FEATURES_TLS: &str =
    "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>";
const FEATURES_EXTERNAL: &str = "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>EXTERNAL</mechanism></mechanisms>";
const FEATURES_DIALBACK: &str = "<dialback xmlns='urn:xmpp:features:dialback'><errors/></dialback>";
const FEATURES_MORE: &str = "<bidi xmlns='urn:xmpp:features:bidi'/><sm xmlns='urn:xmpp:sm:3'/><limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>262144</max-bytes></limits>";

/// What a scripted partner does.
#[derive(Clone, Copy)]
struct Script {
    direct: bool,
    before: &'static str,
    /// Speaks TLS when asked to.
    tls: bool,
    inside: &'static str,
}

async fn serve(script: Script, identity: Arc<Identity>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let identity = Arc::clone(&identity);
            tokio::spawn(async move { converse(script, socket, identity).await });
        }
    });
    port
}

async fn converse(
    script: Script,
    mut socket: tokio::net::TcpStream,
    identity: Arc<Identity>,
) -> Option<()> {
    if !script.direct {
        read_until(&mut socket, "version='1.0'>").await?;
        socket
            .write_all(header(script.before).as_bytes())
            .await
            .ok()?;
        read_until(&mut socket, "<starttls").await?;
        socket
            .write_all(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
            .await
            .ok()?;
    }
    if !script.tls {
        return None;
    }
    let mode = if script.direct {
        Mode::Direct
    } else {
        Mode::StartTls
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut secured = tls::accept(socket, mode, deadline, |_| Some(identity))
        .await
        .ok()?;
    read_until(&mut secured, "version='1.0'>").await?;
    secured
        .write_all(header(script.inside).as_bytes())
        .await
        .ok()?;
    secured.flush().await.ok()?;
    read_until(&mut secured, "</stream:stream>").await
}

fn header(features: &str) -> String {
    format!(
        "<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' \
         xmlns:stream='http://etherx.jabber.org/streams' from='partner.example' id='1' version='1.0'>\
         <stream:features>{features}</stream:features>"
    )
}

async fn read_until(from: &mut (impl tokio::io::AsyncRead + Unpin), end: &str) -> Option<()> {
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains(end) {
        if from.read_buf(&mut text).await.ok()? == 0 {
            return None;
        }
    }
    Some(())
}

fn identity(ca: &Authority, name: &'static str) -> Arc<Identity> {
    let issued = issue(
        ca,
        &Subject {
            names: &[name],
            ..Subject::default()
        },
    );
    Arc::new(Identity::from_pem(&issued.pem, &issued.key_pem, "test").unwrap())
}

async fn report(
    ca: &Authority,
    scripts: &[(Script, &'static str)],
    ours: Option<&'static str>,
) -> Report {
    let mut table = Vec::new();
    for (script, name) in scripts {
        let port = serve(*script, identity(ca, name)).await;
        let service = if script.direct {
            "_xmpps-server._tcp.partner.example"
        } else {
            "_xmpp-server._tcp.partner.example"
        };
        table.push((
            service,
            RecordType::SRV,
            FakeReply::Records(vec![srv(1, 0, port, "x.partner.example.")]),
        ));
    }
    table.push((
        "x.partner.example",
        RecordType::A,
        FakeReply::Records(vec![a("127.0.0.1")]),
    ));
    let fake = Fake::start(table).await;
    probe(&ProbeOptions {
        domain: DomainName::parse("partner.example").unwrap(),
        from: Some(DomainName::parse("org.example").unwrap()),
        source: TargetSource::Discover {
            except: Arc::new([]),
        },
        identity: ours.map(|name| identity(ca, name)),
        trust: Trust::new(Roots::from_pem(ca.pem(), "test").unwrap()),
        dialer: Dialer::new(Resolver::at(fake.address).unwrap(), Arc::new(|_, _| false)),
        egress: None,
    })
    .await
}

#[tokio::test]
async fn the_method_that_would_be_used_is_named_with_the_reason() {
    let all = const_format(&[FEATURES_EXTERNAL, FEATURES_DIALBACK, FEATURES_MORE]);
    let starttls = Script {
        direct: false,
        before: FEATURES_TLS,
        tls: true,
        inside: all,
    };
    let without_external = Script {
        inside: FEATURES_DIALBACK,
        ..starttls
    };
    let plain = Script {
        before: FEATURES_DIALBACK,
        ..starttls
    };
    let broken = Script {
        before: const_format(&[FEATURES_TLS, FEATURES_DIALBACK]),
        tls: false,
        ..starttls
    };
    let nothing = Script {
        inside: "",
        ..starttls
    };
    let direct = Script {
        direct: true,
        ..starttls
    };
    let (good, bad) = ("partner.example", "evil.example");
    let us = Some("org.example");
    use Method::{SaslOverTls, TcpDialback, TlsDialback};
    let cases = [
        ("EXTERNAL", starttls, good, us, Some(SaslOverTls), false, ""),
        ("direct TLS", direct, good, us, Some(SaslOverTls), false, ""),
        (
            "no certificate of ours",
            without_external,
            good,
            None,
            Some(SaslOverTls),
            true,
            "presumed",
        ),
        (
            "EXTERNAL not offered",
            without_external,
            good,
            us,
            Some(TlsDialback),
            false,
            "did not offer SASL EXTERNAL",
        ),
        (
            "wrong name",
            starttls,
            bad,
            us,
            Some(TlsDialback),
            false,
            "evil.example",
        ),
        (
            "no STARTTLS",
            plain,
            good,
            us,
            Some(TcpDialback),
            false,
            "does not offer STARTTLS",
        ),
        (
            "TLS fails",
            broken,
            good,
            us,
            None,
            false,
            "plaintext is never used",
        ),
        (
            "wrong name, no dialback",
            nothing,
            bad,
            us,
            None,
            false,
            "does not offer dialback inside TLS",
        ),
    ];
    let ca = authority("authority");
    for (what, script, name, ours, method, presumed, why) in cases {
        let report = report(&ca, &[(script, name)], ours).await;
        assert_eq!(report.method, method, "{what}: {report:#?}");
        assert_eq!(report.presumed, presumed, "{what}");
        assert!(
            report.why.join("; ").contains(why),
            "{what}: {:?}",
            report.why
        );
        assert_eq!(report.succeeded(), method.is_some());
    }
}

/// Joins texts for the life of the test.
fn const_format(parts: &[&str]) -> &'static str {
    Box::leak(parts.concat().into_boxed_str())
}

#[tokio::test]
async fn every_target_is_looked_at_and_told_in_both_forms() {
    let all = const_format(&[FEATURES_EXTERNAL, FEATURES_DIALBACK, FEATURES_MORE]);
    let starttls = Script {
        direct: false,
        before: FEATURES_TLS,
        tls: true,
        inside: all,
    };
    let direct = Script {
        direct: true,
        ..starttls
    };
    let ca = authority("authority");
    let scripts = [(starttls, "partner.example"), (direct, "evil.example")];
    let report = report(&ca, &scripts, Some("org.example")).await;
    assert_eq!(report.targets.len(), 2);
    let text = report.to_string();
    for part in [
        "_xmpps-server",
        "_xmpp-server",
        "direct TLS",
        "STARTTLS required",
        "SASL EXTERNAL",
        "dialback with errors",
        "bidi",
        "acks (urn:xmpp:sm:3)",
        "262144",
        "evil.example",
        "until ",
    ] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["domain"], "partner.example");
    assert_eq!(json["targets"][0]["features"]["maxBytes"], 262_144);
    assert_eq!(json["targets"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_domain_that_does_not_exist_is_a_failure_with_a_cause() {
    let ca = authority("authority");
    let report = report(&ca, &[], None).await;
    assert!(!report.succeeded());
    assert!(report.to_string().contains("partner.example"), "{report}");
    assert!(!report.why.is_empty());
}
