//! Whether a sidecar reaches the server beside it: noticed when it is dialled for a stanza, then tried until it
//! answers. Edges are told both times.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::domain::DomainName;

use crate::{
    negotiation::{KeyVerification, Pair, Purpose, Side, Unavailable, VerifyRequest, WireNames},
    stream::{connect, context::StreamContext},
    trunk::nonza::ServerState,
};

/// Between two questions to a server that is away.
const PAUSE: Duration = Duration::from_secs(1);
/// How long its answer may take.
const ANSWER: Duration = Duration::from_secs(2);
/// As whom the server is asked, about a key that is nobody's.
const ASKS: &str = "probe.xmpp-edge.internal";

/// Asks a server that is away whether it is back, until `stop`.
pub async fn watch(context: Arc<StreamContext>, stop: CancellationToken) {
    loop {
        let mut news = std::pin::pin!(context.trunks.news());
        news.as_mut().enable();
        if context.trunks.own_server() == ServerState::Up {
            tokio::select! {
                () = news => continue,
                () = stop.cancelled() => return,
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stop.cancelled() => return,
        }
        let answers = tokio::select! {
            answers = tokio::time::timeout(ANSWER, answers(&context)) => answers == Ok(true),
            () = stop.cancelled() => return,
        };
        if answers && context.trunks.own_server_is(ServerState::Up) {
            context.router.signed(|side, _| side == Side::Gateway);
        }
    }
}

/// Whether the server takes a stream, and says anything on it.
async fn answers(context: &Arc<StreamContext>) -> bool {
    let config = context.config();
    let (Some(own), Ok(asks)) = (config.document.domains.first(), DomainName::parse(ASKS)) else {
        return false;
    };
    let question = VerifyRequest {
        pair: Pair {
            from: own.clone(),
            to: asks,
        },
        stream_id: config.dialback.new_stream_id(),
        key: "0".to_owned(),
        names: WireNames::default(),
    };
    let verdict = connect::ask(context, Side::Gateway, Purpose::Verify(question)).await;
    matches!(
        verdict,
        KeyVerification::Valid
            | KeyVerification::Invalid
            | KeyVerification::Unavailable(Unavailable::Refused)
    )
}
