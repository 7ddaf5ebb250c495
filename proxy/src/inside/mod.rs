//! The inside hop: gateways, and leaves for partners' domains from the pod's intermediate.
