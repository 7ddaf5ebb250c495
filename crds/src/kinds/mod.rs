//! The three kinds of group `xmpp-edge.dev`, version `v1alpha1`: one file a kind.
