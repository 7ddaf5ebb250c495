//! Stanzas across the edge, both ways, and what became of each: delivered, answered, or dropped.
//!
//! That something was dropped shows without waiting: after each stanza goes one that always passes
//! and one that is always answered. Within a pair order is kept, so that once both have come out,
//! nothing more can come of the stanza before them.

use anyhow::{Context, Result, bail, ensure};

use crate::{
    peer::{Peer, PeerServer},
    rig::{Moved, OWN, Scene},
    xml::{self, Element},
};

/// What became of a stanza.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It reached the other leg, as this.
    Delivered(Element),
    /// It did not, and its sender was told this.
    Answered(Element),
    /// It did not, and its sender was told nothing.
    Dropped,
}

impl Fate {
    /// The stanza as it arrived.
    ///
    /// # Errors
    /// When it did not.
    pub fn delivered(self) -> Result<Element> {
        match self {
            Self::Delivered(stanza) => Ok(stanza),
            other => bail!("not delivered: {other:?}"),
        }
    }

    /// That a partner's stanza was answered as one to somebody who does not exist: nothing in the
    /// answer says more.
    ///
    /// # Errors
    /// When it was not.
    pub fn answered_as_to_nobody(self) -> Result<Element> {
        let Self::Answered(stanza) = self else {
            bail!("not answered: {self:?}");
        };
        ensure!(
            stanza.error_condition() == Some("service-unavailable"),
            "{stanza:?}"
        );
        let error = stanza.child("error").context("no error")?;
        let bare = error.attribute("type") == Some("cancel") && error.children.len() == 1;
        ensure!(bare, "the answer tells more: {stanza:?}");
        Ok(stanza)
    }

    /// That a stanza of our own user was answered with this condition, this reason for machines,
    /// and a text for people; gives the text.
    ///
    /// # Errors
    /// When it was not.
    pub fn explained(self, condition: &str, reason: &str) -> Result<String> {
        let Self::Answered(stanza) = self else {
            bail!("not answered: {self:?}");
        };
        ensure!(
            stanza.error_condition() == Some(condition),
            "not {condition}: {stanza:?}"
        );
        let error = stanza.child("error").context("no error")?;
        ensure!(error.attribute("type") == Some("cancel"), "{stanza:?}");
        let policy = error
            .child_in("policy", "urn:xmpp-edge:errors:0")
            .with_context(|| format!("no <policy/>: {stanza:?}"))?;
        ensure!(
            policy.attribute("reason") == Some(reason),
            "not {reason}: {stanza:?}"
        );
        ensure!(!stanza.error_text().is_empty(), "no text: {stanza:?}");
        Ok(stanza.error_text().to_owned())
    }

    /// That nobody learned of it.
    ///
    /// # Errors
    /// When somebody did.
    pub fn dropped(self) -> Result<()> {
        ensure!(self == Self::Dropped, "not dropped: {self:?}");
        Ok(())
    }
}

/// A stream each way across the edge, and the servers at both ends.
pub struct Crossing<'s> {
    pub scene: &'s Scene,
    /// From the partner.
    pub partner: Peer,
    /// From the server of [`OWN`].
    pub inside: Peer,
    /// The partner's server.
    pub outside: PeerServer,
}

impl<'s> Crossing<'s> {
    /// Starts the partner's server and opens both streams.
    ///
    /// # Errors
    /// The first step that fails.
    pub async fn of(scene: &'s Scene) -> Result<Self> {
        Ok(Self {
            outside: scene.outside().await?,
            partner: scene.partner().await?,
            inside: scene.inside().await?,
            scene,
        })
    }

    /// After an attack: [`Scene::unharmed`], and nothing forbidden reached the partner's server.
    ///
    /// # Errors
    /// The first that does not hold.
    pub async fn unharmed(&self, moved: Moved<'_>) -> Result<()> {
        let text = self.scene.forbidden();
        ensure!(
            !self.outside.transcript().contains(&text),
            "{text} reached the partner"
        );
        self.scene.unharmed(moved).await
    }

    /// Opens both streams anew, after the edge was away.
    ///
    /// # Errors
    /// The first step that fails.
    pub async fn reconnect(&mut self) -> Result<()> {
        self.partner = self.scene.partner().await?;
        self.inside = self.scene.inside().await?;
        Ok(())
    }

    /// A stanza from the partner's side, `what` like `message chat`, `presence` or `iq get`.
    ///
    /// # Errors
    /// When a stream ends, or what shows that it is through does not come.
    pub async fn inwards(
        &mut self,
        what: &str,
        from: &str,
        to: &str,
        content: &str,
    ) -> Result<Fate> {
        let id = self.scene.fresh();
        let text = stanza(what, &id, from, to, content);
        self.text_inwards(&id, &text).await
    }

    /// As [`Self::inwards`], from inside.
    ///
    /// # Errors
    /// As there.
    pub async fn outwards(
        &mut self,
        what: &str,
        from: &str,
        to: &str,
        content: &str,
    ) -> Result<Fate> {
        let id = self.scene.fresh();
        let text = stanza(what, &id, from, to, content);
        self.text_outwards(&id, &text).await
    }

    /// As [`Self::inwards`]: a stanza as text, with this id.
    ///
    /// # Errors
    /// As there.
    pub async fn text_inwards(&mut self, id: &str, text: &str) -> Result<Fate> {
        let (from, to) = (self.scene.user("fence"), format!("fence@{OWN}"));
        let inside = &self.scene.rig.inside;
        through(
            self.scene,
            &mut self.partner,
            text,
            (&from, &to),
            inside,
            &self.outside,
        )
        .await?;
        fate(id, text, inside, &self.outside).with_context(|| text.to_owned())
    }

    /// As [`Self::outwards`]: a stanza as text, with this id.
    ///
    /// # Errors
    /// As there.
    pub async fn text_outwards(&mut self, id: &str, text: &str) -> Result<Fate> {
        let (from, to) = (format!("fence@{OWN}"), self.scene.user("fence"));
        let inside = &self.scene.rig.inside;
        through(
            self.scene,
            &mut self.inside,
            text,
            (&from, &to),
            &self.outside,
            inside,
        )
        .await?;
        fate(id, text, &self.outside, inside).with_context(|| text.to_owned())
    }
}

/// A stanza in the form that streams have it.
pub fn stanza(what: &str, id: &str, from: &str, to: &str, content: &str) -> String {
    let (kind, type_) = what.split_once(' ').unwrap_or((what, ""));
    let type_ = if type_.is_empty() {
        String::new()
    } else {
        format!(" type='{type_}'")
    };
    format!("<{kind}{type_} id='{id}' from='{from}' to='{to}'>{content}</{kind}>")
}

async fn through(
    scene: &Scene,
    stream: &mut Peer,
    text: &str,
    (from, to): (&str, &str),
    ahead: &PeerServer,
    back: &PeerServer,
) -> Result<()> {
    let (passes, answered) = (scene.fresh(), scene.fresh());
    // `unavailable` passes whatever the policy, with its addresses alone; a request without content never does.
    let gone = format!("{from}/{passes}");
    let fences = stanza("presence unavailable", &passes, &gone, to, "")
        + &stanza("iq get", &answered, from, to, "");
    stream.send(format!("{text}{fences}")).await?;
    let is_it = |stanza: &Element| stanza.attribute("from") == Some(gone.as_str());
    ahead
        .stanza(&format!("presence from {gone}"), is_it)
        .await?;
    back.stanza_id(&answered).await?;
    Ok(())
}

fn fate(id: &str, text: &str, ahead: &PeerServer, back: &PeerServer) -> Result<Fate> {
    let sent = xml::parse(text).ok();
    // Where the policy would refuse it, what takes presence back has its addresses and its type alone.
    let is_bare = |stanza: &Element| {
        let is_same = |sent: &Element| {
            let same = |name| sent.attribute(name) == stanza.attribute(name);
            sent.name == "presence" && same("type") && same("from") && same("to")
        };
        stanza.attribute("id").is_none() && sent.as_ref().is_some_and(is_same)
    };
    let find = |server: &PeerServer| {
        let mut all: Vec<_> = server
            .stanzas()
            .into_iter()
            .map(|received| received.stanza)
            .filter(|stanza| stanza.attribute("id") == Some(id) || is_bare(stanza))
            .collect();
        ensure!(all.len() < 2, "it came more than once: {all:?}");
        Ok(all.pop())
    };
    match (find(ahead)?, find(back)?) {
        (Some(stanza), None) => Ok(Fate::Delivered(stanza)),
        (None, Some(stanza)) => Ok(Fate::Answered(stanza)),
        (None, None) => Ok(Fate::Dropped),
        (Some(stanza), Some(answer)) => bail!("both {stanza:?} and {answer:?}"),
    }
}
