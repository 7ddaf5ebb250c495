//! `application/im-iscomposing+xml` (RFC 3994).

use crate::xml::{
    document::{DocumentFault, DocumentLimits, read_document},
    element::Element,
};

const NAMESPACE: &str = "urn:ietf:params:xml:ns:im-iscomposing";

const LIMITS: DocumentLimits = DocumentLimits {
    bytes: 4 * 1024,
    depth: 16,
    elements: 64,
    attributes: 16,
    namespaces: 32,
    name_bytes: 256,
};

/// Seconds after which who says nothing more has stopped (RFC 3994 section 3.3).
const DEFAULT_REFRESH: u32 = 120;
/// Most seconds that are believed.
const MAX_REFRESH: u32 = 3_600;
/// Seconds that we say: RFC 3994 section 3.2 wants no fewer.
const OUR_REFRESH: u32 = 60;

/// Whether somebody is writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typing {
    Active {
        /// Seconds after which it is over where nothing more is said; 1 to 3,600.
        refresh: u32,
    },
    /// And any state that is not known (RFC 3994 section 3.5).
    Idle,
}

impl Typing {
    /// What of a user of XMPP is told: `active` is to be said again within a minute.
    #[must_use]
    pub fn started() -> Self {
        Self::Active {
            refresh: OUR_REFRESH,
        }
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, DocumentFault> {
        let root = read_document(bytes, &LIMITS)?;
        if !root.is(NAMESPACE, "isComposing") {
            return Err(DocumentFault::Malformed);
        }
        let text = |name: &str| root.child(NAMESPACE, name).map(Element::text);
        let state = text("state").ok_or(DocumentFault::Malformed)?;
        if state.trim() != "active" {
            return Ok(Self::Idle);
        }
        Ok(Self::Active {
            refresh: text("refresh").map_or(DEFAULT_REFRESH, |text| refresh(text.trim())),
        })
    }

    /// The document that says it.
    #[must_use]
    pub fn to_document(self) -> String {
        let says = match self {
            Self::Active { refresh } => {
                format!("<state>active</state><refresh>{refresh}</refresh>")
            }
            Self::Idle => "<state>idle</state>".to_owned(),
        };
        format!(
            "<?xml version='1.0' encoding='UTF-8'?>\r\n\
             <isComposing xmlns='{NAMESPACE}'>{says}</isComposing>"
        )
    }
}

/// A positive number of any length; what is none is not there.
fn refresh(text: &str) -> u32 {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u32>() {
        Ok(0) => DEFAULT_REFRESH,
        Ok(seconds) => seconds.min(MAX_REFRESH),
        Err(_) if digits => MAX_REFRESH,
        Err(_) => DEFAULT_REFRESH,
    }
}
