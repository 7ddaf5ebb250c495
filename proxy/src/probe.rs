//! Walks to a domain step by step and says what would be used, and why nothing better.
