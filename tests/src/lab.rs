//! One test's own small internet: loopback addresses, DNS, a public certificate authority and a
//! directory. Servers and the edge are placed in it.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::Result;
use tempfile::TempDir;

use crate::{
    address::Block,
    dns::NameServer,
    pki::{Authority, Leaf, Usage},
    servers::{Acknowledge, DIRECT_TLS_PORT, S2S_PORT, Security, Spec},
};

/// Host part of the name server's address in the lab's block.
const DNS_HOST: u8 = 53;

/// The surroundings of one test; everything in it ends with it.
pub struct Lab {
    block: Block,
    dns: NameServer,
    authority: Authority,
    directory: TempDir,
}

impl Lab {
    /// Claims addresses and starts DNS.
    ///
    /// # Errors
    /// When port 53 cannot be bound or no directory be made.
    pub async fn new() -> Result<Self> {
        Self::within(Block::claim()).await
    }

    /// As [`Self::new`], on these addresses.
    ///
    /// # Errors
    /// As there.
    pub async fn within(block: Block) -> Result<Self> {
        let dns = NameServer::start(block.host(DNS_HOST)).await?;
        Ok(Self {
            block,
            dns,
            authority: Authority::new("Test Root of the Internet"),
            directory: tempfile::Builder::new().prefix("xmpp-edge-").tempdir()?,
        })
    }

    /// The lab's DNS, which everyone in it uses as resolver unless told otherwise.
    pub fn dns(&self) -> &NameServer {
        &self.dns
    }

    /// The certificate authority that the lab's "public" certificates come from.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The address with this host part; 53 is the name server.
    pub fn ip(&self, host: u8) -> Ipv4Addr {
        self.block.host(host)
    }

    /// Where the lab keeps its files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A path in the lab's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A certificate for `domain` as `security` wants it: from the lab's authority, or from one
    /// that nobody trusts, so that only dialback is left.
    pub fn identity(&self, domain: &str, security: Security) -> Leaf {
        match security {
            Security::Certificates => self.authority.issue(&[domain], Usage::ServerAndClientAuth),
            Security::TlsDialback | Security::TcpDialback => {
                Authority::new("Nobody's Root").issue(&[domain], Usage::ServerAndClientAuth)
            }
        }
    }

    /// A server of `domain` with user `user`, with bidi and acknowledgements, resolving through
    /// the lab's DNS. Change what the test wants otherwise.
    pub fn spec(&self, domain: &str, host: u8, user: &str, security: Security) -> Spec {
        Spec {
            domain: domain.to_owned(),
            ip: self.ip(host),
            resolver: self.ip(DNS_HOST),
            resolvers: Vec::new(),
            identity: self.identity(domain, security),
            trust: self.authority.certificate(),
            users: vec![user.to_owned()],
            security,
            direct_tls: false,
            bidi: false,
            acknowledge: Acknowledge::Resending,
            trace: false,
        }
    }

    /// Publishes `spec` in the lab's DNS: `_xmpps-server` where it has direct TLS, else
    /// `_xmpp-server`.
    pub fn publish(&self, spec: &Spec) {
        let target = format!("xmpp.{}", spec.domain);
        self.dns.host(&target, spec.ip);
        if spec.direct_tls {
            self.dns
                .xmpps_server(&spec.domain, 0, 0, DIRECT_TLS_PORT, &target);
        } else {
            self.dns.xmpp_server(&spec.domain, 0, 0, S2S_PORT, &target);
        }
    }
}
