//! What holds for any stanza.

use super::*;

fn any_body() -> impl Strategy<Value = String> {
    let rows: Vec<String> = table().into_iter().map(|(body, _)| body).collect();
    prop::sample::select(rows)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn goodbyes_pass_whatever_rules_2_to_4_say(
        granted in any::<bool>(), partner_type in prop::sample::select(vec![Federated, PublicVerified, PublicUnverified]),
        inbound in any::<bool>(), type_ in prop::sample::select(vec!["unavailable", "unsubscribe", "unsubscribed"]),
        children in prop::sample::select(vec!["", STATUS, TUNE, "<x xmlns='http://jabber.org/protocol/muc'/>"]),
    ) {
        let policy = policy(|c| if !granted { c["access"]["policies"] = json!([]); });
        let direction = if inbound { Inbound } else { Outbound };
        let remote = format!("bob@{}", domain(partner_type));
        let xml = stanza(direction, USER, &remote, &format!("presence|{type_}|{children}"));
        let (outcome, _) = judged(&policy, direction, &xml, &Contacts::in_memory());
        let Outcome::Pass(shape) = outcome else {
            return Err(TestCaseError::fail(format!("{xml}: {outcome:?}")));
        };
        // With what an available presence may not bring, nothing comes (S-12).
        let available = stanza(direction, USER, &remote, &format!("presence||{children}"));
        let (available, _) = judged(&policy, direction, &available, &Contacts::in_memory());
        prop_assert_eq!(shape == Shape::Bare, !matches!(available, Outcome::Pass(_)), "{}", xml);
    }

    #[test]
    fn a_friend_may_do_all_that_a_stranger_may(body in any_body()) {
        let letters = row(&policy(|_| {}), USER, "bob@", &body);
        let (stranger, friend) = (letters.as_bytes()[2], letters.as_bytes()[3]);
        prop_assert!(stranger == friend || matches!(stranger, b'a' | b'A' | b'b' | b'e'), "{body}: {letters}");
    }

    #[test]
    fn a_stricter_partner_type_never_opens_anything(body in any_body()) {
        let letters = row(&policy(|_| {}), USER, "bob@", &body);
        let passes = |at: usize| matches!(letters.as_bytes()[at], b'+' | b's' | b'b' | b'e');
        for (wide, narrow) in [(0, 1), (1, 2), (5, 6), (6, 7)] {
            prop_assert!(passes(wide) || !passes(narrow), "{body}: {letters}");
        }
    }
}
