//! A pool's certificate that somebody else keeps in the pods' very Secret: cert-manager, or whoever
//! writes the Secret that `secretRef` names. It is looked at here, and never written.

use xmpp_edge_crds::kinds::conditions::Reason;

use super::{Backend, BackendFault, CertificateSpec, Evaluation, given};
use crate::secrets::{
    CertificateError,
    store::{ManagedSecret, SecretData, Store},
};

/// Somebody else keeps `<pool>-tls` itself: it is looked at, and never written.
#[derive(Debug)]
pub struct Followed {
    pub keeper: Keeper,
}

/// Who keeps the Secret that pods mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// By a Certificate of the pool's name.
    CertManager,
    /// The pool's `secretRef` names the very Secret.
    Somebody,
}

impl Backend for Followed {
    fn evaluate(
        &self,
        wanted: &CertificateSpec<'_>,
        held: &SecretData,
        _store: &mut dyn Store,
    ) -> Result<Evaluation, CertificateError> {
        let name = || ManagedSecret::PoolPair(wanted.pool.to_owned()).to_string();
        let missing = !held.contains_key("tls.crt") && !held.contains_key("tls.key");
        let fault = match self.keeper {
            Keeper::CertManager if missing => Some(BackendFault::NotIssued {
                certificate: wanted.pool.to_owned(),
                progress: Progress::Unseen,
            }),
            Keeper::Somebody if held.is_empty() => {
                Some(BackendFault::SecretMissing { name: name() })
            }
            Keeper::CertManager | Keeper::Somebody => given(&name(), held, wanted).err(),
        };
        Ok(Evaluation {
            fault,
            ..Evaluation::default()
        })
    }
}

/// How far cert-manager is with a Certificate that is not as it should be; in its own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Progress {
    #[error(
        "cert-manager has said nothing of it yet; where that stays so, see that its controller runs and watches this namespace"
    )]
    Unseen,
    /// It works on it, or waits for somebody.
    #[error("cert-manager waits ({reason}: {message}){}", if self.lacks_reference() {
        ": see that the issuer of spec.certificate.certManager.issuerRef exists and is Ready, with the Secret that it uses"
    } else if reason == "NotApproved" {
        ": approve it, or let the cluster's approver do so"
    } else {
        ""
    })]
    Waiting { reason: String, message: String },
    /// It gave up for now, and tries again by and by.
    #[error("cert-manager could not issue it ({reason}: {message}): {}{}", if reason == "Denied" {
        "let the cluster's approval policy admit these names for this issuer, then delete the CertificateRequest"
    } else {
        "mend what it says; it is tried again by itself, at once after `cmctl renew`"
    }, if self.lacks_common_name() {
        "; set spec.certificate.certManager.commonName"
    } else {
        ""
    })]
    Failed { reason: String, message: String },
}

impl Progress {
    /// Whether something that somebody has to make is not there: cert-manager has one wording for
    /// issuers and their Secrets, and no reason of its own.
    fn lacks_reference(&self) -> bool {
        matches!(self, Self::Waiting { message, .. } if message.starts_with("Referenced "))
    }

    /// Whether an issuer insists on a common name, as Vault does unless `require_cn` is false.
    fn lacks_common_name(&self) -> bool {
        let Self::Failed { message, .. } = self else {
            return false;
        };
        ["common_name", "commonName"]
            .iter()
            .any(|name| message.contains(name))
    }

    /// Whether it goes on without anybody.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        match self {
            Self::Unseen => true,
            Self::Waiting { reason, .. } => !self.lacks_reference() && reason != "NotApproved",
            Self::Failed { .. } => false,
        }
    }

    /// Reason of the condition.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Waiting { .. } if self.lacks_reference() => Reason::ReferenceMissing,
            Self::Unseen | Self::Waiting { .. } => Reason::Issuing,
            Self::Failed { .. } => Reason::IssuanceFailed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_that_insists_on_a_common_name_is_told_with_the_field() {
        for (message, told) in [
            (
                "Vault failed to sign certificate: the common_name field is required, or must be provided in a CSR with \"use_csr_common_name\" set to true, unless \"require_cn\" is set to false",
                true,
            ),
            ("commonName: Required value", true),
            ("quota exceeded", false),
        ] {
            let progress = Progress::Failed {
                reason: "Failed".to_owned(),
                message: message.to_owned(),
            };
            let said = progress.to_string();
            let ends = said.ends_with("; set spec.certificate.certManager.commonName");
            assert_eq!(ends, told, "{said}");
        }
    }
}
