//! ExternalAccessPolicy → ExternalAccessPolicy. Who is granted a policy is no part of the export.

use serde_json::{Map, Value, json};

use super::{Draft, object_name, record::Record};

/// Adds the manifest of one policy.
pub(super) fn import(record: &Record, draft: &mut Draft) {
    let Some(identity) = record.text("Identity") else {
        draft.warn(None, "a policy without Identity was passed over".into());
        return;
    };
    let mut warnings = Vec::new();
    let mut spec = Map::new();
    let name = scope(identity, &mut spec, &mut warnings);
    let switch = |property: &str| record.bool(property).unwrap_or(false);
    let federation = switch("EnableFederationAccess");
    let xmpp = switch("EnableXmppAccess");
    let public = switch("EnablePublicCloudAccess");
    spec.insert("enableFederationAccess".into(), json!(federation));
    spec.insert("enableXmppAccess".into(), json!(xmpp));
    spec.insert("enablePublicCloudAccess".into(), json!(public));
    if xmpp && !federation {
        warnings.push(
            "it opens nothing: enableXmppAccess counts only with enableFederationAccess".into(),
        );
    }
    if xmpp && federation && !public {
        warnings.push(
            "its users do not reach partners of a Public type, which is a partner's default: \
             here these need enablePublicCloudAccess too"
                .into(),
        );
    }
    for property in ["EnableOutsideAccess", "EnablePublicCloudAudioVideoAccess"] {
        if switch(property) {
            warnings.push(format!("{property} has no equivalent and was left out"));
        }
    }
    let mut metadata = Map::new();
    metadata.insert("name".into(), json!(name));
    if let Some(description) = record.text("Description") {
        metadata.insert(
            "annotations".into(),
            json!({ "kubernetes.io/description": description }),
        );
    }
    draft.add(
        json!({
            "apiVersion": "xmpp-edge.dev/v1alpha1",
            "kind": "ExternalAccessPolicy",
            "metadata": Value::Object(metadata),
            "spec": spec,
        }),
        warnings,
        &[],
    );
}

/// `Global`, `Site:Name`, `Tag:Name` or `Name`; gives the object's name.
fn scope(identity: &str, spec: &mut Map<String, Value>, warnings: &mut Vec<String>) -> String {
    let (prefix, rest) = identity.split_once(':').unwrap_or(("", identity));
    match prefix.to_ascii_lowercase().as_str() {
        "" if rest.eq_ignore_ascii_case("global") => {
            spec.insert("scope".into(), json!("Global"));
            "global".into()
        }
        "site" => {
            let site = site_name(rest);
            if site != rest {
                warnings.push(format!(
                    "the site {rest:?} is written {site}: give the EdgePool of that site the same spec.site"
                ));
            }
            spec.insert("scope".into(), json!("Site"));
            spec.insert("site".into(), json!(site));
            object_name(&format!("site-{rest}"), 253)
        }
        _ => {
            spec.insert("scope".into(), json!("User"));
            warnings.push(format!(
                "who is granted it is not part of the export: list its users in spec.users, or in a \
                 ConfigMap named in spec.usersFrom (Get-CsUser -Filter {{ExternalAccessPolicy -eq \"{}\"}})",
                rest.replace(['"', '`', '$', '{', '}'], " ")
            ));
            // `tag:global` may not take the Global policy's name.
            match object_name(rest, 249) {
                name if name == "global" || name.starts_with("site-") => format!("tag-{name}"),
                name => name,
            }
        }
    }
}

/// A site's name as a label value: other characters become `-`.
fn site_name(text: &str) -> String {
    let name: String = text
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') {
                c
            } else {
                '-'
            }
        })
        .take(63)
        .collect();
    name.trim_matches(['-', '_', '.']).to_owned()
}
