//! What the other ends are told when this process ends, and what is still to be done on the trunks then; and trunks
//! that are to end in order while it goes on.

use super::{FarEnd, SidecarIntake, TrunkRegistry};
use crate::{
    stream::Command,
    trunk::nonza::{EdgeChange, Nonza, ServerState},
};

impl TrunkRegistry {
    /// This sidecar ends: edges keep what comes, or give it to another one.
    pub fn own_end(&self) {
        self.own_server_is(ServerState::Down {
            text: "its sidecar ends".to_owned(),
        });
        self.table.lock().intake = SidecarIntake::Never;
    }

    /// This edge pod ends: sidecars send elsewhere, where they can.
    pub fn own_withdrawal(&self) {
        let withdrawn = EdgeChange {
            is_withdrawn: Some(true),
            ..EdgeChange::default()
        };
        for own in self.table.lock().trunks.values() {
            if matches!(own.far, FarEnd::Sidecar(_)) {
                own.say(Nonza::Edge(withdrawn));
            }
        }
    }

    /// Every trunk ends in order. A sidecar dials the next ones.
    pub fn drain_all(&self) {
        for own in self.table.lock().trunks.values() {
            own.handle.tell(Command::Drain);
        }
    }

    /// Pairs that the other ends have open here.
    #[must_use]
    pub fn received_pairs(&self) -> u64 {
        let table = self.table.lock();
        let trunks = table.trunks.values();
        trunks.map(|own| own.facts.figures.received_pairs()).sum()
    }

    /// Stanzas that came by trunks and are not acknowledged there.
    #[must_use]
    pub fn owed_stanzas(&self) -> u64 {
        let table = self.table.lock();
        let trunks = table.trunks.values();
        trunks.map(|own| own.facts.figures.owed_stanzas()).sum()
    }
}
