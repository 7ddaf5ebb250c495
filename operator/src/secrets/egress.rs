//! The egress proxy's credentials as a Secret says them: `username` and `password`, as
//! `kubernetes.io/basic-auth` has them.

use xmpp_edge_crds::{
    egress::{EgressCredentials, EgressCredentialsError},
    kinds::EdgePool,
};

use super::store::SecretData;

/// Key of the user name, and of the password.
pub const KEYS: [&str; 2] = ["username", "password"];

/// Why there are no credentials. Never quotes them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "spec.settings.egressProxy.secretRef: Secret {name:?}: {fault}; it needs the keys \"username\" and \"password\", as type kubernetes.io/basic-auth has them"
)]
pub struct EgressSecretError {
    name: String,
    fault: EgressCredentialsError,
}

/// Name of the Secret that the pool's egress proxy wants, where it wants one.
#[must_use]
pub fn secret_of(pool: &EdgePool) -> Option<&str> {
    let proxy = pool.spec.settings.egress_proxy.as_ref()?;
    proxy.secret_ref.as_ref().map(|secret| secret.name.as_str())
}

/// Reads the Secret of this name; `None`: there is none.
///
/// # Errors
/// [`EgressSecretError`].
pub fn credentials(
    name: &str,
    secret: Option<&SecretData>,
) -> Result<EgressCredentials, EgressSecretError> {
    let [username, password] = KEYS.map(|key| {
        secret
            .and_then(|secret| secret.get(key))
            .map(|value| value.as_slice())
    });
    EgressCredentials::parse(username, password).map_err(|fault| EgressSecretError {
        name: name.to_owned(),
        fault,
    })
}
