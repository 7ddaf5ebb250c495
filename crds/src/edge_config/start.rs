//! What of a document takes effect when a proxy starts, in a form that the template of its pod can carry.
//!
//! A document reaches a pod through a mounted volume, up to a minute or two after the template that was made
//! from it. A proxy that took the document of before would keep its ports and its contacts until somebody
//! replaced the pod.

use std::{convert::Infallible, fmt, str::FromStr};

use super::{Contacts, EdgeConfig};

/// Settings that a proxy takes when it starts: its ports, and the kind of its contacts. As text
/// `s2s=5269,contacts=Postgres`; a name that only one side knows is not compared, so that operator and proxy
/// may be of different versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartSettings(Vec<(String, String)>);

/// A setting in which a document is not the one that a pod was made for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a document with {name} {wanted}, as the pod was made for (this one has {found})")]
pub struct OtherStart {
    pub name: String,
    pub wanted: String,
    pub found: String,
}

impl StartSettings {
    /// Those of a document.
    #[must_use]
    pub fn of(config: &EdgeConfig) -> Self {
        let listeners = &config.listeners;
        let ports = [
            ("s2s", listeners.s2s),
            ("directTls", listeners.direct_tls),
            ("internal", listeners.internal),
            ("admin", listeners.admin),
            ("dns", listeners.dns),
            ("sip", listeners.sip),
            ("sipTcp", listeners.sip_tcp),
        ];
        let contacts = match config.contacts {
            Contacts::Embedded => "Embedded",
            Contacts::Postgres => "Postgres",
        };
        let ports = ports.map(|(name, port)| (name.to_owned(), port.to_string()));
        let contacts = ("contacts".to_owned(), contacts.to_owned());
        Self(ports.into_iter().chain([contacts]).collect())
    }

    /// Whether a proxy with these settings may start with `config`.
    ///
    /// # Errors
    /// The first setting that is another there.
    pub fn agree_with(&self, config: &EdgeConfig) -> Result<(), OtherStart> {
        let found = Self::of(config);
        let differs = |(name, wanted): &(String, String)| {
            let (_, found) = found.0.iter().find(|(other, _)| other == name)?;
            (found != wanted).then(|| OtherStart {
                name: name.clone(),
                wanted: wanted.clone(),
                found: found.clone(),
            })
        };
        self.0.iter().find_map(differs).map_or(Ok(()), Err)
    }
}

impl fmt::Display for StartSettings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, value)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(out, "{comma}{name}={value}")?;
        }
        Ok(())
    }
}

/// What is no pair is left out, as a name that nobody knows is.
impl FromStr for StartSettings {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        let owned = pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()));
        Ok(Self(owned.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> EdgeConfig {
        serde_json::from_value(serde_json::json!({
            "version": { "major": 1, "minor": 0 }, "generation": 1,
            "namespace": "org", "pool": "edge", "site": "here", "fqdn": "edge.example",
            "domains": [], "namespaceDomains": [],
            "listeners": { "s2s": 5269, "directTls": 5270, "internal": 23456, "admin": 9090, "dns": 0 },
            "gateways": [], "partners": [],
            "access": { "policies": [], "homeSites": {} },
            "settings": {}, "contacts": "Embedded",
        }))
        .unwrap()
    }

    #[test]
    fn a_document_agrees_with_its_own_settings_as_text() {
        let config = config();
        let settings: StartSettings = StartSettings::of(&config).to_string().parse().unwrap();
        assert_eq!(settings, StartSettings::of(&config));
        assert_eq!(settings.agree_with(&config), Ok(()));
    }

    #[test]
    fn other_contacts_or_ports_are_named() {
        let before = config();
        let mut after = before.clone();
        after.contacts = Contacts::Postgres;
        let wanted = StartSettings::of(&after);
        let other = wanted.agree_with(&before).unwrap_err();
        assert_eq!(
            (&*other.name, &*other.wanted, &*other.found),
            ("contacts", "Postgres", "Embedded")
        );

        let mut moved = before.clone();
        moved.listeners.s2s += 1;
        let other = StartSettings::of(&moved).agree_with(&before).unwrap_err();
        assert_eq!(other.name, "s2s");
    }

    #[test]
    fn what_one_side_does_not_know_is_not_compared() {
        let config = config();
        for text in ["", "quic=443", "nonsense", "quic=443,contacts=Embedded"] {
            let settings: StartSettings = text.parse().unwrap();
            assert_eq!(settings.agree_with(&config), Ok(()), "{text:?}");
        }
    }
}
