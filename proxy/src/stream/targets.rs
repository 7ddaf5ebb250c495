//! Where a peer is dialled: a partner where DNS or `proxyFqdn` says, a gateway at its address.

use std::net::SocketAddr;

use ipnet::IpNet;
use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{GatewayAddress, GatewayMode, Settings},
    verdict::Direction,
};

use super::context::StreamContext;
use crate::{
    config::ActiveConfig,
    dns::{self, DnsError},
    negotiation::Side,
    routing::failure::{Failure, FailureKind},
    telemetry::attempt::AttemptStep,
};

/// The targets of a domain, or why there are none.
pub type LookedUp = Result<dns::Candidates, (Failure, Option<AttemptStep>)>;

/// Finds the targets of `peer`: whether it may be dialled at all is asked first.
pub async fn look_up(
    context: &StreamContext,
    config: &ActiveConfig,
    side: Side,
    peer: &DomainName,
) -> LookedUp {
    let way = way_to(config, side, peer).map_err(|failure| (failure, None))?;
    let egress = config.egress.clone().filter(|_| side == Side::Partner);
    context
        .dialer
        .candidates(peer, &way, egress, direction(side))
        .await
        .map_err(|(fault, step)| (of_dns(&fault), Some(step)))
}

/// Whose stanzas a stream of ours carries.
pub(super) fn direction(side: Side) -> Direction {
    match side {
        Side::Partner => Direction::Outbound,
        Side::Gateway => Direction::Inbound,
    }
}

fn way_to(
    config: &ActiveConfig,
    side: Side,
    peer: &DomainName,
) -> Result<dns::TargetSource, Failure> {
    match side {
        Side::Partner => {
            config.policy.admit(peer.as_str()).map_err(|reason| {
                Failure::new(
                    FailureKind::Forbidden,
                    format!(
                        "{peer} is not a partner that may talk ({})",
                        reason.as_str()
                    ),
                )
            })?;
            let proxy = config
                .partner(peer)
                .and_then(|partner| partner.proxy_fqdn.clone());
            let except = || config.document.settings.dial_except.as_slice().into();
            Ok(proxy.map_or_else(
                || dns::TargetSource::Discover { except: except() },
                dns::TargetSource::Fixed,
            ))
        }
        Side::Gateway => match config.gateway(peer) {
            Some(gateway) => match (
                gateway.config.mode,
                gateway
                    .config
                    .address
                    .as_ref()
                    .and_then(GatewayAddress::server),
            ) {
                (GatewayMode::Direct, Some(address)) => {
                    Ok(dns::TargetSource::Fixed(address.clone()))
                }
                (GatewayMode::Direct, None) => Err(Failure::new(
                    FailureKind::Unreachable,
                    format!("the address of the server of {peer} has no port"),
                )),
                (GatewayMode::Sip, _) => Err(Failure::new(
                    FailureKind::Forbidden,
                    format!("the server of {peer} speaks SIP, and no stream leads to it"),
                )),
                (GatewayMode::Sidecar, _) => Err(Failure::new(
                    FailureKind::Forbidden,
                    format!("the server of {peer} is reached by its sidecar, and is not dialled"),
                )),
            },
            None => Err(Failure::new(
                FailureKind::Forbidden,
                format!("no gateway serves {peer}"),
            )),
        },
    }
}

/// What DNS says is a verdict, or may be another in a moment.
pub(super) fn kind_of_dns(fault: &DnsError) -> FailureKind {
    match fault {
        DnsError::Bogus { .. } => FailureKind::Refused,
        fault if fault.is_definite() => FailureKind::NotFound,
        _ => FailureKind::Unreachable,
    }
}

fn of_dns(fault: &DnsError) -> Failure {
    Failure::new(kind_of_dns(fault), fault.to_string())
}

/// Whether an address may not be dialled for a partner that was found by DNS. Where the edge itself lives on loopback
/// alone (`lives_on_loopback`), so may its partners, unless a list that was given has loopback too.
pub fn is_forbidden(
    address: SocketAddr,
    own: &[SocketAddr],
    lives_on_loopback: bool,
    except: &[IpNet],
) -> bool {
    let is_own = own.iter().any(|own| {
        own.port() == address.port()
            && (own.ip() == address.ip() || own.ip().is_unspecified() && address.ip().is_loopback())
    });
    if is_own {
        return true;
    }
    let ip = address.ip().to_canonical();
    let is_given = || *except != *Settings::default().dial_except;
    if lives_on_loopback && ip.is_loopback() {
        return is_given() && except.iter().any(|network| network.contains(&ip));
    }
    dns::connect::is_guarded(ip, except)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S-13: a partner's DNS leads nowhere inside, wherever the edge itself listens.
    #[test]
    fn s_13_an_edge_on_loopback_may_dial_loopback_and_nothing_else_inside() {
        let default = Settings::default().dial_except;
        let network = |text: &str| -> IpNet { text.parse().expect("a network") };
        let given = [network("10.0.0.0/8")];
        let all = [network("10.0.0.0/8"), network("127.0.0.0/8")];
        let own = ["127.0.0.1:5269".parse().expect("an address")];
        for (address, on_loopback, except, expected) in [
            ("127.0.0.2:5269", true, &default[..], false),
            ("[::1]:5269", true, &default, false),
            ("[::ffff:127.0.0.2]:5269", true, &default, false),
            ("127.0.0.2:5269", true, &given, false),
            ("127.0.0.2:5269", true, &all, true),
            ("127.0.0.2:5269", true, &[], false),
            ("127.0.0.2:5269", false, &default, true),
            ("127.0.0.2:5269", false, &[], true),
            ("127.0.0.1:5269", true, &default, true),
            ("10.0.0.1:5269", true, &default, true),
            ("10.0.0.1:5269", true, &given, true),
            ("10.0.0.1:5269", true, &[], false),
            ("192.168.0.1:5269", true, &given, false),
            ("169.254.169.254:5269", true, &default, true),
            ("169.254.169.254:5269", true, &[], true),
            ("198.51.100.7:5269", true, &default, false),
        ] {
            let ip = address.parse().expect("an address");
            let found = is_forbidden(ip, &own, on_loopback, except);
            assert_eq!(found, expected, "{address}, {on_loopback}, {except:?}");
        }
    }
}
