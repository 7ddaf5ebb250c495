//! `<KeyboardActivity/>`: what an INFO says of whether somebody is writing.

use crate::{
    sip::{body::Typing, wire::Parameterised},
    xml::document::{DocumentLimits, read_document},
};

/// Its media type.
pub const ACTIVITY_TYPE: &str = "application/xml";

const LIMITS: DocumentLimits = DocumentLimits {
    bytes: 4 * 1024,
    depth: 8,
    elements: 16,
    attributes: 8,
    namespaces: 16,
    name_bytes: 256,
};

/// Seconds after which who says nothing more has stopped: clients say it every few seconds.
const REFRESH: u32 = 30;

/// What the body of an INFO says; `None`: nothing of writing.
#[must_use]
pub fn read_activity(content_type: Option<&str>, body: &[u8]) -> Option<Typing> {
    let media = Parameterised::read(content_type?).ok()?;
    if media.value != ACTIVITY_TYPE {
        return None;
    }
    let root = read_document(body, &LIMITS).ok()?;
    if root.name != "KeyboardActivity" {
        return None;
    }
    let status = root.children().find(|it| it.name == "status")?;
    match status.attribute("status")? {
        "type" => Some(Typing::Active { refresh: REFRESH }),
        _ => Some(Typing::Idle),
    }
}

/// The document that says it.
#[must_use]
pub fn write_activity(typing: Typing) -> &'static str {
    match typing {
        Typing::Active { .. } => {
            "<?xml version=\"1.0\"?>\r\n<KeyboardActivity>\r\n  <status status=\"type\" />\r\n</KeyboardActivity>"
        }
        Typing::Idle => {
            "<?xml version=\"1.0\"?>\r\n<KeyboardActivity>\r\n  <status status=\"idle\" />\r\n</KeyboardActivity>"
        }
    }
}
