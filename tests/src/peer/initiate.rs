//! The initiating side's steps: header, STARTTLS, SASL EXTERNAL, dialback, acks; and the whole way
//! to an authenticated stream.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};

use super::{ClientTls, Identity, Open, Peer, ns};
use crate::{pki::Leaf, xml::Element};

/// `<stream:features/>` as they were told.
#[derive(Clone, Debug)]
pub struct Features(pub Element);

impl Features {
    /// Whether STARTTLS is offered, and if so whether it is required.
    pub fn starttls(&self) -> Option<bool> {
        let starttls = self.0.child_in("starttls", ns::TLS)?;
        Some(starttls.child("required").is_some())
    }

    /// The SASL mechanisms offered.
    pub fn mechanisms(&self) -> Vec<&str> {
        self.0
            .child_in("mechanisms", ns::SASL)
            .map(|m| m.children.iter().map(|c| c.text.as_str()).collect())
            .unwrap_or_default()
    }

    /// Whether EXTERNAL is offered.
    pub fn external(&self) -> bool {
        self.mechanisms().contains(&"EXTERNAL")
    }

    /// Whether dialback is offered.
    pub fn dialback(&self) -> bool {
        self.0.child_in("dialback", ns::DIALBACK_FEATURE).is_some()
    }

    /// Whether one stream for both directions is offered.
    pub fn bidi(&self) -> bool {
        self.0.child_in("bidi", ns::BIDI_FEATURE).is_some()
    }

    /// Whether acknowledgements are offered.
    pub fn acks(&self) -> bool {
        self.0.child_in("sm", ns::ACKS).is_some()
    }

    /// `max-bytes` of XEP-0478.
    pub fn max_bytes(&self) -> Option<u64> {
        let limits = self.0.child_in("limits", ns::LIMITS)?;
        limits.child("max-bytes")?.text.parse().ok()
    }
}

/// How a stream is authenticated.
#[derive(Clone, Debug)]
pub enum Login<'a> {
    /// STARTTLS, then EXTERNAL with this certificate.
    External(&'a Leaf),
    /// Direct TLS, then EXTERNAL with this certificate.
    Direct(&'a Leaf),
    /// STARTTLS without a certificate, then dialback with this key.
    TlsDialback(&'a str),
    /// Dialback with this key, without TLS.
    TcpDialback(&'a str),
}

impl Peer {
    /// Connects and authenticates `from` towards `to`; the stream takes stanzas afterwards.
    ///
    /// # Errors
    /// The first step that does not go as in RFC 6120.
    pub async fn login(
        address: SocketAddr,
        from: &str,
        to: &str,
        login: &Login<'_>,
    ) -> Result<Self> {
        let mut peer = Self::connect(address).await?;
        peer.authenticate(from, to, login).await?;
        Ok(peer)
    }

    /// As [`Self::login`], on a fresh connection; gives the features that follow authentication, or
    /// with dialback those before it.
    ///
    /// # Errors
    /// As there.
    pub async fn authenticate(
        &mut self,
        from: &str,
        to: &str,
        login: &Login<'_>,
    ) -> Result<Features> {
        match login {
            Login::External(leaf) => {
                self.open(from, to).await?;
                let identity = Some(Identity::of(leaf)?);
                self.starttls(&ClientTls::new(Some(to), identity)).await?;
                self.external(from, to).await
            }
            Login::Direct(leaf) => {
                let tls = ClientTls::new(Some(to), Some(Identity::of(leaf)?));
                self.tls_client(&tls.with_alpn(&["xmpp-server"])).await?;
                self.external(from, to).await
            }
            Login::TlsDialback(key) => {
                self.open(from, to).await?;
                self.starttls(&ClientTls::new(Some(to), None)).await?;
                let features = self.open(from, to).await?;
                self.dialback_valid(from, to, key).await?;
                Ok(features)
            }
            Login::TcpDialback(key) => {
                let features = self.open(from, to).await?;
                self.dialback_valid(from, to, key).await?;
                Ok(features)
            }
        }
    }

    /// Opens a stream and reads header and features.
    ///
    /// # Errors
    /// When something else comes.
    pub async fn open(&mut self, from: &str, to: &str) -> Result<Features> {
        self.open_with(&Open::new(from, to)).await?;
        self.header().await?;
        self.features().await
    }

    /// Reads features, which must come next.
    ///
    /// # Errors
    /// When something else comes.
    pub async fn features(&mut self) -> Result<Features> {
        let element = self.element().await?;
        ensure!(
            element.is("features", ns::STREAM),
            "no features but {element:?}"
        );
        Ok(Features(element))
    }

    /// Asks for TLS and does the handshake; the new stream is not opened.
    ///
    /// # Errors
    /// When it is not granted or the handshake fails.
    pub async fn starttls(&mut self, tls: &ClientTls) -> Result<()> {
        self.send(format!("<starttls xmlns='{}'/>", ns::TLS))
            .await?;
        let answer = self.element().await?;
        ensure!(
            answer.is("proceed", ns::TLS),
            "no <proceed/> but {answer:?}"
        );
        self.tls_client(tls).await
    }

    /// On a connection with TLS: opens the stream, authenticates by EXTERNAL, opens it again.
    ///
    /// # Errors
    /// When EXTERNAL is not offered or fails.
    pub async fn external(&mut self, from: &str, to: &str) -> Result<Features> {
        let features = self.open(from, to).await?;
        ensure!(features.external(), "EXTERNAL is not offered: {features:?}");
        let answer = self.auth("EXTERNAL", "=").await?;
        ensure!(answer.name == "success", "no <success/> but {answer:?}");
        self.open(from, to).await
    }

    /// Sends `<auth/>` with this text and reads the answer; after `<success/>` a new stream begins.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn auth(&mut self, mechanism: &str, text: &str) -> Result<Element> {
        let sasl = ns::SASL;
        self.send(format!(
            "<auth xmlns='{sasl}' mechanism='{mechanism}'>{text}</auth>"
        ))
        .await?;
        let answer = self.element().await?;
        if answer.is("success", ns::SASL) {
            self.restart();
        }
        Ok(answer)
    }

    /// Sends a key for a pair.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn db_result(&mut self, from: &str, to: &str, key: &str) -> Result<()> {
        self.send(format!(
            "<db:result from='{from}' to='{to}'>{key}</db:result>"
        ))
        .await
    }

    /// Sends a key for a pair and gives what it is answered with: `valid`, `invalid`, or the
    /// condition of the error.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn dialback(&mut self, from: &str, to: &str, key: &str) -> Result<String> {
        self.db_result(from, to, key).await?;
        self.db_answer("result", from, to).await
    }

    async fn dialback_valid(&mut self, from: &str, to: &str, key: &str) -> Result<()> {
        let answer = self.dialback(from, to, key).await?;
        ensure!(answer == "valid", "dialback is answered {answer}");
        Ok(())
    }

    /// The answer to `db:result` or `db:verify` of this pair: `valid`, `invalid`, or the condition of
    /// the error.
    ///
    /// # Errors
    /// When none comes.
    pub async fn db_answer(&mut self, name: &str, from: &str, to: &str) -> Result<String> {
        let answer = self
            .expect(&format!("the answer to db:{name} of {from}"), |e| {
                e.is(name, ns::DIALBACK)
                    && e.attribute("type").is_some()
                    && e.attribute("to") == Some(from)
                    && e.attribute("from") == Some(to)
            })
            .await?;
        match answer.attribute("type") {
            Some("error") => Ok(answer.error_condition().context("no condition")?.to_owned()),
            Some(verdict) => Ok(verdict.to_owned()),
            None => bail!("no type: {answer:?}"),
        }
    }

    /// Asks an authoritative server whether it made `key`: receiving domain `from`, sending domain
    /// `to`.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn db_verify(&mut self, from: &str, to: &str, id: &str, key: &str) -> Result<String> {
        self.send(format!(
            "<db:verify from='{from}' to='{to}' id='{id}'>{key}</db:verify>"
        ))
        .await?;
        self.db_answer("verify", from, to).await
    }

    /// Turns acknowledgements on.
    ///
    /// # Errors
    /// When they are not granted.
    pub async fn enable_acks(&mut self) -> Result<()> {
        self.send(format!("<enable xmlns='{}'/>", ns::ACKS)).await?;
        let answer = self.element().await?;
        ensure!(
            answer.is("enabled", ns::ACKS),
            "no <enabled/> but {answer:?}"
        );
        Ok(())
    }

    /// A chat message with a body.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn message(&mut self, from: &str, to: &str, id: &str, body: &str) -> Result<()> {
        self.send(format!(
            "<message from='{from}' to='{to}' id='{id}' type='chat'><body>{body}</body></message>"
        ))
        .await
    }
}
