//! What presence crossed, so that it can be taken back when a partner or a permission is gone.

pub mod tracker;
