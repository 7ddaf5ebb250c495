//! Every form of an address is one address, or none.

use super::*;

#[test]
fn an_address_that_two_servers_read_as_two_people_is_malformed() {
    let policy = policy(|_| {});
    let contacts = Contacts::in_memory();
    for (from, to) in [
        ("\u{2163}@federated.example", USER),
        ("@federated.example", USER),
        ("bob@federated.example", "a@b@org.example"),
        ("bob@federated.example", "alice@org.example/"),
    ] {
        let xml = format!("<message from='{from}' to='{to}'/>");
        assert_eq!(
            judged(&policy, Inbound, &xml, &contacts).0,
            Outcome::Refuse(Cause::Malformed),
            "{xml}"
        );
        let xml = format!("<presence from='{from}' to='{to}'/>");
        assert_eq!(
            judged(&policy, Inbound, &xml, &contacts).0,
            Outcome::Drop(Cause::Malformed),
            "{xml}"
        );
    }
    assert_eq!(
        judged(&policy, Inbound, "<message/>", &contacts).0,
        Outcome::Refuse(Cause::Malformed)
    );
}

#[test]
fn a_06_every_form_of_an_address_meets_the_same_rule() {
    let policy = policy(|c| {
        c["access"]["policies"] = json!([open_to(json!({ "User": { "users": [USER] } }))]);
    });
    let contacts = Contacts::in_memory();
    for (user, expected) in [
        ("alice@org.example", '+'),
        ("ALICE@Org.Example", '+'),
        ("alice@org.example.", '+'),
        ("alice\\20x@org.example", 'x'),
        ("bob@org.example", 'x'),
    ] {
        let xml = stanza(
            Outbound,
            user,
            "bob@Federated.Example",
            "message|chat|<body>x</body>",
        );
        assert_eq!(
            letter(judged(&policy, Outbound, &xml, &contacts).0),
            expected,
            "{user}"
        );
    }
}
