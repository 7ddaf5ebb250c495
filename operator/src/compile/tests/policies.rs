//! Policies: who is granted where, and what may not be meant so.

use super::*;

const ON: &str = "enableFederationAccess: true, enableXmppAccess: true";

#[test]
fn a_user_stands_in_one_policy_at_most() {
    let user =
        |name: &str, users: &str| policy(name, &format!("scope: User, {ON}, users: [{users}]"));
    let rows: &[Row] = &[
        (
            "two Global",
            String::new(),
            policy("a", &format!("scope: Global, {ON}"))
                + &policy("b", &format!("scope: Global, {ON}")),
            &[("a", "*")],
            &[("b", Reason::Conflict)],
        ),
        (
            "who is in force stays",
            policy("b", &format!("scope: Global, {ON}")),
            policy("a", &format!("scope: Global, {ON}"))
                + &policy("b", &format!("scope: Global, {ON}")),
            &[("b", "*")],
            &[("a", Reason::Conflict), ("b", Reason::Accepted)],
        ),
        (
            "two for one site",
            String::new(),
            policy("a", "scope: Site, site: hq-site") + &policy("b", "scope: Site, site: hq-site"),
            &[("a", "site hq-site")],
            &[("b", Reason::Conflict)],
        ),
        (
            "a user twice, however written: left out whole",
            String::new(),
            user("a", "alice@org.example") + &user("b", "Alice@org.example, bob@org.example"),
            &[("a", "alice@org.example")],
            &[("b", Reason::Conflict)],
        ),
        (
            "a domain twice",
            String::new(),
            user("a", "'*@org.example'") + &user("b", "'*@org.example'"),
            &[("a", "*@org.example")],
            &[("b", Reason::Conflict)],
        ),
        (
            "a user beside his domain is no conflict",
            String::new(),
            user("a", "'*@org.example'") + &user("b", "bob@org.example"),
            &[("a", "*@org.example"), ("b", "bob@org.example")],
            &[("a", Reason::Accepted), ("b", Reason::Accepted)],
        ),
        (
            "a policy that grew into a conflict stays as it was",
            user("a", "alice@org.example") + &user("b", "bob@org.example"),
            user("a", "alice@org.example") + &user("b", "bob@org.example, alice@org.example"),
            &[("a", "alice@org.example"), ("b", "bob@org.example")],
            &[("b", Reason::Conflict)],
        ),
        (
            "a localpart that two servers read as two users",
            String::new(),
            user("a", "\u{2163}@org.example"),
            &[],
            &[("a", Reason::InvalidUser)],
        ),
    ];
    for (case, before, after, expected, reasons) in rows {
        let hq = pool("hq", HQ, "");
        let first = run(&(hq.clone() + before), &Configs::new());
        let second = run(&(hq + after), &first.configs);
        assert_eq!(policies(&second.configs), pairs(expected), "{case}");
        for (name, wanted) in *reasons {
            let (_, got, message) = accepted(&second, name);
            assert_eq!(got, *wanted, "{case}: {name}: {message}");
        }
    }
}

#[test]
fn nobody_falls_to_a_wider_policy_because_a_list_could_not_be_read() {
    let hq = pool("hq", HQ, "") + &policy("wide", &format!("scope: Global, {ON}"));
    let narrow = policy(
        "narrow",
        "scope: User, usersFrom: [{configMapRef: {name: grants, key: list}}]",
    );
    let list = config_map(
        "grants",
        "list",
        "# the blocked\\n alice@org.example \\n\\n*@sub.example\\n",
    );
    let good = run(&(hq.clone() + &narrow + &list), &Configs::new());
    assert_eq!(
        policies(&good.configs)[0],
        pairs(&[("narrow", "alice@org.example *@sub.example")])[0]
    );
    for (case, rest, wanted) in [
        ("the map is gone", String::new(), Reason::ReferenceMissing),
        (
            "a line is no JID",
            config_map("grants", "list", "alice@org.example\\nx y@org.example"),
            Reason::InvalidUser,
        ),
    ] {
        let after = run(&(hq.clone() + &narrow + &rest), &good.configs);
        assert_eq!(policies(&after.configs), policies(&good.configs), "{case}");
        let (_, got, message) = accepted(&after, "narrow");
        assert_eq!(got, wanted, "{case}");
        if wanted == Reason::InvalidUser {
            assert!(message.contains("line 2"), "{message}");
        }
    }
    let gone = run(&hq, &good.configs);
    assert_eq!(
        policies(&gone.configs),
        pairs(&[("wide", "*")]),
        "a deletion always takes effect"
    );
}

#[test]
fn what_may_not_be_meant_so_is_a_warning() {
    for (spec, says) in [
        (format!("scope: Global, {ON}, partners: [nobody]"), "nobody"),
        (
            "scope: Global, enableXmppAccess: true".to_owned(),
            "enableFederationAccess",
        ),
        (format!("scope: Site, site: moon, {ON}"), "moon"),
        (
            format!("scope: User, {ON}, users: [a@elsewhere.example]"),
            "elsewhere.example",
        ),
    ] {
        let compiled = run(&(pool("hq", HQ, "") + &policy("p", &spec)), &Configs::new());
        let (status, _, message) = accepted(&compiled, "p");
        assert!(status && message.contains(says), "{spec}: {message}");
        assert!(
            compiled
                .diagnostics
                .iter()
                .any(|d| d.severity == Severity::Warning)
        );
        assert!(!compiled.has_errors());
    }
}

#[test]
fn the_home_site_is_the_preferred_pools_whatever_its_state() {
    for (a, b, expected) in [
        ("", "", "a-site"),
        (", route: {priority: 20}", "", "b-site"),
        (
            ", route: {priority: 5, enabled: false}, suspended: true",
            "",
            "a-site",
        ),
    ] {
        let yaml = pool("a", HQ, a) + &pool("b", "org.example, b.example", b);
        let compiled = run(&yaml, &Configs::new());
        for config in compiled.configs.values() {
            let home = config.access.home_sites.get(HQ).map(String::as_str);
            assert_eq!(home, Some(expected), "{a} | {b}");
        }
        let all: Vec<&str> = compiled.configs["a"]
            .namespace_domains
            .iter()
            .map(|d| d.as_str())
            .collect();
        assert_eq!(all, ["b.example", "org.example"]);
        assert_eq!(compiled.configs["a"].edges.len(), 2);
    }
}

#[test]
fn k13_lists_of_users_as_windows_and_lync_write_them_are_read_or_named() {
    let hq = pool("hq", HQ, "");
    let granted = policy(
        "granted",
        &format!("scope: User, usersFrom: [{{configMapRef: {{name: grants, key: list}}}}], {ON}"),
    );
    let told = |map: String| run(&(hq.clone() + &granted + &map), &Configs::new());
    for read in [
        "\\ufeffalice@org.example\\r\\nbob@org.example",
        "sip:alice@org.example\\nSIP:bob@org.example",
        "alice@org.example\\n\\ufeffsip:bob@org.example\\n",
        // Out of PowerShell: a table, comma-separated values with and without their type.
        "\\r\\nSipAddress           \\r\\n----------           \\r\\nsip:alice@org.example\\r\\nsip:bob@org.example  \\r\\n\\r\\n",
        "\\ufeff\\\"SipAddress\\\"\\r\\n\\\"sip:alice@org.example\\\"\\r\\n\\\"sip:bob@org.example\\\"\\r\\n",
        "#TYPE Selected.Microsoft.Rtc.Management.ADConnect.Schema.OCSADUser\\n\\\"SipAddress\\\"\\n\\\"alice@org.example\\\"\\n\\\"bob@org.example\\\"\\n",
    ] {
        let compiled = told(config_map("grants", "list", read));
        let (accepted, _, message) = accepted(&compiled, "granted");
        assert!(accepted, "{message}");
        assert_eq!(
            policies(&compiled.configs),
            pairs(&[("granted", "alice@org.example bob@org.example")]),
            "{read}"
        );
    }
    let binary = |bytes: Vec<u8>| {
        let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
        format!(
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: grants}}\nbinaryData: {{list: {encoded}}}\n"
        )
    };
    let text = "alice@org.example\r\n";
    let little = text.encode_utf16().flat_map(u16::to_le_bytes);
    let utf16 = [0xff, 0xfe].into_iter().chain(little).collect();
    for (map, says) in [
        (binary(utf16), "UTF-16"),
        (binary(vec![0xfe, 0x01, 0x80, 0x00]), "is no text"),
    ] {
        let (accepted, reason, message) = accepted(&told(map), "granted");
        assert!(!accepted && reason == Reason::ReferenceMissing, "{message}");
        assert!(
            message.contains(says) && message.contains("binaryData") && message.contains("UTF-8"),
            "{message}"
        );
    }
    // Text counts, wherever it stands.
    let compiled = told(binary(text.as_bytes().to_vec()));
    assert!(accepted(&compiled, "granted").0);
}
