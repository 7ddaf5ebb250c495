//! Stream features (RFC 6120 section 4.3.2): what the peer announces, and what we announce.

use super::{
    Output, StreamLimits,
    acks::Namespace,
    wire::{self, Writer, ns},
};
use crate::xml::Element;

/// What the peer announced after its last header. Forgotten after TLS and after SASL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PeerFeatures {
    pub starttls: Option<StartTlsFeature>,
    pub external: bool,
    pub dialback: bool,
    /// `<errors/>`: more than one target may share the stream (XEP-0220 section 2.6.2).
    pub dialback_errors: bool,
    pub bidi: bool,
    pub acks: Option<Namespace>,
    pub trunk: bool,
    pub limits: Option<StreamLimits>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StartTlsFeature {
    pub required: bool,
}

impl PeerFeatures {
    /// Reads `<stream:features/>`; what is unknown does not matter.
    pub(super) fn read(features: &Element) -> Self {
        let starttls = features
            .child(ns::TLS, "starttls")
            .map(|starttls| StartTlsFeature {
                required: starttls.child(ns::TLS, "required").is_some(),
            });
        let external = features
            .child(ns::SASL, "mechanisms")
            .is_some_and(|mechanisms| {
                mechanisms.children().any(|mechanism| {
                    mechanism.is(ns::SASL, "mechanism") && mechanism.text().trim() == "EXTERNAL"
                })
            });
        let dialback = features.child(ns::DIALBACK_FEATURE, "dialback");
        let acks = [Namespace::Sm3, Namespace::Sm2]
            .into_iter()
            .find(|version| features.child(version.as_str(), "sm").is_some());
        Self {
            starttls,
            external,
            dialback: dialback.is_some(),
            dialback_errors: dialback
                .is_some_and(|dialback| dialback.child(ns::DIALBACK_FEATURE, "errors").is_some()),
            bidi: [ns::BIDI_FEATURE, ns::BIDI]
                .into_iter()
                .any(|namespace| features.child(namespace, "bidi").is_some()),
            acks,
            trunk: features.child(ns::TRUNK, "trunk").is_some(),
            limits: features.child(ns::LIMITS, "limits").map(read_limits),
        }
    }
}

/// Reads `<limits/>` of XEP-0478. What is no number is no limit.
pub(super) fn read_limits(limits: &Element) -> StreamLimits {
    let number = |name| {
        limits
            .child(ns::LIMITS, name)
            .and_then(|child| child.text().trim().parse().ok())
    };
    StreamLimits {
        max_bytes: number("max-bytes"),
        idle_seconds: number("idle-seconds"),
    }
}

/// What we announce, and so what we accept until the next header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OwnFeatures {
    pub starttls: Option<StartTlsFeature>,
    pub external: bool,
    pub dialback: bool,
    pub bidi: bool,
    pub acks: bool,
    pub trunk: bool,
    pub limits: StreamLimits,
}

impl OwnFeatures {
    pub(super) fn send(&self, out: &mut Vec<Output>) {
        let mut markup = String::from("<stream:features>");
        match self.starttls {
            Some(StartTlsFeature { required: true }) => {
                markup.push_str(&format!(
                    "<starttls xmlns='{}'><required/></starttls>",
                    ns::TLS
                ));
            }
            Some(StartTlsFeature { required: false }) => {
                markup.push_str(&format!("<starttls xmlns='{}'/>", ns::TLS));
            }
            None => {}
        }
        if self.external {
            markup.push_str(&format!(
                "<mechanisms xmlns='{}'><mechanism>EXTERNAL</mechanism></mechanisms>",
                ns::SASL
            ));
        }
        if self.bidi {
            markup.push_str(&format!("<bidi xmlns='{}'/>", ns::BIDI_FEATURE));
        }
        if self.dialback {
            markup.push_str(&format!(
                "<dialback xmlns='{}'><errors/></dialback>",
                ns::DIALBACK_FEATURE
            ));
        }
        if self.acks {
            markup.push_str(&format!("<sm xmlns='{}'/>", Namespace::Sm3.as_str()));
        }
        if self.trunk {
            markup.push_str(&format!("<trunk xmlns='{}'/>", ns::TRUNK));
        }
        markup.push_str(&wire::limits(self.limits));
        markup.push_str("</stream:features>");
        Writer::new().raw(&markup).send(out);
    }
}
