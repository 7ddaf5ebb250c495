//! What presence crossed, so that it can be taken back when a partner or a permission is gone.

mod address;
pub mod own;
mod seen;
pub mod tracker;
