//! Exports by Export-Clixml: the objects of [MS-PSRP] section 2.2.5, as far as exports have them.
//!
//! DTDs are refused, depth is bounded, references (`Ref`, `TNRef`) lead to what came before them
//! only. Text of unknown elements is passed over.

use std::collections::HashMap;

use quick_xml::{
    Reader, XmlVersion,
    events::{BytesStart, Event},
};

use super::{
    LyncFault,
    record::{Property, Record},
};

/// Elements inside one another; an export has ten or so.
const MAX_DEPTH: usize = 64;

/// List items that references may copy: an export repeats little, an attack much.
const MAX_COPIED: usize = 1_000_000;

/// The objects of an export.
///
/// # Errors
/// [`LyncFault::Clixml`] with the position.
pub(super) fn records(text: &str) -> Result<Vec<Record>, LyncFault> {
    let mut reader = Reader::from_str(text);
    reader.config_mut().check_end_names = true;
    reader.config_mut().expand_empty_elements = true;
    let mut parser = Parser {
        reader,
        types: HashMap::new(),
        objects: HashMap::new(),
        copied: 0,
    };
    parser.document()
}

struct Parser<'t> {
    reader: Reader<&'t [u8]>,
    /// `TN` by RefId.
    types: HashMap<String, Vec<String>>,
    /// `Obj` by RefId, as a property sees it.
    objects: HashMap<String, Property>,
    /// List items that references copied so far.
    copied: usize,
}

/// An `Obj`, read.
#[derive(Debug, Default)]
struct Object {
    types: Vec<String>,
    shown: Option<String>,
    properties: Vec<(String, Property)>,
    list: Option<Vec<Property>>,
    /// Objects of a list, as objects: an export of a list variable has them one deeper.
    members: Vec<Object>,
}

/// What an element holds.
enum Content {
    Property(Property),
    Object(Object),
}

impl Object {
    fn property(&self) -> Property {
        match &self.list {
            Some(items) => Property::List(items.clone()),
            None => Property::Nested(self.shown.clone()),
        }
    }

    fn records(self, into: &mut Vec<Record>) {
        if self.list.is_some() && self.properties.is_empty() {
            for member in self.members {
                member.records(into);
            }
        } else {
            into.push(Record {
                types: self.types,
                properties: self.properties.into_iter().collect(),
            });
        }
    }
}

impl<'t> Parser<'t> {
    fn document(&mut self) -> Result<Vec<Record>, LyncFault> {
        let mut records = Vec::new();
        let mut inside = false;
        loop {
            match self.next()? {
                Event::Start(start) if !inside => {
                    if start.local_name().as_ref() != "Objs" {
                        return Err(self.fault("its root is not Objs"));
                    }
                    inside = true;
                }
                Event::Start(start) => {
                    if let Content::Object(object) = self.element(&start, 1)? {
                        object.records(&mut records);
                    }
                }
                Event::Eof if inside => return Err(self.fault("it ends before its root does")),
                Event::Eof => return Err(self.fault("it has no root")),
                Event::End(_) => return Ok(records),
                _ => {}
            }
        }
    }

    /// The next event that says anything.
    fn next(&mut self) -> Result<Event<'t>, LyncFault> {
        loop {
            match self.reader.read_event() {
                Ok(Event::DocType(_)) => return Err(self.fault("a DTD has no place in it")),
                Ok(Event::Comment(_) | Event::PI(_) | Event::Decl(_)) => {}
                Ok(event) => return Ok(event),
                Err(error) => return Err(self.fault(&error.to_string())),
            }
        }
    }

    fn fault(&self, reason: &str) -> LyncFault {
        LyncFault::Clixml {
            position: self.reader.buffer_position(),
            reason: reason.to_owned(),
        }
    }

    fn attribute(&self, start: &BytesStart<'_>, name: &str) -> Result<Option<String>, LyncFault> {
        match start.try_get_attribute(name) {
            Ok(None) => Ok(None),
            Ok(Some(attribute)) => attribute
                .normalized_value(XmlVersion::default())
                .map(|value| Some(unescape(&value)))
                .map_err(|error| self.fault(&error.to_string())),
            Err(error) => Err(self.fault(&error.to_string())),
        }
    }

    /// Reads one element, whose start tag was read, to its end.
    fn element(&mut self, start: &BytesStart<'t>, depth: usize) -> Result<Content, LyncFault> {
        if depth > MAX_DEPTH {
            return Err(self.fault("elements are too deep"));
        }
        let name = start.local_name().as_ref().to_owned();
        let property = match name.as_str() {
            "Obj" => return self.object(start, depth).map(Content::Object),
            "Ref" => {
                let id = self.attribute(start, "RefId")?.unwrap_or_default();
                self.skip(depth)?;
                let Some(known) = self.objects.get(&id) else {
                    return Err(self.fault(&format!(
                        "it refers to object {id:?}, which did not come before"
                    )));
                };
                if let Property::List(items) = known {
                    self.copied += items.len();
                }
                let known = known.clone();
                if self.copied > MAX_COPIED {
                    return Err(self.fault("it refers to long lists too often"));
                }
                known
            }
            "Nil" => {
                self.skip(depth)?;
                Property::Null
            }
            "B" => match self.text(depth)?.as_str() {
                "true" => Property::Bool(true),
                "false" => Property::Bool(false),
                other => return Err(self.fault(&format!("{other:?} is no boolean"))),
            },
            "I32" | "U32" | "I16" | "U16" | "I64" | "U64" | "By" | "SB" => {
                let text = self.text(depth)?;
                match text.trim().parse() {
                    Ok(number) => Property::Number(number),
                    Err(_) => Property::Text(text),
                }
            }
            // A protected string is a secret: nothing of it is kept.
            "SS" => {
                self.skip(depth)?;
                Property::Nested(Some("a protected string".into()))
            }
            _ => Property::Text(unescape(&self.text(depth)?)),
        };
        Ok(Content::Property(property))
    }

    fn object(&mut self, start: &BytesStart<'t>, depth: usize) -> Result<Object, LyncFault> {
        let id = self.attribute(start, "RefId")?;
        let mut object = Object::default();
        loop {
            match self.next()? {
                Event::Start(part) => match part.local_name().as_ref() {
                    "TN" => {
                        let id = self.attribute(&part, "RefId")?;
                        let names = self.names(depth + 1)?;
                        if let Some(id) = id {
                            self.types.insert(id, names.clone());
                        }
                        object.types = names;
                    }
                    "TNRef" => {
                        let id = self.attribute(&part, "RefId")?.unwrap_or_default();
                        self.skip(depth + 1)?;
                        object.types = self.types.get(&id).cloned().unwrap_or_default();
                    }
                    "ToString" => object.shown = Some(unescape(&self.text(depth + 1)?)),
                    "Props" | "MS" => self.properties(&mut object, depth + 1)?,
                    "LST" | "IE" | "STK" | "QUE" => self.list(&mut object, depth + 1)?,
                    _ => {
                        // The value of an enum, beside its name in `ToString`; dictionaries.
                        self.element(&part, depth + 1)?;
                    }
                },
                Event::End(_) => break,
                Event::Eof => return Err(self.fault("it ends inside an object")),
                _ => {}
            }
        }
        if let Some(id) = id {
            self.objects.insert(id, object.property());
        }
        Ok(object)
    }

    fn names(&mut self, depth: usize) -> Result<Vec<String>, LyncFault> {
        let mut names = Vec::new();
        loop {
            match self.next()? {
                Event::Start(_) => names.push(unescape(&self.text(depth + 1)?)),
                Event::End(_) => return Ok(names),
                Event::Eof => return Err(self.fault("it ends inside type names")),
                _ => {}
            }
        }
    }

    fn properties(&mut self, object: &mut Object, depth: usize) -> Result<(), LyncFault> {
        loop {
            match self.next()? {
                Event::Start(start) => {
                    let name = self.attribute(&start, "N")?;
                    let content = self.element(&start, depth + 1)?;
                    if let Some(name) = name {
                        let property = match content {
                            Content::Property(property) => property,
                            Content::Object(inner) => inner.property(),
                        };
                        object.properties.push((name, property));
                    }
                }
                Event::End(_) => return Ok(()),
                Event::Eof => return Err(self.fault("it ends inside properties")),
                _ => {}
            }
        }
    }

    fn list(&mut self, object: &mut Object, depth: usize) -> Result<(), LyncFault> {
        let items = object.list.get_or_insert_default();
        loop {
            match self.next()? {
                Event::Start(start) => match self.element(&start, depth + 1)? {
                    // A list in a list says nothing that is asked for, and could grow by references.
                    Content::Property(Property::List(_)) => {}
                    Content::Property(property) => items.push(property),
                    Content::Object(inner) => {
                        items.push(Property::Nested(inner.shown.clone()));
                        object.members.push(inner);
                    }
                },
                Event::End(_) => return Ok(()),
                Event::Eof => return Err(self.fault("it ends inside a list")),
                _ => {}
            }
        }
    }

    /// The text up to the element's end; elements inside it are passed over.
    fn text(&mut self, depth: usize) -> Result<String, LyncFault> {
        let mut text = String::new();
        loop {
            match self.next()? {
                Event::Text(part) => text.push_str(&part.xml10_content()),
                Event::CData(part) => text.push_str(&part.xml10_content()),
                Event::GeneralRef(reference) => match reference.resolve_char_ref() {
                    Ok(Some(c)) => text.push(c),
                    Ok(None) => {
                        let name = reference.xml10_content();
                        match quick_xml::escape::resolve_xml_entity(&name) {
                            Some(known) => text.push_str(known),
                            None => return Err(self.fault(&format!("&{name}; is not known"))),
                        }
                    }
                    Err(error) => return Err(self.fault(&error.to_string())),
                },
                Event::Start(_) => self.skip(depth + 1)?,
                Event::End(_) => return Ok(text),
                Event::Eof => return Err(self.fault("it ends inside a text")),
                _ => {}
            }
        }
    }

    fn skip(&mut self, depth: usize) -> Result<(), LyncFault> {
        if depth > MAX_DEPTH {
            return Err(self.fault("elements are too deep"));
        }
        self.text(depth).map(drop)
    }
}

/// `_x000A_` stands for a character that XML cannot hold ([MS-PSRP] section 2.2.5.3.2).
fn unescape(text: &str) -> String {
    if !text.contains("_x") {
        return text.to_owned();
    }
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let unit = rest
            .strip_prefix("_x")
            .and_then(|code| code.get(..5)?.strip_suffix('_'))
            .and_then(|hex| u16::from_str_radix(hex, 16).ok());
        match unit {
            Some(unit) => {
                units.push(unit);
                rest = &rest["_x0000_".len()..];
            }
            None => {
                units.extend(c.encode_utf16(&mut [0; 2]).iter());
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    String::from_utf16_lossy(&units)
}
