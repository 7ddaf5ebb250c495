//! From a checked element to a nonza.

use std::str::FromStr;

use jiff::Timestamp;
use thiserror::Error;
use xmpp_edge_crds::domain::DomainName;

use super::{
    Activity, EdgeChange, EdgeFacts, Enable, Enabled, MOST_COUNTS, Nonza, OpenedPair, PairCount,
    ServerState, TEXT_CHARACTERS, TrunkAck,
};
use crate::{
    config::trunk_name::{ProductVersion, TrunkName},
    negotiation::Pair,
    trunk::{NAMESPACE, PairNumber},
    xml::Element,
};

/// Why an element is no nonza. Names nothing that the peer wrote but the element's name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NonzaError {
    #[error("<{0}/> is not known on a trunk")]
    Unknown(String),
    #[error("<{element}/> has no '{attribute}'")]
    Missing {
        element: &'static str,
        attribute: &'static str,
    },
    #[error("'{attribute}' of <{element}/> is wrong: {wanted} is wanted")]
    Invalid {
        element: &'static str,
        attribute: &'static str,
        wanted: &'static str,
    },
    #[error("<{element}/> contains what it may not contain")]
    Content { element: &'static str },
    #[error("<a/> counts more than {MOST_COUNTS} pairs")]
    TooManyCounts,
}

impl Nonza {
    /// Reads a top-level element of a trunk that is no stanza.
    ///
    /// # Errors
    /// [`NonzaError`]: the trunk ends.
    pub fn read(element: &Element) -> Result<Self, NonzaError> {
        let unknown = || NonzaError::Unknown(element.name.chars().take(64).collect());
        if element.namespace != NAMESPACE {
            return Err(unknown());
        }
        let of = |name| Attributes { element, name };
        Ok(match element.name.as_str() {
            "a" => return ack(&of("a")).map(Self::Ack),
            "pair" => Self::Pair(of("pair").pair()?),
            "r" => Self::Request(of("r").number("n")?),
            "end" => Self::End(of("end").pair_number()?),
            "drain" => {
                of("drain").has_no_content()?;
                Self::Drain
            }
            "enable" => Self::Enable(of("enable").enable()?),
            "enabled" => Self::Enabled(of("enabled").enabled()?),
            "edge" => Self::Edge(of("edge").change()?),
            "server" => Self::Server(of("server").server()?),
            "claim" => {
                let claim = of("claim");
                claim.has_no_content()?;
                Self::Claim(claim.time("since")?)
            }
            _ => return Err(unknown()),
        })
    }
}

/// A whole number, in digits alone; `None` too where `T` cannot hold it.
fn number<T: FromStr>(text: &str) -> Option<T> {
    let is_plain = (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok()).flatten()
}

/// As XML Schema writes a boolean.
fn flag(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

fn ack(attributes: &Attributes<'_>) -> Result<TrunkAck, NonzaError> {
    let mut counts = Vec::new();
    for child in attributes.element.children() {
        if !child.is(NAMESPACE, "p") {
            return Err(NonzaError::Content { element: "a" });
        }
        if counts.len() == MOST_COUNTS {
            return Err(NonzaError::TooManyCounts);
        }
        let of = Attributes {
            element: child,
            name: "p",
        };
        counts.push(PairCount {
            number: of.pair_number()?,
            h: of.number("h")?,
        });
    }
    let answers = attributes.optional("n", A_NUMBER, number)?;
    Ok(TrunkAck { answers, counts })
}

const A_NUMBER: &str = "a whole number below 4294967296";
const A_LARGE_NUMBER: &str = "a whole number below 18446744073709551616";
const A_SMALL_NUMBER: &str = "a whole number below 65536";
const TRUE_OR_FALSE: &str = "'true' or 'false'";
const A_NAME: &str = "1 to 253 printable ASCII characters without space";

/// Reads the attributes of one nonza.
struct Attributes<'a> {
    element: &'a Element,
    name: &'static str,
}

impl<'a> Attributes<'a> {
    fn required(&self, attribute: &'static str) -> Result<&'a str, NonzaError> {
        self.element
            .attribute(attribute)
            .ok_or(NonzaError::Missing {
                element: self.name,
                attribute,
            })
    }

    fn optional<T>(
        &self,
        attribute: &'static str,
        wanted: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, NonzaError> {
        let value = self.element.attribute(attribute);
        value
            .map(|value| read(value).ok_or_else(|| self.invalid(attribute, wanted)))
            .transpose()
    }

    fn one<T>(
        &self,
        attribute: &'static str,
        wanted: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, NonzaError> {
        read(self.required(attribute)?).ok_or_else(|| self.invalid(attribute, wanted))
    }

    fn invalid(&self, attribute: &'static str, wanted: &'static str) -> NonzaError {
        NonzaError::Invalid {
            element: self.name,
            attribute,
            wanted,
        }
    }

    fn number(&self, attribute: &'static str) -> Result<u32, NonzaError> {
        self.one(attribute, A_NUMBER, number)
    }

    fn queue(&self) -> Result<u64, NonzaError> {
        let read = |text: &str| number(text).filter(|bytes| *bytes > 0);
        self.one("queue", "a number of bytes above 0", read)
    }

    fn name(&self, attribute: &'static str) -> Result<TrunkName, NonzaError> {
        self.one(attribute, A_NAME, |text| text.parse().ok())
    }

    fn version(&self) -> Result<ProductVersion, NonzaError> {
        self.one("version", "a version as 1.1.0", |text| text.parse().ok())
    }

    fn domain(&self, attribute: &'static str) -> Result<DomainName, NonzaError> {
        self.one(attribute, "a domain name", |text| {
            DomainName::parse(text).ok()
        })
    }

    fn time(&self, attribute: &'static str) -> Result<Option<Timestamp>, NonzaError> {
        self.optional(attribute, "a time as 2026-11-28T10:00:00Z", |text| {
            text.parse().ok()
        })
    }

    fn pair_number(&self) -> Result<PairNumber, NonzaError> {
        self.has_no_content()?;
        self.number("i").map(PairNumber)
    }

    /// White space is none.
    fn has_no_content(&self) -> Result<(), NonzaError> {
        let is_empty = self.element.children().next().is_none();
        let silent = self.element.text().trim().is_empty();
        (is_empty && silent)
            .then_some(())
            .ok_or(NonzaError::Content { element: self.name })
    }

    fn pair(&self) -> Result<OpenedPair, NonzaError> {
        Ok(OpenedPair {
            number: self.pair_number()?,
            pair: Pair {
                from: self.domain("from")?,
                to: self.domain("to")?,
            },
        })
    }

    fn enable(&self) -> Result<Enable, NonzaError> {
        self.has_no_content()?;
        let server = self.one("server", "'up' or 'down'", |text| match text {
            "up" => Some(ServerState::Up),
            "down" => Some(ServerState::Down {
                text: String::new(),
            }),
            _ => None,
        })?;
        Ok(Enable {
            instance: self.name("instance")?,
            start: self.optional("start", A_LARGE_NUMBER, number)?,
            version: self.version()?,
            queue: self.queue()?,
            claim: self.time("claim")?,
            server,
        })
    }

    fn enabled(&self) -> Result<Enabled, NonzaError> {
        let missing = |attribute| NonzaError::Missing {
            element: self.name,
            attribute,
        };
        let said = self.change()?;
        Ok(Enabled {
            pool: self.name("pool")?,
            pod: self.name("pod")?,
            version: self.version()?,
            queue: self.queue()?,
            facts: EdgeFacts {
                priority: said.priority.ok_or_else(|| missing("priority"))?,
                weight: said.weight.ok_or_else(|| missing("weight"))?,
                is_withdrawn: said.is_withdrawn.unwrap_or_default(),
                replicas: said.replicas.ok_or_else(|| missing("replicas"))?,
            },
            activity: said.activity.ok_or_else(|| missing("active"))?,
        })
    }

    fn change(&self) -> Result<EdgeChange, NonzaError> {
        self.has_no_content()?;
        Ok(EdgeChange {
            priority: self.optional("priority", A_SMALL_NUMBER, number)?,
            weight: self.optional("weight", A_SMALL_NUMBER, number)?,
            is_withdrawn: self.optional("withdrawn", TRUE_OR_FALSE, flag)?,
            replicas: self.optional("replicas", A_SMALL_NUMBER, number)?,
            activity: match self.optional("active", TRUE_OR_FALSE, flag)? {
                Some(is_active) => Some(Activity {
                    is_active,
                    claim: self.time("claim")?,
                }),
                None => None,
            },
        })
    }

    fn server(&self) -> Result<ServerState, NonzaError> {
        self.has_no_content()?;
        let is_up = self.one("up", TRUE_OR_FALSE, flag)?;
        let text = self.element.attribute("text").unwrap_or_default();
        let text: String = text.chars().take(TEXT_CHARACTERS).collect();
        Ok(match is_up {
            true if text.is_empty() => ServerState::Up,
            true => ServerState::Refuses { text },
            false => ServerState::Down { text },
        })
    }
}
