//! Whether a gateway is reached by sidecars.

use xmpp_edge_crds::kinds::conditions::Reason;

use crate::proxy_status::SidecarFacts;

/// What keeps the gateway of these domains from being reached from every pod.
#[must_use]
pub(super) fn fault(facts: &SidecarFacts, domains: &[String]) -> Option<(Reason, String)> {
    let domains = domains.join(", ");
    if facts.servers_up.is_empty() {
        let message = format!(
            "{domains}: no sidecar is connected: start one beside the server, or read in the log of the one that runs what the edge refuses"
        );
        return Some((Reason::NoSidecar, message));
    }
    if !facts.missing_at.is_empty() {
        let pods = facts.missing_at.join(", ");
        let message = format!(
            "{domains}: no sidecar is connected to pod {pods}: its log names the address that it dials and the step that fails"
        );
        return Some((Reason::TrunkMissing, message));
    }
    if !facts.servers_up.values().any(|up| *up) {
        let sidecars: Vec<_> = facts.servers_up.keys().map(String::as_str).collect();
        let message = format!(
            "{domains}: the server beside sidecar {} does not answer: the sidecar's log says why",
            sidecars.join(", ")
        );
        return Some((Reason::ServerUnreachable, message));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_reached_where_every_pod_has_a_trunk_and_one_server_is_up() {
        type Pod<'a> = (&'a str, &'a [(&'a str, bool)]);
        type Row<'a> = (&'a [Pod<'a>], Option<(Reason, &'a str)>);
        let table: [Row<'_>; 6] = [
            (&[], Some((Reason::NoSidecar, "org.example: no sidecar"))),
            (
                &[("hq-0", &[]), ("hq-1", &[])],
                Some((Reason::NoSidecar, "start one beside the server")),
            ),
            (
                &[("hq-0", &[("prosody-0", true)]), ("hq-1", &[])],
                Some((Reason::TrunkMissing, "to pod hq-1:")),
            ),
            (
                &[
                    ("hq-0", &[("prosody-0", true)]),
                    ("hq-1", &[("prosody-0", false)]),
                ],
                Some((Reason::ServerUnreachable, "beside sidecar prosody-0")),
            ),
            (&[("hq-0", &[("a", false), ("b", true)])], None),
            (&[("hq-0", &[("a", true)]), ("hq-1", &[("a", true)])], None),
        ];
        for (pods, expected) in table {
            let mut facts = SidecarFacts::default();
            for (pod, sidecars) in pods {
                if sidecars.is_empty() {
                    facts.missing_at.push((*pod).to_owned());
                }
                for (name, up) in *sidecars {
                    *facts.servers_up.entry((*name).to_owned()).or_insert(true) &= up;
                }
            }
            let fault = fault(&facts, &["org.example".to_owned()]);
            match (&fault, expected) {
                (None, None) => {}
                (Some((reason, message)), Some((wanted, part))) => {
                    assert_eq!(*reason, wanted, "{pods:?}");
                    assert!(message.contains(part), "{message}");
                }
                _ => panic!("{pods:?}: {fault:?}"),
            }
        }
    }
}
