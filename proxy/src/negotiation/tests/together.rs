//! Both machines against each other: whatever the settings and abilities of the two sides, they end
//! agreed, on a method that both allow, or both without it.

use super::*;

/// What a peer can do and prove.
#[derive(Clone, Debug)]
struct Party {
    methods: Vec<Method>,
    certificate: bool,
    bidi: bool,
}

fn wire_text(outputs: &mut Vec<Output>) -> (Vec<u8>, Vec<Output>) {
    let mut bytes = Vec::new();
    let mut rest = Vec::new();
    for output in outputs.drain(..) {
        match output {
            Output::Send(sent) => bytes.extend(sent),
            other => rest.push(other),
        }
    }
    (bytes, rest)
}

struct Outcome {
    initiator: Vec<Output>,
    acceptor: Vec<Output>,
    plaintext_after_tls_offer: bool,
}

/// Runs both ends until neither has anything to say. `make` gives a party's view of the other.
fn connect(
    mut initiator: Talk,
    mut acceptor: Talk,
    certificates: (&str, &str),
    depth: u8,
) -> Outcome {
    let (mut initiator_done, mut acceptor_done) = (Vec::new(), Vec::new());
    let mut plaintext_after_tls_offer = false;
    let (mut tls_offered, mut tls) = (false, false);
    for _ in 0..64 {
        let (to_acceptor, mut effects) = wire_text(&mut initiator.outputs);
        let mut handshake = effects
            .iter()
            .any(|output| matches!(output, Output::StartTls { .. }));
        initiator_done.append(&mut effects);
        if tls_offered
            && !tls
            && to_acceptor
                .windows(10)
                .any(|window| window == b"<db:result")
        {
            plaintext_after_tls_offer = true;
        }
        let (to_initiator, mut effects) = wire_text(&mut acceptor.outputs);
        tls_offered |= to_initiator.windows(9).any(|window| window == b"<starttls");
        let questions: Vec<(u32, VerifyRequest)> = effects
            .iter()
            .filter_map(|output| match output {
                Output::Verify { request, question } => Some((*request, question.clone())),
                _ => None,
            })
            .collect();
        acceptor_done.append(&mut effects);
        if to_acceptor.is_empty() && to_initiator.is_empty() && questions.is_empty() && !handshake {
            break;
        }
        initiator.hear(&to_initiator);
        // `<proceed/>` was in these bytes.
        handshake |= initiator
            .outputs
            .iter()
            .any(|output| matches!(output, Output::StartTls { .. }));
        acceptor.hear(&to_acceptor);
        if handshake && !tls {
            tls = true;
            initiator.encrypt(certificates.1);
            acceptor.encrypt(certificates.0);
        }
        for (request, question) in questions {
            let verdict = verify(
                &acceptor.world,
                &initiator.world,
                question,
                certificates,
                depth,
            );
            acceptor.give(Input::Verdict { request, verdict });
        }
    }
    assert!(
        initiator.outputs.is_empty() && acceptor.outputs.is_empty(),
        "the two never came to rest"
    );
    Outcome {
        initiator: initiator_done,
        acceptor: acceptor_done,
        plaintext_after_tls_offer,
    }
}

/// The acceptor asks the initiator's domain, on a stream of its own, by the same machines.
fn verify(
    asker: &World,
    asked: &World,
    question: VerifyRequest,
    certificates: (&str, &str),
    depth: u8,
) -> KeyVerification {
    assert!(depth < 2, "a verification never leads to another");
    let asker = copy(asker, "v");
    let asked = copy(asked, "w");
    let initiator = Talk::outbound(asker, Purpose::Verify(question), Shown::Plain, false);
    let acceptor = Talk::inbound(asked, Shown::Plain);
    let outcome = connect(
        initiator,
        acceptor,
        (certificates.1, certificates.0),
        depth + 1,
    );
    let mut verdicts = outcome
        .initiator
        .into_iter()
        .filter_map(|output| match output {
            Output::Verified(verdict) => Some(verdict),
            _ => None,
        });
    let verdict = verdicts
        .next()
        .unwrap_or(KeyVerification::Unavailable(Unavailable::TimedOut));
    assert!(verdicts.next().is_none(), "one question, one verdict");
    verdict
}

fn copy(world: &World, name: &'static str) -> World {
    World {
        local: world.local.clone(),
        peers: world.peers.clone(),
        secret: world.secret.clone(),
        bidi: world.bidi,
        acks: world.acks,
        lists: world.lists,
        carries: world.carries,
        distrust: world.distrust,
        shown: world.shown.clone(),
        name,
        ids: Cell::new(0),
    }
}

fn world(party: &Party, own: &str, peer: &str, name: &'static str, secret: &[u8]) -> World {
    let methods = MethodSet::try_from(party.methods.clone()).unwrap();
    World {
        local: vec![domain(own)],
        peers: vec![(domain(peer), methods)],
        secret: dialback::Secret::new(secret, None),
        bidi: party.bidi,
        acks: true,
        lists: true,
        carries: Carries::Pairs,
        distrust: false,
        shown: String::new(),
        name,
        ids: Cell::new(0),
    }
}

fn method_sets() -> Vec<Vec<Method>> {
    use xmpp_edge_crds::negotiation::{Negotiation, Requirement::*};
    let mut sets = Vec::new();
    for tls in [Required, Optional, NotSupported] {
        for sasl in [Required, Optional, NotSupported] {
            for dialback in [true, false] {
                if let Ok(set) = (Negotiation {
                    tls,
                    sasl,
                    dialback,
                })
                .methods(xmpp_edge_crds::negotiation::KeyBinding::Open)
                {
                    let set: Vec<Method> = set.into();
                    if !sets.contains(&set) {
                        sets.push(set);
                    }
                }
            }
        }
    }
    sets
}

/// What the two must come to: the first method, best first, that both allow and that works; `None`
/// where the first that would be tried is not one of those.
fn expected(initiator: &Party, acceptor: &Party, direct: bool) -> Option<Method> {
    let both = |method| initiator.methods.contains(&method) && acceptor.methods.contains(&method);
    let uses_tls = |party: &Party| {
        party.methods.contains(&SaslOverTls) || party.methods.contains(&TlsDialback)
    };
    if uses_tls(initiator) && uses_tls(acceptor) {
        // TLS is offered and taken: no way back to plaintext.
        if both(SaslOverTls) && initiator.certificate && acceptor.certificate {
            return Some(SaslOverTls);
        }
        return both(TlsDialback).then_some(TlsDialback);
    }
    (!direct && both(TcpDialback)).then_some(TcpDialback)
}

/// N-01 to N-18 for both ends at once, with and without certificates, with and without bidi, STARTTLS.
#[test]
fn two_edges_agree_for_every_pair_of_settings() {
    let mut combinations = 0;
    for methods in method_sets() {
        for other in method_sets() {
            for bits in 0..16_u8 {
                let initiator = Party {
                    methods: methods.clone(),
                    certificate: bits & 1 != 0,
                    bidi: bits & 2 != 0,
                };
                let acceptor = Party {
                    methods: other.clone(),
                    certificate: bits & 4 != 0,
                    bidi: bits & 8 != 0,
                };
                agree(&initiator, &acceptor, false);
                agree(&initiator, &acceptor, true);
                combinations += 2;
            }
        }
    }
    assert_eq!(combinations, 2 * 16 * 36, "{combinations}");
}

fn agree(initiator: &Party, acceptor: &Party, direct: bool) {
    let case = format!("{initiator:?} to {acceptor:?}, direct TLS: {direct}");
    let ours = world(initiator, "a.example", "b.example", "a", b"secret of a");
    let theirs = world(acceptor, "b.example", "a.example", "b", b"secret of b");
    let forward = pair("a.example", "b.example");
    let names = (
        if initiator.certificate {
            "a.example"
        } else {
            ""
        },
        if acceptor.certificate {
            "b.example"
        } else {
            ""
        },
    );
    let link = |names| {
        if direct { shows(names) } else { Shown::Plain }
    };
    let outcome = connect(
        Talk::outbound(
            ours,
            Purpose::Stanzas(forward.clone()),
            link(names.1),
            false,
        ),
        Talk::inbound(theirs, link(names.0)),
        names,
        0,
    );
    let ready = |outputs: &[Output], wanted: &Pair| {
        outputs.iter().find_map(|output| match output {
            Output::PairReady { pair, method } if pair == wanted => Some(*method),
            _ => None,
        })
    };
    let authenticated = |outputs: &[Output], wanted: &Pair| {
        outputs.iter().find_map(|output| match output {
            Output::PairAuthenticated { pair, method } if pair == wanted => Some(*method),
            _ => None,
        })
    };
    let sends = ready(&outcome.initiator, &forward);
    assert_eq!(
        sends,
        authenticated(&outcome.acceptor, &forward),
        "{case}: one side only"
    );
    assert_eq!(sends, expected(initiator, acceptor, direct), "{case}");
    assert!(
        !outcome.plaintext_after_tls_offer || !initiator.methods.iter().any(|m| *m != TcpDialback),
        "{case}"
    );

    let back = forward.reversed();
    let bidi = sends.is_some_and(|method| method != TcpDialback)
        && initiator.bidi
        && acceptor.bidi
        && acceptor.certificate;
    assert_eq!(
        authenticated(&outcome.initiator, &back).is_some(),
        bidi,
        "{case}: bidi"
    );
    assert_eq!(
        ready(&outcome.acceptor, &back).is_some(),
        bidi,
        "{case}: bidi"
    );

    let acks = |outputs: &[Output]| {
        outputs
            .iter()
            .any(|output| matches!(output, Output::AcksEnabled { .. }))
    };
    assert_eq!(
        acks(&outcome.initiator),
        acks(&outcome.acceptor),
        "{case}: acks"
    );
    assert_eq!(
        acks(&outcome.initiator),
        sends == Some(SaslOverTls),
        "{case}: acks"
    );
    if sends.is_none() {
        let failed = outcome
            .initiator
            .iter()
            .filter(|output| matches!(output, Output::PairFailed { .. }))
            .count();
        let waits = !outcome
            .initiator
            .iter()
            .any(|output| matches!(output, Output::Close(_)));
        assert!(
            failed == 1 || waits,
            "{case}: the driver must learn it, once: {failed}"
        );
    }
}
