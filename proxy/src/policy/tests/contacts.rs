//! When contacts begin, end, and open the way.

use super::*;

#[test]
fn p_15_a_stranger_reaches_a_user_once_the_user_has_added_him() {
    let policy = policy(|_| {});
    let remote = "bob@unverified.example";
    let subscribe = stanza(Inbound, USER, remote, "presence|subscribe|");
    for first in [
        "presence|subscribe|",
        "presence|subscribed|",
        "presence|probe|",
        "presence||",
        "message|chat|<body>x</body>",
        "message||<b:body xmlns:b='jabber:server'>x</b:body>",
    ] {
        let contacts = Contacts::in_memory();
        assert_eq!(
            letter(judged(&policy, Inbound, &subscribe, &contacts).0),
            'A',
            "{first}"
        );
        let change = with_stanza(&stanza(Outbound, USER, remote, first), |s| {
            policy.judge(Outbound, s, None, &contacts).contact
        });
        contacts.record(&change.expect(first)).unwrap();
        assert_eq!(
            letter(judged(&policy, Inbound, &subscribe, &contacts).0),
            '+',
            "{first}"
        );
        let again = with_stanza(&stanza(Outbound, USER, remote, first), |s| {
            policy.judge(Outbound, s, None, &contacts).contact
        });
        assert_eq!(again, None, "{first}: what changes nothing costs nothing");
    }
    for none in [
        "message|chat|",
        "message|error|<body>x</body>",
        "presence|unavailable|",
        "presence|unsubscribe|",
        "presence|error|",
        "message|chat|<body xmlns='urn:other'>x</body>",
        "message|groupchat|<body>x</body>",
    ] {
        let contacts = Contacts::in_memory();
        let change = with_stanza(&stanza(Outbound, USER, remote, none), |s| {
            policy.judge(Outbound, s, None, &contacts).contact
        });
        assert_eq!(change, None, "{none}");
    }
}

#[test]
fn contacts_begin_for_unverified_partners_only_but_end_for_all() {
    let policy = policy(|_| {});
    let contacts = Contacts::in_memory();
    let change = |body: &str, remote: &str, contacts: &Contacts| {
        with_stanza(&stanza(Outbound, USER, remote, body), |s| {
            policy.judge(Outbound, s, None, contacts).contact
        })
    };
    assert_eq!(
        change("presence|subscribe|", "bob@verified.example", &contacts),
        None
    );
    // The partner was PublicUnverified when this contact began.
    let remote = "bob@verified.example";
    contacts
        .record(&ContactChange {
            user: USER.into(),
            remote: remote.into(),
            event: ContactEvent::UserFollows,
        })
        .unwrap();
    let end = change("presence|unsubscribe|", remote, &contacts).expect("followed");
    contacts.record(&end).unwrap();
    assert!(!contacts.has_added(USER, remote));
    let refused = with_stanza(
        &stanza(Outbound, USER, "bob@nowhere.example", "presence|subscribe|"),
        |s| policy.judge(Outbound, s, None, &contacts).contact,
    );
    assert_eq!(refused, None, "what is refused adds nobody");
}

#[test]
fn the_remote_ends_halves_and_the_user_the_contact() {
    let policy = policy(|_| {});
    let contacts = Contacts::in_memory();
    let remote = "bob@unverified.example";
    for (direction, body, after) in [
        (Outbound, "presence|subscribe|", Some(Contact::To)),
        (Outbound, "presence|subscribed|", Some(Contact::Both)),
        (Inbound, "presence|unsubscribe|", Some(Contact::To)),
        (Inbound, "presence|unsubscribed|", Some(Contact::Neither)),
        (Inbound, "presence|unsubscribed|", Some(Contact::Neither)),
        (Outbound, "presence|unsubscribed|", None),
        (Inbound, "presence|unsubscribe|", None),
    ] {
        let change = with_stanza(&stanza(direction, USER, remote, body), |s| {
            policy.judge(direction, s, None, &contacts).contact
        });
        if let Some(change) = change {
            contacts.record(&change).unwrap();
        }
        assert_eq!(contacts.state(USER, remote), after, "{direction:?} {body}");
    }
}
