//! Condition types and reasons of the three kinds, in one place. The docs list them from here.

/// An enum of names, each with its meaning: the doc comment is what the reference prints.
macro_rules! names {
    ($(#[$of:meta])* $name:ident { $($(#[doc = $meaning:literal])+ $variant:ident),+ $(,)? }) => {
        $(#[$of])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[doc = $meaning])+ $variant),+
        }
        impl $name {
            /// All, in the order of the docs.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// As it stands in a status.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant)),+ }
            }

            /// What it says, in one sentence.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($meaning),+).trim_ascii()),+ }
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

names!(
    /// A condition of `status.conditions`.
    ConditionType {
        /// The summary of those that do not inform only; of a pool it asks for a ready replica
        /// too. Reason and message are those of what is wrong.
        Ready,
        /// The object is valid, alone and among its neighbours.
        Accepted,
        /// Every ready pod has loaded a generation that holds this object as it is.
        Programmed,
        /// No plaintext is possible. Informs only.
        Secure,
        /// The last attempt of each direction went well; Unknown before a first one. Informs only.
        Reachable,
        /// A certificate for every own domain and the FQDN is in use.
        CertificateReady,
        /// What DNS answers is what should be published.
        DnsPublished,
        /// Every ready pod has the newest configuration.
        ConfigReplicated,
        /// The organisation's own servers answer. Informs only.
        GatewayReachable,
        /// Sidecars of the pool's gateways have what they prove themselves by; absent where none has
        /// sidecars. Informs only.
        SidecarIdentity,
    }
);

names!(
    /// `reason` of a condition.
    Reason {
        // Good.
        /// Accepted: nothing to say against it.
        Accepted,
        /// Programmed: in force on every ready pod.
        Programmed,
        /// Ready: every condition that counts is true.
        Ready,
        /// Secure: no plaintext is possible.
        Encrypted,
        /// Reachable, GatewayReachable.
        Reachable,
        /// CertificateReady: in use. SidecarIdentity: each Secret is in place.
        Issued,
        /// ConfigReplicated: in use on every ready pod.
        InSync,
        /// DnsPublished: DNS answers what it should.
        Published,
        /// DnsPublished: no `spec.dns`, records are only shown in status. SidecarIdentity, without a cluster: keys and
        /// certificates of sidecars are the administrator's.
        NotManaged,

        // Accepted=False, one object.
        /// A field does not mean anything: the message names it.
        Invalid,
        /// The negotiation settings leave no method, or plaintext without opt-in.
        InvalidNegotiation,
        /// A domain is no domain (IDNA).
        InvalidDomain,
        /// PEM that does not parse, or holds no certificate.
        InvalidCertificate,
        /// A user is no bare JID, or ambiguous between PRECIS and Nodeprep.
        InvalidUser,

        // Accepted=False, across objects.
        /// Another object has the domain.
        DomainConflict,
        /// A partner lists a domain of the organisation itself.
        OwnDomain,
        /// A partner's domain below an own one has no leaf, and inside has no dialback.
        BelowOwnDomain,
        /// Another policy has the scope, the site or the user.
        Conflict,
        /// A ConfigMap, Secret or key that is referred to is not there, or cannot be read.
        ReferenceMissing,
        /// A domain that `allowedDomains` does not give to this namespace.
        DomainNotAllowed,
        /// DnsPublished=False: the DNS server is none of those that `dns.allowedServers` lists.
        DnsServerNotAllowed,

        // Programmed=False.
        /// The object is not accepted.
        NotAccepted,
        /// PublicUnverified needs contacts that all replicas and pools of the domain share.
        ContactsNotShared,
        /// Pods have not loaded it yet.
        Pending,
        /// No pool is there to carry it.
        NoPool,
        /// Pods refused the configuration.
        ConfigRejected,
        /// The configuration is past eight shards.
        ConfigTooLarge,

        // Informing.
        /// Secure=False: streams may be plaintext.
        PlaintextPossible,
        /// GatewayReachable=True: a server inside shows a certificate older than the one issued for it.
        GatewayCertificateStale,
        /// Reachable=Unknown: nothing was tried yet.
        NotAttempted,
        /// Reachable=False, GatewayReachable=False.
        Unreachable,
        /// GatewayReachable=True: the SIP server is reached, and takes the edge for a user.
        AuthenticationDemanded,
        /// GatewayReachable=True: the SIP server is reached, and has no presence agent.
        EventRefused,
        /// GatewayReachable=True: the SIP server is reached, grants subscriptions, and its NOTIFYs do not come.
        NotifyMissing,
        /// GatewayReachable=True: the SIP server is reached, and who connected last in its place is not it.
        UnknownServer,
        /// GatewayReachable=False: no sidecar of the gateway has a trunk to any pod.
        NoSidecar,
        /// GatewayReachable=False: no sidecar is connected, and what tried to be one is refused: step, cause and
        /// remedy.
        SidecarRefused,
        /// GatewayReachable=False: a sidecar that is more than one minor version away from the edge is refused.
        SidecarOutdated,
        /// GatewayReachable=True: several sidecars of one gateway, whose servers are worlds of their own, are
        /// connected: one gets what comes in.
        SeveralSidecars,
        /// SidecarIdentity=False: the namespace of the server does not let the operator write the Secret.
        NamespaceNotAllowed,
        /// SidecarIdentity=False: the Secret could not be written for another cause.
        SecretNotWritten,
        /// GatewayReachable=False: no sidecar has a trunk to some of the pods.
        TrunkMissing,
        /// GatewayReachable=False: sidecars are connected, and the servers beside them do not answer.
        ServerUnreachable,
        /// The kill switch is on.
        Suspended,

        // Pools.
        /// No replica is ready.
        NoReadyReplica,
        /// Ready=False, DnsPublished=False: the pool is deleted and waits for its records to leave
        /// DNS.
        Terminating,
        /// CertificateReady=False: being issued.
        Issuing,
        /// CertificateReady=False: cert-manager could not have it issued.
        IssuanceFailed,
        /// CertificateReady=False: mode csr waits for the signed chain.
        AwaitingSignature,
        /// CertificateReady=False: a name is not covered.
        NamesNotCovered,
        /// CertificateReady=False: chain and key do not fit.
        KeyMismatch,
        /// CertificateReady=False.
        Expired,
        /// CertificateReady=True with a warning, or False.
        Expiring,
        /// Pools of one domain have different dialback secrets.
        DialbackSecretsDiffer,
        /// Pools of one domain say different things of the sidecars of its gateway.
        GatewaysDiffer,
        /// DnsPublished=False: for a cause that has no reason of its own.
        DnsFailed,
        /// DnsPublished=False: the TSIG key in the Secret cannot be used.
        TsigKeyInvalid,
        /// DnsPublished=False: the DNS server does not know the TSIG key (BADKEY).
        TsigBadKey,
        /// DnsPublished=False: the DNS server has another secret for the TSIG key (BADSIG).
        TsigBadSignature,
        /// DnsPublished=False: the clocks differ too much (BADTIME).
        TsigBadTime,
        /// DnsPublished=False: the DNS server's policy refuses the update (REFUSED).
        UpdateRefused,
        /// DnsPublished=False: the DNS server is no primary of the zone (NOTAUTH).
        NotAuthoritative,
        /// DnsPublished=False: a name is outside of the zone (NOTZONE).
        NotInZone,
        /// DnsPublished=False: no zone was found that a name is in.
        ZoneNotFound,
        /// DnsPublished=False: records changed each time they were to be updated (NXRRSET).
        RecordsChanging,
        /// DnsPublished=False: a CNAME is where records should be.
        NameIsAlias,
        /// DnsPublished=False: DNS does not answer what was published, not yet or not any more.
        NotAnswered,
        /// DnsPublished=False: the DNS server did not answer in time.
        DnsServerTimeout,
        /// DnsPublished=False: no connection to the DNS server.
        DnsServerUnreachable,
        /// DnsPublished=False: no address for the FQDN is known yet.
        AddressPending,
        /// A kind of another project is not installed.
        KindMissing,
        /// Ready=False: the API server refuses an object of the pool, or one of its name is there
        /// already and somebody else's.
        ObjectRefused,
        /// Ready=False: an object of the pool cannot be written for longer than a minute, or while no
        /// pod serves: the API server, a webhook or the way there fails. It is tried again.
        WriteFailed,
    }
);
