//! What the edge promises on the wire (`docs/acceptance.md`), by subject: scripted peers, and real servers
//! where the row names them. One binary, because linking them apart costs more than running them.

#![allow(clippy::unwrap_used)]

mod access;
mod dane;
mod dialback;
mod floods;
mod internal;
mod keys;
mod limits;
mod multiplex;
mod negotiation;
mod partner;
mod partner_content;
mod partner_leaving;
mod reliability;
mod routing;
mod sasl;
mod shares;
mod streams;
mod testssl;
mod tls;
mod xml;
mod xml_real_servers;
mod xml_streams;
