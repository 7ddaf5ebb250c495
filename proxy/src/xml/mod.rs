//! One pass lexes, checks and frames; nothing is lexed twice.

pub mod stanza;
