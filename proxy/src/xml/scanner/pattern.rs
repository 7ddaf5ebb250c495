//! What stanzas that are written alike have in common, byte by byte, and the gaps between, where each has a
//! plain attribute value or text of its own. Of a stanza that fits, the pass would find what it found of the
//! first one, at other places: nothing but the bytes of values and text differs, and none of these means
//! anything to markup, names or namespaces.

use super::{
    chars,
    parts::{NO_TOP, Top, Value},
    scope::Name,
    span::Span,
};
use crate::{
    same_bytes::begins_with,
    xml::{
        header::is_ill_language,
        stanza::{Child, ChildNamespace, PatternNumber},
    },
};

/// Most bytes that are fixed.
const MOST_FIXED: usize = 512;

/// Most gaps.
const MOST_GAPS: usize = 24;

/// Most elements directly inside a stanza.
const MOST_CHILDREN: usize = 8;

/// How stanzas are written that are written alike.
#[derive(Debug)]
pub(super) struct StanzaPattern {
    number: PatternNumber,
    /// The pieces, one behind the other.
    fixed: Box<[u8]>,
    /// Where each piece but the last ends in `fixed`, and what may follow it.
    gaps: Box<[Gap]>,
    top: Top,
    start_tag: PatternPlace,
    /// `from`, `to`, `type`, `id`.
    values: [Option<PatternRange>; 4],
    children: Box<[ChildPattern]>,
    header_prefixes: u64,
}

/// What a buffer begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// A stanza that fits, of so many bytes.
    Whole(usize),
    /// Perhaps one, once more has come.
    CutOff,
    /// None that fits.
    Other,
}

/// What a stanza that fits comes to.
pub(super) struct Fitted<'s> {
    pub(super) top: &'s mut Top,
    pub(super) children: &'s mut Vec<Child>,
    pub(super) header_prefixes: &'s mut u64,
}

#[derive(Clone, Copy, Debug)]
struct Gap {
    end: u16,
    kind: GapKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GapKind {
    Text,
    /// A value in quotes of this kind.
    Value(u8),
    /// As `Value`, of the stanza's own `xml:lang`: one that is no language fits none.
    Language(u8),
}

/// A byte of `fixed`, or the end of the piece before it.
#[derive(Clone, Copy, Debug)]
struct PatternPlace {
    piece: u8,
    at: u16,
}

#[derive(Clone, Copy, Debug)]
struct PatternRange {
    start: PatternPlace,
    end: PatternPlace,
}

#[derive(Debug)]
struct ChildPattern {
    whole: PatternRange,
    name: PatternRange,
    /// `None`: `jabber:server`.
    namespace: Option<PatternRange>,
}

/// How far each piece of a stanza stands behind where it stands in `fixed`.
type Shifts = [u32; MOST_GAPS + 1];

impl StanzaPattern {
    /// Made of a stanza, its bytes and what the pass found of it; `None` for one that is too long, or written
    /// as hardly any is.
    pub(super) fn of(
        stanza: &[u8],
        top: &Top,
        children: &[Child],
        header_prefixes: u64,
    ) -> Option<Self> {
        let layout = Layout::new(stanza, gaps_of(stanza, top)?)?;
        let found = children;
        let value = |value: Option<Value>| match value {
            None => Some(None),
            Some(Value { changed: true, .. }) => None,
            Some(Value { raw, .. }) => layout.value(raw).map(Some),
        };
        let values = [
            value(top.from)?,
            value(top.to)?,
            value(top.type_)?,
            value(top.id)?,
        ];
        let children: Option<Box<[ChildPattern]>> = children
            .iter()
            .map(|child| {
                Some(ChildPattern {
                    whole: layout.range(child.start, child.end)?,
                    name: layout.range(child.name_start, child.name_end)?,
                    namespace: match child.namespace {
                        ChildNamespace::Server => None,
                        ChildNamespace::Declared { start, end } => Some(layout.range(start, end)?),
                        ChildNamespace::Other(_) => return None,
                    },
                })
            })
            .collect();
        let pattern = Self {
            number: PatternNumber::next(),
            top: Top {
                name: Span::default(),
                // Asked of other elements alone.
                namespace: Name::Server,
                ..*top
            },
            start_tag: layout.place(top.start_tag)?,
            values,
            children: children.filter(|children| children.len() <= MOST_CHILDREN)?,
            header_prefixes,
            fixed: layout.fixed,
            gaps: layout.gaps,
        };
        Some(pattern).filter(|pattern| pattern.gives(stanza, (top, found, header_prefixes)))
    }

    pub(super) fn number(&self) -> PatternNumber {
        self.number
    }

    /// Whether `window`, all that may belong to the stanza, begins with one that fits, and what it comes to.
    #[inline]
    pub(super) fn fit(&self, window: &[u8], into: Fitted<'_>) -> Fit {
        let mut shifts = [0; MOST_GAPS + 1];
        let fit = self.measure(window, &mut shifts);
        if matches!(fit, Fit::Whole(_)) {
            self.write(&shifts, into);
        }
        fit
    }

    #[inline]
    fn measure(&self, window: &[u8], shifts: &mut Shifts) -> Fit {
        let (mut at, mut from) = (0, 0);
        for (gap, shift) in self.gaps.iter().zip(shifts.iter_mut()) {
            let piece = &self.fixed[from..gap.end.into()];
            if let Some(fit) = misses(window, at, piece) {
                return fit;
            }
            *shift = (at - from) as u32;
            at += piece.len();
            from = gap.end.into();
            at = match gap.kind {
                GapKind::Text => match text_end(window, at) {
                    Some(end) => end,
                    None => return Fit::Other,
                },
                GapKind::Value(quote) => chars::skip_plain(window, at, chars::stops_value(quote)),
                GapKind::Language(quote) => {
                    let end = chars::skip_plain(window, at, chars::stops_value(quote));
                    // Cut off, it may yet become one.
                    if end < window.len() && is_ill_language(&window[at..end]) {
                        return Fit::Other;
                    }
                    end
                }
            };
        }
        let piece = &self.fixed[from..];
        if let Some(fit) = misses(window, at, piece) {
            return fit;
        }
        if let Some(shift) = shifts.get_mut(self.gaps.len()) {
            *shift = (at - from) as u32;
        }
        Fit::Whole(at + piece.len())
    }

    #[inline]
    fn write(&self, shifts: &Shifts, into: Fitted<'_>) {
        let span = |range: PatternRange| Span {
            start: range.start.of(shifts),
            end: range.end.of(shifts),
        };
        let value = |range: Option<PatternRange>| {
            range.map(|range| Value {
                raw: span(range),
                changed: false,
            })
        };
        let [from, to, type_, id] = self.values;
        *into.top = Top {
            start_tag: self.start_tag.of(shifts),
            from: value(from),
            to: value(to),
            type_: value(type_),
            id: value(id),
            ..self.top
        };
        *into.header_prefixes = self.header_prefixes;
        into.children.clear();
        into.children.extend(self.children.iter().map(|child| {
            let (whole, name) = (span(child.whole), span(child.name));
            Child {
                start: whole.start,
                end: whole.end,
                name_start: name.start,
                name_end: name.end,
                namespace: match child.namespace.map(span) {
                    None => ChildNamespace::Server,
                    Some(Span { start, end }) => ChildNamespace::Declared { start, end },
                },
            }
        }));
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let parts = [
            size_of_val(self),
            size_of_val(&*self.fixed),
            size_of_val(&*self.gaps),
        ];
        parts.iter().sum::<usize>() + size_of_val(&*self.children)
    }

    /// Whether this is a stanza that fits.
    pub(super) fn fits(&self, stanza: &[u8]) -> bool {
        self.measure(stanza, &mut [0; MOST_GAPS + 1]) == Fit::Whole(stanza.len())
    }

    /// Whether it gives for its own stanza what the pass found.
    fn gives(&self, stanza: &[u8], found: (&Top, &[Child], u64)) -> bool {
        let (mut top, mut children, mut header_prefixes) = (NO_TOP, Vec::new(), 0);
        let into = Fitted {
            top: &mut top,
            children: &mut children,
            header_prefixes: &mut header_prefixes,
        };
        let fit = self.fit(stanza, into);
        let (found_top, found_children, found_prefixes) = found;
        fit == Fit::Whole(stanza.len())
            && header_prefixes == found_prefixes
            && top.is_as(found_top)
            && children == found_children
    }
}

impl PatternPlace {
    #[inline]
    fn of(self, shifts: &Shifts) -> u32 {
        let shift = shifts.get(usize::from(self.piece));
        u32::from(self.at) + shift.copied().unwrap_or_default()
    }
}

/// A stanza cut into what is fixed and what is not.
struct Layout {
    spans: Vec<(Span, GapKind)>,
    fixed: Box<[u8]>,
    gaps: Box<[Gap]>,
}

impl Layout {
    fn new(stanza: &[u8], spans: Vec<(Span, GapKind)>) -> Option<Self> {
        let mut fixed = Vec::new();
        let mut gaps = Vec::new();
        let mut at = 0;
        for (span, kind) in &spans {
            let range = span.range();
            fixed.extend_from_slice(stanza.get(at..range.start)?);
            at = range.end;
            gaps.push(Gap {
                end: fixed.len().try_into().ok()?,
                kind: *kind,
            });
        }
        fixed.extend_from_slice(stanza.get(at..)?);
        (fixed.len() <= MOST_FIXED && gaps.len() <= MOST_GAPS).then(|| Self {
            spans,
            fixed: fixed.into(),
            gaps: gaps.into(),
        })
    }

    /// A position that is in no gap: where one begins it is the end of the piece before it, where one ends
    /// the start of the piece behind it.
    fn place(&self, position: u32) -> Option<PatternPlace> {
        let before = self.spans.iter().filter(|(gap, _)| gap.end <= position);
        // An empty gap has one side alone: for values, which say which they mean.
        let (mut piece, mut gone) = (0, 0);
        for (gap, _) in before {
            piece += 1;
            gone += gap.end - gap.start;
        }
        let inside = self
            .spans
            .iter()
            .any(|(gap, _)| gap.start < position && position < gap.end);
        let place = PatternPlace {
            piece,
            at: (position - gone).try_into().ok()?,
        };
        (!inside).then_some(place)
    }

    fn range(&self, start: u32, end: u32) -> Option<PatternRange> {
        Some(PatternRange {
            start: self.place(start)?,
            end: self.place(end)?,
        })
    }

    /// A value: a gap as a whole, or fixed.
    fn value(&self, value: Span) -> Option<PatternRange> {
        let Some(gap) = self.spans.iter().position(|(gap, _)| *gap == value) else {
            return self.range(value.start, value.end);
        };
        let at = self.gaps.get(gap)?.end;
        let piece = gap.try_into().ok()?;
        Some(PatternRange {
            start: PatternPlace { piece, at },
            end: PatternPlace {
                piece: piece + 1,
                at,
            },
        })
    }
}

/// `None`: this piece stands at `at`.
#[inline]
fn misses(window: &[u8], at: usize, piece: &[u8]) -> Option<Fit> {
    let rest = window.get(at..).unwrap_or_default();
    if begins_with(rest, piece) {
        None
    } else if piece.starts_with(rest) {
        Some(Fit::CutOff)
    } else {
        Some(Fit::Other)
    }
}

/// Where the text at `at` ends; `None` where it is not right, or cut off amid a character.
#[inline]
fn text_end(window: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at = chars::skip_plain(window, at, chars::STOPS_TEXT);
        match window.get(at..)? {
            [b'<', ..] | [] => return Some(at),
            [b'&', ..] => at += chars::reference(window, at).ok()??,
            [b']', rest @ ..] => match rest {
                [b']', b'>', ..] | [b']'] | [] => return None,
                _ => at += 1,
            },
            [0x80..=0xff, ..] => at = chars::wide_run(window, at).ok()??,
            _ => return None,
        }
    }
}

/// The text and values that another stanza may have others in place of: all but the type of the stanza and
/// namespace names. `None` where it is not written as nearly all are.
fn gaps_of(stanza: &[u8], top: &Top) -> Option<Vec<(Span, GapKind)>> {
    let mut gaps = Vec::new();
    let mut at = 0;
    while at < stanza.len() {
        let tag = at + memchr::memchr(b'<', &stanza[at..])?;
        if tag > at {
            gaps.push((Span::new(at, tag), GapKind::Text));
        }
        if matches!(stanza.get(tag + 1), Some(b'!' | b'?')) {
            return None;
        }
        at = tag + 1;
        loop {
            let stop = at + memchr::memchr3(b'>', b'\'', b'"', &stanza[at..])?;
            let quote = stanza[stop];
            if quote == b'>' {
                at = stop + 1;
                break;
            }
            let written = stanza[at..stop].strip_suffix(b"=")?;
            let name = written.rsplit(|&byte| chars::is_space(byte)).next()?;
            let end = stop + 1 + memchr::memchr(quote, &stanza[stop + 1..])?;
            let value = Span::new(stop + 1, end);
            let is_fixed = name == b"xmlns"
                || name.starts_with(b"xmlns:")
                || top.type_.is_some_and(|type_| type_.raw == value);
            if !is_fixed {
                let is_own = tag == 0 && name == b"xml:lang";
                let kind = if is_own {
                    GapKind::Language(quote)
                } else {
                    GapKind::Value(quote)
                };
                gaps.push((value, kind));
            }
            if gaps.len() > MOST_GAPS {
                return None;
            }
            at = end + 1;
        }
    }
    Some(gaps)
}
