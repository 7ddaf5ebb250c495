//! Streams that become trunks: what is offered, what has to be proved, and that nothing else is to be had
//! on them.

use super::{
    Line::{Change, Lacks, Peer, Sees},
    *,
};

const EDGE: &str = "edge.xmpp-edge.internal";
const SIDECAR: &str = "sidecar.example";
const OPEN: &str = "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' \
    from='sidecar.example' to='edge.xmpp-edge.internal' version='1.0'>";
const HEADER: &str = "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' \
    from='edge.xmpp-edge.internal' to='sidecar.example' id='peer1' version='1.0'>";
const AUTH: &str = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>";
const SUCCESS: &str = "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>";
const OFFERS_EXTERNAL: &str = "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>\
     <mechanism>EXTERNAL</mechanism></mechanisms></stream:features>";
const OFFERS_TRUNK: &str = "<stream:features><trunk xmlns='urn:xmpp-edge:trunk:0'/>\
    <limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>262144</max-bytes></limits></stream:features>";

fn world(peer: &str, local: &str) -> World {
    World {
        local: vec![domain(local)],
        bidi: false,
        carries: Carries::Trunk,
        ..World::new(&[SaslOverTls], &[peer])
    }
}

/// An edge pod whose peer showed a certificate of these names.
fn edge(names: &str) -> Talk {
    Talk::inbound(world(SIDECAR, EDGE), shows(names))
}

/// A sidecar that dialled somebody with a certificate of these names.
fn sidecar(names: &str) -> Talk {
    let purpose = Purpose::Trunk(pair(SIDECAR, EDGE));
    let link = shows(names);
    Talk::outbound(world(EDGE, SIDECAR), purpose, link, false)
}

#[test]
fn an_edge_offers_external_and_then_a_trunk_and_nothing_else() {
    run(
        "edge",
        edge(SIDECAR),
        &[
            Peer(OPEN),
            Sees(&["from='edge.xmpp-edge.internal'", "EXTERNAL"]),
            Lacks(&["<dialback", "<bidi", "starttls"]),
            Peer(AUTH),
            Sees(&["<success ", "[restart]"]),
            Lacks(&["[trunk"]),
            Peer(OPEN),
            Sees(&[
                "<stream:features><trunk xmlns='urn:xmpp-edge:trunk:0'/>",
                "<max-bytes>262144</max-bytes>",
                "[trunk sidecar.example]",
            ]),
            Lacks(&["<sm ", "<dialback", "<bidi", "[authenticated", "[ready"]),
            Peer("<enable xmlns='urn:xmpp:sm:3'/>"),
            Sees(&["<unsupported-stanza-type ", "[close UnexpectedElement]"]),
        ],
    );
}

#[test]
fn a_sidecar_without_its_certificate_gets_no_trunk() {
    run(
        "another domain's",
        edge("other.example"),
        &[
            Peer(OPEN),
            Sees(&["<not-authorized ", "[close NameMismatch]"]),
            Lacks(&["EXTERNAL", "[trunk"]),
        ],
    );
    run(
        "one that is not trusted any more",
        edge(SIDECAR),
        &[
            Peer(OPEN),
            Peer(AUTH),
            Peer(OPEN),
            Sees(&["[trunk sidecar.example]"]),
            Change(|world| world.distrust = true),
            Sees(&["<not-authorized ", "[close UnknownIssuer]"]),
        ],
    );
    run(
        "dialback instead",
        edge(SIDECAR),
        &[
            Peer(OPEN),
            Peer(
                "<db:result xmlns:db='jabber:server:dialback' from='sidecar.example' \
                 to='edge.xmpp-edge.internal'>key</db:result>",
            ),
            Lacks(&["[verify"]),
        ],
    );
}

#[test]
fn a_sidecar_opens_a_trunk_by_external_alone() {
    run(
        "sidecar",
        sidecar(EDGE),
        &[
            Sees(&["from='sidecar.example' to='edge.xmpp-edge.internal'"]),
            Peer(HEADER),
            Peer(OFFERS_EXTERNAL),
            Sees(&["<auth ", "EXTERNAL"]),
            Lacks(&["<bidi"]),
            Peer(SUCCESS),
            Peer(HEADER),
            Peer(OFFERS_TRUNK),
            Sees(&[
                "[limits Some(262144) None]",
                "[step Trunk Ok]",
                "[trunk edge.xmpp-edge.internal]",
            ]),
            Lacks(&["<enable", "[ready"]),
            Change(|world| world.distrust = true),
            Sees(&["[close UnknownIssuer]"]),
        ],
    );
    run(
        "no EXTERNAL",
        sidecar(EDGE),
        &[
            Peer(HEADER),
            Peer(
                "<stream:features><dialback xmlns='urn:xmpp:features:dialback'/></stream:features>",
            ),
            Sees(&["[close ExternalNotOffered]"]),
            Lacks(&["db:result"]),
        ],
    );
    run(
        "EXTERNAL refused",
        sidecar(EDGE),
        &[
            Peer(HEADER),
            Peer(OFFERS_EXTERNAL),
            Peer("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>"),
            Sees(&["[close SaslRejected]"]),
            Lacks(&["db:result"]),
        ],
    );
    run(
        "somebody who poses as the edge",
        sidecar("org.example"),
        &[
            Peer(HEADER),
            Peer(OFFERS_EXTERNAL),
            Sees(&["[close NameMismatch]"]),
            Lacks(&["<auth"]),
        ],
    );
}

/// B-17.
#[test]
fn an_edge_older_than_trunks_is_told_in_words() {
    run(
        "B-17",
        sidecar(EDGE),
        &[
            Peer(HEADER),
            Peer(OFFERS_EXTERNAL),
            Peer(SUCCESS),
            Peer(HEADER),
            Peer("<stream:features><sm xmlns='urn:xmpp:sm:3'/></stream:features>"),
            Sees(&[
                "<unsupported-feature ",
                "older than trunks: upgrade the pool first",
                "[step Trunk TrunkNotOffered]",
                "[close TrunkNotOffered]",
            ]),
            Lacks(&["<enable", "[trunk"]),
        ],
    );
}
