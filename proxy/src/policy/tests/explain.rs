//! `explain` and the policy say the same.

use super::*;

/// `explain` tells of each chat message what happens to it.
#[test]
fn explain_and_judge_agree() {
    use xmpp_edge_crds::{
        jid::BareJid,
        verdict::{Known, explain},
    };
    let changes: [fn(&mut Value); 6] = [
        |_| {},
        |c| c["suspended"] = json!(true),
        |c| c["partners"][2]["suspended"] = json!(true),
        |c| c["partners"][1]["leftOut"] = json!(true),
        |c| c["access"]["policies"] = json!([]),
        |c| {
            c["access"]["policies"] = json!([
                open_to(json!({ "User": { "users": [USER] } })),
                { "name": "audit", "scope": "Global", "mode": "Audit", "enableFederationAccess": false,
                  "enableXmppAccess": false, "enablePublicCloudAccess": false },
            ]);
        },
    ];
    let locals = [USER, "carol@org.example", "org.example"];
    let remotes = [
        "bob@federated.example",
        "bob@a.agency.example",
        "bob@verified.example",
        "bob@unverified.example",
        "unverified.example",
        "bob@nowhere.example",
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let policy = policy(change);
        for (local, remote) in locals
            .iter()
            .flat_map(|l| remotes.iter().map(move |r| (*l, *r)))
        {
            for (direction, contact) in [
                (Inbound, false),
                (Inbound, true),
                (Outbound, false),
                (Outbound, true),
            ] {
                let contacts = Contacts::in_memory();
                if contact {
                    let change = ContactChange {
                        user: local.into(),
                        remote: remote.into(),
                        event: ContactEvent::UserWrites,
                    };
                    contacts.record(&change).unwrap();
                }
                let (from, to) = match direction {
                    Inbound => (remote, local),
                    Outbound => (local, remote),
                };
                let jid = |text: &str| BareJid::parse(text).unwrap();
                let known = Known {
                    contact: Some(contact),
                };
                let told = explain(&policy.config, &jid(from), &jid(to), known).unwrap();
                let (outcome, audited) = judged(
                    &policy,
                    direction,
                    &stanza(direction, local, remote, "message|chat|<body>x</body>"),
                    &contacts,
                );
                let what = format!("change {number}: {from} to {to}, contact {contact}");
                let reason = match outcome {
                    Outcome::Pass(_) => None,
                    Outcome::Refuse(cause) | Outcome::Drop(cause) => Some(cause),
                };
                assert_eq!(told.reason.map(Cause::Rule), reason, "{what}");
                assert_eq!(told.audited, audited.is_some(), "{what}");
            }
        }
    }
}
