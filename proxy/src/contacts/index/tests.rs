use super::*;
use crate::contacts::ContactEvent;

fn change(user: &str, remote: &str, event: ContactEvent) -> ContactChange {
    ContactChange {
        user: user.into(),
        remote: remote.into(),
        event,
    }
}

/// The longest bare address (RFC 7622).
fn long(number: usize) -> String {
    let (local, domain) = ("l".repeat(1017), "d".repeat(1023));
    format!("{number:06}{local}@{domain}")
}

#[test]
fn contacts_are_bounded_in_bytes_of_a_user_and_in_all() {
    let contacts = Contacts::in_memory();
    let add =
        |user: &str, at: usize| contacts.record(&change(user, &long(at), ContactEvent::UserWrites));
    let of_one = (0..)
        .find(|at| add("alice@org.example", *at).is_err())
        .unwrap();
    assert_eq!(add("alice@org.example", of_one), Err(RecordError::UserFull));
    assert!(
        contacts.bytes() <= MAX_CONTACT_BYTES_PER_USER + 1024,
        "{of_one}"
    );
    assert!(contacts.bytes() >= of_one * 2047, "all text is counted");
    let refused = (0..1000).find_map(|number| {
        let user = format!("u{number}@org.example");
        let errors = (0..of_one).filter_map(|at| add(&user, at).err());
        errors.reduce(|_, last| last)
    });
    assert_eq!(refused, Some(RecordError::Full));
    assert!(contacts.bytes() <= MAX_CONTACT_BYTES);
    // What the store holds is bounded the same, and counted.
    contacts.adopt("bob@org.example", &long(0), Some(Contact::To));
    assert!(!contacts.has_added("bob@org.example", &long(0)));
    let full = |contacts: &Contacts| {
        let mut counts = contacts.not_recorded();
        counts
            .find(|(error, _)| *error == RecordError::Full)
            .unwrap()
            .1
    };
    assert!(full(&contacts) >= 2);
    // Ends give the room back, to the last byte.
    let empty = Contacts::in_memory();
    for event in [ContactEvent::UserWrites, ContactEvent::UserUnfollows] {
        empty
            .record(&change("a@org.example", &long(1), event))
            .unwrap();
    }
    assert_eq!((empty.bytes(), empty.len()), (0, 0));
}

#[test]
fn a_load_drops_what_the_store_does_not_hold_and_gives_its_room_back() {
    let contacts = Contacts::stored();
    contacts.begin_load();
    contacts.adopt("a@org.example", "gone@u.example", Some(Contact::To));
    contacts.end_load();
    contacts.begin_load();
    contacts.adopt("b@org.example", "here@u.example", Some(Contact::To));
    let waits = change("c@org.example", "new@u.example", ContactEvent::UserWrites);
    contacts.record(&waits).unwrap();
    contacts.end_load();
    assert!(!contacts.has_added("a@org.example", "gone@u.example"));
    assert!(contacts.has_added("b@org.example", "here@u.example"));
    assert!(contacts.has_added("c@org.example", "new@u.example"));
    let cost = |user: &str, remote: &str| contact_cost(remote) + user_cost(user);
    let left = cost("b@org.example", "here@u.example") + cost("c@org.example", "new@u.example");
    assert_eq!((contacts.len(), contacts.bytes()), (2, left));
}

#[test]
fn the_end_of_a_contact_that_is_not_known_ends_what_is_stored() {
    let contacts = Contacts::stored();
    // What was read had no room for it, or another replica wrote it just now.
    contacts.begin_load();
    contacts.end_load();
    let end = change("a@org.example", "r@u.example", ContactEvent::UserUnfollows);
    assert!(contacts.may_change(&end.user, &end.remote, end.event));
    contacts.record(&end).unwrap();
    assert_eq!(contacts.waiting(), 1);
    contacts.begin_load();
    contacts.adopt("a@org.example", "r@u.example", Some(Contact::To));
    contacts.end_load();
    assert!(!contacts.has_added("a@org.example", "r@u.example"));
    // A stranger's word about a contact that nobody knows is not queued.
    let strange = Contacts::stored();
    let end = change(
        "a@org.example",
        "r@u.example",
        ContactEvent::RemoteWithdraws,
    );
    assert!(!strange.may_change(&end.user, &end.remote, end.event));
    strange.record(&end).unwrap();
    assert_eq!(strange.waiting(), 0);
}

/// Every domain below `needs` or `needs-none` is of the partner object of its last label but one.
#[derive(Debug)]
struct ByLabel;

impl ContactHolders for ByLabel {
    fn holder<'a>(&'a self, domain: &'a str) -> Option<(&'a str, bool)> {
        let (rest, kind) = domain.rsplit_once('.')?;
        let name = rest.rsplit_once('.').map_or(rest, |(_, name)| name);
        match kind {
            "needs" => Some((name, true)),
            "needs-none" => Some((name, false)),
            _ => None,
        }
    }
}

fn shared() -> Contacts {
    let contacts = Contacts::stored();
    contacts.follow_holders(Arc::new(ByLabel));
    contacts
}

#[test]
fn one_partner_takes_a_quarter_of_the_contacts_and_leaves_room_for_every_other() {
    let contacts = Contacts::in_memory();
    contacts.follow_holders(Arc::new(ByLabel));
    let local = "l".repeat(1000);
    let add = |user: usize, at: usize, partner: &str| {
        let user = format!("u{user}.{partner}@org.example");
        let domain = "d".repeat(1000);
        let remote = format!("{at:06}{local}@{domain}.{partner}.needs");
        contacts.record(&change(&user, &remote, ContactEvent::UserWrites))
    };
    let of_one = |partner: &str| {
        let all = (0..200).flat_map(|user| (0..900).map(move |at| (user, at)));
        all.take_while(|(user, at)| add(*user, *at, partner).is_ok())
            .count()
    };
    let greedy = of_one("greedy") * 2000;
    let quarter = MAX_CONTACT_BYTES / 4;
    assert!((quarter * 9 / 10..=quarter).contains(&greedy), "{greedy}");
    assert_eq!(add(1000, 0, "greedy"), Err(RecordError::Full));
    let other = of_one("other") * 2000;
    assert!(other > quarter / 2, "{other}");
    // Whoever ends one has room for another.
    let held = |partner: &str| {
        let holder = contacts.holders.find(&format!("r@{partner}.needs"));
        contacts.holders.held(holder.unwrap().id)
    };
    let before = held("greedy").count;
    let remote = format!("000000{local}@{}.greedy.needs", "d".repeat(1000));
    let end = change(
        "u0.greedy@org.example",
        &remote,
        ContactEvent::UserUnfollows,
    );
    contacts.record(&end).unwrap();
    assert_eq!(held("greedy").count, before - 1);
}

#[test]
fn contacts_that_a_partner_does_not_need_take_no_room_of_the_user_s() {
    let contacts = shared();
    let add = |at: usize, domain: &str| {
        let remote = format!("r{at}@{domain}");
        let event = ContactEvent::UserLetsFollow;
        contacts.record(&change("alice@org.example", &remote, event))
    };
    for partner in ["a.needs-none", "b.needs-none"] {
        for at in 0..MAX_CONTACTS_NOT_NEEDED {
            assert_eq!(add(at, partner), Ok(()), "{partner} {at}");
        }
        let more = add(MAX_CONTACTS_NOT_NEEDED, partner);
        assert_eq!(more, Err(RecordError::UserFull), "{partner}");
    }
    for at in 0..MAX_CONTACTS_PER_USER {
        assert_eq!(add(at, "c.needs"), Ok(()), "{at}");
    }
    assert_eq!(add(20_000, "c.needs"), Err(RecordError::UserFull));
}

#[test]
fn changes_of_one_partner_s_people_leave_room_in_what_waits_for_the_store() {
    let contacts = shared();
    let end = |at: usize, partner: &str| {
        let remote = format!("r{at}@{partner}.needs-none");
        let event = ContactEvent::UserWithdraws;
        contacts.record(&change("alice@org.example", &remote, event))
    };
    let taken = (0..100_000).take_while(|at| end(*at, "greedy").is_ok());
    assert_eq!(taken.count(), 25_001);
    assert_eq!(end(100_000, "greedy"), Err(RecordError::StoreBehind));
    assert_eq!(end(0, "other"), Ok(()));
    // What is written is no more on anybody's account.
    let pending = contacts.pending().unwrap();
    pending.take(usize::MAX);
    pending.failed();
    assert_eq!(end(100_000, "greedy"), Err(RecordError::StoreBehind));
    pending.take(usize::MAX);
    pending.written();
    assert_eq!(end(100_000, "greedy"), Ok(()));
}

#[test]
fn who_gets_a_domain_gets_its_contacts_counted() {
    let contacts = Contacts::stored();
    contacts.begin_load();
    for (user, remote) in [("a", "r@x.one.needs"), ("b", "s@one.needs-none")] {
        contacts.adopt(user, remote, Some(Contact::To));
    }
    contacts.end_load();
    contacts.follow_holders(Arc::new(ByLabel));
    let holder = contacts.holders.find("r@one.needs").unwrap();
    assert_eq!(contacts.holders.held(holder.id).count, 2);
    let cost = |remote: &str| contact_cost(remote);
    let bytes = cost("r@x.one.needs") + cost("s@one.needs-none");
    assert_eq!(contacts.holders.held(holder.id).bytes, bytes);
    // What the store does not hold any more is on nobody's account.
    contacts.begin_load();
    contacts.end_load();
    let nothing = HeldRoom::default();
    assert_eq!(contacts.holders.held(holder.id), nothing);
    assert_eq!((contacts.len(), contacts.bytes()), (0, 0));
}
