//! Where something stands among the bytes of the element at hand.

/// A range of the bytes of the element at hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Span {
    /// Both are below [`MOST_BYTES`].
    pub(super) fn new(start: usize, end: usize) -> Self {
        Self {
            start: start as u32,
            end: end as u32,
        }
    }

    pub(super) fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }

    pub(super) fn is_empty(self) -> bool {
        self.start == self.end
    }

    pub(super) fn bytes(self, buf: &[u8]) -> &[u8] {
        &buf[self.range()]
    }

    /// The same of what is text as a whole.
    #[inline]
    pub(super) fn of(self, text: &str) -> &str {
        text.get(self.range()).unwrap_or_default()
    }

    /// Only for what the pass has checked.
    pub(super) fn str(self, buf: &[u8]) -> &str {
        std::str::from_utf8(self.bytes(buf)).unwrap_or_default()
    }
}

/// Positions are kept in 32 bits.
pub(super) const MOST_BYTES: usize = u32::MAX as usize / 2;
