//! Tree to bytes.

use std::collections::HashMap;

use super::{Attribute, Element, Node};
use crate::xml::{ns, text};

/// A namespace written more often than this gets a prefix at the root, so that what is written
/// stays in proportion to what was read.
const DECLARED_IN_PLACE: usize = 4;

impl Element {
    /// Appends the element as it has to stand where `default_namespace` is in force.
    ///
    /// Elements go without prefix and declare their namespace where it differs from their
    /// parent's; namespaces that would be declared again and again, and those of attributes, get a
    /// prefix of ours at the root. `stream:` and `db:` are written for their namespaces without a
    /// declaration: our stream headers have both.
    pub fn write(&self, default_namespace: &str, out: &mut Vec<u8>) {
        let mut uses = HashMap::new();
        count(self, default_namespace, &mut uses);
        let mut hoisted: Vec<&str> = uses
            .into_iter()
            .filter(|(namespace, uses)| needs_prefix(namespace, uses, default_namespace))
            .map(|(namespace, _)| namespace)
            .collect();
        hoisted.sort_unstable();
        let prefixes = Prefixes {
            hoisted,
            plain: default_namespace,
        };
        start_tag(self, default_namespace, &prefixes, true, out);
        finish(self, default_namespace, &prefixes, out);
    }

    /// The element as [`Element::write`] writes it into a server-to-server stream of ours.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(ns::SERVER, &mut out);
        out
    }
}

/// How often a namespace is met in a tree.
#[derive(Clone, Copy, Default)]
struct Uses {
    /// Elements that would declare it if none had a prefix.
    declarations: usize,
    attributes: usize,
}

/// Names of attributes need a prefix always. The default around the root stays without one, and no
/// namespace cannot have one.
fn needs_prefix(namespace: &str, uses: &Uses, default: &str) -> bool {
    fixed(namespace).is_none()
        && !namespace.is_empty()
        && (uses.attributes > 0 || (uses.declarations > DECLARED_IN_PLACE && namespace != default))
}

fn fixed(namespace: &str) -> Option<&'static str> {
    match namespace {
        ns::STREAM => Some("stream:"),
        ns::DIALBACK => Some("db:"),
        ns::XML => Some("xml:"),
        _ => None,
    }
}

struct Prefixes<'a> {
    /// In the order of their numbers.
    hoisted: Vec<&'a str>,
    /// The default namespace around the root: its elements have no prefix.
    plain: &'a str,
}

/// How a name is written.
enum Prefix {
    None,
    Fixed(&'static str),
    Hoisted(usize),
}

impl Prefixes<'_> {
    fn of_element(&self, namespace: &str) -> Prefix {
        if namespace == self.plain {
            Prefix::None
        } else {
            self.of_attribute(namespace)
        }
    }

    fn of_attribute(&self, namespace: &str) -> Prefix {
        if let Some(prefix) = fixed(namespace) {
            return Prefix::Fixed(prefix);
        }
        match self.hoisted.iter().position(|known| *known == namespace) {
            Some(index) => Prefix::Hoisted(index),
            None => Prefix::None,
        }
    }
}

fn count<'a>(element: &'a Element, default: &str, uses: &mut HashMap<&'a str, Uses>) {
    if element.namespace != default {
        uses.entry(&element.namespace).or_default().declarations += 1;
    }
    for attribute in element
        .attributes
        .iter()
        .filter(|attribute| !attribute.namespace.is_empty())
    {
        uses.entry(&attribute.namespace).or_default().attributes += 1;
    }
    for child in element.children() {
        count(child, &element.namespace, uses);
    }
}

fn name(prefix: &Prefix, name: &str, out: &mut Vec<u8>) {
    match prefix {
        Prefix::None => {}
        Prefix::Fixed(prefix) => out.extend_from_slice(prefix.as_bytes()),
        Prefix::Hoisted(index) => out.extend_from_slice(format!("n{index}:").as_bytes()),
    }
    out.extend_from_slice(name.as_bytes());
}

fn attribute(written: &str, value: &str, out: &mut Vec<u8>) {
    out.push(b' ');
    out.extend_from_slice(written.as_bytes());
    out.extend_from_slice(b"='");
    text::escape_attribute(value, out);
    out.push(b'\'');
}

/// Writes the start tag up to, not including, its `>`.
fn start_tag(
    element: &Element,
    default: &str,
    prefixes: &Prefixes<'_>,
    root: bool,
    out: &mut Vec<u8>,
) {
    let prefix = prefixes.of_element(&element.namespace);
    out.push(b'<');
    name(&prefix, &element.name, out);
    if matches!(prefix, Prefix::None) && element.namespace != default {
        attribute("xmlns", &element.namespace, out);
    }
    if root {
        for (index, namespace) in prefixes.hoisted.iter().enumerate() {
            attribute(&format!("xmlns:n{index}"), namespace, out);
        }
    }
    for Attribute {
        namespace,
        name: local,
        value,
    } in &element.attributes
    {
        let mut written = Vec::new();
        let prefix = prefixes.of_attribute(namespace);
        name(&prefix, local, &mut written);
        attribute(&String::from_utf8_lossy(&written), value, out);
    }
}

/// Writes all that follows what [`start_tag`] wrote. Depth is that of the tree, which the limits
/// of the scanner bound.
fn finish(element: &Element, default: &str, prefixes: &Prefixes<'_>, out: &mut Vec<u8>) {
    if element.content.is_empty() {
        out.extend_from_slice(b"/>");
        return;
    }
    out.push(b'>');
    let prefix = prefixes.of_element(&element.namespace);
    // A prefixed element leaves the default namespace as it was.
    let inner = if matches!(prefix, Prefix::None) {
        element.namespace.as_str()
    } else {
        default
    };
    for node in &element.content {
        match node {
            Node::Text(data) => text::escape_text(data, out),
            Node::Element(child) => {
                start_tag(child, inner, prefixes, false, out);
                finish(child, inner, prefixes, out);
            }
        }
    }
    out.extend_from_slice(b"</");
    name(&prefix, &element.name, out);
    out.push(b'>');
}
