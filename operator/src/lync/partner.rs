//! XmppAllowedPartner → XmppFederatedPartner.

use serde_json::{Map, json};
use xmpp_edge_crds::{
    domain::{DomainName, DomainPattern},
    edge_config::HostPort,
    negotiation::{Negotiation, Requirement},
};

use super::{
    Draft, object_name,
    record::{Property, Record},
};

/// Adds the manifest of one partner.
pub(super) fn import(record: &Record, draft: &mut Draft) {
    let Some(identity) = record.text("Domain").or_else(|| record.text("Identity")) else {
        draft.warn(None, "a partner without Identity was passed over".into());
        return;
    };
    let mut warnings = Vec::new();
    let domain = canonical(identity);
    let mut spec = Map::new();
    spec.insert("domain".into(), json!(domain));
    let further = additional_domains(record, &domain, &mut warnings);
    if !further.is_empty() {
        spec.insert("additionalDomains".into(), json!(further));
    }
    if let Some(description) = record.text("Description") {
        let kept: String = description.chars().take(1024).collect();
        if kept.len() < description.len() {
            warnings.push("Description was cut to 1,024 characters".into());
        }
        spec.insert("description".into(), json!(kept));
    }
    let partner_type = choice(
        record,
        "PartnerType",
        ["Federated", "PublicVerified", "PublicUnverified"],
        "PublicUnverified",
        &mut warnings,
    );
    spec.insert("partnerType".into(), json!(partner_type));
    let tls = requirement(record, "TlsNegotiation", &mut warnings);
    let sasl = requirement(record, "SaslNegotiation", &mut warnings);
    let dialback = record.bool("SupportDialbackNegotiation").unwrap_or(true);
    spec.insert("tlsNegotiation".into(), json!(tls));
    spec.insert("saslNegotiation".into(), json!(sasl));
    spec.insert("supportDialbackNegotiation".into(), json!(dialback));
    if (Negotiation {
        tls,
        sasl,
        dialback,
    })
    .dialback_is_dead()
    {
        warnings.push(
            "dialback is on but can never be used, since both TLS and SASL are Required: set \
             saslNegotiation to Optional if the partner's certificate does not verify"
                .into(),
        );
    }
    spec.insert(
        "enableKeepAlive".into(),
        json!(record.bool("EnableKeepAlive").unwrap_or(true)),
    );
    match record.number("ConnectionLimit") {
        None | Some(0) => {}
        Some(limit @ 1..=100_000) => {
            spec.insert("connectionLimit".into(), json!(limit));
        }
        Some(limit) => warnings.push(format!(
            "ConnectionLimit {limit} is out of range and was left out: the pool's partnerConnectionLimit counts"
        )),
    }
    if let Some(proxy) = record.text("ProxyFqdn") {
        let proxy = proxy.to_ascii_lowercase();
        match HostPort::parse(&proxy, Some(5269)) {
            Ok(_) => {
                spec.insert("proxyFqdn".into(), json!(proxy));
            }
            Err(error) => warnings.push(format!("ProxyFqdn was left out: {error}")),
        }
    }
    draft.add(
        json!({
            "apiVersion": "xmpp-edge.dev/v1alpha1",
            "kind": "XmppFederatedPartner",
            "metadata": { "name": object_name(&domain, 253) },
            "spec": spec,
        }),
        warnings,
        &[],
    );
}

/// Lower-case A-labels where it is a domain; else as it stands, for the diagnostics to name.
fn canonical(text: &str) -> String {
    match DomainName::parse(text) {
        Ok(domain) => domain.as_str().to_owned(),
        Err(_) => text.to_owned(),
    }
}

fn additional_domains(record: &Record, primary: &str, warnings: &mut Vec<String>) -> Vec<String> {
    let mut domains: Vec<String> = Vec::new();
    if record.is_cut_off("AdditionalDomains") {
        warnings.push(
            "AdditionalDomains is not in the export, which has the name of its type in place of it: \
             export again with `ConvertTo-Json -Depth 4` or Export-Clixml, or add the domains by hand"
                .into(),
        );
        return domains;
    }
    for text in record.names("AdditionalDomains") {
        let domain = match DomainPattern::parse(text) {
            Ok(pattern) => pattern.to_string(),
            Err(error) => {
                warnings.push(format!("an additional domain was left out: {error}"));
                continue;
            }
        };
        if domain != primary && !domains.contains(&domain) {
            domains.push(domain);
        }
    }
    domains
}

fn requirement(record: &Record, name: &str, warnings: &mut Vec<String>) -> Requirement {
    match choice(
        record,
        name,
        ["Required", "Optional", "NotSupported"],
        "Required",
        warnings,
    ) {
        "Optional" => Requirement::Optional,
        "NotSupported" => Requirement::NotSupported,
        _ => Requirement::Required,
    }
}

/// One of a property's documented values. What is not told by name becomes `strictest`: what the
/// numbers of an enum mean is documented nowhere.
fn choice(
    record: &Record,
    name: &str,
    choices: [&'static str; 3],
    strictest: &'static str,
    warnings: &mut Vec<String>,
) -> &'static str {
    let known = record.text(name).and_then(|text| {
        choices
            .into_iter()
            .find(|choice| choice.eq_ignore_ascii_case(text))
    });
    if let Some(known) = known {
        return known;
    }
    match record.get(name) {
        None => {}
        Some(Property::Number(number)) => warnings.push(format!(
            "{name} is exported as the number {number}, which says nothing; {strictest} was \
             written: export with -EnumsAsStrings or Export-Clixml, or set it by hand"
        )),
        Some(_) => warnings.push(format!(
            "{name} is none of {}; {strictest} was written: set it by hand",
            choices.join(", ")
        )),
    }
    strictest
}
