//! The controllers: one looks at a [`namespace`] whole, since a namespace is one organisation and
//! compiling is a function of it; it leads each [`pool`], and the kinds that have no objects of
//! their own, [`partner`] and [`policy`] ([`status_only`]).

pub mod namespace;
pub mod partner;
pub mod policy;
pub mod pool;
pub mod status_only;
