//! What the peer announces in its features.
