//! `explain`: the verdict for one chat message, from the objects alone.

use std::fmt::Write;

use xmpp_edge_crds::{
    edge_config::EdgeConfig,
    jid::BareJid,
    sip_address::{AskedAddressFault, asked_address},
    verdict::{self, ExplainError, Explanation, Known},
};

use super::inspection::Inspection;

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unexplained {
    #[error("{which} {text:?}: {source}")]
    Address {
        which: &'static str,
        text: String,
        source: AskedAddressFault,
    },
    #[error(
        "no EdgePool in force serves {from} or {to}: one side must be of an own domain (own domains are {own})"
    )]
    NoPool {
        from: BareJid,
        to: BareJid,
        own: String,
    },
    #[error(transparent)]
    Verdict(#[from] ExplainError),
}

/// Parses an address of the command line, a JID or a URI of SIP; a resource is left out.
///
/// # Errors
/// [`Unexplained::Address`].
pub(crate) fn address(which: &'static str, text: &str) -> Result<BareJid, Unexplained> {
    asked_address(text).map_err(|source| Unexplained::Address {
        which,
        text: text.to_owned(),
        source,
    })
}

/// The verdict of the preferred pool that serves either side.
///
/// # Errors
/// [`Unexplained`].
pub(crate) fn explain(
    inspection: &Inspection,
    from: &BareJid,
    to: &BareJid,
) -> Result<Explanation, Unexplained> {
    let configs = || {
        inspection
            .namespaces
            .iter()
            .flat_map(|namespace| namespace.compiled.configs.values())
    };
    let serves = |config: &&EdgeConfig| {
        config.domains.contains(from.domain()) || config.domains.contains(to.domain())
    };
    let rank = |config: &&EdgeConfig| {
        let edge = config.edges.iter().find(|edge| edge.pool == config.pool);
        (edge.map(|edge| edge.priority), config.pool.clone())
    };
    let config = configs()
        .filter(serves)
        .min_by_key(rank)
        .ok_or_else(|| Unexplained::NoPool {
            from: from.clone(),
            to: to.clone(),
            own: crate::text::listed(
                configs()
                    .flat_map(|config| &config.domains)
                    .map(AsRef::<str>::as_ref),
            ),
        })?;
    Ok(verdict::explain(config, from, to, Known::default())?)
}

/// As a person reads it.
#[must_use]
pub(crate) fn text(explanation: &Explanation) -> String {
    let verdict = match (
        explanation.reason,
        explanation.audited,
        explanation.depends_on_contact,
    ) {
        (Some(reason), _, _) => format!("refused: {}", reason.as_str()),
        (None, true, _) => "passes, because the policy is in mode Audit".to_owned(),
        (None, false, true) => "passes once the user has added the remote address".to_owned(),
        (None, false, false) => "passes".to_owned(),
    };
    let mut text = format!(
        "{} -> {} ({:?}): {verdict}\n",
        explanation.from, explanation.to, explanation.direction
    );
    for rule in &explanation.rules {
        let object = rule
            .object
            .as_deref()
            .map_or(String::new(), |object| format!(" [{object}]"));
        let _ = writeln!(
            text,
            "  {:?}: {:?}{object}: {}",
            rule.rule, rule.outcome, rule.text
        );
    }
    text
}
