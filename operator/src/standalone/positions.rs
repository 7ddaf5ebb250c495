//! Where the fields of a document stand, as its parser found them. Knows no kinds.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{Location, Spanned};

/// A place in a text, from 1; the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

impl Position {
    pub(super) const START: Self = Self { line: 1, column: 1 };

    /// `None` where the parser does not say.
    fn of(location: Location) -> Option<Self> {
        let number = |number: u64| usize::try_from(number).ok().filter(|it| *it > 0);
        Some(Self {
            line: number(location.line())?,
            column: number(location.column())?,
        })
    }
}

/// The positions of all fields of a document.
#[derive(Debug)]
pub struct Positions(Option<Spanned<Placed>>);

/// A value's fields and entries with where they stand; of scalars there is nothing to know.
#[derive(Debug)]
enum Placed {
    Mapping(Vec<(Spanned<FieldKey>, Spanned<Placed>)>),
    Sequence(Vec<Spanned<Placed>>),
    Scalar,
}

/// A field's key of whatever type, as text.
#[derive(Debug)]
struct FieldKey(String);

impl Positions {
    /// Of a text that was read before; of one that cannot be read none is known.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let options = serde_saphyr::options! { with_snippet: false };
        Self(serde_saphyr::from_str_with_options(text, options).ok())
    }

    /// Where `path` (as in `spec.gateways[0].address`) stands: a field where its key does, an entry of a list where
    /// it begins; else the nearest part of the path that there is.
    #[must_use]
    pub fn find(&self, path: &str) -> Position {
        let Some(root) = &self.0 else {
            return Position::START;
        };
        let start = || Position::of(root.referenced).unwrap_or(Position::START);
        let (mut at, mut value, mut rest) = (None, &root.value, path);
        while let Some((place, next, left)) = value.step(rest) {
            at = Position::of(place).or(at);
            (value, rest) = (next, left);
        }
        at.unwrap_or_else(start)
    }
}

impl Placed {
    /// The first part of a path: where it stands, what is there, and the rest. Keys may have dots of their own.
    fn step<'p>(&self, path: &'p str) -> Option<(Location, &Self, &'p str)> {
        let path = path.strip_prefix('.').unwrap_or(path);
        match self {
            Self::Mapping(fields) => {
                let fields = fields.iter().filter_map(|(key, value)| {
                    let rest = path.strip_prefix(key.value.0.as_str())?;
                    let ends = rest.is_empty() || rest.starts_with(['.', '[']);
                    (ends && !key.value.0.is_empty()).then_some((key, value, rest))
                });
                let (key, value, rest) = fields.min_by_key(|(_, _, rest)| rest.len())?;
                let known = [key.referenced, value.referenced];
                let place = known.into_iter().find(|it| Position::of(*it).is_some());
                Some((place.unwrap_or(key.referenced), &value.value, rest))
            }
            Self::Sequence(entries) => {
                let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
                let entry = entries.get(index.parse::<usize>().ok()?)?;
                Some((entry.referenced, &entry.value, rest))
            }
            Self::Scalar => None,
        }
    }
}

impl<'de> Deserialize<'de> for Placed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(PlacedVisitor)
    }
}

struct PlacedVisitor;

impl<'de> Visitor<'de> for PlacedVisitor {
    type Value = Placed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Placed, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = from.next_entry()? {
            fields.push(field);
        }
        Ok(Placed::Mapping(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Placed, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = from.next_element()? {
            entries.push(entry);
        }
        Ok(Placed::Sequence(entries))
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Placed, D::Error> {
        Placed::deserialize(from)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<Placed, D::Error> {
        Placed::deserialize(from)
    }

    fn visit_none<E>(self) -> Result<Placed, E> {
        Ok(Placed::Scalar)
    }

    fn visit_unit<E>(self) -> Result<Placed, E> {
        Ok(Placed::Scalar)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Placed, E> {
        Ok(Placed::Scalar)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Placed, E> {
        Ok(Placed::Scalar)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Placed, E> {
        Ok(Placed::Scalar)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Placed, E> {
        Ok(Placed::Scalar)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Placed, E> {
        Ok(Placed::Scalar)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Placed, E> {
        Ok(Placed::Scalar)
    }

    fn visit_str<E>(self, _: &str) -> Result<Placed, E> {
        Ok(Placed::Scalar)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Placed, E> {
        Ok(Placed::Scalar)
    }
}

impl<'de> Deserialize<'de> for FieldKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = FieldKey;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<FieldKey, E> {
        Ok(FieldKey(key.to_owned()))
    }

    fn visit_bool<E>(self, key: bool) -> Result<FieldKey, E> {
        Ok(FieldKey(key.to_string()))
    }

    fn visit_i64<E>(self, key: i64) -> Result<FieldKey, E> {
        Ok(FieldKey(key.to_string()))
    }

    fn visit_u64<E>(self, key: u64) -> Result<FieldKey, E> {
        Ok(FieldKey(key.to_string()))
    }

    fn visit_f64<E>(self, key: f64) -> Result<FieldKey, E> {
        Ok(FieldKey(key.to_string()))
    }

    fn visit_unit<E>(self) -> Result<FieldKey, E> {
        Ok(FieldKey(String::new()))
    }

    fn visit_none<E>(self) -> Result<FieldKey, E> {
        Ok(FieldKey(String::new()))
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<FieldKey, D::Error> {
        FieldKey::deserialize(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str, expected: &[(&str, usize, usize)]) {
        let positions = Positions::of(text);
        for (path, line, column) in expected {
            let (line, column) = (*line, *column);
            assert_eq!(positions.find(path), Position { line, column }, "{path}");
        }
    }

    #[test]
    fn a_path_leads_to_its_key_whatever_stands_before_it() {
        places(
            "kind: EdgePool\nmetadata:\n  labels: {name: x}\n  name: hq\nspec:\n  site: hq\n  gateways:\n  - domains:\n    - a.example\n    address: x\n  - domains: [b.example, c.example]\n    address: y\n  domains: [ORG.example]\n",
            &[
                ("", 1, 1),
                ("kind", 1, 1),
                ("metadata.name", 4, 3),
                ("metadata.labels.name", 3, 12),
                ("spec.site", 6, 3),
                ("spec.gateways[0].address", 10, 5),
                ("spec.gateways[1]", 11, 5),
                ("spec.gateways[1].domains", 11, 5),
                ("spec.gateways[1].domains[1]", 11, 26),
                ("spec.gateways[1].address", 12, 5),
                ("spec.domains", 13, 3),
                ("spec.domains[0]", 13, 13),
                ("spec.nowhere", 5, 1),
                ("spec.gateways[7].address", 7, 3),
                ("nowhere", 1, 1),
            ],
        );
        places(
            "# head\ndata:\n  tls.crt: x\n  tls: y\n  7: z\n",
            &[("data.tls.crt", 3, 3), ("data.tls", 4, 3), ("data.7", 5, 3)],
        );
        places(
            r#"{"kind":"List","items":[{"kind":"A"},{"kind":"B","spec":{"a":1}}]}"#,
            &[("items[0].kind", 1, 26), ("items[1].spec.a", 1, 58)],
        );
    }
}
