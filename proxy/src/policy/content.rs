//! Rule 3: what may be in a stanza. Person to person only; the documented list is a table here.
//!
//! `docs/content.md` says the same for people. Elements are known by namespace, never by prefix,
//! and every one of them counts, not the first or the last.

use xmpp_edge_crds::edge_config;

use crate::xml::{children::every_child_has, stanza::Stanza};

/// A namespace whose iq requests pass between people.
struct IqNamespace {
    name: &'static str,
    /// Also from and to a side without localpart.
    servers_too: bool,
}

const IQ_NAMESPACES: [IqNamespace; 7] = [
    IqNamespace {
        name: "urn:xmpp:ping",
        servers_too: true,
    },
    IqNamespace {
        name: "http://jabber.org/protocol/disco#info",
        servers_too: true,
    },
    IqNamespace {
        name: "urn:xmpp:time",
        servers_too: true,
    },
    IqNamespace {
        name: "jabber:iq:time",
        servers_too: true,
    },
    IqNamespace {
        name: "jabber:iq:version",
        servers_too: true,
    },
    IqNamespace {
        name: "vcard-temp",
        servers_too: true,
    },
    IqNamespace {
        name: "urn:ietf:params:xml:ns:vcard-4.0",
        servers_too: true,
    },
];

/// PEP nodes that may be read, and whose events pass between contacts.
const PEP_NODES: [&str; 4] = [
    "urn:xmpp:avatar:metadata",
    "urn:xmpp:avatar:data",
    "urn:xmpp:vcard4",
    "http://jabber.org/protocol/nick",
];

const PUBSUB: &str = "http://jabber.org/protocol/pubsub";
const PUBSUB_EVENT: &str = "http://jabber.org/protocol/pubsub#event";

/// What a call itself is made of; its offers (XEP-0353) go where this goes.
const JINGLE: &str = "urn:xmpp:jingle:1";

/// The offer of a call, and what is said to it, of every version (XEP-0353 section 3).
fn offers_a_call(namespace: &str) -> bool {
    namespace.starts_with("urn:xmpp:jingle-message:")
}

/// Group chat: joins, occupants, invitations of both kinds, room administration.
fn is_group_chat(namespace: &str) -> bool {
    namespace == "jabber:x:conference"
        || namespace
            .strip_prefix("http://jabber.org/protocol/muc")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('#'))
}

/// What no other organisation may say to one of ours, nor ours to it: it speaks in the name of the
/// receiver's own server (XEP-0280 section 11, XEP-0313 section 8.1), or of his roster (XEP-0144,
/// XEP-0093), or asks for rights over it (XEP-0355, XEP-0356). Every version of a namespace counts.
fn speaks_for_the_own_server(name: &str, namespace: &str, archives: bool) -> bool {
    let Some(urn) = namespace.strip_prefix("urn:xmpp:") else {
        return matches!(
            namespace,
            "http://jabber.org/protocol/rosterx" | "jabber:x:roster"
        );
    };
    match urn.split(':').next() {
        Some("carbons") => matches!(name, "received" | "sent"),
        // Rooms have archives too (XEP-0313 section 5.1.2).
        Some("mam") => name == "result" && !archives,
        Some("privilege" | "delegation") => true,
        _ => false,
    }
}

/// Whether the rules ask nothing of a message but the names and namespaces of its children.
pub(super) fn depends_on_names_alone(stanza: &Stanza<'_>) -> bool {
    stanza
        .extensions()
        .all(|(_, namespace, _)| namespace != PUBSUB_EVENT)
}

/// What a message's `type` makes of it; without type, or with an unknown one, it is `Normal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageType {
    Normal,
    Chat,
    GroupChat,
    Headline,
    Error,
}

impl MessageType {
    pub(super) fn of(type_: Option<&str>) -> Self {
        match type_ {
            Some("chat") => Self::Chat,
            Some("groupchat") => Self::GroupChat,
            Some("headline") => Self::Headline,
            Some("error") => Self::Error,
            _ => Self::Normal,
        }
    }
}

/// What rule 3 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentVerdict {
    Pass,
    /// Passes between contacts only, in both directions.
    PassToContacts,
    Refuse,
}

impl ContentVerdict {
    fn pass_if(passes: bool) -> Self {
        if passes { Self::Pass } else { Self::Refuse }
    }
}

/// The table, widened by `spec.content`.
#[derive(Clone, Debug, Default)]
pub(super) struct ContentRules {
    iq_namespaces: Vec<Box<str>>,
    pep_nodes: Vec<Box<str>>,
    group_chat: bool,
    headlines: bool,
    calls: bool,
}

impl ContentRules {
    pub(super) fn new(more: &edge_config::Content) -> Self {
        let boxed = |names: &[String]| names.iter().map(|name| name.as_str().into()).collect();
        let has = |wanted: &str| more.message_types.iter().any(|name| name == wanted);
        Self {
            iq_namespaces: boxed(&more.iq_namespaces),
            pep_nodes: boxed(&more.pep_nodes),
            group_chat: has("groupchat"),
            headlines: has("headline"),
            calls: more.iq_namespaces.iter().any(|name| name == JINGLE),
        }
    }

    /// Whether a direct child is of those that are right in no stanza of another organisation,
    /// whatever the configuration lets pass.
    pub(super) fn is_never_right(&self, stanza: &Stanza<'_>) -> bool {
        stanza
            .extensions()
            .any(|(name, namespace, _)| speaks_for_the_own_server(name, namespace, self.group_chat))
    }

    pub(super) fn message(&self, type_: MessageType, stanza: &Stanza<'_>) -> ContentVerdict {
        if type_ == MessageType::GroupChat && !self.group_chat {
            return ContentVerdict::Refuse;
        }
        let mut events = false;
        for (_, namespace, whole) in stanza.extensions() {
            if is_group_chat(namespace) && !self.group_chat {
                return ContentVerdict::Refuse;
            }
            // Phones would ring for a call that cannot come. An error carries back what was sent.
            if offers_a_call(namespace) && !self.calls && type_ != MessageType::Error {
                return ContentVerdict::Refuse;
            }
            // An event is one whatever the message's type: some services send it as `normal`.
            if namespace == PUBSUB_EVENT && type_ != MessageType::Error && !self.headlines {
                if !every_child_has(whole, "node", |node| self.is_open(node)) {
                    return ContentVerdict::Refuse;
                }
                events = true;
            }
        }
        if events {
            return ContentVerdict::PassToContacts;
        }
        ContentVerdict::pass_if(type_ != MessageType::Headline || self.headlines)
    }

    pub(super) fn presence(&self, stanza: &Stanza<'_>) -> ContentVerdict {
        let group = stanza
            .extensions()
            .any(|(_, namespace, _)| is_group_chat(namespace));
        ContentVerdict::pass_if(self.group_chat || !group)
    }

    /// An iq of type `get` or `set` between two people.
    pub(super) fn request(&self, read: bool, stanza: &Stanza<'_>) -> ContentVerdict {
        let listed = |(_, namespace, whole): (&str, &str, &[u8])| {
            IQ_NAMESPACES.iter().any(|row| row.name == namespace)
                || self.iq_namespaces.iter().any(|name| **name == *namespace)
                || (read
                    && namespace == PUBSUB
                    && every_child_has(whole, "node", |node| self.is_open(node)))
        };
        ContentVerdict::pass_if(!stanza.children.is_empty() && stanza.children().all(listed))
    }

    /// A request or result where one side is a server; a result may be empty.
    pub(super) fn of_servers(&self, stanza: &Stanza<'_>) -> ContentVerdict {
        ContentVerdict::pass_if(stanza.children().all(|(_, namespace, _)| {
            IQ_NAMESPACES
                .iter()
                .any(|row| row.servers_too && row.name == namespace)
        }))
    }

    /// A node of the list, or under an entry of `pepNodes` that ends in `*`.
    fn is_open(&self, node: &str) -> bool {
        PEP_NODES.contains(&node)
            || self
                .pep_nodes
                .iter()
                .any(|entry| match entry.strip_suffix('*') {
                    Some(start) => node.starts_with(start),
                    None => **entry == *node,
                })
    }
}
