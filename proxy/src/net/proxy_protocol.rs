//! The PROXY header, versions 1 and 2: who really connects, told by a load balancer.
//!
//! Read only on connections from `proxyProtocol.trustedSources`, and there always: a header is
//! never guessed. Source: the PROXY protocol specification of HAProxy, sections 2.1 and 2.2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header of version 1, with its line end.
const LONGEST_V1: usize = 107;
/// Longest header of version 2 that is taken: 16 bytes, addresses and a kilobyte of extensions.
const LONGEST_V2: usize = 16 + 36 + 1024;
const SIGNATURE_V2: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// How many bytes it took.
    pub len: usize,
    /// Who connects; `None` where the balancer speaks for itself (`LOCAL`, `UNKNOWN`).
    pub source: Option<SocketAddr>,
}

/// Why the bytes are no PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyHeaderError {
    #[error("the connection does not begin with a PROXY header")]
    Absent,
    #[error("the PROXY header is longer than allowed")]
    TooLong,
    #[error("the PROXY header is malformed")]
    Malformed,
    #[error("the PROXY header has a version other than 1 or 2")]
    Version,
}

/// Reads the header at the start of `bytes`; `Ok(None)` wants more bytes.
///
/// # Errors
/// [`ProxyHeaderError`] as soon as no further byte could make it right.
pub fn parse(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let v2 = SIGNATURE_V2.len().min(bytes.len());
    if bytes[..v2] == SIGNATURE_V2[..v2] {
        return parse_v2(bytes);
    }
    let v1 = 6.min(bytes.len());
    if bytes[..v1] == b"PROXY "[..v1] {
        return parse_v1(bytes);
    }
    Err(ProxyHeaderError::Absent)
}

fn parse_v1(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let Some(end) = bytes
        .iter()
        .take(LONGEST_V1)
        .position(|byte| *byte == b'\n')
    else {
        return if bytes.len() >= LONGEST_V1 {
            Err(ProxyHeaderError::TooLong)
        } else {
            Ok(None)
        };
    };
    let line = bytes[..end]
        .strip_suffix(b"\r")
        .ok_or(ProxyHeaderError::Malformed)?;
    let line = std::str::from_utf8(line).map_err(|_| ProxyHeaderError::Malformed)?;
    let len = end + 1;
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(Some(ProxyHeader { len, source: None }));
    }
    let (Some(source), Some(destination), Some(port), Some(_), None) = (
        words.next(),
        words.next(),
        words.next(),
        words.next(),
        words.next(),
    ) else {
        return Err(ProxyHeaderError::Malformed);
    };
    let source: IpAddr = source.parse().map_err(|_| ProxyHeaderError::Malformed)?;
    let destination: IpAddr = destination
        .parse()
        .map_err(|_| ProxyHeaderError::Malformed)?;
    let port: u16 = port.parse().map_err(|_| ProxyHeaderError::Malformed)?;
    match family {
        Some("TCP4") if source.is_ipv4() && destination.is_ipv4() => {}
        Some("TCP6") if source.is_ipv6() && destination.is_ipv6() => {}
        _ => return Err(ProxyHeaderError::Malformed),
    }
    Ok(Some(ProxyHeader {
        len,
        source: Some(SocketAddr::new(source, port)),
    }))
}

fn parse_v2(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<16>() else {
        return Ok(None);
    };
    if fixed[12] >> 4 != 2 {
        return Err(ProxyHeaderError::Version);
    }
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let len = 16 + length;
    if len > LONGEST_V2 {
        return Err(ProxyHeaderError::TooLong);
    }
    let Some(body) = rest.get(..length) else {
        return Ok(None);
    };
    let source = match (fixed[12] & 0x0f, fixed[13]) {
        (0, _) => None,
        (1, 0x11) => {
            let body = body
                .first_chunk::<12>()
                .ok_or(ProxyHeaderError::Malformed)?;
            let [a, b, c, d, _, _, _, _, high, low, ..] = *body;
            let port = u16::from_be_bytes([high, low]);
            Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), port))
        }
        (1, 0x21) => {
            let (address, rest) = body
                .split_first_chunk::<16>()
                .ok_or(ProxyHeaderError::Malformed)?;
            let rest = rest.get(16..20).ok_or(ProxyHeaderError::Malformed)?;
            let port = u16::from_be_bytes([rest[0], rest[1]]);
            Some(SocketAddr::new(Ipv6Addr::from(*address).into(), port))
        }
        (1, 0x00) => None,
        _ => return Err(ProxyHeaderError::Malformed),
    };
    Ok(Some(ProxyHeader { len, source }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE_V2.to_vec();
        bytes.extend([0x20 | command, family]);
        bytes.extend(u16::try_from(body.len()).expect("short").to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn both_versions_tell_the_source() {
        let v4 = "203.0.113.7:40000".parse().ok();
        let v6 = "[2001:db8::7]:40000".parse().ok();
        let mut six = vec![0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        six.extend([0; 16]);
        six.extend([0x9c, 0x40, 0x14, 0x95]);
        let cases: [(Vec<u8>, Option<SocketAddr>); 6] = [
            (
                b"PROXY TCP4 203.0.113.7 192.0.2.1 40000 5269\r\n".to_vec(),
                v4,
            ),
            (
                b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 5269\r\n".to_vec(),
                v6,
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (
                v2(
                    1,
                    0x11,
                    &[203, 0, 113, 7, 192, 0, 2, 1, 0x9c, 0x40, 0x14, 0x95],
                ),
                v4,
            ),
            (v2(1, 0x21, &six), v6),
            (v2(0, 0, &[]), None),
        ];
        for (bytes, source) in cases {
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Ok(None), "{cut} of {bytes:?}");
            }
            let len = bytes.len();
            let mut more = bytes.clone();
            more.extend(b"<stream:stream");
            assert_eq!(
                parse(&more),
                Ok(Some(ProxyHeader { len, source })),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn what_is_no_header_is_refused_at_once() {
        let endless = [b"PROXY ".as_slice(), &[b'x'; 200]].concat();
        for (bytes, error) in [
            (b"<?xml".to_vec(), ProxyHeaderError::Absent),
            (vec![0x16, 3, 1], ProxyHeaderError::Absent),
            (endless, ProxyHeaderError::TooLong),
            (
                b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(),
                ProxyHeaderError::Malformed,
            ),
            (
                b"PROXY TCP4 1.2.3.4 1.2.3.4 99999 2\r\n".to_vec(),
                ProxyHeaderError::Malformed,
            ),
            (
                b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n".to_vec(),
                ProxyHeaderError::Malformed,
            ),
            (v2(1, 0x11, &[1, 2, 3]), ProxyHeaderError::Malformed),
            (v2(1, 0x31, &[0; 40]), ProxyHeaderError::Malformed),
            (v2(1, 0x11, &[0; 2000]), ProxyHeaderError::TooLong),
        ] {
            assert_eq!(parse(&bytes), Err(error), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..1200)) {
            if let Ok(Some(header)) = parse(&bytes) {
                prop_assert!(header.len <= bytes.len());
            }
        }
    }
}
