//! Which method a target leaves, best first, and why nothing better. Pure.

use xmpp_edge_crds::negotiation::Method;

/// What of a target counts.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    /// TLS runs.
    pub tls: bool,
    /// TLS was offered, and failed.
    pub tls_failed: bool,
    /// Why the certificate does not count.
    pub certificate: Result<(), String>,
    pub external: External,
    /// Offered on the stream as it was left: inside TLS where that runs.
    pub dialback: bool,
    /// Where the walk broke off.
    pub error: Option<String>,
}

/// What the peer said about SASL EXTERNAL inside TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum External {
    EnqueueOutcome,
    /// Although a certificate was presented.
    NotOffered,
    /// No certificate was presented, so it could not be offered.
    #[default]
    NotAsked,
}

impl Default for Observed {
    fn default() -> Self {
        Self {
            tls: false,
            tls_failed: false,
            certificate: Ok(()),
            external: External::NotAsked,
            dialback: false,
            error: None,
        }
    }
}

/// The best method of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProbeVerdict {
    pub method: Option<Method>,
    /// Whether the peer's side of the method was seen, rather than presumed.
    pub certain: bool,
    /// Why not a better one; a sentence each.
    pub why: Vec<String>,
}

impl Observed {
    pub(super) fn verdict(&self) -> ProbeVerdict {
        let mut why = Vec::new();
        let method = if self.tls {
            self.inside_tls(&mut why)
        } else {
            self.without_tls(&mut why)
        };
        let certain = !(method == Some(Method::SaslOverTls) && self.external == External::NotAsked);
        ProbeVerdict {
            method,
            certain,
            why,
        }
    }

    fn inside_tls(&self, why: &mut Vec<String>) -> Option<Method> {
        if let Some(error) = &self.error {
            why.push(format!("inside TLS: {error}"));
            return None;
        }
        match (&self.certificate, self.external) {
            (Ok(()), External::EnqueueOutcome) => return Some(Method::SaslOverTls),
            (Ok(()), External::NotAsked) => {
                why.push(
                    "SASL EXTERNAL is presumed: without a certificate of ours the peer cannot offer it"
                        .to_owned(),
                );
                return Some(Method::SaslOverTls);
            }
            (Ok(()), External::NotOffered) => why.push(
                "no SaslOverTls: the peer did not offer SASL EXTERNAL for the certificate presented"
                    .to_owned(),
            ),
            (Err(fault), _) => why.push(format!("no SaslOverTls: {fault}")),
        }
        if self.dialback {
            return Some(Method::TlsDialback);
        }
        why.push("no TlsDialback: the peer does not offer dialback inside TLS".to_owned());
        None
    }

    fn without_tls(&self, why: &mut Vec<String>) -> Option<Method> {
        if self.tls_failed {
            let error = self.error.as_deref().unwrap_or("unknown");
            why.push(format!(
                "no TLS: {error}; plaintext is never used after a failed TLS handshake"
            ));
            return None;
        }
        if let Some(error) = &self.error {
            why.push(error.clone());
            return None;
        }
        why.push("no SaslOverTls and no TlsDialback: the peer does not offer STARTTLS".to_owned());
        if self.dialback {
            why.push(
                "TcpDialback needs tlsNegotiation other than Required, and allowPlaintext: true"
                    .to_owned(),
            );
            return Some(Method::TcpDialback);
        }
        why.push("no TcpDialback: the peer does not offer dialback".to_owned());
        None
    }
}
