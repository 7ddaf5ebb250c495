//! The patterns of stanzas that came on a stream: most of what comes is written as something that came before.
//!
//! Which are kept, and whether one is looked for at all, costs a stream that repeats nothing little.

use super::{
    parts::Top,
    pattern::{Fit, Fitted, StanzaPattern},
};
use crate::xml::stanza::{Child, PatternNumber};

/// Most patterns kept: about 1 KiB each.
const MOST_KEPT: usize = 4;

/// Stanzas that fit no pattern, before one is made of one of them; at first, and at most where those that
/// are made do not come again. Odd, so that of two kinds in turns not always the same is taken.
const FIRST_WAIT: u16 = 3;
const LONGEST_WAIT: u16 = 1_023;
/// At most where no pattern can be made of what is taken.
const WAIT_FOR_OTHERS: u16 = 31;

/// A stanza fitted: so much for looking, and so much against where none did. To fit saves far more than to
/// look costs.
const FITTED: i16 = 2;
const DID_NOT_FIT: i16 = 1;
const MOST_FOR: i16 = 64;
const MOST_AGAINST: i16 = -8;
/// What a new pattern is given to show that it is of use.
const GRACE: i16 = 16;

/// While more speaks against looking, only one in so many is looked at.
const RARELY: u16 = 16;

/// What a stream has that is busy.
#[derive(Debug)]
pub(super) struct Patterns {
    /// Those that fit most come first.
    kept: Vec<Kept>,
    /// What speaks for looking.
    balance: i16,
    /// Stanzas that were not looked at.
    passed_over: u16,
    /// Stanzas that fitted none since the last pattern was made.
    missed: u16,
    wait: u16,
}

#[derive(Debug)]
struct Kept {
    pattern: StanzaPattern,
    fitted: u16,
}

impl Default for Patterns {
    fn default() -> Self {
        Self {
            kept: Vec::new(),
            balance: 0,
            passed_over: 0,
            missed: 0,
            wait: FIRST_WAIT,
        }
    }
}

impl Patterns {
    /// The length of the stanza at the start of `window`, all that may belong to it, where it fits one of them, and
    /// which; the rest then has what it comes to.
    #[inline]
    pub(super) fn find(
        &mut self,
        window: &[u8],
        (top, children, header_prefixes): (&mut Top, &mut Vec<Child>, &mut u64),
    ) -> Option<(usize, PatternNumber)> {
        if self.balance < 0 {
            self.passed_over += 1;
            if self.passed_over < RARELY {
                return None;
            }
            self.passed_over = 0;
        }
        let mut is_cut_off = false;
        for index in 0..self.kept.len() {
            let kept = &mut self.kept[index];
            let into = Fitted {
                top: &mut *top,
                children: &mut *children,
                header_prefixes: &mut *header_prefixes,
            };
            match kept.pattern.fit(window, into) {
                Fit::Whole(len) => {
                    kept.fitted = kept.fitted.saturating_add(1);
                    let number = kept.pattern.number();
                    self.balance = (self.balance + FITTED).min(MOST_FOR);
                    if index > 0 && self.kept[index].fitted > self.kept[index - 1].fitted {
                        self.kept.swap(index, index - 1);
                    }
                    return Some((len, number));
                }
                Fit::CutOff => is_cut_off = true,
                Fit::Other => {}
            }
        }
        if !is_cut_off && !self.kept.is_empty() {
            self.balance = (self.balance - DID_NOT_FIT).max(MOST_AGAINST);
        }
        None
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let patterns = self.kept.iter().map(|kept| kept.pattern.bytes());
        size_of_val(self) + patterns.sum::<usize>()
    }

    /// A stanza that fitted none, with what the pass found of it: a pattern is made of one of so many.
    pub(super) fn missed(
        &mut self,
        stanza: &[u8],
        (top, children, header_prefixes): (&Top, &[Child], u64),
    ) {
        self.missed += 1;
        if self.missed < self.wait {
            return;
        }
        self.missed = 0;
        // It may have been cut off when it was looked at.
        if self.kept.iter().any(|kept| kept.pattern.fits(stanza)) {
            return;
        }
        let Some(pattern) = StanzaPattern::of(stanza, top, children, header_prefixes) else {
            self.wait = self.wait.max((self.wait * 2 + 1).min(WAIT_FOR_OTHERS));
            return;
        };
        for kept in &mut self.kept {
            kept.fitted /= 2;
        }
        if self.kept.len() == MOST_KEPT {
            // To make patterns costs more than to go without.
            let was_of_use = self.kept.pop().is_some_and(|kept| kept.fitted > self.wait);
            self.wait = if was_of_use {
                FIRST_WAIT
            } else {
                (self.wait * 2 + 1).min(LONGEST_WAIT)
            };
        }
        self.kept.push(Kept { pattern, fitted: 0 });
        self.balance = self.balance.max(GRACE);
    }
}
