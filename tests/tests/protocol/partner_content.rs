//! P: what may be in a partner's stanzas, and to whom, by the type of the partner. Whose stanzas they
//! may be: `partner.rs`.

use anyhow::{Result, ensure};
use serde_json::json;
use xmpp_edge_tests::{
    crossing::{Crossing, Fate},
    edge::manifest,
    rig::{ALICE, BOB, Moved, Plan, Shared},
};

/// Has a policy that would allow nothing, in mode `Audit`.
const CAROL: &str = "carol@org.example";

const MUC_USER: &str = "http://jabber.org/protocol/muc#user";
const DISCO_INFO: &str = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
const DISCO_ITEMS: &str = "<query xmlns='http://jabber.org/protocol/disco#items'/>";

static RIG: Shared = Shared::new(Plan {
    partner: |test| match test {
        15 => json!({ "partnerType": "PublicUnverified" }),
        16 => json!({ "partnerType": "PublicVerified" }),
        _ => json!({}),
    },
    objects: |_| {
        vec![manifest(
            "ExternalAccessPolicy",
            "audit-of-carol",
            json!({ "scope": "User", "users": [CAROL], "mode": "Audit" }),
        )]
    },
    ..Plan::standard("p", 19)
});

/// Its edge is restarted: one test only.
static RESTARTED: Shared = Shared::new(Plan {
    partner: |_| json!({ "partnerType": "PublicUnverified" }),
    ..Plan::standard("q", 1)
});

/// What becomes of a stanza between two people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Passes,
    /// Refused, and answered.
    Answered,
    /// Refused, never answered.
    Dropped,
}
use Expected::{Answered, Dropped, Passes};

const KINDS: [(&str, &str, Expected); 34] = [
    ("message", "<body>hello</body>", Passes),
    ("message chat", "<body>hello</body>", Passes),
    ("message normal", "<body>hello</body>", Passes),
    ("message unheard-of", "<body>hello</body>", Passes),
    ("message error", "<error type='cancel'/>", Passes),
    ("message headline", "<body>news</body>", Dropped),
    ("message groupchat", "<body>hello</body>", Answered),
    (
        "message",
        "<x xmlns='http://jabber.org/protocol/muc#user'><invite to='a@b.example'/></x>",
        Answered,
    ),
    (
        "message",
        "<x xmlns='jabber:x:conference' jid='a@b.example'/>",
        Answered,
    ),
    (
        "message error",
        "<x xmlns='http://jabber.org/protocol/muc'/>",
        Dropped,
    ),
    ("presence", "", Passes),
    ("presence subscribe", "", Passes),
    ("presence subscribed", "", Passes),
    ("presence unsubscribe", "", Passes),
    ("presence unsubscribed", "", Passes),
    ("presence probe", "", Passes),
    ("presence unavailable", "", Passes),
    ("presence error", "<error type='cancel'/>", Passes),
    ("presence unheard-of", "", Dropped),
    (
        "presence",
        "<x xmlns='http://jabber.org/protocol/muc'/>",
        Answered,
    ),
    ("iq get", "<ping xmlns='urn:xmpp:ping'/>", Passes),
    ("iq get", DISCO_INFO, Passes),
    ("iq get", "<time xmlns='urn:xmpp:time'/>", Passes),
    ("iq get", "<query xmlns='jabber:iq:version'/>", Passes),
    ("iq get", "<vCard xmlns='vcard-temp'/>", Passes),
    ("iq get", DISCO_ITEMS, Answered),
    ("iq get", "<query xmlns='jabber:iq:roster'/>", Answered),
    ("iq set", "<query xmlns='jabber:iq:register'/>", Answered),
    (
        "iq set",
        "<command xmlns='http://jabber.org/protocol/commands'/>",
        Answered,
    ),
    ("iq get", "", Answered),
    ("iq result", "", Passes),
    ("iq result", DISCO_ITEMS, Passes),
    ("iq error", "<error type='cancel'/>", Passes),
    ("iq unheard-of", "", Dropped),
];

fn check(what: &str, content: &str, expected: Expected, fate: &Fate) -> Result<()> {
    let got = match fate {
        Fate::Delivered(_) => Passes,
        Fate::Answered(_) => Answered,
        Fate::Dropped => Dropped,
    };
    ensure!(got == expected, "{what} {content}: {fate:?}");
    Ok(())
}

#[test]
fn p_12_each_kind_of_stanza_passes_or_is_refused_in_both_directions() {
    RIG.test(12, async |s| {
        let mut c = Crossing::of(s).await?;
        let rob = s.user("rob");
        for (what, content, expected) in KINDS {
            let fate = c.inwards(what, &rob, ALICE, content).await?;
            check(what, content, expected, &fate)?;
            if expected == Answered {
                fate.answered_as_to_nobody()?;
            }
            let fate = c.outwards(what, ALICE, &rob, content).await?;
            check(what, content, expected, &fate)?;
            if expected == Answered {
                fate.explained("not-allowed", "Content")?;
            }
        }
        c.unharmed(Moved::Refused("Content")).await
    });
}

#[test]
fn p_13_every_duplicate_counts_not_the_first_or_the_last() {
    RIG.test(13, async |s| {
        let mut c = Crossing::of(s).await?;
        let rob = s.user("rob");
        let harmless = "<x xmlns='jabber:x:oob'/>";
        let invitation = format!("<x xmlns='{MUC_USER}'/>");
        let (info, items) = (DISCO_INFO, DISCO_ITEMS);
        for (what, content, expected) in [
            (
                "message",
                "<body>one</body><body>two</body>".to_owned(),
                Passes,
            ),
            ("message", harmless.repeat(2), Passes),
            ("message", format!("{harmless}{invitation}"), Answered),
            ("message", format!("{invitation}{harmless}"), Answered),
            (
                "message",
                format!("{harmless}{invitation}{harmless}"),
                Answered,
            ),
            ("iq get", info.repeat(2), Passes),
            ("iq get", format!("{info}{items}"), Answered),
            ("iq get", format!("{items}{info}"), Answered),
        ] {
            let fate = c.inwards(what, &rob, ALICE, &content).await?;
            check(what, &content, expected, &fate)?;
            if let Fate::Delivered(stanza) = fate {
                ensure!(stanza.children.len() == 2, "{stanza:?}");
            }
            let fate = c.outwards(what, ALICE, &rob, &content).await?;
            check(what, &content, expected, &fate)?;
        }
        c.unharmed(Moved::Refused("Content")).await
    });
}

#[test]
fn p_14_rules_know_elements_by_namespace() {
    RIG.test(14, async |s| {
        let mut c = Crossing::of(s).await?;
        let rob = s.user("rob");
        for (what, attributes, content, expected) in [
            (
                "message",
                "",
                format!("<m:x xmlns:m='{MUC_USER}'/>"),
                Answered,
            ),
            (
                "message",
                &format!("xmlns:m='{MUC_USER}'"),
                "<m:x/>".into(),
                Answered,
            ),
            (
                "message",
                "",
                format!("<x xmlns=\"{MUC_USER}\"/>"),
                Answered,
            ),
            // A character reference in the name of the namespace.
            (
                "message",
                "",
                format!("<x xmlns='{}'/>", MUC_USER.replace('#', "&#x23;")),
                Answered,
            ),
            ("message", "", "<x/>".into(), Passes),
            ("message", "", "<x xmlns='urn:x'/>".into(), Passes),
            ("message", "", "<x xmlns=''/>".into(), Passes),
            // Payload is not judged.
            (
                "message",
                "",
                format!("<a xmlns='urn:x'><x xmlns='{MUC_USER}'/></a>"),
                Passes,
            ),
            (
                "iq",
                "type='get'",
                "<p:ping xmlns:p='urn:xmpp:ping'/>".into(),
                Passes,
            ),
            ("iq", "type='get'", "<ping/>".into(), Answered),
            ("iq", "type='get'", "<ping xmlns=''/>".into(), Answered),
            (
                "iq",
                "type='get' xmlns:p='urn:xmpp:ping'",
                "<ping/>".into(),
                Answered,
            ),
            (
                "s:message",
                "xmlns:s='jabber:server' type='groupchat'",
                "<s:body/>".into(),
                Answered,
            ),
            (
                "s:message",
                "xmlns:s='jabber:server' type='chat'",
                "<s:body/>".into(),
                Passes,
            ),
        ] {
            for inwards in [true, false] {
                let id = s.fresh();
                let (from, to) = if inwards {
                    (rob.as_str(), ALICE)
                } else {
                    (ALICE, rob.as_str())
                };
                let text = format!(
                    "<{what} id='{id}' from='{from}' to='{to}' {attributes}>{content}</{what}>"
                );
                let fate = if inwards {
                    c.text_inwards(&id, &text).await?
                } else {
                    c.text_outwards(&id, &text).await?
                };
                check(&text, "", expected, &fate)?;
            }
        }
        c.unharmed(Moved::Refused("Content")).await
    });
}

/// What a stranger may send to somebody who has not added him.
async fn stranger_is_refused(c: &mut Crossing<'_>, stranger: &str) -> Result<()> {
    let text = format!("<body>{}</body>", c.scene.forbidden());
    for what in ["message", "message chat"] {
        let fate = c.inwards(what, stranger, ALICE, &text).await?;
        let to_alice = fate.answered_as_to_nobody()?;
        // As to bob, who may talk to nobody.
        let to_bob = c
            .inwards(what, stranger, BOB, &text)
            .await?
            .answered_as_to_nobody()?;
        ensure!(to_alice.children == to_bob.children);
    }
    c.inwards("iq get", stranger, ALICE, DISCO_INFO)
        .await?
        .answered_as_to_nobody()?;
    for what in ["presence subscribe", "presence probe", "presence"] {
        c.inwards(what, stranger, ALICE, "").await?.dropped()?;
    }
    Ok(())
}

#[test]
fn p_15_a_stranger_of_an_unverified_partner_waits_until_he_is_added() {
    RIG.test(15, async |s| {
        let mut c = Crossing::of(s).await?;
        let (rob, bob, ann) = (s.user("rob"), s.user("bob"), s.user("ann"));
        for stranger in [&rob, &bob, &ann] {
            stranger_is_refused(&mut c, stranger).await?;
        }
        // Each of these is alice's wish to be in touch.
        for (what, content, to) in [
            ("presence subscribe", "", &rob),
            ("message chat", "<body>hello</body>", &bob),
            ("presence", "", &ann),
        ] {
            c.outwards(what, ALICE, to, content).await?.delivered()?;
            for what in ["message chat", "presence subscribe"] {
                c.inwards(what, to, ALICE, "").await?.delivered()?;
            }
        }
        // To alice only, and he only.
        let carol = s.user("carol");
        stranger_is_refused(&mut c, &carol).await?;
        c.inwards("message", &rob, "dora@org.example", "")
            .await?
            .answered_as_to_nobody()?;
        // She ends it: the last half that was left.
        c.outwards("presence unsubscribe", ALICE, &rob, "")
            .await?
            .delivered()?;
        stranger_is_refused(&mut c, &rob).await?;
        c.unharmed(Moved::Refused("Contact")).await
    });
}

#[test]
fn p_15_who_was_added_stays_so_over_a_restart() {
    RESTARTED.test(1, async |s| {
        let mut c = Crossing::of(s).await?;
        let (rob, eve) = (s.user("rob"), s.user("eve"));
        stranger_is_refused(&mut c, &rob).await?;
        c.outwards("presence subscribe", ALICE, &rob, "")
            .await?
            .delivered()?;
        c.unharmed(Moved::Refused("Contact")).await?;
        // In order; then killed, with what the store holds since.
        for killed in [false, true] {
            {
                let mut edge = s.rig.edge.lock().await;
                if killed {
                    edge.kill();
                    edge.launch().await?;
                } else {
                    edge.restart().await?;
                }
            }
            c.reconnect().await?;
            c.inwards("message chat", &rob, ALICE, "<body>hello</body>")
                .await?
                .delivered()?;
        }
        stranger_is_refused(&mut c, &eve).await
    });
}

#[test]
fn p_16_a_stranger_of_a_verified_partner_may_begin() {
    RIG.test(16, async |s| {
        let mut c = Crossing::of(s).await?;
        let rob = s.user("rob");
        for what in ["presence subscribe", "message chat"] {
            c.inwards(what, &rob, ALICE, "").await?.delivered()?;
        }
        // The note stays inside, each of them, whatever its prefix; what is no note goes.
        let note = s.forbidden();
        let content = format!(
            "<status>{note}</status><show>away</show><status xml:lang='de'>{note}</status>\
             <s:status xmlns:s='jabber:server'>{note}</s:status><status xmlns='urn:x'>other</status>"
        );
        let seen = c.outwards("presence", ALICE, &rob, &content).await?.delivered()?;
        let left: Vec<_> = seen.children.iter().map(|c| (&*c.name, &*c.text)).collect();
        ensure!(left == [("show", "away"), ("status", "other")], "{seen:?}");
        // Theirs arrives.
        let seen = c
            .inwards("presence", &rob, ALICE, "<status>here</status>")
            .await?
            .delivered()?;
        ensure!(seen.child("status").is_some(), "{seen:?}");
        ensure!(!c.outside.transcript().contains(&note));
        Ok(())
    });
}

#[test]
fn p_18_nobody_hears_of_a_result_to_one_who_may_not_talk() {
    RIG.test(18, async |s| {
        let mut c = Crossing::of(s).await?;
        let rob = s.user("rob");
        c.outwards("iq get", BOB, &rob, DISCO_INFO)
            .await?
            .explained("not-allowed", "AccessPolicy")?;
        for (what, content) in [
            ("iq result", DISCO_INFO),
            ("iq error", "<error type='cancel'/>"),
            ("message error", "<error type='cancel'/>"),
        ] {
            let content = format!("{content}<x xmlns='urn:x'>{}</x>", s.forbidden());
            c.inwards(what, &rob, BOB, &content).await?.dropped()?;
            c.outwards(what, BOB, &rob, &content).await?.dropped()?;
        }
        c.unharmed(Moved::Refused("AccessPolicy")).await
    });
}

#[test]
fn p_19_audit_delivers_what_it_would_refuse_and_counts_it() {
    RIG.test(19, async |s| {
        let mut c = Crossing::of(s).await?;
        let rob = s.user("rob");
        c.inwards("message chat", &rob, CAROL, "")
            .await?
            .delivered()?;
        c.outwards("message chat", CAROL, &rob, "")
            .await?
            .delivered()?;
        for direction in ["inbound", "outbound"] {
            let labels = [
                &format!("direction=\"{direction}\"") as &str,
                "reason=\"AccessPolicy\"",
            ];
            let audited = s.grown("stanzas_audited_total", &labels).await?;
            ensure!((audited - 1.0).abs() < 0.1, "{audited} {direction}");
            let refused = s.grown("stanzas_refused_total", &labels).await?;
            ensure!(refused < 0.1, "{refused} {direction}");
        }
        let log = s.rig.edge.lock().await.log();
        let told = log
            .lines()
            .any(|line| line.contains("audited") && line.contains(CAROL) && line.contains(&rob));
        ensure!(told, "not in the log");
        // The other rules hold.
        c.outwards("message groupchat", CAROL, &rob, "")
            .await?
            .explained("not-allowed", "Content")?;
        Ok(())
    });
}
