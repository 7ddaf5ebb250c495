use super::*;

fn issued(authority: &Authority, names: &'static [&'static str], uris: &[&str]) -> Issued {
    let uri = |uri: &&str| SanType::URI((*uri).try_into().unwrap());
    issue(
        authority,
        &Subject {
            names,
            common_name: "partner.example",
            other_names: uris.iter().map(uri).collect(),
            ..Subject::default()
        },
    )
}

/// SIP-42: RFC 5922 sections 7.1, 7.2.
#[test]
fn sip_42_a_sip_server_is_who_its_uris_say_and_else_its_exact_dns_names() {
    let ca = authority("trusted authority");
    let trust = trusting(&ca);
    let right: &[&str] = &["partner.example"];
    let wild: &[&str] = &["*.partner.example", "*.example"];
    for (names, uris, by_uri, by_internal) in [
        (right, &[][..], true, true),
        (&[], &["sip:partner.example"], true, false),
        (
            &[],
            &["SIP:Partner.Example:5061;transport=tls"],
            true,
            false,
        ),
        (&["other.example"], &["sip:partner.example"], true, false),
        (right, &["sip:other.example"], false, false),
        (
            right,
            &["sip:other.example", "sip:partner.example"],
            true,
            false,
        ),
        (
            right,
            &["https://other.example/", "sip:rob@other.example"],
            true,
            true,
        ),
        (&[], &["sip:rob@partner.example"], false, false),
        (&[], &["sips:partner.example"], false, false),
        (&[], &["sip:*.example"], false, false),
        (wild, &[], false, false),
        (&[], &[], false, false),
    ] {
        let leaf = issued(&ca, names, uris);
        let judged = |uris| {
            let rule = NameRule::Sip(uris);
            let name = domain("partner.example");
            trust.judge_at(
                (&name, rule),
                std::slice::from_ref(&leaf.der),
                Role::Client,
                None,
                now(),
            )
        };
        assert_eq!(
            judged(SipUris::Domain).is_ok(),
            by_uri,
            "{names:?} {uris:?}"
        );
        assert_eq!(
            judged(SipUris::Nothing).is_ok(),
            by_internal,
            "{names:?} {uris:?}"
        );
    }
}

#[test]
fn why_a_sip_server_is_not_known_names_what_it_showed() {
    let ca = authority("trusted authority");
    let leaf = issued(&ca, &["a.example"], &["sip:b.example"]);
    let name = domain("partner.example");
    let rule = NameRule::Sip(SipUris::Domain);
    let judged = trusting(&ca).judge_at((&name, rule), &[leaf.der], Role::Client, None, now());
    match judged {
        Err(CertificateFault::NameMismatch { found, .. }) => {
            assert_eq!(found, ["a.example", "sip:b.example"]);
        }
        other => panic!("{other:?}"),
    }
}
