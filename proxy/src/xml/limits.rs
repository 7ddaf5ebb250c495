//! How much a peer may send before it is refused.

/// Bounds of one stream, counted as bytes arrive: what exceeds one is refused at the first byte too
/// many, not when the element is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one top-level element, and of one stream header. At most `u32::MAX / 2`; more
    /// counts as that.
    pub stanza_bytes: usize,
    /// Open elements in one top-level element, itself counted.
    pub depth: u16,
    /// Attributes of one element, namespace declarations counted.
    pub attributes: u16,
    /// Namespace declarations of one element; of a stream header 64 at most.
    pub namespaces: u16,
    /// Namespace declarations in one top-level element.
    pub all_namespaces: u16,
    /// Namespace declarations in force at one place: what a prefix is looked up among.
    pub namespaces_in_force: u16,
    /// Bytes of one qualified name, and of one namespace name.
    pub name_bytes: u16,
}

impl Limits {
    /// The limits that the design fixes, with this many bytes for a stanza.
    pub const fn with_stanza_bytes(stanza_bytes: usize) -> Self {
        Self {
            stanza_bytes,
            depth: 64,
            attributes: 64,
            namespaces: 64,
            all_namespaces: 1024,
            namespaces_in_force: 256,
            name_bytes: 256,
        }
    }
}

impl Limits {
    /// Of what a listener of ours has read within [`Self::with_stanza_bytes`] and has written anew: a stanza whose
    /// own element has a prefix declares there every namespace that it uses, those of its header too, and may get
    /// the language of its header.
    pub const fn of_our_own(stanza_bytes: usize) -> Self {
        let read = Self::with_stanza_bytes(stanza_bytes);
        let declared = read.all_namespaces + read.namespaces;
        Self {
            attributes: read.attributes + declared + 1,
            namespaces: read.namespaces + declared,
            all_namespaces: read.all_namespaces + declared,
            namespaces_in_force: read.namespaces_in_force + declared,
            ..read
        }
    }
}

impl Default for Limits {
    /// 262,144 bytes a stanza: the default of `settings.maxStanzaBytes`.
    fn default() -> Self {
        Self::with_stanza_bytes(262_144)
    }
}
