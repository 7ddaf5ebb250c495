//! Follow, check, swap: the configuration and the secrets that are in force.
