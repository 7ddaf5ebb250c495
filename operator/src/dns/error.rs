//! Why records could not be published: each cause with the reason that condition and metric carry,
//! and a message that says what to do. In one place, so that both always agree.

use std::time::Duration;

use xmpp_edge_crds::kinds::conditions::Reason;

use super::rrset::Name;

/// Why records cannot be withdrawn, in words.
pub const NO_KEY: &str = "as there is no key to withdraw them with";

/// A cause. `server` is as in `spec.dns.rfc2136.server`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    #[error("there is no Secret {secret:?}: create it with the keys \"name\" and \"secret\"")]
    KeyMissing { secret: String },
    /// Its Secret is there and could not be read: why.
    #[error("{0}")]
    KeyUnread(String),
    #[error("Secret {secret:?} holds no TSIG key: {fault}")]
    KeyInvalid { secret: String, fault: String },
    #[error(
        "records were published earlier, but server and key are not known any more: bring spec.dns.rfc2136 back to have them withdrawn, or delete them by hand"
    )]
    NoSettings,
    #[error(
        "{server} is none of the name servers that this operator may connect to: name one of those in spec.dns.rfc2136.server, or have it added to chart value dns.allowedServers"
    )]
    ServerNotAllowed { server: String },
    #[error("{0:?} is no DNS name: correct it")]
    NoName(String),
    #[error(
        "{server} does not know the TSIG key {key} (BADKEY): check key \"name\" of the Secret and tsigAlgorithm against the server's configuration; Knot answers so too where no acl of the zone names the key"
    )]
    BadKey { server: String, key: Box<Name> },
    #[error(
        "{server} has another secret for the TSIG key {key} (BADSIG): copy the secret from the server's configuration into key \"secret\", in base64{}",
        if *encoded_twice { "; it looks as if it were encoded twice: a value under `data` is base64 of what the server has, under `stringData` it is the very text" } else { "" }
    )]
    BadSignature {
        server: String,
        key: Box<Name>,
        /// Whether the secret looks like base64 of base64.
        encoded_twice: bool,
    },
    #[error(
        "the clock of {server} differs from ours by {} s (BADTIME): set both by NTP",
        skew.map_or_else(|| "more than 300".to_owned(), |skew| skew.to_string())
    )]
    BadTime { server: String, skew: Option<i64> },
    #[error(
        "the answer of {server} is not signed by the TSIG key {key} as it should be: check that nothing between rewrites DNS"
    )]
    Unsigned { server: String, key: Box<Name> },
    #[error(
        "{server} refuses {what} (REFUSED): allow the TSIG key {key} to update it (BIND: update-policy; Knot: acl with action update)"
    )]
    Refused {
        server: String,
        what: String,
        key: Box<Name>,
    },
    #[error(
        "{server} refuses the question for {name} (REFUSED): set spec.dns.rfc2136.server to the primary of its zone, or allow us to ask"
    )]
    NotServed { server: String, name: Box<Name> },
    #[error(
        "{server} is no primary of a zone with {name}, or (Knot) its acl does not give the key that zone (NOTAUTH): set spec.dns.rfc2136.server to the primary, or correct zone or the acl"
    )]
    NotAuthoritative { server: String, name: Box<Name> },
    #[error(
        "{name} is not in zone {zone} (NOTZONE): correct spec.dns.rfc2136.zone, or leave it out to have it found"
    )]
    NotInZone { name: Box<Name>, zone: Box<Name> },
    #[error(
        "{server} names no zone for {name}: set spec.dns.rfc2136.server to the zone's primary, and zone to its name"
    )]
    ZoneNotFound { server: String, name: Box<Name> },
    #[error(
        "the records at {name} changed each of {attempts} times they were about to be updated (NXRRSET): see what else writes them"
    )]
    Changing { name: Box<Name>, attempts: u32 },
    #[error(
        "{name} is an alias of {target} (CNAME), so that it can hold no record: remove the CNAME, or publish under another name"
    )]
    Alias { name: Box<Name>, target: Box<Name> },
    #[error(
        "{server} took the update, but does not answer it at {name}: check that it is the primary, and not one of several views"
    )]
    NotAnswered { server: String, name: Box<Name> },
    #[error(
        "the resolver does not answer {record} at {name}: give external-dns (v0.22 or later) --source=crd and --managed-record-types=SRV beside A and AAAA, and where it has --label-filter or --annotation-filter what these select in spec.dns.externalDns.labels or .annotations; see its log, or wait for the TTL"
    )]
    NotPublished { name: Box<Name>, record: String },
    #[error("the resolver does not answer for {name}: {fault}")]
    Resolver { name: Box<Name>, fault: String },
    #[error("{server} did not answer within {} s: check that TCP port and firewall let it", limit.as_secs())]
    Timeout { server: String, limit: Duration },
    #[error("no connection to {server}: {fault}; check its name, TCP port and firewall")]
    Unreachable { server: String, fault: String },
    #[error("{server} answers {what} with {code}: see the server's log")]
    Response {
        server: String,
        what: String,
        code: String,
    },
    #[error("{server} answers what is no DNS message: {fault}")]
    Malformed { server: String, fault: String },
}

impl DnsError {
    /// Reason of the condition, and label of `dns_failures_total`.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::KeyMissing { .. } | Self::KeyUnread(_) | Self::NoSettings => {
                Reason::ReferenceMissing
            }
            Self::KeyInvalid { .. } => Reason::TsigKeyInvalid,
            Self::ServerNotAllowed { .. } => Reason::DnsServerNotAllowed,
            Self::NoName(_) => Reason::InvalidDomain,
            Self::BadKey { .. } => Reason::TsigBadKey,
            Self::BadSignature { .. } | Self::Unsigned { .. } => Reason::TsigBadSignature,
            Self::BadTime { .. } => Reason::TsigBadTime,
            Self::Refused { .. } | Self::NotServed { .. } => Reason::UpdateRefused,
            Self::NotAuthoritative { .. } => Reason::NotAuthoritative,
            Self::NotInZone { .. } => Reason::NotInZone,
            Self::ZoneNotFound { .. } => Reason::ZoneNotFound,
            Self::Changing { .. } => Reason::RecordsChanging,
            Self::Alias { .. } => Reason::NameIsAlias,
            Self::NotAnswered { .. } | Self::NotPublished { .. } => Reason::NotAnswered,
            Self::Timeout { .. } => Reason::DnsServerTimeout,
            Self::Unreachable { .. } => Reason::DnsServerUnreachable,
            Self::Response { .. } | Self::Malformed { .. } | Self::Resolver { .. } => {
                Reason::DnsFailed
            }
        }
    }

    /// Why records cannot be withdrawn however long one tries; none where another try may succeed.
    #[must_use]
    pub fn rules_out_withdrawal(&self) -> Option<&'static str> {
        match self {
            Self::NoSettings | Self::KeyMissing { .. } | Self::KeyInvalid { .. } => Some(NO_KEY),
            Self::ServerNotAllowed { .. } => {
                Some("as their name server is none that --allowed-dns-server lists")
            }
            _ => None,
        }
    }

    /// Whether the server says that it has no zone for the name. The zone may be gone, so that nobody could ever
    /// withdraw anything of it; or the server is not allowed to say more to us, and all is there still.
    #[must_use]
    pub fn denies_zone(&self) -> bool {
        matches!(
            self,
            Self::NotServed { .. }
                | Self::NotAuthoritative { .. }
                | Self::NotInZone { .. }
                | Self::ZoneNotFound { .. }
        )
    }

    /// Whether it concerns the server or the key as a whole, so that further names need not be tried.
    #[must_use]
    pub fn concerns_all(&self) -> bool {
        matches!(
            self,
            Self::KeyMissing { .. }
                | Self::KeyUnread(_)
                | Self::ServerNotAllowed { .. }
                | Self::KeyInvalid { .. }
                | Self::BadKey { .. }
                | Self::BadSignature { .. }
                | Self::BadTime { .. }
                | Self::Unsigned { .. }
                | Self::Timeout { .. }
                | Self::Unreachable { .. }
                | Self::Malformed { .. }
        )
    }
}
