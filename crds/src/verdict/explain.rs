//! The verdict for one chat message with every rule that led to it, for people.
//!
//! Used by the command line and the admin port; not on the path of a stanza. It says what
//! [`super::Partners`] and [`super::AccessIndex`] decide, it never decides anew.

use serde::Serialize;

use super::{Access, AccessIndex, Admission, Direction, PartnerType, Partners, Reason};
use crate::{
    edge_config::{AccessScope, EdgeConfig},
    jid::BareJid,
};

/// What only a running proxy knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Whether the local user has added the remote address; `None`: not known here.
    pub contact: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Rule {
    Pool,
    Partner,
    Access,
    Content,
    Contact,
}

/// How one rule came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Outcome {
    Pass,
    /// Would refuse, but delivers: mode `Audit`.
    Audited,
    Refuse,
    /// Does not apply to these addresses.
    Skipped,
    /// An earlier rule refused, or what it needs is not known here.
    NotJudged,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleTrace {
    pub rule: Rule,
    /// `Kind/name` of the object that decided, where there is one.
    pub object: Option<String>,
    pub outcome: Outcome,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    pub from: String,
    pub to: String,
    pub direction: Direction,
    /// `None`: passes.
    pub reason: Option<Reason>,
    /// Passes only because a policy is in mode `Audit`.
    pub audited: bool,
    /// Passes only if the user has added the remote address, which is not known here.
    pub depends_on_contact: bool,
    pub rules: Vec<RuleTrace>,
}

/// Why two addresses have no verdict.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    #[error("neither {from} nor {to} is of an own domain of pool {pool}: one side must be")]
    NoOwnSide {
        from: String,
        to: String,
        pool: String,
    },
    #[error("{from} and {to} are both of own domains: such stanzas never come to the edge")]
    BothOwn { from: String, to: String },
    #[error("{domain} is an own domain, but of another pool than {pool}: ask that one")]
    OtherPool { domain: String, pool: String },
}

/// The verdict for a chat message.
///
/// # Errors
/// [`ExplainError`] where the message would not cross this pool's edge.
pub fn explain(
    config: &EdgeConfig,
    from: &BareJid,
    to: &BareJid,
    known: Known,
) -> Result<Explanation, ExplainError> {
    let partners = Partners::build(config);
    let direction = direction(config, &partners, from, to)?;
    let (local, remote) = match direction {
        Direction::Inbound => (to, from),
        Direction::Outbound => (from, to),
    };
    let mut trace = Trace::default();
    trace.pool(config);
    let partner = trace.partner(config, &partners, remote);
    let partner_type = partner
        .map(|found| partners.partner_type(found))
        .unwrap_or_default();
    trace.access(
        config,
        &partners,
        local,
        partner.map(|found| (found, partner_type)),
    );
    trace.content(local, remote);
    trace.contact(direction, partner_type, local, remote, known);
    Ok(Explanation {
        from: from.to_string(),
        to: to.to_string(),
        direction,
        reason: trace.reason,
        audited: trace.audited && trace.reason.is_none(),
        depends_on_contact: trace.depends_on_contact && trace.reason.is_none(),
        rules: trace.rules,
    })
}

fn direction(
    config: &EdgeConfig,
    partners: &Partners,
    from: &BareJid,
    to: &BareJid,
) -> Result<Direction, ExplainError> {
    let served = |jid: &BareJid| config.domains.contains(jid.domain());
    let own = |jid: &BareJid| partners.is_own(jid.domain().as_str());
    let pool = || config.pool.clone();
    match (own(from), own(to)) {
        (true, true) => Err(ExplainError::BothOwn {
            from: from.to_string(),
            to: to.to_string(),
        }),
        (false, false) => Err(ExplainError::NoOwnSide {
            from: from.to_string(),
            to: to.to_string(),
            pool: pool(),
        }),
        (true, false) if served(from) => Ok(Direction::Outbound),
        (false, true) if served(to) => Ok(Direction::Inbound),
        (true, false) => Err(ExplainError::OtherPool {
            domain: from.domain().to_string(),
            pool: pool(),
        }),
        (false, true) => Err(ExplainError::OtherPool {
            domain: to.domain().to_string(),
            pool: pool(),
        }),
    }
}

/// Rules so far; after the first refusal the others are listed as not judged.
#[derive(Default)]
struct Trace {
    rules: Vec<RuleTrace>,
    reason: Option<Reason>,
    audited: bool,
    depends_on_contact: bool,
}

impl Trace {
    fn add(&mut self, rule: Rule, object: Option<String>, outcome: Outcome, text: String) {
        self.rules.push(RuleTrace {
            rule,
            object,
            outcome,
            text,
        });
    }

    fn refuse(&mut self, rule: Rule, object: Option<String>, reason: Reason, text: String) {
        self.add(rule, object, Outcome::Refuse, text);
        self.reason = Some(reason);
    }

    /// Whether an earlier rule refused; then `rule` is listed as not judged.
    fn is_over(&mut self, rule: Rule) -> bool {
        let over = self.reason.is_some();
        if over {
            self.add(
                rule,
                None,
                Outcome::NotJudged,
                "an earlier rule refuses".to_owned(),
            );
        }
        over
    }

    fn pool(&mut self, config: &EdgeConfig) {
        let object = Some(format!("EdgePool/{}", config.pool));
        if config.suspended {
            let text = "the pool is suspended: nothing crosses it".to_owned();
            self.refuse(Rule::Pool, object, Reason::PoolSuspended, text);
        } else {
            self.add(
                Rule::Pool,
                object,
                Outcome::Pass,
                "the pool is not suspended".to_owned(),
            );
        }
    }

    fn partner(
        &mut self,
        config: &EdgeConfig,
        partners: &Partners,
        remote: &BareJid,
    ) -> Option<super::PartnerIndex> {
        if self.is_over(Rule::Partner) {
            return None;
        }
        let domain = remote.domain();
        let Some(found) = partners.find(domain.as_str()) else {
            let text = format!("no accepted partner lists {domain}");
            self.refuse(Rule::Partner, None, Reason::PartnerNotAllowed, text);
            return None;
        };
        let partner = &config.partners[found.as_usize()];
        let object = Some(format!("XmppFederatedPartner/{}", partner.name));
        let admission = partners.admission(found);
        let text = match admission {
            Admission::Open => {
                let pattern = partner
                    .domains
                    .iter()
                    .filter(|pattern| pattern.matches(domain))
                    .max_by_key(|pattern| specificity(pattern))
                    .map_or_else(String::new, ToString::to_string);
                format!(
                    "{domain} is listed as {pattern}, type {:?}",
                    partner.partner_type
                )
            }
            Admission::Suspended => "the partner is suspended".to_owned(),
            Admission::LeftOut => "the pool leaves this partner out, because the contacts of \
                unverified partners are not shared between its replicas (ContactsNotShared)"
                .to_owned(),
        };
        match admission.check() {
            Ok(()) => self.add(Rule::Partner, object, Outcome::Pass, text),
            Err(reason) => self.refuse(Rule::Partner, object, reason, text),
        }
        Some(found)
    }

    fn access(
        &mut self,
        config: &EdgeConfig,
        partners: &Partners,
        user: &BareJid,
        partner: Option<(super::PartnerIndex, PartnerType)>,
    ) {
        if self.is_over(Rule::Access) {
            return;
        }
        let Some((partner, partner_type)) = partner else {
            return;
        };
        let Some(local) = user.local() else {
            let text = "the local side is a server, not a user".to_owned();
            self.add(Rule::Access, None, Outcome::Skipped, text);
            return;
        };
        let index = AccessIndex::build(config, partners);
        let domain = user.domain().as_str();
        let Some(at) = index.in_force(local, domain) else {
            let text = format!("no policy is in force for {user}: that denies");
            self.refuse(Rule::Access, None, Reason::AccessPolicy, text);
            return;
        };
        let policy = &config.access.policies[at];
        let object = Some(format!("ExternalAccessPolicy/{}", policy.name));
        let scope = match &policy.scope {
            AccessScope::Global => "Global".to_owned(),
            AccessScope::Site(site) => format!("Site, home site {site}"),
            AccessScope::User(granted) if granted.users.contains(user) => format!("User, {user}"),
            AccessScope::User(_) => format!("User, *@{domain}"),
        };
        let mut lacks = Vec::new();
        if !policy.enable_federation_access {
            lacks.push("enableFederationAccess is false");
        }
        if !policy.enable_xmpp_access {
            lacks.push("enableXmppAccess is false");
        }
        if partner_type.is_public() && !policy.enable_public_cloud_access {
            lacks.push("enablePublicCloudAccess is false, and the partner is of a public type");
        }
        let name = &config.partners[partner.as_usize()].name;
        if policy
            .partners
            .as_ref()
            .is_some_and(|names| !names.contains(name))
        {
            lacks.push("its partners do not name this one");
        }
        let lacks = lacks.join("; ");
        match index.decide(local, index.own(domain), partner, partner_type) {
            Access::Granted => {
                let text = format!("in force by scope {scope}: opens this partner");
                self.add(Rule::Access, object, Outcome::Pass, text);
            }
            Access::Audited => {
                self.audited = true;
                let text = format!("in force by scope {scope}: {lacks}; delivered, mode Audit");
                self.add(Rule::Access, object, Outcome::Audited, text);
            }
            Access::Refused => {
                let text = format!("in force by scope {scope}: {lacks}");
                self.refuse(Rule::Access, object, Reason::AccessPolicy, text);
            }
        }
    }

    fn content(&mut self, local: &BareJid, remote: &BareJid) {
        if self.is_over(Rule::Content) {
            return;
        }
        if local.local().is_none() || remote.local().is_none() {
            let text = "a chat message is for people: servers may exchange iq ping, disco#info, \
                time, version, vCard, their results, and errors"
                .to_owned();
            self.refuse(Rule::Content, None, Reason::Content, text);
        } else {
            let text = "a chat message from person to person".to_owned();
            self.add(Rule::Content, None, Outcome::Pass, text);
        }
    }

    fn contact(
        &mut self,
        direction: Direction,
        partner_type: PartnerType,
        user: &BareJid,
        remote: &BareJid,
        known: Known,
    ) {
        if self.is_over(Rule::Contact) {
            return;
        }
        if !partner_type.needs_contact() || direction == Direction::Outbound {
            let text = if partner_type.needs_contact() {
                format!("{user} may write to {remote}, and adds them by it")
            } else {
                format!("partners of type {partner_type:?} may write to users unasked")
            };
            self.add(Rule::Contact, None, Outcome::Pass, text);
            return;
        }
        match known.contact {
            Some(true) => {
                let text = format!("{user} has added {remote}");
                self.add(Rule::Contact, None, Outcome::Pass, text);
            }
            Some(false) => {
                let text =
                    format!("{user} has not added {remote}, and the partner is PublicUnverified");
                self.refuse(Rule::Contact, None, Reason::Contact, text);
            }
            None => {
                self.depends_on_contact = true;
                let text = format!(
                    "passes only if {user} has added {remote}: ask the running proxy (/explain)"
                );
                self.add(Rule::Contact, None, Outcome::NotJudged, text);
            }
        }
    }
}

/// Exact beats wildcard, longer beats shorter.
fn specificity(pattern: &crate::domain::DomainPattern) -> (bool, usize) {
    use crate::domain::DomainPattern::{Below, Exact};
    match pattern {
        Exact(_) => (true, 0),
        Below(suffix) => (false, suffix.as_str().len()),
    }
}
