//! standalone
pub mod documents;
