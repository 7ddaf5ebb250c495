//! A small tree of one element, for negotiation, for what is written anew, and for tests.
//!
//! Never on the path of a stanza that passes as it came.

mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::ElementError;

/// One element, its attributes and what it contains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// Namespace name; empty for none.
    pub namespace: String,
    /// Local name.
    pub name: String,
    /// Without namespace declarations.
    pub attributes: Vec<Attribute>,
    pub content: Vec<Node>,
}

/// An attribute, its value resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Namespace name; empty for none, as attributes without prefix have.
    pub namespace: String,
    /// Local name.
    pub name: String,
    pub value: String,
}

/// What an element contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    Element(Element),
    /// Character data, references and CDATA resolved; adjacent pieces are one.
    Text(String),
}

impl Element {
    /// An empty element.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            ..Self::default()
        }
    }

    /// With one more attribute, of no namespace.
    pub fn with_attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.push(Attribute {
            namespace: String::new(),
            name: name.into(),
            value: value.into(),
        });
        self
    }

    /// With one more child.
    pub fn with_child(mut self, child: Element) -> Self {
        self.content.push(Node::Element(child));
        self
    }

    /// With more text.
    pub fn with_text(mut self, text: &str) -> Self {
        self.push_text(text);
        self
    }

    fn push_text(&mut self, text: &str) {
        if let Some(Node::Text(last)) = self.content.last_mut() {
            last.push_str(text);
        } else if !text.is_empty() {
            self.content.push(Node::Text(text.to_owned()));
        }
    }

    /// Whether this is that element.
    pub fn is(&self, namespace: &str, name: &str) -> bool {
        self.name == name && self.namespace == namespace
    }

    /// Value of the attribute of that name and no namespace.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|attribute| attribute.namespace.is_empty() && attribute.name == name)
            .map(|attribute| attribute.value.as_str())
    }

    /// Child elements, in order.
    pub fn children(&self) -> impl Iterator<Item = &Element> {
        self.content.iter().filter_map(|node| match node {
            Node::Element(child) => Some(child),
            Node::Text(_) => None,
        })
    }

    /// The first child that is that element.
    pub fn child(&self, namespace: &str, name: &str) -> Option<&Element> {
        self.children().find(|child| child.is(namespace, name))
    }

    /// The element's own character data, without that of its children.
    pub fn text(&self) -> String {
        let pieces = self.content.iter().filter_map(|node| match node {
            Node::Text(text) => Some(text.as_str()),
            Node::Element(_) => None,
        });
        pieces.collect()
    }
}
