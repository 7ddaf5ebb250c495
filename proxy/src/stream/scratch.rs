//! Where bytes stand that were just read, until whoever reads has taken them.

use std::cell::RefCell;

/// Bytes read at once, with what is left over of the read before. One such buffer for each thread of the
/// runtime.
const READ: usize = 64 * 1024;

thread_local! {
    pub(super) static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into_boxed_slice());
}
