//! Presence that the edge says on behalf of users, and how its addresses are written.

use xmpp_edge_crds::domain::{DomainName, NameForm};

use super::address::split_bare;
use crate::{
    negotiation::{Pair, Side, WireNames},
    xml::rewrite,
};

/// A presence of our own: what takes presence back, or asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnPresence {
    /// Of the next hop.
    pub side: Side,
    pub pair: Pair,
    pub(super) from: OwnAddress,
    pub(super) to: OwnAddress,
    pub(super) type_: &'static str,
}

/// A full or bare JID in prepared form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnAddress {
    bare: String,
    /// Empty for a bare JID.
    resource: String,
}

impl OwnPresence {
    /// The stanza, each domain in the form in which its own server has it: `names.peer` is that of `to`. A server
    /// that compares bytes takes another form for another host.
    #[must_use]
    pub fn write(&self, names: WireNames) -> Vec<u8> {
        let (from, to) = (self.from.write(names.local), self.to.write(names.peer));
        let mut bytes = Vec::with_capacity(64 + from.len() + to.len());
        rewrite::presence(&from, &to, Some(self.type_), &mut bytes);
        bytes
    }
}

impl OwnAddress {
    pub(super) fn new(bare: &str, resource: &str) -> Self {
        Self {
            bare: bare.to_owned(),
            resource: resource.to_owned(),
        }
    }

    fn write(&self, form: NameForm) -> String {
        let (local, domain) = split_bare(&self.bare);
        let name = DomainName::parse(domain);
        let domain = name.as_ref().map_or(domain.into(), |name| form.write(name));
        let at = if local.is_some() { "@" } else { "" };
        let slash = if self.resource.is_empty() { "" } else { "/" };
        format!(
            "{}{at}{domain}{slash}{}",
            local.unwrap_or_default(),
            self.resource
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s3_each_domain_of_our_own_presence_is_in_the_form_of_its_server() {
        let domain = |name| DomainName::parse(name).expect("a domain");
        let own = OwnPresence {
            side: Side::Partner,
            pair: Pair {
                from: domain("org.example"),
                to: domain("b\u{fc}cher.example"),
            },
            from: OwnAddress::new("alice@org.example", ""),
            to: OwnAddress::new("rob@xn--bcher-kva.example", "x"),
            type_: "probe",
        };
        for (form, to) in [
            (NameForm::Letters, "rob@b\u{fc}cher.example/x"),
            (NameForm::Ascii, "rob@xn--bcher-kva.example/x"),
        ] {
            let names = WireNames {
                peer: form,
                local: NameForm::Letters,
            };
            let text = String::from_utf8(own.write(names)).expect("UTF-8");
            assert_eq!(
                text,
                format!("<presence from='alice@org.example' to='{to}' type='probe'/>")
            );
        }
    }
}
