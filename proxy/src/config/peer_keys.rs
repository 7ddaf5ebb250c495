//! Keys that partners prove to have: told to whoever remembers them, judged elsewhere.
//!
//! Only keys of streams that a certificate authenticated count: what dialback vouches for is an
//! address, not a key. Nothing is remembered here; what is known comes back with the configuration.

use tokio::sync::mpsc;
use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{OnKeyChange, Partner},
};

use super::ActiveConfig;
use crate::tls::{KeyStanding, SpkiSha256, TlsFacts};

/// A key that is neither pinned nor known, on an authenticated stream of a partner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerKey {
    /// Name of the partner's object.
    pub partner: String,
    pub key: SpkiSha256,
}

/// What an accepted key means to its partner's `onKeyChange`.
#[derive(Debug)]
pub struct NewKey<'a> {
    pub partner: &'a Partner,
    pub key: SpkiSha256,
    /// Others are pinned or known.
    pub changed: bool,
}

/// What is new about the key that authenticated a stream of `peer`; nothing where its partner does
/// not ask (`Ignore`), or where the key is on record.
#[must_use]
pub fn judge<'a>(
    config: &'a ActiveConfig,
    peer: &DomainName,
    tls: Option<TlsFacts<'_>>,
) -> Option<NewKey<'a>> {
    let index = config.partner_index(peer)?.as_usize();
    let partner = &config.document.partners[index];
    if partner.trust.on_key_change == OnKeyChange::Ignore {
        return None;
    }
    let key = crate::tls::spki_sha256(tls?.peer_chain.first()?).ok()?;
    let changed = match config.partner_trust[index].standing(&key) {
        KeyStanding::OnRecord => return None,
        KeyStanding::First => false,
        KeyStanding::Changed => true,
    };
    Some(NewKey {
        partner,
        key,
        changed,
    })
}

/// Tells of a key. One that finds no room is told again with the partner's next stream.
pub fn tell(to: Option<&mpsc::Sender<PeerKey>>, new: &NewKey<'_>) {
    if let Some(to) = to {
        let told = to.try_send(PeerKey {
            partner: new.partner.name.clone(),
            key: new.key,
        });
        if let Err(error) = told {
            tracing::debug!(partner = new.partner.name, %error, "a partner's key is not recorded");
        }
    }
}
