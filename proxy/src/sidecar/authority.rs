//! The authority towards the server beside the sidecar. It issues leaves for everybody's domains but the
//! organisation's own; no server but this one trusts it.
//!
//! Its key is made once. Its certificate, `public/ca.crt`, is signed anew with the same key and name when own
//! domains change and when a third of its life is left: a server that has read the one before still takes
//! leaves of the new one.

use jiff::Timestamp;
use xmpp_edge_crds::{domain::DomainName, pem, sidecar_config::SidecarConfig};

use super::state::{Access, StateDir, StateError};
use crate::{
    config::PemPair,
    tls::{AUTHORITY_VALID, LeafIssuer, OwnKey, excluded_names, not_after},
};

const KEY: &str = "loopback-ca.key";
const CERTIFICATE: &str = "public/ca.crt";
/// Said where a new authority would come in place of one that the server has read.
const ANEW: &str = "the server must be started again, so that it reads the new certificate";

/// The authority: what leaves are issued from, and what the server is to trust.
#[derive(Debug)]
pub struct LoopbackAuthority(PemPair);

impl LoopbackAuthority {
    /// The authority that the state folder has, or a new one, with all own domains of `config` excluded.
    ///
    /// # Errors
    /// [`StateError`]; what is there and cannot be used stays as it is.
    pub fn ensure(
        state: &StateDir,
        config: &SidecarConfig,
        now: Timestamp,
    ) -> Result<Self, StateError> {
        let mut own: Vec<_> = config.own_domains().cloned().collect();
        own.sort();
        let _lock = state.lock()?;
        let broken = |name: &str, cause: String| StateError::Broken {
            path: state.path(name),
            cause,
            together: vec![state.path(KEY), state.path(CERTIFICATE)],
            anew: ANEW,
        };
        let held = state.read(KEY, Access::Owner)?;
        let certificate = state.read(CERTIFICATE, Access::Everybody)?;
        let key = match (held, &certificate) {
            (Some(text), _) => {
                OwnKey::from_pem(&text).map_err(|fault| broken(KEY, fault.to_string()))?
            }
            (None, Some(_)) => {
                let cause = format!("its key {} is gone", state.path(KEY).display());
                return Err(broken(CERTIFICATE, cause));
            }
            (None, None) => {
                let made = OwnKey::generate()?;
                state.write(KEY, &made.to_pem(), Access::Owner)?;
                made
            }
        };
        let pair = |chain: &str| PemPair {
            chain: chain.to_owned(),
            key: key.to_pem(),
        };
        if let Some(certificate) = certificate {
            let pair = pair(&certificate);
            let origin = state.path(CERTIFICATE).display().to_string();
            // A certificate of another key says that the key is not the one it was made with.
            LeafIssuer::new(&pair.chain, &pair.key, &origin)
                .map_err(|fault| broken(CERTIFICATE, fault.to_string()))?;
            let standing = AuthorityStanding::of(&certificate, &own, now)
                .map_err(|cause| broken(CERTIFICATE, cause))?;
            if standing == AuthorityStanding::Good {
                return Ok(Self(pair));
            }
        }
        let certificate = key.authority(&own, now)?;
        state.write(CERTIFICATE, &certificate, Access::Everybody)?;
        Ok(Self(pair(&certificate)))
    }

    /// Certificate and key that belong together.
    #[must_use]
    pub fn pair(&self) -> &PemPair {
        &self.0
    }
}

/// Whether a certificate of ours is still the one that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AuthorityStanding {
    Good,
    /// Soon over, or with other domains excluded.
    Outdated,
}

impl AuthorityStanding {
    fn of(certificate: &str, own: &[DomainName], now: Timestamp) -> Result<Self, String> {
        let chain = pem::certificates(certificate).map_err(|fault| fault.to_string())?;
        let first = chain.first().ok_or("holds no certificate")?;
        let end = not_after(first).map_err(|fault| fault.to_string())?;
        let excluded = excluded_names(first).map_err(|fault| fault.to_string())?;
        let same = excluded
            .iter()
            .map(String::as_str)
            .eq(own.iter().map(DomainName::as_str));
        let lasts = end.duration_since(now) > AUTHORITY_VALID / 3;
        Ok(if same && lasts {
            Self::Good
        } else {
            Self::Outdated
        })
    }
}
