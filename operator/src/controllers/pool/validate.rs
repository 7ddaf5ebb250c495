//! What neither the schema nor compiling can refuse: domains that the namespace may not have.

use xmpp_edge_crds::{domain::DomainName, edge_config::EdgeConfig, kinds::conditions::Reason};

use crate::{compile::Fault, controllers::namespace::snapshot::AllowedDomains};

/// Names of the pool that its namespace may not have, where the operator was told which it may.
#[must_use]
pub fn not_allowed(config: &EdgeConfig, allowed: Option<&AllowedDomains>) -> Vec<DomainName> {
    let Some(allowed) = allowed else {
        return Vec::new();
    };
    let mut names = config.certificate_names();
    names.retain(|name| !allowed.allow(&config.namespace, name));
    names
}

/// The fault of [`not_allowed`].
#[must_use]
pub fn not_allowed_fault(names: &[DomainName], namespace: &str) -> Fault {
    let listed = crate::text::listed(names.iter().map(DomainName::as_str));
    Fault::new(
        Reason::DomainNotAllowed,
        format!(
            "namespace {namespace:?} may not have {listed}: nothing is asked of DNS or cert-manager for this pool; add them to chart value allowedDomains, or remove them from the pool"
        ),
    )
}
