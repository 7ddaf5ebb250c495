//! What stands directly inside an element that the scanner has checked, without a tree of it.

use quick_xml::{Reader, XmlVersion, events::Event};

/// Whether there is an element directly inside `element` and each has the attribute `name`, without
/// prefix, with a value for which `holds`. Elements of any namespace count: no prefix hides one. Not
/// for the path of every stanza.
#[must_use]
pub fn every_child_has(element: &[u8], name: &str, holds: impl Fn(&str) -> bool) -> bool {
    let Ok(text) = std::str::from_utf8(element) else {
        return false;
    };
    let mut reader = Reader::from_str(text);
    let mut depth = 0_u32;
    let mut seen = false;
    loop {
        let (start, opens) = match reader.read_event() {
            Ok(Event::Start(start)) => (start, true),
            Ok(Event::Empty(start)) => (start, false),
            Ok(Event::End(_)) => {
                depth = depth.saturating_sub(1);
                continue;
            }
            Ok(Event::Eof) => return seen && depth == 0,
            Ok(_) => continue,
            Err(_) => return false,
        };
        if depth == 1 {
            let found = start.try_get_attribute(name).ok().flatten();
            let value = found
                .as_ref()
                .and_then(|at| at.normalized_value(XmlVersion::Implicit1_0).ok());
            if !value.is_some_and(|value| holds(&value)) {
                return false;
            }
            seen = true;
        }
        depth += u32::from(opens);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_child_counts_whatever_its_prefix_or_place() {
        for (xml, expected) in [
            ("<event xmlns='e'><items node='open'/></event>", true),
            (
                "<event xmlns='e'><items node=\"op&#101;n\"><item/></items></event>",
                true,
            ),
            (
                "<x:event xmlns:x='e'><x:items node='open'/></x:event>",
                true,
            ),
            (
                "<event xmlns='e'><items node='open'><items node='shut'/></items></event>",
                true,
            ),
            (
                "<event xmlns='e'><items node='open'/><items node='shut'/></event>",
                false,
            ),
            (
                "<event xmlns='e'><items node='shut'/><items node='open'/></event>",
                false,
            ),
            (
                "<event xmlns='e'><items node='open'/><y:items xmlns:y='e' node='shut'/></event>",
                false,
            ),
            ("<event xmlns='e'><items/></event>", false),
            ("<event xmlns='e'><items x:node='open'/></event>", false),
            ("<event xmlns='e'/>", false),
            ("<event xmlns='e'>", false),
        ] {
            assert_eq!(
                every_child_has(xml.as_bytes(), "node", |node| node == "open"),
                expected,
                "{xml}"
            );
        }
    }
}
