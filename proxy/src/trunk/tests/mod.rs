//! Trunks without sockets, on real routes.

mod halves;
mod simulation;

use std::{sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use xmpp_edge_crds::domain::DomainName;

use super::*;
use crate::{
    config::fixture,
    negotiation::Pair,
    routing::{
        acknowledgement::AckTracker,
        batch::{Batch, BatchBuilder},
        dial_ticket::DialRequests,
        router::Router,
    },
    telemetry::metrics::Metrics,
};

fn domain(name: &str) -> DomainName {
    DomainName::parse(name).expect("valid")
}

pub(super) fn pair(number: usize) -> Pair {
    Pair {
        from: domain("org.example"),
        to: domain(&format!("x{number}.example")),
    }
}

pub(super) fn router() -> (Arc<Router>, DialRequests) {
    let config = Arc::new(ArcSwap::from_pointee(fixture::active_config(|_| ())));
    Router::new(config, Arc::new(Metrics::new()), Arc::default())
}

/// `count` stanzas of a pair from number `first` on.
pub(super) fn batch(
    number: usize,
    first: u64,
    count: u64,
    ledger: Option<&Arc<AckTracker>>,
) -> Batch {
    let mut builder = BatchBuilder::default();
    for id in first..first + count {
        builder.add(id, 100, |out| {
            let stanza =
                format!("<message from='a@org.example' to='b@x{number}.example' id='{id}'/>");
            out.extend_from_slice(stanza.as_bytes());
        });
    }
    builder.take(ledger, Instant::now()).expect("some")
}
