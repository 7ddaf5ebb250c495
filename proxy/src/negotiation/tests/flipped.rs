//! The configuration changes at every point of whole conversations: nothing is carried on terms that
//! do not hold at that moment, whether or not the machine was told of the change yet (S-04).

use proptest::prelude::*;

use super::*;

/// What the peer does next.
#[derive(Clone, Copy, Debug)]
enum Event {
    Peer(&'static str),
    Tls,
    Valid(u32),
    Add(&'static str, &'static str),
}

use Event::{Add, Peer, Tls, Valid};

/// A whole conversation, and how many pairs it ends with where nothing changes.
struct Conversation {
    methods: &'static [Method],
    direct: bool,
    opened_by_peer: bool,
    events: &'static [Event],
    pairs: usize,
}

const OPEN: Event = Peer(
    "<stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' \
     xmlns:stream='http://etherx.jabber.org/streams' from='partner.example' to='org.example' id='peer' version='1.0'>",
);
const STARTTLS: Event = Peer("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
const BIDI: Event = Peer("<bidi xmlns='urn:xmpp:bidi'/>");
const AUTH: Event =
    Peer("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>");
const KEY: Event = Peer("<db:result from='partner.example' to='org.example'>key</db:result>");
const SECOND_KEY: Event = Peer("<db:result from='second.example' to='org.example'>key</db:result>");
const TLS_OFFER: Event =
    Peer("<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:features>");
const PROCEED: Event = Peer("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
const METHODS: Event = Peer(
    "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>EXTERNAL</mechanism></mechanisms>\
     <dialback xmlns='urn:xmpp:features:dialback'><errors/></dialback><bidi xmlns='urn:xmpp:features:bidi'/>\
     <sm xmlns='urn:xmpp:sm:3'/></stream:features>",
);
const ACKS: Event = Peer(
    "<stream:features><dialback xmlns='urn:xmpp:features:dialback'><errors/></dialback><sm xmlns='urn:xmpp:sm:3'/>\
     </stream:features>",
);
const NOTHING: Event = Peer("<stream:features/>");
const SUCCESS: Event = Peer("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
const ENABLED: Event = Peer("<enabled xmlns='urn:xmpp:sm:3'/>");
const VALID: Event = Peer("<db:result from='partner.example' to='org.example' type='valid'/>");
const SECOND_VALID: Event =
    Peer("<db:result from='second.example' to='org.example' type='valid'/>");
const SECOND: Event = Add("org.example", "second.example");

const CONVERSATIONS: &[Conversation] = &[
    Conversation {
        methods: &[SaslOverTls],
        direct: true,
        opened_by_peer: true,
        events: &[OPEN, BIDI, AUTH, OPEN],
        pairs: 2,
    },
    Conversation {
        methods: &[SaslOverTls, TlsDialback],
        direct: false,
        opened_by_peer: true,
        events: &[OPEN, STARTTLS, Tls, OPEN, AUTH, OPEN, SECOND_KEY, Valid(1)],
        pairs: 2,
    },
    Conversation {
        methods: &[TlsDialback],
        direct: true,
        opened_by_peer: true,
        events: &[OPEN, BIDI, KEY, Valid(1), SECOND_KEY, Valid(2)],
        pairs: 4,
    },
    Conversation {
        methods: &[TcpDialback],
        direct: false,
        opened_by_peer: true,
        events: &[OPEN, KEY, SECOND_KEY, Valid(2), Valid(1)],
        pairs: 2,
    },
    Conversation {
        methods: &[SaslOverTls],
        direct: true,
        opened_by_peer: false,
        events: &[OPEN, METHODS, SUCCESS, OPEN, NOTHING],
        pairs: 2,
    },
    Conversation {
        methods: &[SaslOverTls, TlsDialback],
        direct: false,
        opened_by_peer: false,
        events: &[
            OPEN,
            TLS_OFFER,
            PROCEED,
            Tls,
            OPEN,
            METHODS,
            SUCCESS,
            OPEN,
            ACKS,
            ENABLED,
            SECOND,
            SECOND_VALID,
        ],
        pairs: 4,
    },
    Conversation {
        methods: &[TlsDialback],
        direct: true,
        opened_by_peer: false,
        events: &[OPEN, METHODS, VALID, ENABLED, SECOND, SECOND_VALID],
        pairs: 4,
    },
    Conversation {
        methods: &[TcpDialback],
        direct: false,
        opened_by_peer: false,
        events: &[OPEN, ACKS, VALID, ENABLED, SECOND, SECOND_VALID],
        pairs: 2,
    },
];

/// What the administrator takes away.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// A pin, or the authority.
    Trust,
    Method(Method),
    Partner,
    Second,
    /// The own domain.
    Own,
}

const CHANGES: &[Change] = &[
    Change::Trust,
    Change::Method(SaslOverTls),
    Change::Method(TlsDialback),
    Change::Method(TcpDialback),
    Change::Partner,
    Change::Second,
    Change::Own,
];

fn apply(change: Change, world: &mut World) {
    let gone =
        |name: &str, world: &mut World| world.peers.retain(|(peer, _)| *peer != domain(name));
    match change {
        Change::Trust => world.distrust = true,
        Change::Method(method) => {
            for (_, methods) in &mut world.peers {
                let mut left: Vec<Method> = Vec::from(*methods);
                left.retain(|other| *other != method);
                // The set is never empty: what is left instead is the other end of the rule.
                if left.is_empty() {
                    left.push(if method == TcpDialback {
                        SaslOverTls
                    } else {
                        TcpDialback
                    });
                }
                *methods = MethodSet::try_from(left).unwrap();
            }
        }
        Change::Partner => gone(PARTNER, world),
        Change::Second => gone("second.example", world),
        Change::Own => world.local.clear(),
    }
}

impl Conversation {
    fn begin(&self) -> Talk {
        let world = World::new(self.methods, &[PARTNER, "second.example"]);
        let link = if self.direct {
            shows("partner.example,second.example")
        } else {
            Shown::Plain
        };
        if self.opened_by_peer {
            Talk::inbound(world, link)
        } else {
            let purpose = Purpose::Stanzas(pair("org.example", PARTNER));
            Talk::outbound(world, purpose, link, false)
        }
    }

    fn go(&self, talk: &mut Talk, event: Event) {
        if talk.machine.is_closed() {
            return;
        }
        match event {
            Peer(bytes) => talk.hear(bytes.as_bytes()),
            Tls => talk.encrypt("partner.example,second.example"),
            Valid(request) => talk.give(Input::Verdict {
                request,
                verdict: KeyVerification::Valid,
            }),
            Add(from, to) => talk.give(Input::AddPair(pair(from, to))),
        }
    }
}

fn announced(outputs: &[Output]) -> Vec<(bool, Pair, Method)> {
    let mut all = Vec::new();
    for output in outputs {
        match output {
            Output::PairAuthenticated { pair, method } => all.push((true, pair.clone(), *method)),
            Output::PairReady { pair, method } => all.push((false, pair.clone(), *method)),
            _ => {}
        }
    }
    all
}

/// Whether the pair may be carried in this world.
fn holds(world: &World, by_peer: bool, from_peer: bool, pair: &Pair, method: Method) -> bool {
    let (peer, local) = if from_peer {
        (&pair.from, &pair.to)
    } else {
        (&pair.to, &pair.from)
    };
    let by_certificate = method == SaslOverTls || (from_peer && !by_peer);
    world
        .admit(Side::Partner, peer, local)
        .is_ok_and(|terms| terms.methods.contains(method))
        && !(by_certificate && world.distrust)
}

/// One run: the change comes before the event of this number; told, by `ConfigChanged`, or not yet.
fn check(conversation: &Conversation, at: usize, change: Change, told: bool) {
    let mut talk = conversation.begin();
    for event in &conversation.events[..at] {
        conversation.go(&mut talk, *event);
    }
    let mut carried = announced(&std::mem::take(&mut talk.outputs));
    apply(change, &mut talk.world);
    if told {
        talk.give(Input::ConfigChanged);
    }
    let by_peer = conversation.opened_by_peer;
    let right = |talk: &Talk, carried: &[(bool, Pair, Method)]| {
        for (from_peer, pair, method) in carried {
            assert!(
                holds(&talk.world, by_peer, *from_peer, pair, *method),
                "{pair} by {method}, {change:?} before event {at} of {:?}, told: {told}",
                conversation.events
            );
        }
    };
    if told && !talk.machine.is_closed() {
        right(&talk, &carried);
    }
    for event in &conversation.events[at..] {
        conversation.go(&mut talk, *event);
        carried = announced(&std::mem::take(&mut talk.outputs));
        right(&talk, &carried);
    }
}

#[test]
fn no_pair_is_carried_on_terms_that_were_taken_back() {
    for conversation in CONVERSATIONS {
        for at in 0..=conversation.events.len() {
            for change in CHANGES {
                for told in [false, true] {
                    check(conversation, at, *change, told);
                }
            }
        }
    }
}

/// Without a change each of them gets where it leads, so that the test above sees all states.
#[test]
fn the_conversations_are_whole() {
    for conversation in CONVERSATIONS {
        let mut talk = conversation.begin();
        for event in conversation.events {
            conversation.go(&mut talk, *event);
        }
        let found = announced(&talk.outputs);
        assert_eq!(
            found.len(),
            conversation.pairs,
            "{:?}: {}",
            conversation.events,
            talk.take()
        );
    }
}

proptest! {
    /// Two changes, and events that come in another order, or twice.
    #[test]
    fn nor_where_the_conversation_goes_astray(
        which in 0..CONVERSATIONS.len(),
        order in proptest::collection::vec(0..12_usize, 0..16),
        changes in proptest::collection::vec((0..16_usize, 0..CHANGES.len(), any::<bool>()), 1..3),
    ) {
        let conversation = &CONVERSATIONS[which];
        let mut talk = conversation.begin();
        let events = conversation.events.iter().copied().chain(
            order.iter().filter_map(|at| conversation.events.get(*at).copied()),
        );
        for (number, event) in events.enumerate() {
            for (at, change, told) in &changes {
                if *at == number {
                    apply(CHANGES[*change], &mut talk.world);
                    if *told {
                        talk.give(Input::ConfigChanged);
                        talk.outputs.clear();
                    }
                }
            }
            conversation.go(&mut talk, event);
            for (from_peer, pair, method) in announced(&std::mem::take(&mut talk.outputs)) {
                prop_assert!(holds(
                    &talk.world, conversation.opened_by_peer, from_peer, &pair, method
                ));
            }
        }
    }
}
