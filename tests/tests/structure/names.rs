//! A type's name is unique in its crate: who searches for it finds one thing.

use std::collections::BTreeMap;

use syn::{Attribute, Item};

use crate::{Finding, assert_excepted, source::Source};

#[test]
fn a_type_s_name_is_unique_in_its_crate() {
    let mut found = Vec::new();
    for name in ["crds", "page", "proxy", "operator", "tests"] {
        let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let sources = Source::all(name);
        for source in sources.iter().filter(|it| !it.is_test()) {
            let file = syn::parse_file(&source.text).unwrap();
            for (ident, line) in types(&file.items) {
                let place = format!("{}:{line}", source.path);
                places.entry(ident).or_default().push(place);
            }
        }
        assert!(places.len() > 10, "{name} is read wrongly");
        let several = places.into_iter().filter(|(_, places)| places.len() > 1);
        found.extend(several.map(|(ident, places)| Finding {
            key: format!("{name}: {ident}"),
            place: places.join("\n    "),
        }));
    }
    assert_excepted("names of several types", &found);
}

fn types(items: &[Item]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for item in items {
        let (attributes, ident) = match item {
            Item::Struct(it) => (&it.attrs, &it.ident),
            Item::Enum(it) => (&it.attrs, &it.ident),
            Item::Trait(it) => (&it.attrs, &it.ident),
            Item::Type(it) => (&it.attrs, &it.ident),
            Item::Union(it) => (&it.attrs, &it.ident),
            Item::Mod(it) => {
                if let (Some((_, inner)), false) = (&it.content, is_test(&it.attrs)) {
                    found.extend(types(inner));
                }
                continue;
            }
            _ => continue,
        };
        if !is_test(attributes) {
            found.push((ident.to_string(), ident.span().start().line));
        }
    }
    found
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|it| {
        it.path().is_ident("cfg")
            && it
                .parse_args::<syn::Path>()
                .is_ok_and(|path| path.is_ident("test"))
    })
}
