//! What a rig is made of, chosen by the file whose tests share it.

use serde_json::{Value, json};

use crate::lab::Lab;

/// What a rig is made of.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Partners are named by it: `x` makes `x-01` with domain `x01.example`, and so on.
    pub section: &'static str,
    /// How many tests, each with a partner.
    pub tests: u8,
    /// Fields of the partner's `spec` that differ from the standard (Federated, all negotiable
    /// except plaintext), by test. A test can have no partner: null.
    pub partner: fn(u8) -> Value,
    /// `spec.settings` of the pool.
    pub settings: fn() -> Value,
    /// Fields of the pool's `spec` that differ.
    pub pool: fn() -> Value,
    /// Objects more.
    pub objects: fn(&Lab) -> Vec<Value>,
}

impl Plan {
    /// All standard.
    pub const fn standard(section: &'static str, tests: u8) -> Self {
        Self {
            section,
            tests,
            partner: |_| json!({}),
            settings: || json!({}),
            pool: || json!({}),
            objects: |_| Vec::new(),
        }
    }

    pub(super) fn name(&self, test: u8) -> String {
        format!("{}-{test:02}", self.section)
    }

    pub(super) fn domain(&self, test: u8) -> String {
        format!("{}{test:02}.example", self.section)
    }
}
