//! The classes of failure that are told apart wherever one looks: each with a cause that tests provoke.

/// A class, and the cause that stands for it.
#[derive(Clone, Copy, Debug)]
pub struct FailureClass {
    /// As `docs/guide/troubleshooting.md` names it.
    pub name: &'static str,
    pub step: &'static str,
    pub outcome: &'static str,
    /// Who dialled: `outbound`, the edge.
    pub direction: &'static str,
    /// The beginning of what to do.
    pub remedy: &'static str,
}

const fn outbound(
    name: &'static str,
    step: &'static str,
    outcome: &'static str,
    remedy: &'static str,
) -> FailureClass {
    FailureClass {
        name,
        step,
        outcome,
        direction: "outbound",
        remedy,
    }
}

pub const DNS: FailureClass = outbound(
    "DNS",
    "dns",
    "DnsNoRecords",
    "correct the domain in the partner object",
);
pub const TCP: FailureClass = outbound("TCP", "tcp", "TcpRefused", "nothing listens there");
pub const TLS: FailureClass = outbound(
    "TLS",
    "tls",
    "TlsNotOffered",
    "have the partner turn TLS on",
);
pub const CERTIFICATE_NAME: FailureClass = outbound(
    "certificate of another name",
    "certificate",
    "PeerCertificateName",
    "have the partner get a certificate with its domain",
);
pub const CERTIFICATE_EXPIRED: FailureClass = outbound(
    "certificate that has expired",
    "certificate",
    "CertificateExpired",
    "have the partner renew its certificate",
);
pub const SASL: FailureClass = outbound(
    "SASL",
    "sasl",
    "SaslRejected",
    "the peer refuses the certificate",
);
pub const DIALBACK: FailureClass = outbound(
    "dialback",
    "dialback",
    "DialbackRejected",
    "our records must lead to this edge",
);
pub const PEER_POLICY: FailureClass = outbound(
    "the partner's policy",
    "policy",
    "PeerError",
    "the peer refused: ask the partner",
);
pub const OWN_POLICY: FailureClass = FailureClass {
    direction: "inbound",
    ..outbound(
        "our policy",
        "policy",
        "PartnerSuspended",
        "set XmppFederatedPartner spec.suspended",
    )
};

pub const ALL: [FailureClass; 9] = [
    DNS,
    TCP,
    TLS,
    CERTIFICATE_NAME,
    CERTIFICATE_EXPIRED,
    SASL,
    DIALBACK,
    PEER_POLICY,
    OWN_POLICY,
];
