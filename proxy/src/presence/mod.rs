//! What presence crossed, so that it can be taken back when a partner or a permission is gone.

mod address;
mod seen;
pub mod tracker;
