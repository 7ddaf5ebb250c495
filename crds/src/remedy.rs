//! What to do about each cause: one sentence for whoever sees it in `/status`, on the page or in a
//! condition. The long form is `docs/errors.md`; a test holds that every cause has both.

/// What to do about an outcome of a step of an attempt; `None` for `Ok` and words of other versions.
#[must_use]
pub fn of_outcome(outcome: &str) -> Option<&'static str> {
    Some(match outcome {
        "DnsNotFound" | "DnsNoRecords" => {
            "correct the domain in the partner object, or have the partner publish _xmpp-server records or an address"
        }
        "ServiceNotOffered" => {
            "the domain says in DNS that it does not federate: ask the partner; if it does, the edge's resolver must not be its own DNS view"
        }
        "DnsTimeout" | "DnsServFail" | "DnsRefused" => {
            "see to the resolver of the edge and the way to it (port 53), or name another by --resolver"
        }
        "DnsBogus" => {
            "DNSSEC does not validate: have the partner mend its zone's signatures; for a tree of zones of your own, give --trust-anchors"
        }
        "DnsUnusable" => "have the partner correct the record that the text names",
        "DnsNoResolver" => "put a name server's address into /etc/resolv.conf, or give --resolver",
        "TcpRefused" => {
            "nothing listens there or a firewall rejects: have the partner open the port, or correct its SRV record"
        }
        "TcpTimeout" | "TcpUnreachable" => {
            "open the way to that address and port in the firewalls (partnerEgressExcept too), for IPv6 as well"
        }
        "TcpFailed" | "TcpSilent" => "the path is bad: see the text, and try the address by hand",
        "AddressForbidden" | "NameForbidden" => {
            "the partner's records lead to where nobody is dialled: correct them, or if it is meant set spec.proxyFqdn or settings.dialExcept"
        }
        "TooManyAddresses" => "have the partner shorten its list of servers in DNS",
        "EstablishmentTimeout" => {
            "the peer is too slow: see its load and log, or raise streamEstablishmentTimeoutSeconds"
        }
        "Unresponsive" => {
            "the peer is frozen or the path is cut: see its log and the firewalls between"
        }
        "PeerClosed" => "the peer ended the stream: its log says why",
        "EgressUnreachable" => "correct settings.egressProxy.address, or open the way to it",
        "EgressTimeout" => "the egress proxy hangs, or what it dials is silent: see its log",
        "EgressAuthentication" => {
            "give the egress proxy's user name and password in settings.egressProxy.secretRef"
        }
        "EgressNotAllowed" => "allow this target in the egress proxy's own rules",
        "EgressTargetUnreachable" => {
            "the egress proxy does not reach the partner: see its log, its DNS and its firewall"
        }
        "EgressFailed" => "see the egress proxy's log",
        "EgressMalformed" => "name a SOCKS5 proxy in settings.egressProxy.address",
        "TlsRequired" | "TlsNotOffered" => {
            "have the partner turn TLS on, look for what strips STARTTLS between, or allow plaintext by tlsNegotiation"
        }
        "TlsNotSupported" | "TlsRequiredByPeer" => "set tlsNegotiation to Optional or Required",
        "TlsRefused" | "TlsClosed" | "TlsTimeout" | "TlsIo" | "TlsFailed" => {
            "the peer gave up in the TLS handshake: its log says why"
        }
        "TlsAlert" => {
            "the peer refused the handshake: with UnknownCA, BadCertificate or CertificateExpired see to the pool's certificate"
        }
        "TlsIncompatible" => "have the peer speak TLS 1.2 or 1.3 with current cipher suites",
        "NotTls" => {
            "there is no TLS: have the partner correct its _xmpps-server records, or, behind STARTTLS, see what stands between"
        }
        "TlsRecord" => {
            "that port speaks TLS at once: have the partner name it in _xmpps-server records, not in _xmpp-server, or correct spec.proxyFqdn"
        }
        "NotXmpp" => {
            "no XMPP server answers there: have the partner correct its SRV records, or correct spec.proxyFqdn"
        }
        "NoCertificateForName" => {
            "see CertificateReady of the pool, or the peer asks for a domain that is not served here"
        }
        "UnsupportedVersion" => "have the partner update its server: XMPP 1.0 is needed",
        "CertificateNotPresented" => {
            "have the peer present its certificate, or allow dialback (saslNegotiation: Optional)"
        }
        "CertificateExpired" | "CertificateNotYetValid" => {
            "have the partner renew its certificate; check the clocks of both"
        }
        "CertificateEnded" => {
            "have the partner renew its certificate: the one that this stream was set up with is over"
        }
        "CertificateSelfSigned" => {
            "pin the key or trust its CA (spec.trust), or allow dialback (saslNegotiation: Optional)"
        }
        "CertificateChainIncomplete" => {
            "have the partner send the intermediate that the text names, or trust its CA (spec.trust)"
        }
        "CertificateUnknownIssuer" => "trust the partner's CA in spec.trust, or allow dialback",
        "PeerCertificateName" => {
            "have the partner get a certificate with its domain as dNSName; the text has the names found"
        }
        "CertificateNotForUse" => {
            "have the partner get a certificate with clientAuth and serverAuth, or allow dialback"
        }
        "CertificatePinMismatch" | "CertificateKeyChanged" => {
            "ask the partner whether it changed its key; if so, pin the new one in spec.trust"
        }
        "CertificateDaneMismatch" => {
            "have the partner correct its TLSA records; if they are right, somebody stands between"
        }
        "CertificateWeakKey" => "have the partner make a key of 2048 bits or more",
        "CertificateKeyTooLong" => "have the partner make a key of at most 8192 bits",
        "CertificateTrustUnusable" => {
            "correct the ConfigMap of trust.caConfigMapRef, or the pins: the text says what is wrong"
        }
        "CertificateCriticalExtension" | "CertificateVersion" => {
            "pin the partner's key in spec.trust, or allow dialback"
        }
        "CertificateSignature" => {
            "have the partner get a certificate and a chain signed with SHA-256 or better, or pin its key in spec.trust"
        }
        "CertificateChainTooLong" | "CertificateMalformed" | "CertificateInvalid" => {
            "have the partner replace its certificate: see the text"
        }
        "ExternalNotOffered" => {
            "have the peer trust our CA, or allow dialback (saslNegotiation: Optional)"
        }
        "SaslRejected" | "TooManySaslFailures" => {
            "the peer refuses the certificate: its log says why; it needs our domain and clientAuth"
        }
        "NoUsableMethod" => {
            "offer and settings have no method in common: see tlsNegotiation, saslNegotiation, supportDialbackNegotiation"
        }
        "DialbackFailed" => {
            "an impostor, or the partner's servers have no common dialback secret: ask the partner"
        }
        "DialbackRejected" | "TooManyRefusedKeys" => {
            "our records must lead to this edge, and pools of one domain need one dialback secret"
        }
        "DialbackError" => {
            "the peer could not check with us: our SRV records and port 5269 must be reachable from there"
        }
        "DialbackNotAllowed" => {
            "allow it by supportDialbackNegotiation, or have the partner authenticate by certificate"
        }
        "StreamIdMissing" => "have the partner update its server: its streams have no id",
        "NotMultiplexable" => "nothing: the edge opens another stream by itself",
        "PoolSuspended" => "set EdgePool spec.suspended to false when it may go on",
        "PartnerSuspended" => "set XmppFederatedPartner spec.suspended to false when it may go on",
        "PartnerNotAllowed" => {
            "add a partner for the domain, or the domain to a partner's additionalDomains"
        }
        "HostUnknown" => {
            "the domain is not served: add it to the pool's domains, or correct the records that lead here"
        }
        "Loop" => "the records lead back to this edge: correct them, or set spec.proxyFqdn",
        "PeerError" | "Refused" => {
            "the peer refused: ask the partner, with the condition in the text, whether it lets our domain in"
        }
        "ResourceConstraint" | "TooManyPairs" => {
            "a limit is reached: see connectionLimit and partnerConnectionLimit"
        }
        "BidiRejected" => "nothing: the edge tries again without bidirectional streams",
        "AcksRejected" => "nothing: the edge tries again without acknowledgements",
        "CertificateTakenAway" => {
            "have the sidecar mount the newer certificate: its Secret was made anew"
        }
        "TrunkNotOffered" => "upgrade the pool first",
        "Inactive" | "Shutdown" => "nothing: an orderly end",
        _ if is_fault_of_peer(outcome) => {
            "the peer breaks the protocol: have the partner look at its software, with the text"
        }
        _ => return None,
    })
}

/// What to do where one of the organisation's own servers is not reached, or its sidecar is refused.
#[must_use]
pub fn of_gateway(outcome: &str) -> Option<&'static str> {
    Some(match outcome {
        "DnsNotFound" | "DnsNoRecords" => {
            "correct spec.gateways[].address, or publish its address (of a SIP server without a port, SRV records _sips._tcp, with transport Tcp _sip._tcp)"
        }
        "ServiceNotOffered" => {
            "DNS says that no server is there: have the SRV record name the server, or write spec.gateways[].address as host:port"
        }
        "DnsUnusable" => {
            "correct the record that the text names, or write spec.gateways[].address as host:port"
        }
        "DnsBogus" => {
            "DNSSEC does not validate: mend the signatures of the zone of spec.gateways[].address; for a tree of zones of your own, give --trust-anchors"
        }
        "TcpRefused" | "TcpTimeout" | "TcpUnreachable" | "TcpFailed" | "TcpSilent" => {
            "start the server, correct spec.gateways[].address, or open the way to it"
        }
        "CertificateNotPresented"
        | "CertificateUnknownIssuer"
        | "CertificateSelfSigned"
        | "CertificateChainIncomplete" => {
            "give it the certificate of the operator (Secret xmpp-edge-gateway-<domain>, or xmpp-edge-sidecar-<name> of a sidecar), or add the sidecar's key to spec.gateways[].sidecar.keys"
        }
        "PeerCertificateName" => {
            "its certificate is for other domains or none: mount the Secret of this gateway, add the sidecar's key to spec.gateways[].sidecar.keys, or correct spec.gateways[].domains"
        }
        "TlsRecord" => {
            "that port speaks TLS at once: name its plain port in spec.gateways[].address"
        }
        "NotXmpp" => "no XMPP server answers there: correct spec.gateways[].address",
        "OptionsTimeout" => "the SIP server hangs or drops what the edge sends: see its log",
        "NotSip" => "what listens there does not speak SIP: correct spec.gateways[].address",
        "AuthenticationDemanded" => {
            "the SIP server takes the edge for a user: let it trust the edge by its certificate"
        }
        "EventRefused" => {
            "the SIP server answers no SUBSCRIBE for presence: load a presence agent there, for this domain"
        }
        "NotifyMissing" => {
            "the SIP server does not know its way to the edge: let it resolve sip.edgeName, or set that to a name it resolves, and relay NOTIFYs in their dialog"
        }
        "UnknownServer" => {
            "a SIP connection came that is not the server's: add the name of its certificate to spec.gateways[].sip.serverNames, or with transport Tcp correct address"
        }
        "Version" => "upgrade the older of the two, edge or sidecar",
        "CertificateExpired" | "CertificateNotYetValid" => {
            "have it mount the newer certificate: the Secret of its gateway is renewed; check the clocks of both"
        }
        _ => return of_outcome(outcome),
    })
}

/// What to do where a sidecar has no trunk to an edge: `label` of the failure.
#[must_use]
pub fn of_trunk(label: &str) -> &'static str {
    match label {
        "DnsNotFound" | "DnsNoRecords" | "ServiceNotOffered" => {
            "correct the name (spec.gateways[].sidecar.edges, --edge); Service <pool>-trunk has a name only while the pool is there"
        }
        "DnsTimeout" | "DnsServFail" | "DnsRefused" | "DnsBogus" | "DnsUnusable"
        | "DnsNoResolver" => {
            "see to the resolver of the sidecar and the way to it (port 53), or name another by --resolver"
        }
        "TcpRefused" => {
            "no edge listens there: start the pool, or correct the address (internalService.addresses, spec.gateways[].sidecar.edges)"
        }
        "TcpTimeout" | "TcpUnreachable" | "TcpFailed" => {
            "open the way from the sidecar out to the edges' internal port (23456), in firewalls and NetworkPolicies"
        }
        "NoDomain" => "copy sidecar.json anew: it names no domain",
        "SidecarRefused" => {
            "have the sidecar mount Secret xmpp-edge-sidecar-<name>, or add its key to spec.gateways[].sidecar.keys"
        }
        "CertificateUnknownIssuer" | "CertificateSelfSigned" | "CertificateChainIncomplete" => {
            "the edge is of another internal CA than ca.crt beside sidecar.json: copy ca.crt anew"
        }
        "CertificateExpired" | "CertificateNotYetValid" => {
            "check the clocks of both; the operator renews the edge's internal issuer"
        }
        "PeerCertificateName" => "what listens there is no edge: correct the address",
        "NotTls"
        | "TlsFailed"
        | "TlsClosed"
        | "TlsIo"
        | "TlsAlert"
        | "TlsTimeout"
        | "TlsIncompatible"
        | "NoCertificateForName" => {
            "what listens there is no edge, its pool has no internal issuer yet, or something between ends TLS: name the edges' internal port itself"
        }
        "HostUnknown" => {
            "this pool has no gateway for sidecars with the domain: set mode Sidecar, or add a sidecar block"
        }
        "TrunkNotOffered" | "Version" => "upgrade the older of the two: the pool first",
        other => of_outcome(other).unwrap_or("see the log of the edge"),
    }
}

/// What to do where a sidecar does not reach the server beside it, or is refused by it.
#[must_use]
pub fn of_server(outcome: &str) -> &'static str {
    match outcome {
        "TcpRefused" | "TcpTimeout" | "TcpUnreachable" | "TcpFailed" | "TcpSilent"
        | "TlsRecord" | "NotXmpp" => {
            "start the server, or say where it listens for s2s: spec.gateways[].sidecar.serverAddress, --server"
        }
        "SaslRejected" | "ExternalNotOffered" | "PeerError" | "PeerClosed" | "NoUsableMethod"
        | "TlsAlert" | "TlsFailed" | "TlsClosed" => {
            "let the server trust the sidecar's authority; of Prosody, in the global section: s2s_ssl = { cafile = \"/run/xmpp-edge/ca.crt\" } (without Kubernetes public/ca.crt of the sidecar's --state)"
        }
        "HostUnknown" => {
            "the server does not have the domain: correct spec.gateways[].domains, or the server's hosts"
        }
        other => of_outcome(other).unwrap_or("see the log of the server"),
    }
}

/// What only the peer's software can cause, or somebody who speaks no XMPP at all.
fn is_fault_of_peer(outcome: &str) -> bool {
    matches!(
        outcome,
        "FromUnusable" | "ToUnusable" | "FromChanged" | "ToChanged" | "ContentNamespace"
            | "NotAuthorized" | "StanzaFrom" | "StanzaTo" | "StanzaAddressing"
            | "UnexpectedElement" | "HandledCountTooHigh"
            // XML that XMPP forbids (RFC 6120 section 11), or over a limit.
            | "NotWellFormed" | "NotUtf8" | "Encoding" | "XmlVersion" | "NotStandalone"
            | "ForbiddenCharacter" | "Comment" | "ProcessingInstruction" | "DocumentType"
            | "EntityReference" | "ExoticName" | "Markup" | "MissingSpace" | "LessThanInAttribute"
            | "SectionEndInText" | "Reference" | "DuplicateAttribute" | "EndTag" | "AfterEnd"
            | "UndeclaredPrefix" | "ReservedPrefix" | "NamespaceName" | "StreamNamespace"
            | "NotAStream" | "TextBetweenStanzas" | "SecondHeader" | "TooLarge" | "TooDeep"
            | "TooManyAttributes" | "TooManyNamespaces" | "NameTooLong" | "StanzaNamespace"
            // Between a sidecar and an edge.
            | "UnknownElement" | "MalformedElement" | "UnknownPair" | "PairInUse"
            | "EndedTooEarly" | "StanzaWithoutPair" | "AfterDrain" | "Version" | "GreetingTimeout"
            | "Silent" | "DrainTimeout" | "Unread" | "TooManyChanges"
    )
}

/// What to do where policy refuses stanzas for this reason; `None` for words of other versions.
#[must_use]
pub fn of_refusal(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "AccessPolicy" => {
            "open the partner for the user by an ExternalAccessPolicy, if it is meant"
        }
        "Content" => "nothing, or add the namespace to EdgePool spec.content if it may cross",
        "Contact" => {
            "the user adds the remote address, or change the partner's partnerType if everybody may write"
        }
        "JidMalformed" => "see to the sender's address or software",
        "TooLarge" => "raise maxStanzaBytes if stanzas of this size may cross",
        "TooDeep" | "TooManyAttributes" | "TooManyNamespaces" | "NameTooLong" | "NamespaceName"
        | "ExoticName" | "StanzaNamespace" | "StanzaTo" => "see to the sender's software",
        _ => return of_outcome(reason),
    })
}
