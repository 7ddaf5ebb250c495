//! How far the watches are, and what is wrong with them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use kube::runtime::watcher;

use crate::runtime::watch_name::WatchName;

/// How far a watch is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct WatchState {
    /// Whether it has brought a whole list. What was read stays, whatever fails later.
    pub(super) listed: bool,
    /// What was wrong with it last, until it says something again.
    pub(super) fault: Option<WatchFault>,
}

impl WatchState {
    /// Whether it may not be read, and never was.
    fn is_refused(&self) -> bool {
        !self.listed && matches!(self.fault, Some(WatchFault::Refused(_)))
    }
}

/// Whether a namespace is watched, and every watch of it has brought a whole list.
pub(super) fn is_read(watches: &BTreeMap<WatchName, WatchState>, namespace: &str) -> bool {
    let is_of = |name: &WatchName| name.namespace.as_deref().is_none_or(|it| it == namespace);
    let mut of = watches.iter().filter(|(name, _)| is_of(name)).peekable();
    of.peek().is_some() && of.all(|(_, state)| state.listed)
}

/// Namespaces that may not be read, so that nobody acts in them.
pub(super) fn refused(watches: &BTreeMap<WatchName, WatchState>) -> BTreeSet<String> {
    let refused = watches.iter().filter(|(_, state)| state.is_refused());
    refused
        .filter_map(|(name, _)| name.namespace.clone())
        .collect()
}

/// What is wrong with a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchFault {
    /// Its CustomResourceDefinition is not installed.
    KindMissing,
    /// The operator has no right to read there (any more): the Role or the namespace is gone.
    Refused(String),
    Failed(String),
}

impl WatchFault {
    pub(super) fn of(error: &watcher::Error) -> Self {
        match error {
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            | watcher::Error::WatchFailed(kube::Error::Api(status))
            | watcher::Error::WatchError(status) => match status.code {
                404 => Self::KindMissing,
                403 => Self::Refused(bounded(&status.message)),
                _ => Self::Failed(bounded(&status.message)),
            },
            _ => Self::Failed(bounded(&error.to_string())),
        }
    }

    /// In a word.
    pub(super) fn sort(&self) -> &'static str {
        match self {
            Self::KindMissing => "KindMissing",
            Self::Refused(_) => "Refused",
            Self::Failed(_) => "Failed",
        }
    }
}

impl fmt::Display for WatchFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KindMissing => f.write_str(
                "is not known to the API server: install the CustomResourceDefinitions (chart value crds.enabled, or `xmpp-edge-operator crds | kubectl apply --server-side -f -`)",
            ),
            Self::Refused(error) => write!(
                f,
                "may not be read ({error}): give the operator its Role there, or take the namespace out of those that are watched (chart value watchNamespaces)"
            ),
            Self::Failed(error) => write!(f, "cannot be read: {error}"),
        }
    }
}

/// Messages of the API server are shown this far, in bytes.
const MAX_MESSAGE: usize = 300;

fn bounded(message: &str) -> String {
    message[..message.floor_char_boundary(MAX_MESSAGE)].to_owned()
}

/// What is not as it should be with the watches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Whether this replica can act: at least one namespace is read, and of the others none is still
    /// being read.
    pub ready: bool,
    /// One line for each watch that is not well, those of a namespace that may not be read together.
    pub lines: Vec<String>,
}

pub(super) fn readiness(watches: Option<&BTreeMap<WatchName, WatchState>>) -> Readiness {
    let Some(watches) = watches else {
        return Readiness::default();
    };
    let mut found = Readiness {
        ready: true,
        lines: Vec::new(),
    };
    let mut any_read = false;
    let mut namespaces: BTreeMap<&Option<String>, Vec<(&WatchName, &WatchState)>> = BTreeMap::new();
    for (name, state) in watches {
        namespaces
            .entry(&name.namespace)
            .or_default()
            .push((name, state));
    }
    for (namespace, watches) in namespaces {
        let read = watches.iter().all(|(_, state)| state.listed);
        any_read |= read;
        let refused = watches.iter().find(|(_, state)| state.is_refused());
        if let (Some(namespace), Some((name, state))) = (namespace, refused) {
            let fault = state.fault.as_ref().map(ToString::to_string);
            let fault = fault.unwrap_or_default();
            let line = format!("namespace {namespace} is not served: {} {fault}", name.kind);
            found.lines.push(line);
            continue;
        }
        found.ready &= read;
        for (name, state) in watches {
            match &state.fault {
                Some(fault) => found.lines.push(format!("{name} {fault}")),
                None if !state.listed => found.lines.push(format!("{name} is being read")),
                None => {}
            }
        }
    }
    found.ready &= any_read;
    found
}

/// The API server's answer, where it gave one.
pub(crate) fn status_code(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => Some(status.code),
        watcher::Error::WatchError(status) => Some(status.code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watches(states: &[(&str, bool, Option<WatchFault>)]) -> BTreeMap<WatchName, WatchState> {
        let kinds = ["EdgePool", "Secret"];
        let states = states.iter().flat_map(|(namespace, listed, fault)| {
            kinds.map(|kind| {
                let name = WatchName {
                    namespace: Some((*namespace).to_owned()),
                    kind: kind.to_owned(),
                };
                let state = WatchState {
                    listed: *listed,
                    fault: fault.clone(),
                };
                (name, state)
            })
        });
        states.collect()
    }

    #[test]
    fn a_namespace_is_read_where_all_of_it_was_and_it_is_watched() {
        let some = watches(&[("a", true, None), ("b", false, None)]);
        for (namespace, expected) in [("a", true), ("b", false), ("unwatched", false)] {
            assert_eq!(is_read(&some, namespace), expected, "{namespace}");
        }
        assert!(!is_read(&BTreeMap::new(), "a"));
    }

    #[test]
    fn a_namespace_that_may_not_be_read_is_not_waited_for_and_is_named() {
        let refused = || Some(WatchFault::Refused("edgepools is forbidden".into()));
        let failed = || Some(WatchFault::Failed("no route".into()));
        let missing = || Some(WatchFault::KindMissing);
        let table = [
            (
                "all read",
                watches(&[("a", true, None), ("b", true, None)]),
                true,
                0,
            ),
            (
                "one is being read",
                watches(&[("a", true, None), ("b", false, None)]),
                false,
                2,
            ),
            (
                "one is refused",
                watches(&[("a", true, None), ("b", false, refused())]),
                true,
                1,
            ),
            (
                "all are refused",
                watches(&[("a", false, refused()), ("b", false, refused())]),
                false,
                2,
            ),
            (
                "one is refused, the other being read",
                watches(&[("a", false, None), ("b", false, refused())]),
                false,
                3,
            ),
            (
                "the server fails",
                watches(&[("a", true, None), ("b", false, failed())]),
                false,
                2,
            ),
            (
                "the kinds are missing",
                watches(&[("a", false, missing())]),
                false,
                2,
            ),
            (
                "a watch fails after its first list",
                watches(&[("a", true, failed())]),
                true,
                2,
            ),
            (
                "the right is gone after the first list",
                watches(&[("a", true, refused())]),
                true,
                2,
            ),
        ];
        for (case, watches, ready, lines) in table {
            let found = readiness(Some(&watches));
            assert_eq!(
                (found.ready, found.lines.len()),
                (ready, lines),
                "{case}: {found:?}"
            );
            let refused = super::refused(&watches);
            let named = found.lines.iter().filter(|it| it.contains("is not served"));
            assert_eq!(refused.len(), named.count(), "{case}: {refused:?}");
        }
        assert!(!readiness(None).ready, "none is registered yet");
    }
}
