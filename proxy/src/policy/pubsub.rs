//! Reading which nodes a pubsub element names. Only PEP reads and events come here: not the hot path.

use quick_xml::{Reader, XmlVersion, events::Event};

/// Whether every element directly inside `element` is about a node that `is_open` knows, and there
/// is one. Elements of any namespace count, so that no prefix hides one.
pub(super) fn names_only(element: &[u8], is_open: impl Fn(&str) -> bool) -> bool {
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
            let node = start.try_get_attribute("node").ok().flatten();
            let value = node
                .as_ref()
                .and_then(|at| at.normalized_value(XmlVersion::Implicit1_0).ok());
            if !value.is_some_and(|node| is_open(&node)) {
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
    fn every_node_counts_whatever_its_prefix_or_place() {
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
                names_only(xml.as_bytes(), |node| node == "open"),
                expected,
                "{xml}"
            );
        }
    }
}
