//! Steps of one attempt as they are kept: bounded in number and bytes, and as text that steers nothing.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use jiff::Timestamp;
use serde::Serialize;
use xmpp_edge_crds::{domain::DomainName, line::steers, verdict::Direction};

use super::super::{
    attempt::{AttemptStep, Step},
    metrics::direction_label,
};

/// Steps of one attempt.
const STEPS: usize = 32;
/// Memory of one attempt's steps; the oldest go.
pub(super) const ATTEMPT_BYTES: usize = 4096;
/// Text of a step, cut at a character.
const TEXT_BYTES: usize = 500;

/// What to do about an outcome, where something is to be done.
pub(super) type RemedyOf = fn(&str) -> Option<&'static str>;

#[derive(Debug, Default)]
pub(super) struct Attempt {
    pub(super) steps: VecDeque<TakenStep>,
    pub(super) bytes: usize,
}

#[derive(Debug)]
pub(super) struct TakenStep {
    pub(super) step: Step,
    pub(super) outcome: &'static str,
    direction: Direction,
    pub(super) address: Option<SocketAddr>,
    pub(super) text: Box<str>,
    took: Duration,
    pub(super) time: Timestamp,
}

/// A step as `/status` shows it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownStep {
    pub step: Step,
    pub outcome: &'static str,
    pub direction: &'static str,
    pub domain: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    pub text: String,
    /// What to do, where the step failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
    pub milliseconds: u64,
    pub time: Timestamp,
    /// Whoever it was only claimed to be the partner.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unproven: bool,
}

impl ShownStep {
    /// Whether it ended an attempt or a part of it; a target that is only slow has not failed yet.
    #[must_use]
    pub fn failed(&self) -> bool {
        !matches!(self.outcome, "Ok" | "TcpSilent")
    }
}

impl Attempt {
    pub(super) fn newest(&self) -> Option<Timestamp> {
        self.steps.back().map(|step| step.time)
    }

    pub(super) fn push(&mut self, step: TakenStep) {
        self.bytes += step.bytes();
        self.steps.push_back(step);
        while self.steps.len() > STEPS || self.bytes > ATTEMPT_BYTES {
            let Some(oldest) = self.steps.pop_front() else {
                return;
            };
            self.bytes -= oldest.bytes();
        }
    }
}

impl TakenStep {
    /// Taken now.
    pub(super) fn of(step: &AttemptStep) -> Self {
        Self {
            step: step.step,
            outcome: step.outcome,
            direction: step.direction,
            address: step.address,
            text: shown_text(&step.text),
            took: step.took,
            time: Timestamp::now(),
        }
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.text.len()
    }

    pub(super) fn shown(&self, domain: &DomainName, remedy: RemedyOf) -> ShownStep {
        ShownStep {
            step: self.step,
            outcome: self.outcome,
            direction: direction_label(self.direction),
            domain: domain.to_string(),
            address: self.address.map(|address| address.to_string()),
            text: self.text.to_string(),
            remedy: remedy(self.outcome),
            milliseconds: u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
            time: self.time,
            unproven: false,
        }
    }
}

/// At most [`TEXT_BYTES`], and without control characters: they would forge lines in logs and terminals.
pub(super) fn shown_text(text: &str) -> Box<str> {
    let mut shown = String::with_capacity(text.len().min(TEXT_BYTES));
    for character in text.chars() {
        let before = shown.len();
        // What steers how a line is laid out hides what it says.
        if steers(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
        if shown.len() > TEXT_BYTES {
            shown.truncate(before);
            break;
        }
    }
    shown.into_boxed_str()
}
