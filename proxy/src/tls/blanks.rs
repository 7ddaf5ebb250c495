//! White space in front of a handshake.

/// So much of it is read over, in bytes.
const MOST: usize = 16;

/// How much white space may still stand before the first record. Some servers end the line behind `<proceed/>`
/// or `<starttls/>`: what of that came with the element is dropped with all plaintext, the rest comes here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blanks(usize);

impl Blanks {
    pub(super) const NONE: Self = Self(0);
    pub(super) const BEHIND_STARTTLS: Self = Self(MOST);

    /// Takes them from the front of what was read first.
    pub(super) fn drop_from(&mut self, read: &mut Vec<u8>) {
        let is_blank = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        let blanks = read.iter().take(self.0).take_while(is_blank).count();
        // Behind anything else there are none.
        self.0 = match blanks == read.len() {
            true => self.0 - blanks,
            false => 0,
        };
        read.drain(..blanks);
    }
}
