//! One task a stream: feeds the negotiation machine, moves bytes.
