//! Sessions of messages, as clients of Lync and Skype for Business write to each other: an INVITE with a media line for
//! messages, MESSAGE and INFO in its dialog, BYE (*departs* from RFC 3428 section 2, which wants no dialog only to tie
//! messages together: those clients work so).
//!
//! [`SessionDescription`] is what both sides say of their media, [`Invitation`] an INVITE of ours, [`Sessions`] all that
//! stand with one server, whoever began them, [`read_activity`] and [`write_activity`] what an INFO says of typing.

mod activity;
mod description;
mod invitation;
mod sessions;
#[cfg(test)]
mod tests;

pub use self::{
    activity::{ACTIVITY_TYPE, read_activity, write_activity},
    description::{DESCRIPTION_TYPE, DescriptionFault, SessionDescription, TypingForm, offer},
    invitation::{Invitation, accepted},
    sessions::{EndedSession, MAX_SESSIONS, NoSessionRoom, SessionNumber, Sessions},
};
