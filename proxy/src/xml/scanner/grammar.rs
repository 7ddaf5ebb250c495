//! The grammar, byte by byte: from any state, over what has come, to the next item or to the end of
//! what there is.

use super::{
    Scanner, XmlError, chars, header,
    parts::{AttributeKind, AttributeKinds, AttributeSpan, Found, HEADER_PREFIXES, Lex, ScanPhase},
    span::Span,
};

impl Scanner {
    /// Looks at the bytes from `self.at` on until something is complete or they are used up.
    pub(super) fn advance(&mut self, buf: &[u8]) -> Result<Option<Found>, XmlError> {
        // Nothing past the limit is ever looked at, so the outcome does not depend on how the bytes
        // were cut.
        let window = &buf[..buf.len().min(self.limits.stanza_bytes)];
        let used_up = |at: usize| {
            debug_assert!(at <= window.len());
            if window.len() < buf.len() {
                Err(XmlError::TooLarge)
            } else {
                Ok(None)
            }
        };
        loop {
            let at = self.at;
            let Some(&byte) = window.get(at) else {
                return used_up(at);
            };
            match self.lex {
                Lex::Between => {
                    if at == 0 && chars::is_space(byte) {
                        let len = buf
                            .iter()
                            .position(|&byte| !chars::is_space(byte))
                            .unwrap_or(buf.len());
                        return Ok(Some(Found::Whitespace(len)));
                    }
                    self.begin(byte)?;
                }
                Lex::Markup => {
                    self.lex = match byte {
                        b'/' => {
                            self.at += 1;
                            self.lex = Lex::End;
                            if self.end_name(window)? && window.get(self.at) == Some(&b'>') {
                                self.at += 1;
                                if let Some(found) = self.end_tag() {
                                    return Ok(Some(found));
                                }
                            }
                            continue;
                        }
                        b'!' => Lex::Bang,
                        b'?' => Lex::Declaration,
                        _ if self.open.len() >= usize::from(self.limits.depth) => {
                            return Err(XmlError::TooDeep);
                        }
                        _ if chars::starts_name(byte) => {
                            if let Some(found) = self.start_name(window)? {
                                return Ok(Some(found));
                            }
                            continue;
                        }
                        // UTF-16 with its low byte first.
                        0 if self.phase == ScanPhase::Prolog => return Err(XmlError::Encoding),
                        0x80.. => {
                            return Err(exotic(byte));
                        }
                        _ => return Err(XmlError::Markup),
                    };
                    self.at += 1;
                }
                Lex::Name { start } => match self.name_end(window, start as usize)? {
                    None => return used_up(self.at),
                    Some(prefix) => {
                        self.take_name(start as usize, prefix);
                    }
                },
                Lex::Tag { spaced } => match byte {
                    b'>' => {
                        // It is taken once it is right: a stanza that is skipped goes on from here.
                        if let Some(found) = self.start_tag(window, at + 1, false)? {
                            return Ok(Some(found));
                        }
                    }
                    b'/' => {
                        self.at += 1;
                        self.lex = Lex::Empty;
                    }
                    _ if chars::is_space(byte) => {
                        self.at += 1;
                        self.lex = Lex::Tag { spaced: true };
                        self.plain_attributes(window)?;
                    }
                    _ if chars::starts_name(byte) => {
                        if !spaced {
                            return Err(XmlError::MissingSpace);
                        }
                        if self.attributes.len() >= usize::from(self.limits.attributes) {
                            return Err(XmlError::TooManyAttributes);
                        }
                        self.lex = Lex::Attribute { start: at as u32 };
                    }
                    0x80.. => return Err(exotic(byte)),
                    _ => return Err(XmlError::Markup),
                },
                Lex::Attribute { start } => match self.name_end(window, start as usize)? {
                    None => return used_up(self.at),
                    Some(prefix) => {
                        let name = Span::new(start as usize, self.at);
                        let kind = AttributeKind::of(name.bytes(window), prefix);
                        self.push_attribute((name, Span::default()), (kind, prefix))?;
                        self.lex = Lex::Equals;
                    }
                },
                Lex::Equals => {
                    self.at += 1;
                    match byte {
                        b'=' => self.lex = Lex::Quote,
                        _ if chars::is_space(byte) => {}
                        _ => return Err(XmlError::Markup),
                    }
                }
                Lex::Quote => {
                    self.at += 1;
                    match byte {
                        b'\'' | b'"' => {
                            self.lex = Lex::Value {
                                quote: byte,
                                start: self.at as u32,
                            }
                        }
                        _ if chars::is_space(byte) => {}
                        _ => return Err(XmlError::Markup),
                    }
                }
                Lex::Value { quote, start } => {
                    let at = chars::skip_plain(window, at, chars::stops_value(quote));
                    self.at = at;
                    let Some(&byte) = window.get(at) else {
                        return used_up(at);
                    };
                    match byte {
                        b'\'' | b'"' => {
                            self.at += 1;
                            if let Some(attribute) = self.attributes.last_mut() {
                                attribute.value = Span::new(start as usize, at);
                            }
                            self.lex = Lex::Tag { spaced: false };
                        }
                        b'<' => return Err(XmlError::LessThanInAttribute),
                        b'&' => match chars::reference(window, at)? {
                            None => return used_up(at),
                            Some(len) => {
                                self.at += len;
                                self.value_changes();
                            }
                        },
                        b'\t' | b'\n' | b'\r' => {
                            self.at += 1;
                            self.value_changes();
                        }
                        _ => match beyond_ascii(window, at)? {
                            None => return used_up(at),
                            Some(end) => self.at = end,
                        },
                    }
                }
                Lex::Empty => {
                    if byte != b'>' {
                        return Err(XmlError::Markup);
                    }
                    if let Some(found) = self.start_tag(window, at + 1, true)? {
                        return Ok(Some(found));
                    }
                }
                Lex::End => {
                    if !self.end_name(window)? {
                        return used_up(self.at);
                    }
                }
                Lex::EndSpace => {
                    self.at += 1;
                    match byte {
                        b'>' => {
                            if let Some(found) = self.end_tag() {
                                return Ok(Some(found));
                            }
                        }
                        _ if chars::is_space(byte) => {}
                        _ => return Err(XmlError::EndTag),
                    }
                }
                Lex::Text => {
                    let at = chars::skip_plain(window, at, chars::STOPS_TEXT);
                    self.at = at;
                    let Some(&byte) = window.get(at) else {
                        return used_up(at);
                    };
                    match byte {
                        b'<' => {
                            self.at += 1;
                            self.lex = Lex::Markup;
                        }
                        b'&' => match chars::reference(window, at)? {
                            None => return used_up(at),
                            Some(len) => self.at += len,
                        },
                        b']' => match &window[at + 1..] {
                            [b']', b'>', ..] => return Err(XmlError::SectionEndInText),
                            [] | [b']'] => return used_up(at),
                            _ => self.at += 1,
                        },
                        _ => match beyond_ascii(window, at)? {
                            None => return used_up(at),
                            Some(end) => self.at = end,
                        },
                    }
                }
                Lex::Section => {
                    let at = chars::skip_plain(window, at, chars::STOPS_SECTION);
                    self.at = at;
                    let Some(&byte) = window.get(at) else {
                        return used_up(at);
                    };
                    match byte {
                        b']' => match &window[at + 1..] {
                            [b']', b'>', ..] => {
                                self.at += 3;
                                self.lex = Lex::Text;
                            }
                            [] | [b']'] => return used_up(at),
                            _ => self.at += 1,
                        },
                        _ => match beyond_ascii(window, at)? {
                            None => return used_up(at),
                            Some(end) => self.at = end,
                        },
                    }
                }
                Lex::Bang => match section_start(&window[at..])? {
                    None => return used_up(at),
                    Some(_) if self.open.is_empty() => return Err(XmlError::TextBetweenStanzas),
                    Some(len) => {
                        self.at += len;
                        self.top.form.has_section = true;
                        self.lex = Lex::Section;
                    }
                },
                Lex::Declaration => match self.declaration(window)? {
                    None => return used_up(at),
                    Some(len) => {
                        self.at = len;
                        self.lex = Lex::Between;
                    }
                },
            }
        }
    }

    /// The first byte of a top-level element, or of what follows the XML declaration.
    fn begin(&mut self, byte: u8) -> Result<(), XmlError> {
        match byte {
            b'<' => {}
            _ if chars::is_space(byte) => {
                self.at += 1;
                return Ok(());
            }
            _ if self.phase == ScanPhase::Ended => return Err(XmlError::AfterEnd),
            // Both byte order marks of UTF-16, and UTF-16 and UTF-32 without one.
            0xff | 0xfe | 0 if self.phase == ScanPhase::Prolog => return Err(XmlError::Encoding),
            // A record of TLS (RFC 8446 section 5.1), such as the alert over our header.
            0x14..=0x16 if self.phase == ScanPhase::Prolog => return Err(XmlError::TlsRecord),
            0x80.. => return Err(beside_elements(byte)),
            0..b' ' => return Err(XmlError::ForbiddenCharacter),
            // HTTP, SMTP, a menu.
            _ if self.phase == ScanPhase::Prolog => return Err(XmlError::NotXmpp),
            _ => return Err(XmlError::TextBetweenStanzas),
        }
        if self.phase == ScanPhase::Ended {
            return Err(XmlError::AfterEnd);
        }
        if self.at == 0 {
            self.declarations = 0;
            self.children.clear();
            self.open.clear();
            self.scope.clear();
        }
        self.at += 1;
        self.lex = Lex::Markup;
        Ok(())
    }

    /// Goes to the end of the name that began at `start` and gives the length of its prefix; `None`
    /// while the name is cut off.
    fn name_end(&mut self, window: &[u8], start: usize) -> Result<Option<u16>, XmlError> {
        let most = usize::from(self.limits.name_bytes);
        while let Some(&byte) = window.get(self.at) {
            if !chars::continues_name(byte) && byte != b':' {
                if byte >= 0x80 {
                    return Err(exotic(byte));
                }
                return qualified(&window[start..self.at]).map(Some);
            }
            self.at += 1;
            if self.at - start > most {
                return Err(XmlError::NameTooLong);
            }
        }
        Ok(None)
    }

    /// An element's name begins at `self.at`. The short way for a start tag that is all there and plain;
    /// stops before the first part of it that is not so.
    fn start_name(&mut self, window: &[u8]) -> Result<Option<Found>, XmlError> {
        let start = self.at;
        let most = usize::from(self.limits.name_bytes);
        let (len, prefix) = chars::plain_name(&window[start..], most);
        self.at += len;
        match window.get(self.at) {
            Some(b' ') => {
                self.take_name(start, prefix);
                self.at += 1;
                self.lex = Lex::Tag { spaced: true };
                self.plain_attributes(window)?;
            }
            Some(b'>' | b'/' | b'\t' | b'\n' | b'\r') => self.take_name(start, prefix),
            _ => {
                self.at = start;
                self.lex = Lex::Name {
                    start: start as u32,
                };
                return Ok(None);
            }
        }
        match window[self.at..] {
            [b'>', ..] => self.start_tag(window, self.at + 1, false),
            [b'/', b'>', ..] => {
                self.at += 1;
                self.lex = Lex::Empty;
                self.start_tag(window, self.at + 1, true)
            }
            _ => Ok(None),
        }
    }

    /// Takes the name of an element, which ends at `self.at`.
    fn take_name(&mut self, start: usize, prefix: u16) {
        self.name = Span::new(start, self.at);
        self.prefix = prefix;
        self.attributes.clear();
        self.kinds = AttributeKinds::default();
        self.own_declarations = 0;
        self.lex = Lex::Tag { spaced: false };
    }

    /// Takes the name of an attribute, and its value where that is known.
    #[inline]
    fn push_attribute(
        &mut self,
        (name, value): (Span, Span),
        (kind, prefix): (AttributeKind, u16),
    ) -> Result<(), XmlError> {
        if kind.declares() {
            self.declarations += 1;
            self.own_declarations += 1;
            let most = match self.phase {
                ScanPhase::Prolog => self.limits.namespaces.min(HEADER_PREFIXES),
                _ => self.limits.namespaces,
            };
            let in_force = self.scope.mark() + self.own_declarations;
            if self.own_declarations > most
                || self.declarations > self.limits.all_namespaces
                || in_force > self.limits.namespaces_in_force
            {
                return Err(XmlError::TooManyNamespaces);
            }
        }
        self.kinds.add(kind);
        self.attributes.push(AttributeSpan {
            name,
            value,
            kind,
            prefix,
            changed: false,
            namespace: None,
        });
        Ok(())
    }

    /// The short way for what nearly all attributes are: all there, nothing to resolve, one blank
    /// between them. Stops before the first that is not so, and at white space before it.
    fn plain_attributes(&mut self, window: &[u8]) -> Result<(), XmlError> {
        let most = usize::from(self.limits.name_bytes);
        while self.attributes.len() < usize::from(self.limits.attributes) {
            let start = self.at;
            let rest = &window[start..];
            let (name, prefix, kind) = match AttributeKind::at_start_of(rest) {
                Some((kind, name)) => (name, 0, kind),
                None => {
                    if !rest.first().is_some_and(|&byte| chars::starts_name(byte)) {
                        break;
                    }
                    let (name, prefix) = chars::plain_name(rest, most);
                    (name, prefix, AttributeKind::of(&rest[..name], prefix))
                }
            };
            let [b'=', quote @ (b'\'' | b'"'), ..] = window[start + name..] else {
                break;
            };
            let value = start + name + 2;
            let end = chars::skip_plain(window, value, chars::stops_value(quote));
            if window.get(end) != Some(&quote) {
                break;
            }
            self.at = start + name;
            let (name, value) = (Span::new(start, self.at), Span::new(value, end));
            self.push_attribute((name, value), (kind, prefix))?;
            self.at = end + 1;
            let spaced = window.get(self.at) == Some(&b' ');
            self.lex = Lex::Tag { spaced };
            if !spaced {
                break;
            }
            self.at += 1;
        }
        Ok(())
    }

    fn value_changes(&mut self) {
        if let Some(attribute) = self.attributes.last_mut() {
            attribute.changed = true;
        }
    }

    /// Length of all up to the end of the XML declaration; `None` while it is cut off.
    fn declaration(&self, window: &[u8]) -> Result<Option<usize>, XmlError> {
        const START: &[u8] = b"<?xml";
        // White space before it is taken as the tail of what the stream was before a restart.
        let first = self.phase == ScanPhase::Prolog && self.at == 2;
        let found = &window[..window.len().min(header::DECLARATION_BYTES)];
        let known = found.len().min(START.len());
        if !first || found[..known] != START[..known] {
            return Err(XmlError::ProcessingInstruction);
        }
        match found.get(START.len()) {
            None => return Ok(None),
            Some(&byte) if !chars::is_space(byte) => return Err(XmlError::ProcessingInstruction),
            Some(_) => {}
        }
        match memchr::memmem::find(found, b"?>") {
            Some(end) => {
                header::check_declaration(&found[START.len()..end])?;
                Ok(Some(end + 2))
            }
            None if found.len() == header::DECLARATION_BYTES => Err(XmlError::Markup),
            None => Ok(None),
        }
    }
}

/// Length of the prefix of a name made of name characters and colons.
fn qualified(name: &[u8]) -> Result<u16, XmlError> {
    let Some(colon) = memchr::memchr(b':', name) else {
        return Ok(0);
    };
    match name.get(colon + 1) {
        Some(&next)
            if colon > 0
                && chars::starts_name(next)
                && memchr::memchr(b':', &name[colon + 1..]).is_none() =>
        {
            Ok(colon as u16)
        }
        _ => Err(XmlError::Markup),
    }
}

/// Why a byte beyond ASCII may not stand where markup is. Only this byte counts: what follows it may
/// not be there yet.
fn exotic(byte: u8) -> XmlError {
    match byte {
        0xc2..=0xf4 => XmlError::ExoticName,
        _ => XmlError::NotUtf8,
    }
}

/// Where the run of characters at `at`, the first of which is not plain ASCII, ends; `None` while
/// that one is cut off.
fn beyond_ascii(window: &[u8], at: usize) -> Result<Option<usize>, XmlError> {
    if window[at] < 0x80 {
        Err(XmlError::ForbiddenCharacter)
    } else {
        chars::wide_run(window, at)
    }
}

/// Length of `[CDATA[` after `<!`; `None` while it is cut off.
fn section_start(found: &[u8]) -> Result<Option<usize>, XmlError> {
    const START: &[u8] = b"[CDATA[";
    let known = found.len().min(START.len());
    match found.first() {
        Some(b'-') => Err(XmlError::Comment),
        Some(b'[') if found[..known] == START[..known] => Ok(if known < START.len() {
            None
        } else {
            Some(START.len())
        }),
        Some(b'[') => Err(XmlError::Markup),
        _ => Err(XmlError::DocumentType),
    }
}

/// Why a byte beyond ASCII may not stand between elements.
fn beside_elements(byte: u8) -> XmlError {
    match exotic(byte) {
        XmlError::ExoticName => XmlError::TextBetweenStanzas,
        other => other,
    }
}
