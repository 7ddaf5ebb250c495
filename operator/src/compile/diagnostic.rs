//! What the compile step has to say about each object: the very conditions of its status.

use std::fmt;

use serde::Serialize;
use xmpp_edge_crds::kinds::conditions::{ConditionType, Reason};

/// The kinds that are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Kind {
    EdgePool,
    XmppFederatedPartner,
    ExternalAccessPolicy,
}

impl Kind {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EdgePool => "EdgePool",
            Self::XmppFederatedPartner => "XmppFederatedPartner",
            Self::ExternalAccessPolicy => "ExternalAccessPolicy",
        }
    }

    /// The kind of this name, where it is one of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::EdgePool,
            Self::XmppFederatedPartner,
            Self::ExternalAccessPolicy,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == text)
    }
}

/// An object by kind and name; the namespace is the one that is compiled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectRef {
    pub kind: Kind,
    pub name: String,
}

impl ObjectRef {
    #[must_use]
    pub fn new(kind: Kind, name: &str) -> Self {
        Self {
            kind,
            name: name.to_owned(),
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.kind.as_str(), self.name)
    }
}

/// How much a diagnostic matters to `validate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Severity {
    /// Nothing to do.
    Info,
    /// Something may not be meant so.
    Warning,
    /// The object is not accepted.
    Error,
}

/// One condition of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    #[serde(flatten)]
    pub object: ObjectRef,
    #[serde(serialize_with = "shown")]
    pub condition: ConditionType,
    /// Whether the condition holds.
    pub status: bool,
    #[serde(serialize_with = "shown")]
    pub reason: Reason,
    pub message: String,
    pub severity: Severity,
}

fn shown<T: fmt::Display, S: serde::Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

impl Diagnostic {
    /// `Accepted=False`: the error of an object.
    #[must_use]
    pub fn rejected(object: ObjectRef, fault: &Fault, last_good: bool) -> Self {
        let stays = if last_good {
            "; the last good form stays in force"
        } else {
            ""
        };
        Self {
            object,
            condition: ConditionType::Accepted,
            status: false,
            reason: fault.reason,
            message: format!("{}{stays}", fault.message),
            severity: Severity::Error,
        }
    }

    /// `Accepted=True`, with something to know or nothing.
    #[must_use]
    pub fn accepted(object: ObjectRef, severity: Severity, message: impl Into<String>) -> Self {
        Self {
            object,
            condition: ConditionType::Accepted,
            status: true,
            reason: Reason::Accepted,
            message: message.into(),
            severity,
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        let status = if self.status { "True" } else { "False" };
        write!(
            f,
            "{severity}: {}: {}={status}, {}: {}",
            self.object, self.condition, self.reason, self.message
        )
    }
}

/// Why an object does not compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub reason: Reason,
    pub message: String,
}

impl Fault {
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}
