//! Short runs of bytes compared where a call of `memcmp` would cost more than the comparison: on the path of each
//! stanza some ten of a few dozen bytes are.

/// Whether the two have the same bytes.
#[inline(always)]
#[must_use]
pub fn are_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && begins_with(a, b)
}

/// Whether `bytes` begin with `start`.
#[inline(always)]
#[must_use]
pub fn begins_with(bytes: &[u8], start: &[u8]) -> bool {
    let Some(head) = bytes.get(..start.len()) else {
        return false;
    };
    if let (Some(a), Some(b)) = (head.last_chunk::<8>(), start.last_chunk::<8>()) {
        // The last chunk overlaps the one before where the length is no multiple of eight.
        let (chunks, _) = head.as_chunks::<8>();
        let (others, _) = start.as_chunks::<8>();
        return chunks.iter().zip(others).all(|(a, b)| is_same(*a, *b)) && is_same(*a, *b);
    }
    if let (Some(a), Some(b)) = (head.last_chunk::<4>(), start.last_chunk::<4>()) {
        return head.first_chunk::<4>() == start.first_chunk::<4>() && a == b;
    }
    head.iter().zip(start).all(|(a, b)| a == b)
}

#[inline(always)]
fn is_same(a: [u8; 8], b: [u8; 8]) -> bool {
    u64::from_ne_bytes(a) == u64::from_ne_bytes(b)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_are_compared_as_the_standard_library_does(
            bytes in prop::collection::vec(any::<u8>(), 0..70),
            length in 0_usize..70,
            changed in any::<Option<(prop::sample::Index, u8)>>(),
        ) {
            let mut start = bytes[..length.min(bytes.len())].to_vec();
            if let Some((at, byte)) = changed && !start.is_empty() {
                let at = at.index(start.len());
                start[at] = byte;
            }
            prop_assert_eq!(begins_with(&bytes, &start), bytes.starts_with(&start));
            prop_assert_eq!(begins_with(&start, &bytes), start.starts_with(&bytes));
            prop_assert_eq!(are_same(&bytes, &start), bytes == start);
        }
    }
}
