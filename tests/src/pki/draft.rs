//! What a leaf says: the variants that a verifier must tell apart.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    KeyPair, KeyUsagePurpose, OtherNameValue, SanType,
};

use super::{Authority, Leaf, Usage, VALID_DAYS, set_validity};

/// id-on-xmppAddr (RFC 6120 section 13.7.1.4).
const XMPP_ADDR: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 8, 5];

/// When a leaf is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    Now,
    /// Valid for a few days more of many.
    EndsSoon,
    Expired,
    NotYet,
    /// From yesterday on, for so many seconds from now.
    Seconds(u32),
}

/// A leaf to be signed.
#[derive(Clone, Debug)]
pub struct Draft {
    /// dNSNames, written as they stand: wildcards and nonsense included.
    pub names: Vec<String>,
    /// xmppAddr names.
    pub addresses: Vec<String>,
    pub uris: Vec<String>,
    pub ip_addresses: Vec<IpAddr>,
    pub common_name: String,
    pub organisation: Option<String>,
    pub organisational_unit: Option<String>,
    pub usage: Usage,
    pub validity: Validity,
    /// OID and DER of an extension more.
    pub extension: Option<(Vec<u64>, Vec<u8>)>,
}

impl Draft {
    /// An ordinary leaf for `names`; the first is its common name too.
    pub fn of(names: &[&str]) -> Self {
        Self {
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            addresses: Vec::new(),
            uris: Vec::new(),
            ip_addresses: Vec::new(),
            common_name: (*names.first().unwrap_or(&"nobody")).to_owned(),
            organisation: None,
            organisational_unit: None,
            usage: Usage::ServerAndClientAuth,
            validity: Validity::Now,
            extension: None,
        }
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        let dns = self
            .names
            .iter()
            .map(|name| SanType::DnsName(name.as_str().try_into().expect("tests name in ASCII")));
        let addresses = self.addresses.iter().map(|address| {
            SanType::OtherName((
                XMPP_ADDR.to_vec(),
                OtherNameValue::Utf8String(address.clone()),
            ))
        });
        let ip_addresses = self.ip_addresses.iter().copied().map(SanType::IpAddress);
        let uris = self
            .uris
            .iter()
            .map(|uri| SanType::URI(uri.as_str().try_into().expect("tests write URIs in ASCII")));
        let others = addresses.chain(ip_addresses).chain(uris);
        params.subject_alt_names = dns.chain(others).collect();
        params.distinguished_name = DistinguishedName::new();
        if let Some(organisation) = &self.organisation {
            params
                .distinguished_name
                .push(DnType::OrganizationName, organisation.as_str());
        }
        if let Some(unit) = &self.organisational_unit {
            params
                .distinguished_name
                .push(DnType::OrganizationalUnitName, unit.as_str());
        }
        params
            .distinguished_name
            .push(DnType::CommonName, self.common_name.as_str());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match self.usage {
            Usage::ServerAuth => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::ClientAuth => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::ServerAndClientAuth => vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
        };
        let (from, to) = match self.validity {
            Validity::Now => (-1, VALID_DAYS),
            Validity::EndsSoon => (-VALID_DAYS, 5),
            Validity::Expired => (-VALID_DAYS, -1),
            Validity::NotYet => (2, VALID_DAYS),
            Validity::Seconds(_) => (-1, 1),
        };
        set_validity(&mut params, from, to);
        if let Validity::Seconds(seconds) = self.validity {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let end = now.expect("after 1970") + Duration::from_secs(seconds.into());
            params.not_after = rcgen::date_time_ymd(1970, 1, 1) + end;
        }
        if let Some((oid, der)) = &self.extension {
            params
                .custom_extensions
                .push(CustomExtension::from_oid_content(oid, der.clone()));
        }
        params
    }

    /// Signs it with its own key.
    pub fn self_signed(&self) -> Leaf {
        let key = KeyPair::generate().expect("a key can be generated");
        let leaf = self
            .params()
            .self_signed(&key)
            .expect("a leaf can be signed");
        Leaf {
            certificate: leaf.pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Authority {
    /// Signs what the draft says; the certificates up to the root come along.
    pub fn issue_as(&self, draft: &Draft) -> Leaf {
        let mut params = draft.params();
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().expect("a key can be generated");
        let leaf = params
            .signed_by(&key, &self.issuer)
            .expect("a leaf can be signed");
        Leaf {
            certificate: leaf.pem() + &self.path,
            key: key.serialize_pem(),
        }
    }
}
