//! What a pod says is cut here, while it is decoded: how long each of its texts is, of which characters, and
//! how many entries a list has. Behind it nobody has to ask again.
//!
//! A pod with a valid certificate may be somebody's who broke into it: what it says costs the operator of all
//! namespaces a constant, and goes into objects, logs and terminals as one line.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use xmpp_edge_crds::line::steers;

/// Most octets of a fixed word: a step, an outcome, a version, a cipher, a digest, a serial number.
pub const WORD: usize = 64;
/// Most octets of a name: of a domain, an object, an instance; an address is one with its port.
pub const NAME: usize = 261;
/// Most octets of a text for people.
pub const TEXT: usize = 1024;

/// Streams of one pod.
pub const STREAMS: usize = 32_768;
/// Partners of which one answer may tell.
pub const PARTNERS: usize = 65_536;
/// Series of what policy refused: a proxy tells the hundred that grew last.
pub const REFUSALS: usize = 256;
/// Steps of one attempt: a proxy tells up to 32 that were only claimed, then 32 inbound and 32 outbound. What follows is
/// left out, and that would be what says how it ended.
pub const STEPS: usize = 96;
/// Gateways of a pool.
pub const GATEWAYS: usize = 128;
/// Domains of a gateway, a stream or a certificate.
pub const DOMAINS: usize = 512;
/// Sidecars, or SIP connections, of one gateway on one pod.
pub const CONNECTIONS: usize = 256;

/// A text of at most `MOST` octets, cut at a character; what would steer a terminal or break a line is a space.
///
/// # Errors
/// Where it is no text.
pub fn text<'de, D: Deserializer<'de>, const MOST: usize>(from: D) -> Result<String, D::Error> {
    from.deserialize_str(Cut::<MOST>)
}

/// As [`text`], or nothing.
///
/// # Errors
/// Where it is neither.
pub fn optional<'de, D: Deserializer<'de>, const MOST: usize>(
    from: D,
) -> Result<Option<String>, D::Error> {
    let cut = Option::<CutText<MOST>>::deserialize(from)?;
    Ok(cut.map(|CutText(text)| text))
}

/// At most `MOST` [`NAME`]s; those that follow are left out.
///
/// # Errors
/// Where it is no list of texts.
pub fn names<'de, D: Deserializer<'de>, const MOST: usize>(
    from: D,
) -> Result<Vec<String>, D::Error> {
    let names = list::<D, CutText<NAME>, MOST>(from)?;
    Ok(names.into_iter().map(|CutText(name)| name).collect())
}

/// At most `MOST` entries; those that follow are read over.
///
/// # Errors
/// Where it is no list of these.
pub fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MOST: usize>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    from.deserialize_seq(First::<T, MOST>(PhantomData))
}

/// As [`list`], or nothing.
///
/// # Errors
/// Where it is neither.
pub fn optional_list<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MOST: usize>(
    from: D,
) -> Result<Option<Vec<T>>, D::Error> {
    let entries = Option::<Entries<T, MOST>>::deserialize(from)?;
    Ok(entries.map(|Entries(entries)| entries))
}

struct Cut<const MOST: usize>;

impl<const MOST: usize> Visitor<'_> for Cut<MOST> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E>(self, said: &str) -> Result<String, E> {
        Ok(line(said, MOST))
    }
}

/// The first `most` octets of what was said, as one line.
#[must_use]
pub fn line(said: &str, most: usize) -> String {
    let end = said.floor_char_boundary(most);
    said[..end].replace(steers, " ")
}

struct CutText<const MOST: usize>(String);

impl<'de, const MOST: usize> Deserialize<'de> for CutText<MOST> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        text::<D, MOST>(from).map(Self)
    }
}

struct Entries<T, const MOST: usize>(Vec<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for Entries<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        list::<D, T, MOST>(from).map(Self)
    }
}

struct First<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for First<T, MOST> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Vec<T>, A::Error> {
        let mut entries = Vec::new();
        while entries.len() < MOST
            && let Some(entry) = from.next_element()?
        {
            entries.push(entry);
        }
        if entries.len() == MOST {
            while from.next_element::<IgnoredAny>()?.is_some() {}
        }
        // Many short lists have room for four entries each else.
        entries.shrink_to_fit();
        Ok(entries)
    }
}
