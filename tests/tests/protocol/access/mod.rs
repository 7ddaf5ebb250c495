//! A: which of our users may talk to whom.

mod changes;

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    crossing::{Crossing, stanza},
    edge::manifest,
    lab::Lab,
    peer::{Login, Peer},
    rig::{ALICE, BOB, Moved, OWN, Plan, SECOND, Scene, Shared},
    wait,
};

/// May talk to the partner of the third test only.
const CAROL: &str = "carol@org.example";
/// Loses her access while she talks.
const DORA: &str = "dora@org.example";
/// Loses his access while he is in a room.
const EMIL: &str = "emil@org.example";
/// Loses his access while he announces himself to everyone.
const FRED: &str = "fred@org.example";
/// Has her access taken and given again and again.
const GINA: &str = "gina@org.example";
/// An apostrophe by XEP-0106; has a policy that allows nothing.
const ESCAPED: &str = r"d\27artagnan@org.example";
/// Granted in a domain that is not.
const VERA: &str = "vera@second.example";
/// Of a domain that is not granted.
const WALT: &str = "walt@second.example";

const BODY: &str = "<body>hello</body>";
const DISCO_INFO: &str = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
const MUC: &str = "<x xmlns='http://jabber.org/protocol/muc'/>";

fn access(name: &str, granted: bool, more: Value) -> Value {
    let mut spec = json!({
        "enableFederationAccess": granted,
        "enableXmppAccess": granted,
        "enablePublicCloudAccess": granted,
    });
    let fields = spec.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    manifest("ExternalAccessPolicy", name, spec)
}

fn of_users(name: &str, granted: bool, users: &[&str]) -> Value {
    access(name, granted, json!({ "scope": "User", "users": users }))
}

fn objects(_: &Lab) -> Vec<Value> {
    vec![
        access(
            "carol-to-one",
            true,
            json!({ "scope": "User", "users": [CAROL], "partners": ["a-03"] }),
        ),
        of_users("dora", true, &[DORA]),
        of_users("emil", true, &[EMIL]),
        of_users("fred", true, &[FRED]),
        of_users("gina", true, &[GINA]),
        of_users("nothing-for-the-escaped", false, &[ESCAPED]),
        of_users("nothing-for-second", false, &["*@second.example"]),
        of_users("vera", true, &[VERA]),
        access(
            "of-the-site",
            true,
            json!({ "scope": "Site", "site": "here" }),
        ),
    ]
}

static RIG: Shared = Shared::new(Plan {
    objects,
    ..Plan::standard("a", 14)
});

fn forbidden(s: &Scene) -> String {
    format!("<body>{}</body>", s.forbidden())
}

/// The verdict of `/explain`, and the text of all rules.
async fn explained(s: &Scene, from: &str, to: &str) -> Result<(Value, String)> {
    let path = format!("/explain?from={from}&to={to}").replace('\\', "%5C");
    let (code, body) = s.rig.edge.lock().await.get(&path).await?;
    ensure!(code == 200, "{path}: {code} {body}");
    Ok((serde_json::from_str(&body)?, body))
}

/// What a policy says of a user from now on; returns once `/explain` says so.
async fn now(s: &Scene, policy: &Value, user: &str, allowed: bool) -> Result<()> {
    s.rig.edge.lock().await.apply(policy)?;
    wait::until("the policy is in force", wait::GENEROUS, || async {
        let (verdict, _) = explained(s, user, &s.user("rob")).await.ok()?;
        (verdict["reason"].is_null() == allowed).then_some(())
    })
    .await
}

#[test]
fn a_01_a_user_without_access_is_told_so_and_nothing_leaves() {
    RIG.test(1, async |s| {
        let mut c = Crossing::of(s).await?;
        let rob = s.user("rob");
        let text = forbidden(s);
        for (what, content) in [
            ("message", text.as_str()),
            ("message chat", &text),
            ("message groupchat", &text),
            ("iq get", DISCO_INFO),
            ("presence subscribe", ""),
        ] {
            let told = c
                .outwards(what, BOB, &rob, content)
                .await?
                .explained("not-allowed", "AccessPolicy")?;
            ensure!(told.contains("External access policy"), "{told}");
        }
        let status = format!("<status>{}</status>", s.forbidden());
        for what in [
            "presence",
            "presence probe",
            "presence subscribed",
            "message headline",
        ] {
            c.outwards(what, BOB, &rob, &status).await?.dropped()?;
        }
        // These leave nobody with a ghost, or a contact that he cannot end.
        for what in ["unavailable", "unsubscribe", "unsubscribed"] {
            let what = format!("presence {what}");
            c.outwards(&what, BOB, &rob, "").await?.delivered()?;
            c.inwards(&what, &rob, BOB, "").await?.delivered()?;
        }
        c.unharmed(Moved::Refused("AccessPolicy")).await
    });
}

#[test]
fn a_02_a_partner_cannot_tell_who_has_no_access_from_who_is_nobody() {
    RIG.test(2, async |s| {
        let mut c = Crossing::of(s).await?;
        let rob = s.user("rob");
        let text = forbidden(s);
        for (what, content) in [
            ("message", text.as_str()),
            ("message chat", &text),
            ("iq get", DISCO_INFO),
            ("iq get", "<vCard xmlns='vcard-temp'/>"),
        ] {
            c.inwards(what, &rob, BOB, content)
                .await?
                .answered_as_to_nobody()?;
        }
        // Nor does it reach him; presence finds no answer, as from who is nobody.
        for what in [
            "presence",
            "presence subscribe",
            "presence subscribed",
            "presence probe",
        ] {
            c.inwards(
                what,
                &rob,
                BOB,
                &format!("<status>{}</status>", s.forbidden()),
            )
            .await?
            .dropped()?;
        }
        c.unharmed(Moved::Refused("AccessPolicy")).await
    });
}

#[test]
fn a_02_in_a_domain_without_access_nobody_and_somebody_read_alike() {
    RIG.test(11, async |s| {
        let outside = s.outside().await?;
        let login = Login::External(&s.identity);
        let mut peer = Peer::login(s.rig.public(), &s.domain, SECOND, &login).await?;
        let mut answers = Vec::new();
        for to in [WALT, "nobody@second.example"] {
            let id = s.fresh();
            peer.send(stanza(
                "message chat",
                &id,
                &s.user("rob"),
                to,
                &forbidden(s),
            ))
            .await?;
            let mut answer = outside.stanza_id(&id).await?;
            ensure!(answer.attribute("from") == Some(to), "{answer:?}");
            answer.attributes.remove("id");
            answer.attributes.remove("from");
            answers.push(answer);
        }
        ensure!(answers[0] == answers[1], "{answers:?}");
        s.unharmed(Moved::Refused("AccessPolicy")).await
    });
}

#[test]
fn a_03_a_policy_opens_the_partners_that_it_names() {
    RIG.test(3, async |s| {
        let mut c = Crossing::of(s).await?;
        let rob = s.user("rob");
        c.outwards("message chat", CAROL, &rob, BODY)
            .await?
            .delivered()?;
        c.inwards("message chat", &rob, CAROL, BODY)
            .await?
            .delivered()?;
        s.rig.serves_the_good_partner().await
    });
    RIG.test(12, async |s| {
        let mut c = Crossing::of(s).await?;
        let rob = s.user("rob");
        c.outwards("message chat", CAROL, &rob, &forbidden(s))
            .await?
            .explained("not-allowed", "AccessPolicy")?;
        c.inwards("message chat", &rob, CAROL, &forbidden(s))
            .await?
            .answered_as_to_nobody()?;
        c.unharmed(Moved::Refused("AccessPolicy")).await
    });
}

#[test]
fn a_04_user_beats_site_beats_global_and_explain_says_which() {
    RIG.test(4, async |s| {
        let outside = s.outside().await?;
        let rob = s.user("rob");
        let second = Login::External(&s.identity);
        let mut inwards = Peer::login(s.rig.public(), &s.domain, SECOND, &second).await?;
        for (user, policy, allowed) in [
            (ALICE, "of-the-site", true),
            (BOB, "nothing-for-bob", false),
            (CAROL, "carol-to-one", false),
            (WALT, "nothing-for-second", false),
            // An exact address beats the whole domain.
            (VERA, "vera", true),
        ] {
            for (from, to) in [(user, rob.as_str()), (rob.as_str(), user)] {
                let (verdict, text) = explained(s, from, to).await?;
                ensure!(
                    text.contains(policy),
                    "{from} to {to}: no {policy} in {text}"
                );
                let reason = verdict["reason"].as_str();
                let wanted = (!allowed).then_some("AccessPolicy");
                ensure!(reason == wanted, "{from} to {to}: {text}");
            }
            // And so it is.
            if user.ends_with(SECOND) {
                let id = s.fresh();
                inwards
                    .send(stanza("message chat", &id, &rob, user, BODY))
                    .await?;
                let there = if allowed { &s.rig.second } else { &outside };
                there.stanza_id(&id).await?;
            }
        }
        s.unharmed(Moved::Refused("AccessPolicy")).await
    });
}

#[test]
fn a_06_one_person_has_many_spellings() {
    RIG.test(6, async |s| {
        let mut c = Crossing::of(s).await?;
        let rob = s.user("rob");
        for (spellings, allowed) in [
            (
                [
                    ALICE,
                    "alice@org.example/phone",
                    "ALICE@Org.Example",
                    "Alice@ORG.EXAMPLE/a@b/c",
                ],
                true,
            ),
            (
                [
                    BOB,
                    "bob@org.example/x",
                    "BOB@Org.Example",
                    "\u{ff42}ob@org.example/X",
                ],
                false,
            ),
            (
                [
                    ESCAPED,
                    r"D\27Artagnan@org.example",
                    r"d\27artagnan@org.example/x\20y",
                    r"d\27ARTAGNAN@ORG.example/",
                ],
                false,
            ),
        ] {
            for spelling in spellings {
                let told = |way: &str| format!("{spelling} {way}");
                // An empty resource is none.
                let spelling = spelling.trim_end_matches('/');
                let out = c
                    .outwards("message chat", spelling, &rob, &forbidden(s))
                    .await?;
                let inn = c
                    .inwards("message chat", &rob, spelling, &forbidden(s))
                    .await?;
                if allowed {
                    out.delivered().with_context(|| told("outwards"))?;
                    inn.delivered().with_context(|| told("inwards"))?;
                } else {
                    out.explained("not-allowed", "AccessPolicy")
                        .with_context(|| told("outwards"))?;
                    inn.answered_as_to_nobody()
                        .with_context(|| told("inwards"))?;
                }
            }
        }
        s.moved("stanzas_refused_total", &["reason=\"AccessPolicy\""])
            .await
    });
}

#[test]
fn a_07_who_loses_access_leaves_the_rooms_that_he_is_in() {
    RIG.test(7, async |s| {
        let mut c = Crossing::of(s).await?;
        let phone = format!("{EMIL}/phone");
        let (occupant, rob) = (s.user("room") + "/emil", s.user("rob"));
        // The way into a room is closed, but a room that lets in whoever is present (the old way,
        // XEP-0045 section 7.2.1) looks like a person.
        c.outwards("presence", &phone, &occupant, MUC)
            .await?
            .explained("not-allowed", "Content")?;
        c.outwards("presence", &phone, &occupant, "")
            .await?
            .delivered()?;
        // A new nickname: he is there under this one only.
        let renamed = s.user("room") + "/milo";
        c.outwards("presence", &phone, &renamed, "")
            .await?
            .delivered()?;
        // A contact who saw him too, and a device of the contact that he wrote to.
        c.outwards("presence", &phone, &rob, "")
            .await?
            .delivered()?;
        c.outwards("presence", &phone, &format!("{rob}/desk"), "")
            .await?
            .delivered()?;
        c.inwards("presence", &renamed, &phone, "")
            .await?
            .delivered()?;
        now(s, &of_users("emil", false, &[EMIL]), EMIL, false).await?;
        for to in [&renamed, &rob] {
            c.outside
                .stanza(&format!("unavailable to {to}"), |e| {
                    e.attribute("type") == Some("unavailable")
                        && e.attribute("from") == Some(&phone)
                        && e.attribute("to") == Some(to)
                })
                .await?;
        }
        s.rig
            .inside
            .stanza("unavailable from the room", |e| {
                e.attribute("type") == Some("unavailable")
                    && e.attribute("from") == Some(&renamed)
                    && e.attribute("to") == Some(&phone)
            })
            .await?;
        // The stream may judge a stanza by the old rules still: it is told after others are.
        let deadline = Instant::now() + wait::GENEROUS;
        loop {
            let crossed = c.outwards("presence", &phone, &renamed, "").await?;
            match crossed.dropped() {
                Err(_) if Instant::now() < deadline => {}
                dropped => break dropped?,
            }
        }
        c.unharmed(Moved::Refused("AccessPolicy")).await
    });
}

#[test]
fn a_08_rules_judge_the_outer_addresses() {
    RIG.test(8, async |s| {
        let mut c = Crossing::of(s).await?;
        let rob = s.user("rob");
        let forwarded = |from: &str, to: &str, body: &str| {
            format!(
                "<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' \
                 from='{from}' to='{to}'><body>{body}</body></message></forwarded>"
            )
        };
        let wrapped = |content: &str| format!("<wrap xmlns='urn:x:wrap'>{content}</wrap>");
        // What is inside is payload.
        let inner = forwarded(BOB, "friend@evil.example", "hello");
        for content in [inner.clone(), wrapped(&inner)] {
            for delivered in [
                c.outwards("message chat", ALICE, &rob, &content)
                    .await?
                    .delivered()?,
                c.inwards("message chat", &rob, ALICE, &content)
                    .await?
                    .delivered()?,
            ] {
                let text = format!("{delivered:?}");
                ensure!(
                    text.contains(BOB) && text.contains("evil.example"),
                    "{text}"
                );
            }
        }
        // A carbon is what only the own server may say (S-15).
        let carbon = format!("<sent xmlns='urn:xmpp:carbons:2'>{inner}</sent>");
        c.outwards("message chat", ALICE, &rob, &carbon)
            .await?
            .explained("not-allowed", "Content")?;
        c.inwards("message chat", &rob, ALICE, &carbon)
            .await?
            .answered_as_to_nobody()?;
        // And it opens nothing.
        let inner = forwarded(ALICE, &rob, &s.forbidden());
        for content in [inner.clone(), wrapped(&inner)] {
            c.outwards("message chat", BOB, &rob, &content)
                .await?
                .explained("not-allowed", "AccessPolicy")?;
            c.inwards("message chat", &rob, BOB, &content)
                .await?
                .answered_as_to_nobody()?;
        }
        c.unharmed(Moved::Refused("AccessPolicy")).await
    });
}

#[test]
fn a_09_a_probe_tells_nothing_of_who_has_no_access() {
    RIG.test(9, async |s| {
        let mut c = Crossing::of(s).await?;
        let rob = s.user("rob");
        // Neither asked nor answered; nor does what his server says of itself get out.
        c.inwards("presence probe", &rob, BOB, "")
            .await?
            .dropped()?;
        let note = format!("<status>{}</status>", s.forbidden());
        for what in ["presence", "presence error", "presence subscribed"] {
            c.outwards(what, BOB, &rob, &note).await?.dropped()?;
        }
        c.inwards("presence probe", &rob, ALICE, "")
            .await?
            .delivered()?;
        c.unharmed(Moved::Refused("AccessPolicy")).await
    });
}

#[test]
fn a_10_servers_ask_each_other_little() {
    RIG.test(10, async |s| {
        let mut c = Crossing::of(s).await?;
        let (domain, rob) = (s.domain.clone(), s.user("rob"));
        let passes = [
            ("iq get", DISCO_INFO),
            ("iq get", "<ping xmlns='urn:xmpp:ping'/>"),
            ("iq get", "<query xmlns='jabber:iq:version'/>"),
            ("iq result", DISCO_INFO),
            ("iq result", ""),
            ("iq error", "<error type='cancel'/>"),
            ("message error", "<error type='cancel'/>"),
        ];
        for (from, to) in [(&rob, OWN), (&domain, OWN), (&domain, ALICE)] {
            for (what, content) in passes {
                c.inwards(what, from, to, content)
                    .await?
                    .delivered()
                    .with_context(|| format!("{what} {content} from {from} to {to}"))?;
                c.outwards(what, to, from, content)
                    .await?
                    .delivered()
                    .with_context(|| format!("{what} {content} from {to} to {from}"))?;
            }
            for (what, content) in [
                (
                    "iq get",
                    "<query xmlns='http://jabber.org/protocol/disco#items'/>".to_owned(),
                ),
                ("iq get", "<query xmlns='jabber:iq:roster'/>".to_owned()),
                ("iq set", "<query xmlns='jabber:iq:register'/>".to_owned()),
                ("message", forbidden(s)),
                ("message chat", forbidden(s)),
            ] {
                c.inwards(what, from, to, &content)
                    .await?
                    .answered_as_to_nobody()
                    .with_context(|| format!("{what} {content} from {from} to {to}"))?;
                c.outwards(what, to, from, &content)
                    .await?
                    .explained("not-allowed", "Content")
                    .with_context(|| format!("{what} {content} from {to} to {from}"))?;
            }
            for what in ["presence", "presence subscribe"] {
                c.inwards(what, from, to, "").await?.dropped()?;
            }
        }
        c.unharmed(Moved::Refused("Content")).await
    });
}
