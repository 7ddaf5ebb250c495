//! What must hold of any bytes that stand where `sidecar.json` should be: a person copied them.

use std::collections::BTreeSet;

use xmpp_edge_crds::sidecar_config::{
    MAX_BYTES, MAX_DOMAINS, MAX_EDGES, SidecarConfig, SidecarDocument,
};

const ORIGIN: &str = "/etc/xmpp-edge/sidecar.json";
/// As the errors promise.
const MOST_CHARACTERS: usize = 2_500;

/// What is refused is told in one line of bounded length that names the file; what is taken is within its
/// bounds, names no domain twice, and is the same when it is written again.
pub fn check(data: &[u8]) {
    let config = match SidecarConfig::parse(data, ORIGIN) {
        Ok(config) => config,
        Err(error) => {
            let said = error.to_string();
            assert!(said.starts_with(ORIGIN), "{said}");
            assert!(said.chars().count() <= MOST_CHARACTERS, "{said}");
            assert!(!said.contains(char::is_control), "{said:?}");
            return;
        }
    };
    assert!(data.len() <= MAX_BYTES);
    let all: Vec<_> = config.own_domains().collect();
    let different: BTreeSet<_> = all.iter().collect();
    assert_eq!(different.len(), all.len(), "a domain twice: {all:?}");
    assert!(all.len() <= MAX_DOMAINS);
    assert!(!config.domains.is_empty() && config.domains.is_sorted());
    for domain in &all {
        let domain = domain.as_str();
        let reserved = domain == "xmpp-edge.internal" || domain.ends_with(".xmpp-edge.internal");
        assert!(!reserved, "{domain}");
    }
    assert!(config.edges.len() <= MAX_EDGES);
    let limits = &config.limits;
    assert!(u64::from(limits.max_stanza_bytes) <= limits.queue_bytes);
    assert!(limits.queue_bytes <= limits.queue_total_bytes);
    let written: SidecarDocument = serde_json::from_slice(data).expect("it was read");
    let written = written.to_json();
    // For people it is longer.
    if written.len() <= MAX_BYTES {
        let again = SidecarConfig::parse(written.as_bytes(), ORIGIN);
        assert_eq!(again, Ok(config));
    }
}
