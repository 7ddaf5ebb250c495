//! Users of SIP who watch users of a partner: the edge notifies them of what it hears (RFC 8048 section 5.3).
//!
//! [`SubscribeWish`] is what a SUBSCRIBE asks for, [`Notifiers`] are all subscriptions at one SIP server.

mod dialog;
mod notifiers;
#[cfg(test)]
mod tests;
mod watched;
mod wish;

pub use self::{
    dialog::{DocumentForm, Notify, NotifyEnd, NotifyState},
    notifiers::{
        NotifierEvent, NotifierOutput, NotifierRefusal, NotifierStep, Notifiers, NotifyOutcome,
        NotifyTicket,
    },
    watched::NotifierNumber,
    wish::{EVENT, SubscribeWish, WishFault},
};
