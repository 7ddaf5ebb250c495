//! What a watch is called, in logs, metrics and readiness.

use std::fmt;

/// One watch: a kind in a namespace, or in the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatchName {
    /// `None`: every namespace.
    pub namespace: Option<String>,
    pub kind: String,
}

impl fmt::Display for WatchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} in {namespace}", self.kind),
            None => f.write_str(&self.kind),
        }
    }
}
