//! Probes of partners: an XEP-0199 ping from an own domain to the partner's, answered on any stream,
//! to any replica. The id carries the send time and a MAC, so that whoever gets the answer knows it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use xmpp_edge_crds::{
    domain::{DomainName, DomainPattern},
    edge_config::Partner,
};

use super::peer_memory::PeerMemory;
use crate::{
    config::ActiveConfig,
    negotiation::{Pair, Side, WireNames},
    routing::{batch::Batch, router::Router},
    telemetry::metrics::Metrics,
    xml::{
        Element,
        rewrite::StanzaStart,
        stanza::{Stanza, StanzaKind},
    },
};

/// Every id of ours begins so.
const PREFIX: &str = "xmpp-edge-ping-";
/// An answer that takes longer is none.
const LIMIT: Duration = Duration::from_secs(60);

/// The newest result, by partner.
#[derive(Debug, Default)]
pub struct Probes {
    newest: Mutex<HashMap<String, Probe>>,
}

#[derive(Clone, Debug)]
struct Probe {
    sent: Option<Instant>,
    status: Option<ProbeStatus>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeStatus {
    pub time: Timestamp,
    pub success: bool,
    pub latency_milliseconds: Option<u64>,
}

impl Probes {
    #[must_use]
    pub fn status(&self, partner: &str) -> Option<ProbeStatus> {
        self.newest.lock().get(partner)?.status.clone()
    }

    /// Sends what is due. Called about once a second.
    pub fn tick(
        &self,
        config: &ActiveConfig,
        metrics: &Metrics,
        peers: &PeerMemory,
        router: &Arc<Router>,
    ) {
        let Some(own) = config.document.domains.first() else {
            return;
        };
        let now = Instant::now();
        for partner in &config.document.partners {
            let Some(interval) = partner.probe_interval_seconds else {
                continue;
            };
            let Some(DomainPattern::Exact(domain)) = partner.domains.first() else {
                continue;
            };
            if !is_probed(config, partner) {
                continue;
            }
            let mut newest = self.newest.lock();
            let probe = newest.entry(partner.name.clone()).or_insert(Probe {
                sent: None,
                status: None,
            });
            let interval = Duration::from_secs(u64::from(interval));
            if let Some(sent) = probe.sent {
                let waited = now.duration_since(sent);
                let answered = probe.status.as_ref().is_some_and(|status| {
                    Timestamp::now().duration_since(status.time).unsigned_abs() <= waited
                });
                if !answered && waited >= interval.min(LIMIT) {
                    Self::record(metrics, probe, &partner.name, None);
                }
                if waited < interval {
                    continue;
                }
            }
            probe.sent = Some(now);
            drop(newest);
            let names = peers.names(Side::Partner, domain, own, now);
            let bytes = ping(&config.dialback.mac_key(), own, domain, names);
            let pair = Pair {
                from: own.clone(),
                to: domain.clone(),
            };
            let route = router.route(Side::Partner, &pair);
            router.enqueue_own(&route, Batch::reply(bytes, None, now));
        }
        let partners = config.document.partners.iter();
        let probed: HashSet<&str> = partners
            .filter(|own| is_probed(config, own))
            .map(|own| own.name.as_str())
            .collect();
        let mut newest = self.newest.lock();
        newest.retain(|name, _| {
            let stays = probed.contains(&**name);
            if !stays {
                metrics.not_probed(name);
            }
            stays
        });
    }

    /// Whether the stanza is the answer to a probe, of this replica or another: it is recorded, and
    /// not passed on.
    pub fn take_answer(
        &self,
        config: &ActiveConfig,
        metrics: &Metrics,
        stanza: &Stanza<'_>,
    ) -> bool {
        if stanza.kind != StanzaKind::Iq
            || !matches!(stanza.type_.as_deref(), Some("result" | "error"))
        {
            return false;
        }
        let (Some(id), Some(from)) = (stanza.id.as_deref(), stanza.from.as_deref()) else {
            return false;
        };
        let Some(rest) = id.strip_prefix(PREFIX) else {
            return false;
        };
        let Some(sent) = sent_time(&config.dialback.mac_key(), rest, from) else {
            return false;
        };
        let Ok(domain) = DomainName::parse(from) else {
            return false;
        };
        let Some(partner) = config.partner(&domain).filter(|own| is_probed(config, own)) else {
            return true;
        };
        // An error is an answer too: the partner's server is there and speaks.
        let took = Timestamp::now().duration_since(sent).unsigned_abs();
        if took <= LIMIT {
            let mut newest = self.newest.lock();
            let probe = newest.entry(partner.name.clone()).or_insert(Probe {
                sent: None,
                status: None,
            });
            Self::record(metrics, probe, &partner.name, Some(took));
        }
        true
    }

    fn record(metrics: &Metrics, probe: &mut Probe, partner: &str, took: Option<Duration>) {
        metrics.probed(partner, took);
        probe.status = Some(ProbeStatus {
            time: Timestamp::now(),
            success: took.is_some(),
            latency_milliseconds: took
                .map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
        });
    }
}

/// Whether it is asked now, and what it answered says something.
fn is_probed(config: &ActiveConfig, partner: &Partner) -> bool {
    partner.probe_interval_seconds.is_some()
        && matches!(partner.domains.first(), Some(DomainPattern::Exact(_)))
        && !(partner.suspended || partner.left_out || config.document.suspended)
}

/// A ping whose answer any replica knows again, to a peer that writes names so.
#[must_use]
pub fn ping(key: &hmac::Key, from: &DomainName, to: &DomainName, names: WireNames) -> Vec<u8> {
    let time = Timestamp::now().as_microsecond().to_be_bytes();
    let id = format!("{PREFIX}{}", encode(key, time, to.as_str()));
    let mut bytes = Vec::with_capacity(256);
    StanzaStart {
        kind: StanzaKind::Iq,
        from: Some(&names.local.write(from)),
        to: Some(&names.peer.write(to)),
        id: Some(&id),
        type_: Some("get"),
    }
    .around(&Element::new("urn:xmpp:ping", "ping"), &mut bytes);
    bytes
}

fn encode(key: &hmac::Key, time: [u8; 8], to: &str) -> String {
    let mut bytes = time.to_vec();
    bytes.extend_from_slice(&mac(key, time, to)[..16]);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn mac(key: &hmac::Key, time: [u8; 8], to: &str) -> Vec<u8> {
    let mut context = hmac::Context::with_key(key);
    context.update(b"xmpp-edge probe\0");
    context.update(&time);
    context.update(to.as_bytes());
    context.sign().as_ref().to_vec()
}

/// When the probe of this id was sent to `domain`, if it is one of ours.
fn sent_time(key: &hmac::Key, text: &str, domain: &str) -> Option<Timestamp> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (time, given) = bytes.split_first_chunk::<8>()?;
    // In whichever form the answer has its name.
    let own = mac(key, *time, DomainName::parse(domain).ok()?.as_str());
    aws_lc_rs::constant_time::verify_slices_are_equal(given, &own[..16]).ok()?;
    Timestamp::from_microsecond(i64::from_be_bytes(*time)).ok()
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;

    use super::*;
    use crate::config::fixture;

    #[test]
    fn what_a_probe_brought_is_shown_as_long_as_the_partner_is_probed() {
        let config = |suspended: bool| {
            fixture::active_config(|document| {
                let partner = &mut document["partners"][0];
                partner["domains"] = serde_json::json!(["partner.example"]);
                partner["probeIntervalSeconds"] = 60.into();
                partner["suspended"] = suspended.into();
            })
        };
        let probed = config(false);
        let partner = &probed.document.partners[0];
        assert!(is_probed(&probed, partner));
        let (metrics, probes) = (Arc::new(Metrics::new()), Probes::default());
        let mut probe = Probe {
            sent: None,
            status: None,
        };
        Probes::record(&metrics, &mut probe, &partner.name, None);
        probes.newest.lock().insert(partner.name.clone(), probe);
        let shown = || {
            let mut shown = String::new();
            text::encode(&mut shown, metrics.registry()).expect("text");
            shown.contains("xmpp_edge_probe_success{")
        };
        assert!(shown());
        let suspended = config(true);
        let swap = Arc::new(arc_swap::ArcSwap::from_pointee(config(true)));
        let (router, _dials) = Router::new(swap, Arc::clone(&metrics), Arc::default());
        probes.tick(&suspended, &metrics, &PeerMemory::default(), &router);
        assert!(!shown());
        assert!(probes.status(&partner.name).is_none());
    }

    #[test]
    fn only_our_own_ids_are_known_again_and_only_from_whom_they_were_sent_to() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        let other = hmac::Key::new(hmac::HMAC_SHA256, b"another");
        let time = Timestamp::now().as_microsecond().to_be_bytes();
        let id = encode(&key, time, "partner.example");
        assert!(sent_time(&key, &id, "partner.example").is_some());
        assert!(sent_time(&key, &id, "evil.example").is_none());
        assert!(sent_time(&other, &id, "partner.example").is_none());
        assert!(sent_time(&key, "AAAA", "partner.example").is_none());
    }
}
