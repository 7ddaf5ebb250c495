//! The header fields of one message, unfolded, in their order.

use std::ops::Range;

use super::{FrameFault, HeaderName, MAX_HEAD_LINES, MAX_LINE_BYTES, value::is_token};

/// Fields of which [`HeaderName`] knows the name. All others were checked and forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SipHeaders {
    /// All values, one behind the other.
    values: String,
    fields: Vec<(HeaderName, Range<usize>)>,
}

impl SipHeaders {
    /// Of what stands behind the start line: lines that end with CRLF, an empty one last.
    pub(super) fn read(text: &str) -> Result<Self, FrameFault> {
        let mut headers = Self::default();
        let mut lines = text.split("\r\n").take_while(|line| !line.is_empty());
        // The start line is the first.
        let mut count = 1;
        let mut line = lines.next();
        while let Some(first) = line {
            let mut value = headers.begin(first)?;
            let mut bytes = first.len();
            count += 1;
            line = lines.next();
            while let Some(folded) = line.filter(|it| it.starts_with([' ', '\t'])) {
                check_line(folded)?;
                value.push(' ');
                value.push_str(folded.trim_matches([' ', '\t']));
                bytes += folded.len();
                count += 1;
                line = lines.next();
            }
            if bytes > MAX_LINE_BYTES {
                return Err(FrameFault::LineTooLong);
            }
            if count > MAX_HEAD_LINES {
                return Err(FrameFault::TooManyLines);
            }
            headers.keep(first, &value);
        }
        Ok(headers)
    }

    /// What a field says in its first line.
    fn begin(&self, line: &str) -> Result<String, FrameFault> {
        check_line(line)?;
        let (name, value) = line.split_once(':').ok_or(FrameFault::HeaderLine)?;
        if !is_token(name.trim_end_matches([' ', '\t']).as_bytes()) {
            return Err(FrameFault::HeaderLine);
        }
        Ok(value.trim_matches([' ', '\t']).to_owned())
    }

    fn keep(&mut self, line: &str, value: &str) {
        let name = line.split(':').next().unwrap_or_default();
        if let Some(name) = HeaderName::of_name(name.trim_end_matches([' ', '\t'])) {
            let from = self.values.len();
            self.values.push_str(value.trim_matches([' ', '\t']));
            self.fields.push((name, from..self.values.len()));
        }
    }

    /// The values of all fields of that name, as they came; each may hold several behind commas.
    pub fn all(&self, name: HeaderName) -> impl Iterator<Item = &str> {
        let fields = self.fields.iter().filter(move |(of, _)| *of == name);
        fields.map(|(_, value)| &self.values[value.clone()])
    }

    /// The value of the first field of that name.
    #[must_use]
    pub fn first(&self, name: HeaderName) -> Option<&str> {
        self.all(name).next()
    }

    /// The value of the one field of that name.
    ///
    /// # Errors
    /// [`SeveralFields`].
    pub fn only(&self, name: HeaderName) -> Result<Option<&str>, SeveralFields> {
        let mut all = self.all(name);
        let first = all.next();
        match all.next() {
            None => Ok(first),
            Some(_) => Err(SeveralFields(name)),
        }
    }
}

/// A field that a message may have once it has more often (RFC 3261 section 7.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeveralFields(pub HeaderName);

fn check_line(line: &str) -> Result<(), FrameFault> {
    if line.len() > MAX_LINE_BYTES {
        return Err(FrameFault::LineTooLong);
    }
    // What reads lines otherwise would find another head here. Other controls may stand in quotes
    // (RFC 3261 section 25.1, `quoted-pair`).
    if line.contains(['\r', '\n']) {
        return Err(FrameFault::BareLineEnd);
    }
    Ok(())
}
