//! Whom a user has added: what partners of type PublicUnverified may reach.
