//! The sidecar's own key, by which pools know it (`spec.gateways[].sidecar.keys`): made once, never
//! overwritten. Nothing secret is copied anywhere, nothing expires; who takes the key from the list takes
//! the sidecar away.

use zeroize::Zeroizing;

use super::state::{Access, StateDir, StateError};
use crate::{
    config::PemPair,
    tls::{Identity, OwnKey, SpkiSha256},
};

const KEY: &str = "tls.key";
const CERTIFICATE: &str = "tls.crt";
/// Said where a new key would come in place of one that is listed.
const ANEW: &str =
    "the pools must list the new key: `xmpp-edge-proxy sidecar key --state DIR` prints it";

/// Key and self-signed certificate of a sidecar.
#[derive(Debug)]
pub struct SidecarIdentity {
    spki_sha256: SpkiSha256,
    pair: PemPair,
}

impl SidecarIdentity {
    /// The key that the state folder has, or a new one where it has none.
    ///
    /// # Errors
    /// [`StateError`]; what is there and cannot be used stays as it is.
    pub fn ensure(state: &StateDir) -> Result<Self, StateError> {
        let _lock = state.lock()?;
        let broken = |name: &str, cause: String| StateError::Broken {
            path: state.path(name),
            cause,
            together: vec![state.path(KEY), state.path(CERTIFICATE)],
            anew: ANEW,
        };
        let held = state.read(KEY, Access::Owner)?;
        let certificate = state.read(CERTIFICATE, Access::Everybody)?;
        let key = match (&held, &certificate) {
            (Some(text), _) => {
                OwnKey::from_pem(text).map_err(|fault| broken(KEY, fault.to_string()))?
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
        let certificate = match certificate {
            Some(certificate) => certificate,
            None => {
                let made = Zeroizing::new(key.certificate()?);
                state.write(CERTIFICATE, &made, Access::Everybody)?;
                made
            }
        };
        let pair = PemPair {
            chain: certificate.to_string(),
            key: held.unwrap_or_else(|| key.to_pem()),
        };
        let origin = state.path(CERTIFICATE).display().to_string();
        Identity::from_pem(&pair.chain, pair.key.as_str(), &origin)
            .map_err(|fault| broken(CERTIFICATE, fault.to_string()))?;
        Ok(Self {
            spki_sha256: key.spki_sha256(),
            pair,
        })
    }

    /// SHA-256 over the SubjectPublicKeyInfo, as pools list it.
    #[must_use]
    pub fn spki_sha256(&self) -> SpkiSha256 {
        self.spki_sha256
    }

    /// What the sidecar shows to edges: certificate and key that belong together.
    #[must_use]
    pub fn pair(&self) -> &PemPair {
        &self.pair
    }
}
