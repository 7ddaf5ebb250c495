//! What the devices of a user of XMPP say to a document.

use xmpp_edge_crds::{edge_config::SipDialect, jid::BareJid};

use super::{Availability, MAX_DEVICES, Show, WatchedDevice, ns, stand_in};
use crate::{
    sip::address::{AddressFault, device_uri, pres_uri, sip_uri},
    xml::{self, text::escape_attribute, text::escape_text},
};

/// A document, and what of what was to be said is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenPresence {
    pub document: Vec<u8>,
    /// Devices more than ten.
    pub left_out: usize,
}

/// All that is known of `user`: their ten devices that are available, of the highest priorities, first.
/// Without any they are unavailable. In dialect `Lync` users are named by `sip:` alone, and devices not at all. Prefixes are those that clients look for, declared at the root.
///
/// # Errors
/// [`AddressFault`]: the user has no address in SIP.
pub fn write(
    user: &BareJid,
    devices: &[WatchedDevice],
    dialect: SipDialect,
) -> Result<WrittenPresence, AddressFault> {
    let mut sorted: Vec<&WatchedDevice> = devices.iter().collect();
    sorted.sort_by_key(|it| std::cmp::Reverse(precedence(&it.availability)));
    let left_out = sorted.len().saturating_sub(MAX_DEVICES);
    sorted.truncate(MAX_DEVICES);

    let mut out = b"<?xml version='1.0' encoding='UTF-8'?>\r\n<presence".to_vec();
    attribute("xmlns", ns::PIDF, &mut out);
    attribute("xmlns:dm", ns::DATA_MODEL, &mut out);
    attribute("xmlns:rpid", ns::RPID, &mut out);
    let entity = match dialect {
        SipDialect::Simple => pres_uri(user)?,
        SipDialect::Lync => sip_uri(user)?,
    };
    attribute("entity", &entity, &mut out);
    out.push(b'>');
    if sorted.is_empty() {
        out.extend_from_slice(
            b"<tuple id='ID-none'><status><basic>closed</basic></status></tuple>",
        );
    }
    for device in &sorted {
        tuple(user, device, dialect, &mut out)?;
    }
    if let Some(Availability::Available {
        show: Some(show), ..
    }) = sorted.first().map(|it| &it.availability)
        && let Some(activity) = activity(*show)
    {
        let person = format!(
            "<dm:person id='person'><rpid:activities><rpid:{activity}/></rpid:activities></dm:person>"
        );
        out.extend_from_slice(person.as_bytes());
    }
    out.extend_from_slice(b"</presence>");
    Ok(WrittenPresence {
        document: out,
        left_out,
    })
}

/// Nobody reaches who is unavailable; else the highest priority wins.
fn precedence(availability: &Availability) -> Option<u8> {
    match availability {
        Availability::Available { priority, .. } => Some(*priority),
        Availability::Unavailable => None,
    }
}

fn tuple(
    user: &BareJid,
    device: &WatchedDevice,
    dialect: SipDialect,
    out: &mut Vec<u8>,
) -> Result<(), AddressFault> {
    out.extend_from_slice(b"<tuple");
    attribute("id", &tuple_id(&device.resource), out);
    out.extend_from_slice(b"><status>");
    match &device.availability {
        Availability::Unavailable => element("basic", "closed", out),
        Availability::Available {
            show,
            notes,
            priority,
        } => {
            element("basic", "open", out);
            if let Some(show) = show {
                out.extend_from_slice(b"<show");
                attribute("xmlns", xml::ns::CLIENT, out);
                out.push(b'>');
                out.extend_from_slice(show.as_str().as_bytes());
                out.extend_from_slice(b"</show>");
            }
            out.extend_from_slice(b"</status><contact");
            attribute("priority", &contact_priority(*priority), out);
            out.push(b'>');
            let contact = match dialect {
                SipDialect::Simple => device_uri(user, &device.resource)?,
                SipDialect::Lync => sip_uri(user)?,
            };
            escape_text(&contact, out);
            out.extend_from_slice(b"</contact>");
            for note in notes {
                out.extend_from_slice(b"<note");
                if let Some(language) = &note.language {
                    attribute("xml:lang", language, out);
                }
                out.push(b'>');
                escape_text(&note.text, out);
                out.extend_from_slice(b"</note>");
            }
        }
    }
    if device.availability == Availability::Unavailable {
        out.extend_from_slice(b"</status>");
    }
    element("timestamp", &device.since.to_string(), out);
    out.extend_from_slice(b"</tuple>");
    Ok(())
}

/// An `xs:ID` in ASCII (RFC 8048 section 6.2).
fn tuple_id(resource: &str) -> String {
    let goes_on = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if resource.bytes().all(goes_on) {
        format!("ID-{resource}")
    } else {
        stand_in(resource)
    }
}

/// 0 to 1, by 127ths, so that each priority is another one.
fn contact_priority(priority: u8) -> String {
    let thousandths = (u32::from(priority.min(127)) * 1_000 + 63) / 127;
    format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000)
}

fn activity(show: Show) -> Option<&'static str> {
    match show {
        Show::Chat => None,
        Show::Away | Show::ExtendedAway => Some("away"),
        Show::DoNotDisturb => Some("busy"),
    }
}

fn attribute(name: &str, value: &str, out: &mut Vec<u8>) {
    out.push(b' ');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"='");
    escape_attribute(value, out);
    out.push(b'\'');
}

fn element(name: &str, text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("<{name}>").as_bytes());
    escape_text(text, out);
    out.extend_from_slice(format!("</{name}>").as_bytes());
}
