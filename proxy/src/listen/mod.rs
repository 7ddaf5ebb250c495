//! Accepting connections: sniffing, PROXY header, bounds before authentication.
