//! What the two ends of a trunk are called, and of which version they are.

use std::{fmt, str::FromStr, sync::Arc};

/// Most bytes of the names of an instance, a pool and a pod: as of a Kubernetes object.
const NAME_BYTES: usize = 253;

/// Name of an instance, a pool or a pod: 1 to 253 bytes of printable ASCII without space.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrunkName(Arc<str>);

impl TrunkName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrunkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name that cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("1 to 253 printable ASCII characters, no space")]
pub struct TrunkNameError;

impl FromStr for TrunkName {
    type Err = TrunkNameError;

    fn from_str(text: &str) -> Result<Self, TrunkNameError> {
        let is_name = (1..=NAME_BYTES).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_name.then(|| Self(text.into())).ok_or(TrunkNameError)
    }
}

/// `major.minor.patch` of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProductVersion {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl ProductVersion {
    /// Whether an edge and a sidecar of these versions work with each other: one minor apart at most.
    #[must_use]
    pub fn works_with(self, other: Self) -> bool {
        self.major == other.major && self.minor.abs_diff(other.minor) <= 1
    }
}

impl fmt::Display for ProductVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// A version that cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("three numbers with dots between them, as 1.1.0")]
pub struct ProductVersionError;

impl FromStr for ProductVersion {
    type Err = ProductVersionError;

    /// What follows the numbers (`-rc.1`, `+build`) does not matter.
    fn from_str(text: &str) -> Result<Self, ProductVersionError> {
        let numbers = text.split(['-', '+']).next().unwrap_or_default();
        let mut parts = numbers.split('.').map(number);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Some(major)), Some(Some(minor)), Some(Some(patch)), None) => Ok(Self {
                major,
                minor,
                patch,
            }),
            _ => Err(ProductVersionError),
        }
    }
}

/// A whole number, in digits alone.
fn number(text: &str) -> Option<u32> {
    let is_plain = (1..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_one_minor_apart_work_with_each_other() {
        let own: ProductVersion = "1.2.3".parse().expect("valid");
        for (other, works) in [
            ("1.2.0", true),
            ("1.1.9", true),
            ("1.3.0-rc.1", true),
            ("1.0.0", false),
            ("1.4.0+build", false),
            ("2.2.3", false),
        ] {
            let other: ProductVersion = other.parse().expect(other);
            assert_eq!(own.works_with(other), works, "{other}");
        }
        for wrong in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "1.2.x",
            "1..3",
            "v1.2.3",
            "1.2.99999999999",
        ] {
            assert!(wrong.parse::<ProductVersion>().is_err(), "{wrong}");
        }
    }
}
