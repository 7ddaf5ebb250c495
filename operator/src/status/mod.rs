//! The statuses of objects: which [`condition`]s they have, when they are due ([`throttle`]), and
//! how they are written ([`apply`], through one [`queue`]). What a kind's status says is decided by
//! its controller.

pub mod apply;
pub mod condition;
pub mod queue;
pub mod throttle;
pub mod unwatched;
