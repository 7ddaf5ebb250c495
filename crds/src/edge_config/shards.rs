//! The document on its way: gzip, cut into numbered shards, joined and checked again.
