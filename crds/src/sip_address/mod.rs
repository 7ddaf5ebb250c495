//! Users of each side as the other addresses them (RFC 7247 section 6, XEP-0106).
//!
//! Both ways are one mapping: an address that would not come back as it went is refused, for two people
//! must never become one. What SIP users' names differ in by case alone is one person, as in XMPP
//! (RFC 7622 section 3.3; *departs* from RFC 3261 section 19.1.4).

mod asked;
mod escape;
#[cfg(test)]
mod tests;
mod uri;

use std::net::IpAddr;

use crate::{
    domain::{DomainError, DomainName},
    jid::{BareJid, JidError, MAX_PART_BYTES, check_resource, prepare_local},
};
use thiserror::Error;

pub use self::asked::{AskedAddressFault, asked_address};
use self::escape::{
    escape, escapes, is_parameter_char, is_user_char, percent_decode, percent_encode, unescape,
};
pub use self::uri::{MAX_PARAMETERS, Scheme, SipUri, UriFault};

/// Why an address has no form on the other side: 404 where it is the addressee's, 403 where the sender's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddressFault {
    #[error(transparent)]
    Uri(#[from] UriFault),
    #[error("no user part")]
    NoUser,
    #[error("a password")]
    Password,
    #[error("a percent sign without two digits behind it")]
    Percent,
    #[error("not UTF-8")]
    NotUtf8,
    #[error("a space at an end, which no localpart may stand for (XEP-0106 section 4.2)")]
    OuterSpace,
    #[error("it would read as another user's")]
    Ambiguous,
    #[error(transparent)]
    Jid(#[from] JidError),
}

impl SipUri {
    /// The user whom it is about. Port and parameters do not count.
    ///
    /// # Errors
    /// [`AddressFault`].
    pub fn bare_jid(&self) -> Result<BareJid, AddressFault> {
        let user = self.user.as_deref().ok_or(AddressFault::NoUser)?;
        if user.contains(':') {
            return Err(AddressFault::Password);
        }
        let user = decoded(user)?;
        if user.is_empty() {
            return Err(AddressFault::NoUser);
        }
        let local = local_of_user(&user)?;
        let domain = domain_of_host(&self.host)?;
        Ok(BareJid::new(Some(&local), domain))
    }

    /// The device that it is about: what `gr` says (RFC 7247 section 6.3); `None` for whoever of the user's
    /// there are, and for a temporary one, which has no value.
    ///
    /// # Errors
    /// [`AddressFault`].
    pub fn resource(&self) -> Result<Option<String>, AddressFault> {
        let Some(value) = self.parameter("gr").filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        let resource = decoded(value)?;
        if resource.len() > MAX_PART_BYTES {
            return Err(JidError::ResourceTooLong.into());
        }
        check_resource(&resource)?;
        Ok(Some(resource))
    }
}

/// `jid` as SIP addresses it, by scheme `sip` and without parameters.
///
/// # Errors
/// [`AddressFault::NoUser`] for a domain, [`AddressFault::Ambiguous`] for a localpart that stands for one
/// that is written otherwise, as `\5cb` for `\b`.
pub fn sip_uri(jid: &BareJid) -> Result<String, AddressFault> {
    uri_of("sip", jid)
}

/// As [`sip_uri`], by scheme `pres`: who a presence document is about (RFC 3863 section 4.1.1).
///
/// # Errors
/// As [`sip_uri`].
pub fn pres_uri(jid: &BareJid) -> Result<String, AddressFault> {
    uri_of("pres", jid)
}

/// As [`sip_uri`], for one device.
///
/// # Errors
/// As [`sip_uri`].
pub fn device_uri(jid: &BareJid, resource: &str) -> Result<String, AddressFault> {
    let mut uri = sip_uri(jid)?;
    uri.push_str(";gr=");
    percent_encode(resource, is_parameter_char, &mut uri);
    Ok(uri)
}

fn uri_of(scheme: &str, jid: &BareJid) -> Result<String, AddressFault> {
    let local = jid.local().ok_or(AddressFault::NoUser)?;
    let user = unescape(local);
    if escape(&user) != local {
        return Err(AddressFault::Ambiguous);
    }
    check_ends(&user)?;
    let mut uri = format!("{scheme}:");
    percent_encode(&user, is_user_char, &mut uri);
    uri.push('@');
    uri.push_str(jid.domain().as_str());
    Ok(uri)
}

fn decoded(text: &str) -> Result<String, AddressFault> {
    let bytes = percent_decode(text).ok_or(AddressFault::Percent)?;
    String::from_utf8(bytes).map_err(|_| AddressFault::NotUtf8)
}

/// The prepared localpart of a user of that name.
fn local_of_user(user: &str) -> Result<String, AddressFault> {
    check_ends(user)?;
    let escaped = escape(user);
    let local = prepare_local(&escaped)?;
    // Preparing maps wide letters to narrow ones: what comes out must not hold an escape more.
    if escapes(&local) != escapes(&escaped) || escape(&unescape(&local)) != local {
        return Err(AddressFault::Ambiguous);
    }
    Ok(local.into_owned())
}

fn check_ends(user: &str) -> Result<(), AddressFault> {
    if user.starts_with(' ') || user.ends_with(' ') {
        return Err(AddressFault::OuterSpace);
    }
    Ok(())
}

/// A number of any kind is no domain, whatever the resolver would make of it.
fn domain_of_host(host: &str) -> Result<DomainName, AddressFault> {
    if host.starts_with('[') || host.parse::<IpAddr>().is_ok() {
        let shown = DomainError::IpAddress(host.chars().take(64).collect());
        return Err(JidError::Domain(shown).into());
    }
    Ok(DomainName::parse(host).map_err(JidError::Domain)?)
}
