//! Partner, access, content, contact: what may pass, and what each refusal says.
//!
//! [`Policy`] is an immutable snapshot of one configuration; whoever holds it swaps it whole. It
//! judges a stanza without allocating where addresses come in prepared form. It must not touch
//! sockets, queues or metrics: what to count, answer or remember is in the [`Judgement`].

mod address;
mod content;
mod pair;
mod refusal;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use xmpp_edge_crds::{
    edge_config::EdgeConfig,
    verdict::{Access, AccessIndex, Direction, PartnerIndex, PartnerType, Partners, Reason},
};

use crate::{
    contacts::{ContactChange, ContactEvent, Contacts},
    xml::{
        XmlError,
        rewrite::{Shape, is_status_note},
        stanza::{PatternNumber, Stanza, StanzaKind},
    },
};
pub use address::{Address, readdressed};
use content::{ContentRules, ContentVerdict, MessageType};
use pair::Snapshot;
pub use pair::{AddressedPair, PassedBefore, ResolvedPair, ResolvedPeople, Written};
pub use refusal::{Answer, StanzaError, answer};

/// Why a stanza does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The first rule that fails.
    Rule(Reason),
    /// The same of a presence that asks to be let into a room: its sender waits for an answer.
    Join(Reason),
    /// An address is none, or is missing, or two servers could read it as two people.
    Malformed,
    /// It breaks a limit, or is XML that no server inside has to know; it was skipped unread.
    Faulty(XmlError),
    /// An address of it is missing, or has no domain that can be read, so that it is of no pair.
    Unaddressed,
    /// It is for a domain that its stream was not agreed on for.
    Misdirected,
}

impl Cause {
    /// Whether it was found before anybody looked for room in a queue.
    #[must_use]
    pub fn is_found_first(self) -> bool {
        matches!(
            self,
            Self::Faulty(_) | Self::Unaddressed | Self::Misdirected
        )
    }

    /// Label `reason` of the metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rule(reason) | Self::Join(reason) => reason.as_str(),
            Self::Malformed | Self::Unaddressed => "JidMalformed",
            Self::Faulty(error) => error.label(),
            Self::Misdirected => "StanzaTo",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Forwarded: whole, or what of it may cross.
    Pass(Shape),
    /// Answered as [`answer`] says; never [`Answer::Drop`].
    Refuse(Cause),
    /// Dropped and counted.
    Drop(Cause),
}

/// What becomes of one stanza.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement<'p> {
    pub outcome: Outcome,
    /// Set where it is delivered although this rule would refuse it: counted and logged.
    pub audited: Option<Reason>,
    /// The partner it belongs to and the object's name, for metrics; `None`: `other`.
    pub partner: Option<(PartnerIndex, &'p str)>,
    /// For [`Contacts::record`], once the stanza was taken over; only where it changes something.
    pub contact: Option<Box<ContactChange>>,
    /// Of two people, found for this stanza: the next with the same addresses needs not look again.
    pub people: Option<ResolvedPeople>,
    /// What [`Policy::passes_again`] takes for the next of its pattern between the same addresses.
    pub passed: Option<PassedBefore>,
}

/// One configuration's rules.
#[derive(Clone, Debug)]
pub struct Policy {
    config: Arc<EdgeConfig>,
    partners: Partners,
    access: AccessIndex,
    content: ContentRules,
    rules: RuleSet,
    snapshot: Snapshot,
}

/// By what stanzas are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RuleSet {
    All,
    /// By none: somebody else judges them.
    None,
}

impl Policy {
    #[must_use]
    pub fn new(config: Arc<EdgeConfig>) -> Self {
        let partners = Partners::build(&config);
        let access = AccessIndex::build(&config, &partners);
        let content = ContentRules::new(&config.content);
        Self {
            config,
            partners,
            access,
            content,
            rules: RuleSet::All,
            snapshot: Snapshot::next(),
        }
    }

    /// Of a sidecar: whoever is not own belongs to the first partner, and every stanza passes whole. Edges
    /// judge them.
    #[must_use]
    pub fn passing(config: Arc<EdgeConfig>) -> Self {
        let partners = Partners::with_others_first(&config);
        Self {
            partners,
            rules: RuleSet::None,
            ..Self::new(config)
        }
    }

    /// Which domain belongs to which partner.
    #[must_use]
    pub fn partners(&self) -> &Partners {
        &self.partners
    }

    /// Rule 1 alone, for pairs and streams before there is a stanza: the partner that may talk.
    ///
    /// # Errors
    /// The reason why nobody of `domain` (in the form of a `DomainName`) may talk.
    pub fn admit(&self, domain: &str) -> Result<PartnerIndex, Reason> {
        if self.config.suspended {
            return Err(Reason::PoolSuspended);
        }
        let partner = self
            .partners
            .find(domain)
            .ok_or(Reason::PartnerNotAllowed)?;
        self.partners.admission(partner).check().map(|()| partner)
    }

    /// Rules 1 and 2 alone for a user and a partner's domain, both prepared: whether what has
    /// crossed between them may stay. Mode `Audit` counts as allowed.
    ///
    /// # Errors
    /// The first rule that fails.
    pub fn allows(&self, local: Option<&str>, own: &str, domain: &str) -> Result<(), Reason> {
        let partner = self.admit(domain)?;
        if self.rules == RuleSet::None {
            return Ok(());
        }
        let partner_type = self.partners.partner_type(partner);
        let own = self.access.own(own);
        match local.map(|local| self.access.decide(local, own, partner, partner_type)) {
            Some(Access::Refused) => Err(Reason::AccessPolicy),
            Some(Access::Granted | Access::Audited) | None => Ok(()),
        }
    }

    /// Judges a stanza of an authenticated pair by all four rules, in their order. `direction`
    /// says which of `from` and `to` is the local side; `known`: what the pair's own facts say, where its
    /// addresses name the domains as the pair does.
    pub fn judge(
        &self,
        direction: Direction,
        stanza: &Stanza<'_>,
        known: Option<AddressedPair<'_>>,
        contacts: &Contacts,
    ) -> Judgement<'_> {
        let mut judgement = Judgement {
            outcome: Outcome::Pass(Shape::Whole),
            audited: None,
            partner: None,
            contact: None,
            people: None,
            passed: None,
        };
        if self.rules == RuleSet::None {
            return judgement;
        }
        // What changes from here on may count already, and is looked at again.
        let contact_changes = contacts.changes();
        match self.rules(direction, stanza, known, contacts, &mut judgement) {
            Ok(outcome) => {
                judgement.outcome = outcome;
                judgement.passed = self.passed(stanza, &judgement, contact_changes);
            }
            Err(cause) => {
                let cause = match cause {
                    Cause::Rule(reason) if stanza.is_join() => Cause::Join(reason),
                    other => other,
                };
                let told = answer(direction, stanza.kind, stanza.type_.as_deref(), cause);
                judgement.audited = None;
                judgement.outcome = match told {
                    Answer::Drop => Outcome::Drop(cause),
                    Answer::Error(_) | Answer::PresenceError(_) => Outcome::Refuse(cause),
                };
            }
        }
        judgement
    }

    /// The judgement of a stanza of an authenticated pair, by what was found of one like it: between the same two
    /// addresses, as they stand, and of this pattern. `None`: it is to be judged.
    #[inline]
    pub fn passes_again(
        &self,
        before: &PassedBefore,
        pattern: Option<PatternNumber>,
        facts: &ResolvedPair,
        contacts: &Contacts,
    ) -> Option<Judgement<'_>> {
        let holds = pattern == Some(before.pattern)
            && before.snapshot == self.snapshot
            && facts.are_of(self)
            && before.contact_changes == contacts.changes();
        let partner = facts.partner.filter(|_| holds)?;
        Some(Judgement {
            outcome: Outcome::Pass(before.shape),
            audited: before.audited,
            partner: Some((partner, &self.config.partners[partner.as_usize()].name)),
            contact: None,
            people: None,
            passed: None,
        })
    }

    /// What is found of the stanzas of its pattern between its two people, where that depends on nothing else.
    fn passed(
        &self,
        stanza: &Stanza<'_>,
        judgement: &Judgement<'_>,
        contact_changes: u64,
    ) -> Option<PassedBefore> {
        let pattern = stanza.pattern?;
        let Outcome::Pass(shape) = judgement.outcome else {
            return None;
        };
        let by_its_form = judgement.contact.is_none()
            && match stanza.kind {
                StanzaKind::Message => content::depends_on_names_alone(stanza),
                StanzaKind::Presence => stanza.type_.is_none(),
                StanzaKind::Iq => false,
            };
        by_its_form.then_some(PassedBefore {
            snapshot: self.snapshot,
            contact_changes,
            pattern,
            shape,
            audited: judgement.audited,
        })
    }

    fn rules<'p>(
        &'p self,
        direction: Direction,
        stanza: &Stanza<'_>,
        known: Option<AddressedPair<'_>>,
        contacts: &Contacts,
        judgement: &mut Judgement<'p>,
    ) -> Result<Outcome, Cause> {
        let (Some(from), Some(to)) = (&stanza.from, &stanza.to) else {
            return Err(Cause::Malformed);
        };
        let known = known.and_then(|known| known.of(self));
        let written = known.map(|known| known.written);
        let addresses = match written {
            Some(Written::People(people)) => {
                Ok((Address::at(from, people.from), Address::at(to, people.to)))
            }
            Some(Written::Domains {
                from: first,
                to: second,
            }) => Address::around(from, first)
                .and_then(|from| Ok((from, Address::around(to, second)?))),
            None => Address::prepare(from).and_then(|from| Ok((from, Address::prepare(to)?))),
        };
        let (from, to) = addresses.map_err(|_| Cause::Malformed)?;
        let (user, remote) = match direction {
            Direction::Inbound => (&to, &from),
            Direction::Outbound => (&from, &to),
        };
        let facts = match known {
            Some(known) => *known.facts,
            None => ResolvedPair::new(self, user.domain(), remote.domain()),
        };

        // Rule 1.
        if let Some(found) = facts.partner {
            judgement.partner = Some((found, &self.config.partners[found.as_usize()].name));
        }
        let partner = self.admit_found(facts.partner)?;
        let partner_type = self.partners.partner_type(partner);

        let access = match written {
            Some(Written::People(people)) => Some(people.access),
            _ => user
                .local()
                .map(|local| self.access.decide(local, facts.own, partner, partner_type)),
        };
        let people = user.local().is_some() && remote.local().is_some();
        if people
            && let (Some(Written::Domains { .. }), Some(access)) = (written, access)
            && let (Some(from), Some(to)) = (from.ends(), to.ends())
        {
            judgement.people = Some(ResolvedPeople::new(&facts, (from, to), access));
        }
        let seen = SeenStanza::of(direction, stanza);
        let subject = Judged {
            direction,
            stanza,
            user,
            remote,
            partner_type,
        };
        let mut shape = subject.shape(contacts);
        match self.rules_of_people(&subject, access, contacts) {
            // Nobody is left with a ghost, or with a contact that he cannot end; nothing else crosses
            // with it.
            Err(_) if seen.always_passes => shape = Shape::Bare,
            Err(reason) => return Err(Cause::Rule(reason)),
            Ok(audited) if !seen.always_passes => judgement.audited = audited,
            Ok(_) => {}
        }
        if people && let Some(event) = seen.contact {
            judgement.contact = subject.change(event, contacts);
        }
        Ok(Outcome::Pass(shape))
    }

    /// Rules 2 to 4, the verdict of rule 2 given; what only mode `Audit` lets pass comes back as the reason.
    fn rules_of_people(
        &self,
        subject: &Judged<'_, '_>,
        access: Option<Access>,
        contacts: &Contacts,
    ) -> Result<Option<Reason>, Reason> {
        let Judged {
            stanza,
            user,
            remote,
            partner_type,
            ..
        } = *subject;
        // Rule 2.
        let audited = match access {
            Some(Access::Granted) | None => None,
            Some(Access::Audited) => Some(Reason::AccessPolicy),
            Some(Access::Refused) => return Err(Reason::AccessPolicy),
        };
        // Rule 3.
        let content = if self.content.is_never_right(stanza) {
            ContentVerdict::Refuse
        } else if user.local().is_some() && remote.local().is_some() {
            self.content_of(stanza)
        } else {
            self.of_servers(stanza)
        };
        if content == ContentVerdict::Refuse {
            return Err(Reason::Content);
        }
        // Rule 4.
        if partner_type.needs_contact()
            && subject.needs_contact(content)
            && !contacts.has_added(user.bare(), remote.bare())
        {
            return Err(Reason::Contact);
        }
        Ok(audited)
    }

    fn admit_found(&self, partner: Option<PartnerIndex>) -> Result<PartnerIndex, Cause> {
        if self.config.suspended {
            return Err(Cause::Rule(Reason::PoolSuspended));
        }
        let partner = partner.ok_or(Cause::Rule(Reason::PartnerNotAllowed))?;
        self.partners
            .admission(partner)
            .check()
            .map_err(Cause::Rule)?;
        Ok(partner)
    }

    /// Rule 3 between two people.
    fn content_of(&self, stanza: &Stanza<'_>) -> ContentVerdict {
        let type_ = stanza.type_.as_deref();
        match stanza.kind {
            StanzaKind::Message => self.content.message(MessageType::of(type_), stanza),
            StanzaKind::Presence => match type_ {
                None
                | Some(
                    "subscribe" | "subscribed" | "probe" | "error" | "unavailable" | "unsubscribe"
                    | "unsubscribed",
                ) => self.content.presence(stanza),
                // What is left is no presence (RFC 6121 section 4.7.1).
                Some(_) => ContentVerdict::Refuse,
            },
            StanzaKind::Iq => match type_ {
                Some("get") => self.content.request(true, stanza),
                Some("set") => self.content.request(false, stanza),
                Some("result" | "error") => ContentVerdict::Pass,
                _ => ContentVerdict::Refuse,
            },
        }
    }

    /// Rule 3 where a side has no localpart.
    fn of_servers(&self, stanza: &Stanza<'_>) -> ContentVerdict {
        match (stanza.kind, stanza.type_.as_deref()) {
            (_, Some("error")) => ContentVerdict::Pass,
            (StanzaKind::Iq, Some("get" | "set")) if stanza.children.is_empty() => {
                ContentVerdict::Refuse
            }
            (StanzaKind::Iq, Some("get" | "set" | "result")) => self.content.of_servers(stanza),
            _ => ContentVerdict::Refuse,
        }
    }
}

/// What kind and type alone say about a stanza.
struct SeenStanza {
    /// `unavailable`, `unsubscribe`, `unsubscribed`: whatever rules 2 to 4 say, bare where one of
    /// them would refuse.
    always_passes: bool,
    contact: Option<ContactEvent>,
}

impl SeenStanza {
    fn of(direction: Direction, stanza: &Stanza<'_>) -> Self {
        use ContactEvent as E;
        use Direction::{Inbound, Outbound};
        let type_ = stanza.type_.as_deref();
        let (always_passes, contact) = match (stanza.kind, direction, type_) {
            (StanzaKind::Presence, _, Some("unavailable")) => (true, None),
            (StanzaKind::Presence, Outbound, Some("unsubscribe")) => (true, Some(E::UserUnfollows)),
            (StanzaKind::Presence, Outbound, Some("unsubscribed")) => {
                (true, Some(E::UserWithdraws))
            }
            (StanzaKind::Presence, Inbound, Some("unsubscribe")) => {
                (true, Some(E::RemoteUnfollows))
            }
            (StanzaKind::Presence, Inbound, Some("unsubscribed")) => {
                (true, Some(E::RemoteWithdraws))
            }
            (StanzaKind::Presence, Outbound, Some("subscribe" | "probe")) => {
                (false, Some(E::UserFollows))
            }
            (StanzaKind::Presence, Outbound, Some("subscribed") | None) => {
                (false, Some(E::UserLetsFollow))
            }
            (StanzaKind::Message, Outbound, _) if writes(stanza) => (false, Some(E::UserWrites)),
            _ => (false, None),
        };
        Self {
            always_passes,
            contact,
        }
    }
}

/// A message with a body that the user wrote: an error only carries back someone else's.
fn writes(stanza: &Stanza<'_>) -> bool {
    let by_user = matches!(
        MessageType::of(stanza.type_.as_deref()),
        MessageType::Chat | MessageType::Normal
    );
    by_user
        && stanza
            .children()
            .any(|(name, namespace, _)| name == "body" && namespace == "jabber:server")
}

/// A stanza with its sides told apart.
#[derive(Clone, Copy)]
struct Judged<'s, 'a> {
    direction: Direction,
    stanza: &'s Stanza<'a>,
    user: &'s Address<'s>,
    remote: &'s Address<'s>,
    partner_type: PartnerType,
}

impl Judged<'_, '_> {
    /// Rule 4 of a PublicUnverified partner: whether the user must have added the remote.
    fn needs_contact(&self, content: ContentVerdict) -> bool {
        if self.user.local().is_none() {
            return false;
        }
        match (self.stanza.kind, self.stanza.type_.as_deref()) {
            _ if content == ContentVerdict::PassToContacts => true,
            _ if self.direction == Direction::Outbound => false,
            // Answers to the user's own requests.
            (StanzaKind::Iq, Some("result" | "error")) => false,
            // A server tells what became of a stanza; it is nobody to add.
            (_, Some("error")) => self.remote.local().is_some(),
            _ => true,
        }
    }

    fn change(&self, event: ContactEvent, contacts: &Contacts) -> Option<Box<ContactChange>> {
        if event.adds() && !self.partner_type.needs_contact() {
            return None;
        }
        let (user, remote) = (self.user.bare(), self.remote.bare());
        contacts.may_change(user, remote, event).then(|| {
            Box::new(ContactChange {
                user: user.into(),
                remote: remote.into(),
                event,
            })
        })
    }

    /// What of the stanza crosses, where all rules let it.
    fn shape(&self, contacts: &Contacts) -> Shape {
        match (self.direction, self.stanza.kind) {
            (Direction::Outbound, StanzaKind::Presence)
                if !self.partner_type.sees_status_notes() && self.has_child(is_status_note) =>
            {
                Shape::WithoutStatus
            }
            (Direction::Inbound, _)
                if self.stanza.type_.as_deref() == Some("error")
                    && self.partner_type.needs_contact()
                    && self.user.local().is_some()
                    && !contacts.has_added(self.user.bare(), self.remote.bare()) =>
            {
                Shape::ErrorAlone
            }
            _ => Shape::Whole,
        }
    }

    fn has_child(&self, is: impl Fn(&str, &str) -> bool) -> bool {
        self.stanza
            .children()
            .any(|(name, namespace, _)| is(name, namespace))
    }
}
