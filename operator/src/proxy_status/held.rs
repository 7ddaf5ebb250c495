//! How much the operator holds of what a pod says, in octets.

/// Most octets that are held of one pod, over all its answers: an honest answer of the largest size takes about
/// half of it.
pub const MAX_HELD: usize = 32 << 20;

/// A pod says more than is held of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its answers together take {0} octets, and {MAX_HELD} are held of one pod")]
pub struct TooMuch(pub usize);

/// Octets that a value holds beside itself.
pub trait Held {
    fn held(&self) -> usize;
}

impl Held for String {
    fn held(&self) -> usize {
        self.capacity()
    }
}

impl<T: Held> Held for Option<T> {
    fn held(&self) -> usize {
        self.as_ref().map_or(0, Held::held)
    }
}

impl<T: Held> Held for Vec<T> {
    fn held(&self) -> usize {
        self.capacity() * size_of::<T>() + self.iter().map(Held::held).sum::<usize>()
    }
}

impl Held for u64 {
    fn held(&self) -> usize {
        0
    }
}
