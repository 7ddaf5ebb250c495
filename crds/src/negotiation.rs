//! The negotiation rule: which authentication methods a partner's three settings leave usable.
//!
//! Three lines reproduce all 18 rows of Lync's matrix (docs: behaviour, "Negotiation with a
//! partner"); what Lync's own panel refused is refused here too.

use serde::{Deserialize, Serialize};
use std::fmt;

/// `tlsNegotiation` and `saslNegotiation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kinds", derive(schemars::JsonSchema))]
pub enum Requirement {
    /// Must be negotiated.
    #[default]
    Required,
    /// Used where the partner has it.
    Optional,
    /// Never used.
    NotSupported,
}

/// How a domain is authenticated on a stream, in the order in which they are preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "kinds", derive(schemars::JsonSchema))]
pub enum Method {
    /// SASL EXTERNAL with a certificate valid for the domain (XEP-0178).
    SaslOverTls,
    /// Server Dialback inside TLS (XEP-0220).
    TlsDialback,
    /// Server Dialback over plain TCP.
    TcpDialback,
}

impl Method {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SaslOverTls => "SaslOverTls",
            Self::TlsDialback => "TlsDialback",
            Self::TcpDialback => "TcpDialback",
        }
    }
}
impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The three settings as they stand in a partner or a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Negotiation {
    pub tls: Requirement,
    pub sasl: Requirement,
    pub dialback: bool,
}

/// Whether the administrator said which certificate a peer must have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyBinding {
    #[default]
    Open,
    /// Pinned keys, a CA of its own, or `onKeyChange: Refuse`. Dialback proves who controls the
    /// domain's DNS and no key, so that it is not usable: it would let in whoever took that over.
    Bound,
}

impl KeyBinding {
    /// `Bound` where any of the settings binds.
    #[must_use]
    pub fn of(own_ca: bool, pins: bool, refuses_changes: bool) -> Self {
        if own_ca || pins || refuses_changes {
            Self::Bound
        } else {
            Self::Open
        }
    }
}

/// The usable methods: never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<Method>", into = "Vec<Method>")]
pub struct MethodSet {
    sasl_over_tls: bool,
    tls_dialback: bool,
    tcp_dialback: bool,
}

/// Why three settings do not make a negotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NegotiationError {
    #[error(
        "saslNegotiation needs TLS, but tlsNegotiation is NotSupported: set saslNegotiation to NotSupported, or allow TLS"
    )]
    SaslWithoutTls,
    #[error(
        "no authentication method is left: enable saslNegotiation, or set supportDialbackNegotiation to true"
    )]
    NoMethod,
    #[error(
        "these settings allow dialback over plain TCP: set tlsNegotiation to Required, or say allowPlaintext: true"
    )]
    PlaintextNotAllowed,
    #[error(
        "a pinned key, an own CA and onKeyChange: Refuse bind the certificate, which dialback does not prove, so that no authentication method is left: set saslNegotiation to Required or Optional, or take them out of trust"
    )]
    DialbackProvesNoKey,
}

impl Negotiation {
    /// The rule, without the question whether plaintext is opted into.
    ///
    /// # Errors
    /// [`NegotiationError::SaslWithoutTls`], [`NegotiationError::NoMethod`],
    /// [`NegotiationError::DialbackProvesNoKey`].
    pub fn methods(self, keys: KeyBinding) -> Result<MethodSet, NegotiationError> {
        self.by_settings()?
            .under(keys)
            .ok_or(NegotiationError::DialbackProvesNoKey)
    }

    fn by_settings(self) -> Result<MethodSet, NegotiationError> {
        use Requirement::{NotSupported, Required};
        if self.sasl != NotSupported && self.tls == NotSupported {
            return Err(NegotiationError::SaslWithoutTls);
        }
        let set = MethodSet {
            sasl_over_tls: self.tls != NotSupported && self.sasl != NotSupported,
            tls_dialback: self.dialback
                && self.tls != NotSupported
                && !(self.tls == Required && self.sasl == Required),
            tcp_dialback: self.dialback && self.tls != Required,
        };
        if set.iter().next().is_none() {
            return Err(NegotiationError::NoMethod);
        }
        Ok(set)
    }

    /// The rule for partners, who need `allowPlaintext` where plaintext is possible.
    ///
    /// # Errors
    /// As [`Self::methods`], and [`NegotiationError::PlaintextNotAllowed`].
    pub fn partner_methods(
        self,
        keys: KeyBinding,
        allow_plaintext: bool,
    ) -> Result<MethodSet, NegotiationError> {
        if self.by_settings()?.tcp_dialback && !allow_plaintext {
            return Err(NegotiationError::PlaintextNotAllowed);
        }
        self.methods(keys)
    }

    /// Whether dialback is switched on although it can never be used.
    #[must_use]
    pub fn dialback_is_dead(self) -> bool {
        self.dialback && self.tls == Requirement::Required && self.sasl == Requirement::Required
    }

    /// Whether dialback would be usable but for the keys that are bound.
    #[must_use]
    pub fn loses_dialback(self, keys: KeyBinding) -> bool {
        keys == KeyBinding::Bound && self.by_settings().is_ok_and(MethodSet::allows_dialback)
    }
}

impl MethodSet {
    /// SASL EXTERNAL over TLS and nothing else.
    pub const EXTERNAL: Self = Self {
        sasl_over_tls: true,
        tls_dialback: false,
        tcp_dialback: false,
    };

    /// What is left of the set where keys are bound; `None` if nothing is.
    #[must_use]
    pub fn under(self, keys: KeyBinding) -> Option<Self> {
        match keys {
            KeyBinding::Open => Some(self),
            KeyBinding::Bound => self.sasl_over_tls.then_some(Self::EXTERNAL),
        }
    }

    #[must_use]
    pub fn contains(self, method: Method) -> bool {
        match method {
            Method::SaslOverTls => self.sasl_over_tls,
            Method::TlsDialback => self.tls_dialback,
            Method::TcpDialback => self.tcp_dialback,
        }
    }

    /// Best first.
    pub fn iter(self) -> impl Iterator<Item = Method> {
        [
            Method::SaslOverTls,
            Method::TlsDialback,
            Method::TcpDialback,
        ]
        .into_iter()
        .filter(move |method| self.contains(*method))
    }

    /// Whether any method works inside TLS.
    #[must_use]
    pub fn uses_tls(self) -> bool {
        self.sasl_over_tls || self.tls_dialback
    }

    /// Whether a stream without TLS may carry anything at all.
    #[must_use]
    pub fn allows_plaintext(self) -> bool {
        self.tcp_dialback
    }

    /// Whether dialback is usable, with or without TLS.
    #[must_use]
    pub fn allows_dialback(self) -> bool {
        self.tls_dialback || self.tcp_dialback
    }
}

impl TryFrom<Vec<Method>> for MethodSet {
    type Error = NegotiationError;
    fn try_from(methods: Vec<Method>) -> Result<Self, NegotiationError> {
        if methods.is_empty() {
            return Err(NegotiationError::NoMethod);
        }
        Ok(Self {
            sasl_over_tls: methods.contains(&Method::SaslOverTls),
            tls_dialback: methods.contains(&Method::TlsDialback),
            tcp_dialback: methods.contains(&Method::TcpDialback),
        })
    }
}
impl From<MethodSet> for Vec<Method> {
    fn from(set: MethodSet) -> Self {
        set.iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Method::*, Requirement::*, *};

    /// Lync's complete matrix in page order; `None` is "not valid". Rows 5, 6, 11 and 12 are what
    /// Lync's panel refused to save (SASL without TLS).
    #[test]
    fn the_rule_reproduces_all_18_rows_of_the_matrix() {
        type Row = (
            u8,
            Requirement,
            Requirement,
            bool,
            Result<&'static [Method], NegotiationError>,
        );
        let rows: [Row; 18] = [
            (1, Required, Required, true, Ok(&[SaslOverTls])),
            (2, Required, Required, false, Ok(&[SaslOverTls])),
            (
                3,
                Optional,
                Required,
                true,
                Ok(&[SaslOverTls, TlsDialback, TcpDialback]),
            ),
            (4, Optional, Required, false, Ok(&[SaslOverTls])),
            (
                5,
                NotSupported,
                Required,
                true,
                Err(NegotiationError::SaslWithoutTls),
            ),
            (
                6,
                NotSupported,
                Required,
                false,
                Err(NegotiationError::SaslWithoutTls),
            ),
            (7, Required, Optional, true, Ok(&[SaslOverTls, TlsDialback])),
            (8, Required, Optional, false, Ok(&[SaslOverTls])),
            (
                9,
                Optional,
                Optional,
                true,
                Ok(&[SaslOverTls, TlsDialback, TcpDialback]),
            ),
            (10, Optional, Optional, false, Ok(&[SaslOverTls])),
            (
                11,
                NotSupported,
                Optional,
                true,
                Err(NegotiationError::SaslWithoutTls),
            ),
            (
                12,
                NotSupported,
                Optional,
                false,
                Err(NegotiationError::SaslWithoutTls),
            ),
            (13, Required, NotSupported, true, Ok(&[TlsDialback])),
            (
                14,
                Required,
                NotSupported,
                false,
                Err(NegotiationError::NoMethod),
            ),
            (
                15,
                Optional,
                NotSupported,
                true,
                Ok(&[TlsDialback, TcpDialback]),
            ),
            (
                16,
                Optional,
                NotSupported,
                false,
                Err(NegotiationError::NoMethod),
            ),
            (17, NotSupported, NotSupported, true, Ok(&[TcpDialback])),
            (
                18,
                NotSupported,
                NotSupported,
                false,
                Err(NegotiationError::NoMethod),
            ),
        ];
        for (row, tls, sasl, dialback, expected) in rows {
            let negotiation = Negotiation {
                tls,
                sasl,
                dialback,
            };
            let got = negotiation.methods(KeyBinding::Open).map(Vec::from);
            assert_eq!(got.as_deref(), expected.as_ref().map(|m| *m), "row {row}");
            let partner = negotiation.partner_methods(KeyBinding::Open, false);
            let plaintext = expected.is_ok_and(|m| m.contains(&TcpDialback));
            assert_eq!(
                partner == Err(NegotiationError::PlaintextNotAllowed),
                plaintext,
                "row {row}: plaintext needs the opt-in"
            );
            assert_eq!(
                negotiation.partner_methods(KeyBinding::Open, true),
                negotiation.methods(KeyBinding::Open),
                "row {row}"
            );
            // Where keys are bound the certificate is all that counts (S-11).
            let bound = expected.and_then(|methods| {
                if methods.contains(&SaslOverTls) {
                    Ok(vec![SaslOverTls])
                } else {
                    Err(NegotiationError::DialbackProvesNoKey)
                }
            });
            assert_eq!(
                negotiation.methods(KeyBinding::Bound).map(Vec::from),
                bound,
                "row {row}, keys bound"
            );
            assert_eq!(
                negotiation
                    .partner_methods(KeyBinding::Bound, true)
                    .map(Vec::from),
                bound,
                "row {row}, keys bound"
            );
        }
    }
}
