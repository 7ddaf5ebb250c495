//! N: the negotiation matrix, row by row, against peers of four abilities, in both directions.
//!
//! What each row expects is written out, not computed by the rule that is under test.

mod admission;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use xmpp_edge_tests::{
    peer::{Behaviour, ClientTls, Encryption, Features, Identity, Open, Peer, PeerServer, Verdict},
    pki::{Authority, Leaf, Usage},
    rig::{ALICE, Moved, OWN, Plan, Scene, Shared},
};

/// How a stream comes to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Sasl,
    TlsDialback,
    TcpDialback,
}
use Method::{Sasl, TcpDialback, TlsDialback};

impl Method {
    /// As metrics and status call it.
    fn label(self) -> &'static str {
        match self {
            Sasl => "SaslOverTls",
            TlsDialback => "TlsDialback",
            TcpDialback => "TcpDialback",
        }
    }
}

/// What the peer is able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ability {
    /// A certificate that everyone trusts, TLS, EXTERNAL; dialback as well.
    Certificate,
    /// TLS with a certificate that nobody trusts, dialback.
    TlsOnly,
    /// Dialback without TLS.
    Plain,
    /// Neither TLS nor dialback.
    Nothing,
}
const ABILITIES: [Ability; 4] = [
    Ability::Certificate,
    Ability::TlsOnly,
    Ability::Plain,
    Ability::Nothing,
];

struct Row {
    number: u8,
    tls: &'static str,
    sasl: &'static str,
    dialback: bool,
    /// By what the first three abilities get in, where they do; the fourth never does.
    expected: [Option<Method>; 3],
}

const R: &str = "Required";
const O: &str = "Optional";
const N: &str = "NotSupported";

const fn row(
    number: u8,
    tls: &'static str,
    sasl: &'static str,
    dialback: bool,
    expected: [Option<Method>; 3],
) -> Row {
    Row {
        number,
        tls,
        sasl,
        dialback,
        expected,
    }
}

const VALID: [Row; 11] = [
    row(1, R, R, true, [Some(Sasl), None, None]),
    row(2, R, R, false, [Some(Sasl), None, None]),
    row(
        3,
        O,
        R,
        true,
        [Some(Sasl), Some(TlsDialback), Some(TcpDialback)],
    ),
    row(4, O, R, false, [Some(Sasl), None, None]),
    row(7, R, O, true, [Some(Sasl), Some(TlsDialback), None]),
    row(8, R, O, false, [Some(Sasl), None, None]),
    row(
        9,
        O,
        O,
        true,
        [Some(Sasl), Some(TlsDialback), Some(TcpDialback)],
    ),
    row(10, O, O, false, [Some(Sasl), None, None]),
    row(13, R, N, true, [Some(TlsDialback), Some(TlsDialback), None]),
    row(
        15,
        O,
        N,
        true,
        [Some(TlsDialback), Some(TlsDialback), Some(TcpDialback)],
    ),
    row(
        17,
        N,
        N,
        true,
        [Some(TcpDialback), Some(TcpDialback), Some(TcpDialback)],
    ),
];

/// The rows that are no negotiation, with what the message must name.
const INVALID: [(Row, &str); 7] = [
    (row(5, N, R, true, [None; 3]), "saslNegotiation needs TLS"),
    (row(6, N, R, false, [None; 3]), "saslNegotiation needs TLS"),
    (row(11, N, O, true, [None; 3]), "saslNegotiation needs TLS"),
    (row(12, N, O, false, [None; 3]), "saslNegotiation needs TLS"),
    (row(14, R, N, false, [None; 3]), "no authentication method"),
    (row(16, O, N, false, [None; 3]), "no authentication method"),
    (row(18, N, N, false, [None; 3]), "no authentication method"),
];

impl Row {
    fn expects(&self, ability: Ability) -> Option<Method> {
        self.expected.get(ability as usize).copied().flatten()
    }

    /// Whether anyone gets in without TLS.
    fn plaintext(&self) -> bool {
        self.expected[2].is_some()
    }

    fn spec(&self, allow_plaintext: bool) -> Value {
        json!({
            "tlsNegotiation": self.tls,
            "saslNegotiation": self.sasl,
            "supportDialbackNegotiation": self.dialback,
            "allowPlaintext": allow_plaintext,
        })
    }
}

/// First test of the invalid rows, and of what is beside the matrix.
const FIRST_INVALID: u8 = 45;
const FIRST_EXTRA: u8 = 52;
/// Rows of the tests beside the matrix.
const EXTRA: [u8; 10] = [17, 9, 1, 2, 4, 8, 10, 9, 9, 15];

static RIG: Shared = Shared::new(Plan {
    partner: |test| {
        let row = match test {
            FIRST_EXTRA.. => of(EXTRA[usize::from(test - FIRST_EXTRA)]),
            FIRST_INVALID.. => &INVALID[usize::from(test - FIRST_INVALID)].0,
            _ => &VALID[usize::from((test - 1) / 4)],
        };
        row.spec(row.plaintext())
    },
    ..Plan::standard("n", FIRST_EXTRA + 9)
});

fn of(number: u8) -> &'static Row {
    static ROWS: [Row; 11] = VALID;
    ROWS.iter().find(|row| row.number == number).unwrap()
}

/// A certificate that the ability shows.
fn leaf(s: &Scene, ability: Ability) -> Option<Leaf> {
    match ability {
        Ability::Certificate => Some(s.identity.clone()),
        Ability::TlsOnly => {
            let nobody = Authority::new("Nobody's Root");
            Some(nobody.issue(&[&s.domain], Usage::ServerAndClientAuth))
        }
        Ability::Plain | Ability::Nothing => None,
    }
}

/// The partner's server.
async fn server(s: &Scene, ability: Ability) -> Result<PeerServer> {
    let identity = leaf(s, ability)
        .map(|leaf| Identity::of(&leaf))
        .transpose()?;
    let mut behaviour = match identity {
        Some(identity) => Behaviour::good(identity),
        None => Behaviour::plain(),
    };
    match ability {
        Ability::Certificate => behaviour.encryption = Encryption::Offered,
        Ability::TlsOnly => {
            behaviour.encryption = Encryption::Offered;
            behaviour.external = false;
        }
        Ability::Plain => {}
        Ability::Nothing => {
            behaviour.dialback = false;
            behaviour.result = Some(Verdict::Error("feature-not-implemented"));
        }
    }
    let server = s.serve(behaviour).await?;
    server.made("good");
    Ok(server)
}

// ---- both directions of one case ----

fn case(row: &'static Row, ability: Ability) {
    let at = VALID.iter().position(|r| r.number == row.number).unwrap();
    let test = u8::try_from(at * 4 + ability as usize + 1).unwrap();
    RIG.test(test, async |s| {
        let server = server(s, ability).await?;
        let expected = row.expects(ability);
        outbound(s, row, ability, &server, expected)
            .await
            .with_context(|| format!("row {}, {ability:?}, outbound", row.number))?;
        inbound(s, row, ability, expected)
            .await
            .with_context(|| format!("row {}, {ability:?}, inbound", row.number))
    });
}

async fn stands(s: &Scene, direction: &str, method: Method) -> Result<()> {
    let direction = format!("direction=\"{direction}\"");
    let method = format!("method=\"{}\"", method.label());
    s.moved("streams", &["side=\"partner\"", &direction, &method])
        .await
}

async fn outbound(
    s: &Scene,
    row: &Row,
    ability: Ability,
    server: &PeerServer,
    expected: Option<Method>,
) -> Result<()> {
    let mut inside = s.inside().await?;
    let id = s.fresh();
    inside.message(ALICE, &s.user("rob"), &id, "hello").await?;
    let Some(method) = expected else {
        let error = s.inside_gets(&id).await?;
        ensure!(
            error.error_condition() == Some("remote-server-timeout"),
            "{error:?}"
        );
        ensure!(server.stanzas().is_empty(), "{:?}", server.stanzas());
        for seen in server.seen() {
            // A key leaves only in a way that the row allows.
            ensure!(
                seen.keys.is_empty() || row.plaintext() && seen.tls.is_none(),
                "{seen:?}"
            );
        }
        let outcome = match ability {
            Ability::TlsOnly => "CertificateChainIncomplete",
            _ if row.plaintext() => "DialbackError",
            _ => "TlsNotOffered",
        };
        s.rig.serves_the_good_partner().await?;
        let outcome = format!("outcome=\"{outcome}\"");
        return s
            .moved("attempts_total", &["direction=\"outbound\"", &outcome])
            .await;
    };
    server.stanza_id(&id).await?;
    stands(s, "outbound", method).await?;
    let seen = server.seen();
    let carrier = seen.iter().find(|c| !c.method.is_empty()).context("one")?;
    let how = if method == Sasl {
        "External"
    } else {
        "Dialback"
    };
    ensure!(carrier.method == how, "{carrier:?}");
    ensure!(
        carrier.tls.is_some() == (method != TcpDialback),
        "{carrier:?}"
    );
    // Nothing worse was tried beside it.
    ensure!(seen.len() == 1, "{seen:#?}");
    ensure!((method == Sasl) == carrier.keys.is_empty(), "{carrier:?}");
    Ok(())
}

/// How far a peer gets that does the best of what it is offered and able to do.
async fn climb(s: &Scene, ability: Ability) -> Result<(Peer, Option<Method>)> {
    let mut peer = s.connect().await?;
    let mut features = peer.open(&s.domain, OWN).await?;
    if let (Some(_), Some(leaf)) = (features.starttls(), leaf(s, ability)) {
        let tls = ClientTls::new(Some(OWN), Some(Identity::of(&leaf)?));
        peer.starttls(&tls).await?;
        peer.open_with(&Open::new(&s.domain, OWN)).await?;
        peer.header().await?;
        let next = peer.element().await?;
        if next.name == "error" {
            return Ok((peer, None));
        }
        features = Features(next);
    }
    if features.external() && ability == Ability::Certificate {
        let answer = peer.auth("EXTERNAL", "=").await?;
        ensure!(answer.name == "success", "{answer:?}");
        peer.open(&s.domain, OWN).await?;
        return Ok((peer, Some(Sasl)));
    }
    if ability == Ability::Nothing {
        return Ok((peer, None));
    }
    // Offered or not: what is not allowed must be refused.
    let answer = peer.dialback(&s.domain, OWN, "good").await?;
    if answer == "valid" {
        ensure!(features.dialback(), "not offered and done: {features:?}");
        let method = match peer.session() {
            Some(_) => TlsDialback,
            None => TcpDialback,
        };
        return Ok((peer, Some(method)));
    }
    ensure!(!features.dialback(), "offered and refused: {answer}");
    ensure!(answer == "policy-violation", "{answer}");
    Ok((peer, None))
}

async fn inbound(s: &Scene, row: &Row, ability: Ability, expected: Option<Method>) -> Result<()> {
    let (mut peer, method) = climb(s, ability).await?;
    ensure!(method == expected, "{method:?}, not {expected:?}");
    if let Some(method) = method {
        s.delivers_inwards(&mut peer).await?;
        return stands(s, "inbound", method).await;
    }
    let id = s.forbidden();
    let _ = peer.message(&s.user("rob"), ALICE, &id, &id).await;
    let outcome = match ability {
        Ability::Certificate => bail!("it always gets in"),
        Ability::TlsOnly => "CertificateChainIncomplete",
        Ability::Plain => "TlsRequired",
        Ability::Nothing if row.plaintext() => "NotAuthorized",
        Ability::Nothing => "TlsRequired",
    };
    peer.ended().await?;
    let refused = ["not-authorized", "policy-violation"]
        .iter()
        .any(|condition| peer.received().contains(condition));
    ensure!(refused, "{}", peer.received());
    s.unharmed(Moved::Attempt(outcome)).await
}

macro_rules! rows {
    ($($name:ident = $number:literal;)*) => {$(
        #[test]
        fn $name() {
            for ability in ABILITIES {
                case(of($number), ability);
            }
        }
    )*};
}

rows! {
    n_01_tls_required_sasl_required_dialback = 1;
    n_02_tls_required_sasl_required = 2;
    n_03_tls_optional_sasl_required_dialback = 3;
    n_04_tls_optional_sasl_required = 4;
    n_07_tls_required_sasl_optional_dialback = 7;
    n_08_tls_required_sasl_optional = 8;
    n_09_tls_optional_sasl_optional_dialback = 9;
    n_10_tls_optional_sasl_optional = 10;
    n_13_tls_required_no_sasl_dialback = 13;
    n_15_tls_optional_no_sasl_dialback = 15;
    n_17_no_tls_no_sasl_dialback = 17;
}

// ---- beside the matrix ----

#[test]
fn n_19_tls_that_is_not_supported_is_refused_when_asked_for() {
    RIG.test(FIRST_EXTRA, async |s| {
        let mut peer = s.connect().await?;
        let features = peer.open(&s.domain, OWN).await?;
        ensure!(features.starttls().is_none(), "{features:?}");
        peer.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
            .await?;
        let answer = peer.element().await?;
        ensure!(
            answer.is("failure", "urn:ietf:params:xml:ns:xmpp-tls"),
            "{answer:?}"
        );
        peer.ended().await?;
        s.unharmed(Moved::Attempt("TlsNotSupported")).await
    });
}

#[test]
fn n_19_direct_tls_is_refused_where_tls_is_not_supported() {
    RIG.test(FIRST_EXTRA, async |s| {
        let mut peer = Peer::connect(s.rig.direct()).await?;
        let tls = ClientTls::new(Some(OWN), Some(Identity::of(&s.identity)?));
        peer.tls_client(&tls.with_alpn(&["xmpp-server"])).await?;
        peer.open_with(&Open::new(&s.domain, OWN)).await?;
        peer.header().await?;
        peer.expect_stream_error("policy-violation").await?;
        s.unharmed(Moved::Attempt("TlsNotSupported")).await
    });
}

#[test]
fn n_20_sasl_is_preferred_where_dialback_would_do() {
    RIG.test(FIRST_EXTRA + 1, async |s| {
        let server = server(s, Ability::Certificate).await?;
        let (_, features) = s.secured(Some(&s.identity)).await?;
        ensure!(features.external() && features.dialback(), "{features:?}");
        let mut peer = s.partner().await?;
        s.delivers_inwards(&mut peer).await?;
        stands(s, "inbound", Sasl).await?;
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &server).await?;
        stands(s, "outbound", Sasl).await?;
        ensure!(
            !server.transcript().contains("db:result"),
            "{}",
            server.transcript()
        );
        Ok(())
    });
}

#[test]
fn n_20_dialback_follows_where_the_peer_refuses_our_certificate() {
    RIG.test(FIRST_EXTRA + 7, async |s| {
        let server = server(s, Ability::Certificate).await?;
        server.behave(|b| b.external_verdict = Verdict::Error("not-authorized"));
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &server).await?;
        stands(s, "outbound", TlsDialback).await?;
        s.moved("attempts_total", &["outcome=\"SaslRejected\""])
            .await
    });
}

#[test]
fn n_21_dialback_passes_nothing_where_only_sasl_is_allowed() {
    for extra in 2..7 {
        RIG.test(FIRST_EXTRA + extra, async |s| {
            let server = server(s, Ability::Certificate).await?;
            let (mut peer, features) = s.secured(Some(&s.identity)).await?;
            ensure!(features.external() && !features.dialback(), "{features:?}");
            let got = peer.dialback(&s.domain, OWN, "good").await?;
            ensure!(got == "policy-violation", "{got}");
            let id = s.forbidden();
            peer.message(&s.user("rob"), ALICE, &id, &id).await?;
            peer.expect_stream_error("not-authorized").await?;
            ensure!(server.connections() == 0, "nobody is asked about the key");
            s.unharmed(Moved::Attempt("DialbackNotAllowed")).await
        });
    }
}

#[test]
fn n_09_15_tls_that_fails_is_not_retried_in_plaintext() {
    let tls = "urn:ietf:params:xml:ns:xmpp-tls";
    let refused = format!("<failure xmlns='{tls}'/></stream:stream>");
    let granted = format!("<proceed xmlns='{tls}'/>");
    for (extra, answer, handshake) in [(8, refused, ""), (9, granted, "this is no handshake")] {
        RIG.test(FIRST_EXTRA + extra, async |s| {
            let listener = TcpListener::bind(s.address()).await?;
            let mut inside = s.inside().await?;
            let id = s.fresh();
            inside.message(ALICE, &s.user("rob"), &id, "hello").await?;
            let mut peer = Peer::accept(&listener).await?;
            peer.header().await?;
            let mut open = Open::new(&s.domain, OWN);
            open.id = Some("1".into());
            // Plaintext is offered and, by this row, allowed: but TLS was offered first.
            let features = "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>\
                 <dialback xmlns='urn:xmpp:features:dialback'/></stream:features>";
            peer.send(open.text() + features).await?;
            let asked = peer.element().await?;
            ensure!(asked.name == "starttls", "{asked:?}");
            peer.send_anyway(&answer).await;
            let mut rest = Vec::new();
            loop {
                let bytes = peer.raw().await?;
                if bytes.is_empty() {
                    break;
                }
                if rest.is_empty() {
                    // After the ClientHello: what came with <proceed/> would be thrown away.
                    peer.send_anyway(handshake).await;
                }
                rest.extend(bytes);
            }
            let rest = String::from_utf8_lossy(&rest).into_owned();
            ensure!(!rest.contains("db:result"), "{rest}");
            let error = s.inside_gets(&id).await?;
            ensure!(
                error.error_condition() == Some("remote-server-timeout"),
                "{error:?}"
            );
            let again = tokio::time::timeout(std::time::Duration::ZERO, listener.accept()).await;
            ensure!(again.is_err(), "it came again");
            s.rig.serves_the_good_partner().await?;
            s.moved(
                "attempts_total",
                &["direction=\"outbound\"", "step=\"tls\""],
            )
            .await
        });
    }
}
