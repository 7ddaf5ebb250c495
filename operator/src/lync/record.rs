//! One object of an export, whatever the export was written in.

use std::collections::BTreeMap;

/// A property's value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Property {
    Null,
    Bool(bool),
    Number(i64),
    Text(String),
    List(Vec<Property>),
    /// An object inside an object: what it calls itself (`ToString`), if it says so.
    Nested(Option<String>),
}

/// The objects that are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LyncRecordKind {
    Partner,
    Policy,
    Gateway,
}

/// An exported object: .NET type names where the export tells them, and properties by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Record {
    pub types: Vec<String>,
    pub properties: BTreeMap<String, Property>,
}

impl Record {
    /// By type name; by properties that no other object has where there is none (JSON).
    pub(super) fn kind(&self) -> Option<LyncRecordKind> {
        const TYPES: [(&str, LyncRecordKind); 4] = [
            ("XmppAllowedPartner", LyncRecordKind::Partner),
            ("ExternalAccessPolicy", LyncRecordKind::Policy),
            ("XmppGatewayConfiguration", LyncRecordKind::Gateway),
            ("XmppGatewaySettings", LyncRecordKind::Gateway),
        ];
        const PROPERTIES: [(&str, LyncRecordKind); 6] = [
            ("TlsNegotiation", LyncRecordKind::Partner),
            ("SaslNegotiation", LyncRecordKind::Partner),
            ("SupportDialbackNegotiation", LyncRecordKind::Partner),
            ("EnableXmppAccess", LyncRecordKind::Policy),
            ("EnableFederationAccess", LyncRecordKind::Policy),
            ("PartnerConnectionLimit", LyncRecordKind::Gateway),
        ];
        let by_type = TYPES
            .iter()
            .find(|(name, _)| self.types.iter().any(|t| t.contains(name)))
            .map(|(_, kind)| *kind);
        by_type.or_else(|| {
            PROPERTIES
                .iter()
                .find(|(name, _)| self.properties.contains_key(*name))
                .map(|(_, kind)| *kind)
        })
    }

    /// A property that is there and not null.
    pub(super) fn get(&self, name: &str) -> Option<&Property> {
        self.properties
            .get(name)
            .filter(|property| **property != Property::Null)
    }

    /// A text, or what an inner object calls itself; an empty one is none.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Property::Text(text) | Property::Nested(Some(text)) if !text.trim().is_empty() => {
                Some(text.trim())
            }
            _ => None,
        }
    }

    pub(super) fn bool(&self, name: &str) -> Option<bool> {
        match self.get(name)? {
            Property::Bool(value) => Some(*value),
            Property::Text(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Property::Text(text) if text.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        }
    }

    pub(super) fn number(&self, name: &str) -> Option<i64> {
        match self.get(name)? {
            Property::Number(value) => Some(*value),
            Property::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// A list of names, none of which can hold white space or a comma. ConvertTo-Json writes a list
    /// below its `-Depth` (2, where nothing else was said) as one text with spaces between.
    pub(super) fn names(&self, name: &str) -> Vec<&str> {
        let texts = match self.get(name) {
            Some(Property::List(items)) => items.as_slice(),
            Some(one) => std::slice::from_ref(one),
            None => &[],
        };
        texts
            .iter()
            .filter_map(|text| match text {
                Property::Text(text) | Property::Nested(Some(text)) => Some(text.as_str()),
                _ => None,
            })
            .flat_map(|text| text.split(|c: char| c == ',' || c == ';' || c.is_whitespace()))
            .filter(|name| !name.is_empty())
            .collect()
    }

    /// Whether a property is there whose content the export left out: an object below the `-Depth` of
    /// ConvertTo-Json is told by the name of its .NET type, or as `@{…}`.
    pub(super) fn is_cut_off(&self, name: &str) -> bool {
        let cut = |property: &Property| match property {
            Property::Text(text) => {
                text.starts_with("System.")
                    || text.starts_with("Microsoft.")
                    || text.starts_with("@{")
            }
            Property::Nested(None) => true,
            _ => false,
        };
        match self.get(name) {
            Some(Property::List(items)) => items.iter().any(cut),
            Some(one) => cut(one),
            None => false,
        }
    }
}
