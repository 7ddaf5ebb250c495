//! What is not counted as it happens but looked at when metrics are asked for.

use super::{
    Metrics, direction_label,
    labels::{CertificateLabel, DomainLabel, PartnerLabels, StreamLabels, TlsLabels},
    partner_of, route_direction, stream_partner,
};
use crate::negotiation::Side;

fn side_label(side: Side) -> &'static str {
    match side {
        Side::Partner => "partner",
        Side::Gateway => "gateway",
    }
}

impl Metrics {
    pub(super) fn snapshot(&self, edge: &crate::edge::Edge) {
        let config = edge.config();
        self.streams.clear();
        self.tls_streams.clear();
        self.draining.set(i64::from(edge.stopping.is_cancelled()));
        for entry in edge.streams.all() {
            let facts = entry.facts();
            let Some(method) = facts.method else { continue };
            if let (Some(version), Some(cipher)) = (facts.tls_version, facts.tls_cipher) {
                self.tls_streams
                    .get_or_create_owned(&TlsLabels {
                        side: side_label(entry.side),
                        version,
                        cipher,
                    })
                    .inc();
            }
            self.streams
                .get_or_create_owned(&StreamLabels {
                    side: side_label(entry.side),
                    partner: stream_partner(&entry, &config),
                    direction: if entry.is_bidirectional() {
                        "both"
                    } else {
                        direction_label(entry.direction())
                    },
                    method: method.as_str(),
                })
                .inc();
        }
        self.queue_bytes.clear();
        self.queue_stanzas.clear();
        for route in edge.router.all() {
            let labels = PartnerLabels {
                partner: partner_of(&config, &route),
                direction: direction_label(route_direction(&route)),
            };
            let held = i64::try_from(route.held()).unwrap_or(i64::MAX);
            self.queue_bytes.get_or_create_owned(&labels).inc_by(held);
            let waiting = i64::try_from(route.waiting()).unwrap_or(i64::MAX);
            self.queue_stanzas
                .get_or_create_owned(&labels)
                .inc_by(waiting);
        }
        self.gateway_reachable.clear();
        for gateway in config.gateways() {
            for domain in &gateway.config.domains {
                if let Some(reachable) = edge.attempts.shown(Side::Gateway, domain).reachable {
                    self.gateway_reachable
                        .get_or_create_owned(&DomainLabel {
                            domain: domain.to_string(),
                        })
                        .set(i64::from(reachable));
                }
            }
        }
        if let Some(identity) = &config.identity {
            self.certificate_not_after
                .get_or_create_owned(&CertificateLabel {
                    certificate: "edge",
                })
                .set(identity.not_after().as_second());
        }
        if let Some(leaves) = &config.leaves {
            self.certificate_not_after
                .get_or_create_owned(&CertificateLabel {
                    certificate: "internal-issuer",
                })
                .set(leaves.not_after().as_second());
        }
        self.config_generation.set(config.document.generation);
    }
}
