//! ClientHellos byte by byte: what no TLS library offers any more. Whether the server goes on or
//! refuses shows in the first record that it answers with.

use anyhow::{Context, Result, ensure};

/// Protocol versions as on the wire.
pub const TLS_1_0: u16 = 0x0301;
pub const TLS_1_1: u16 = 0x0302;
pub const TLS_1_2: u16 = 0x0303;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;

/// A ClientHello of TLS 1.2 or older (RFC 5246 section 7.4.1.2).
#[derive(Clone, Debug)]
pub struct Hello {
    pub version: u16,
    pub ciphers: Vec<u16>,
    pub compressions: Vec<u8>,
    pub sni: String,
}

/// How a server answers a [`Hello`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A fatal alert with this description.
    Alert(u8),
    /// ServerHello: what it chose.
    ServerHello {
        version: u16,
        cipher: u16,
        compression: u8,
    },
}

impl Hello {
    /// Offers this version and these cipher suites, without compression.
    pub fn new(version: u16, ciphers: &[u16], sni: &str) -> Self {
        Self {
            version,
            ciphers: ciphers.to_vec(),
            compressions: vec![0],
            sni: sni.to_owned(),
        }
    }

    /// The record, complete.
    pub fn record(&self) -> Vec<u8> {
        record(HANDSHAKE, &self.message())
    }

    /// The handshake message without a record around it.
    pub fn message(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend([0x5a; 32]);
        body.push(0);
        let ciphers: Vec<_> = self.ciphers.iter().flat_map(|c| c.to_be_bytes()).collect();
        body.extend(sized::<2>(&ciphers));
        body.extend(sized::<1>(&self.compressions));
        let mut name = vec![0];
        name.extend(sized::<2>(self.sni.as_bytes()));
        let extensions = [
            (0_u16, sized::<2>(&name)),
            // supported_groups: x25519, secp256r1; ec_point_formats: uncompressed
            (10, sized::<2>(&[0, 29, 0, 23])),
            (11, sized::<1>(&[0])),
            // signature_algorithms: ecdsa_secp256r1_sha256, rsa_pss_rsae_sha256, rsa_pkcs1_sha256
            (13, sized::<2>(&[4, 3, 8, 4, 4, 1])),
            // extended_master_secret
            (23, Vec::new()),
        ];
        let mut all = Vec::new();
        for (number, content) in extensions {
            all.extend(number.to_be_bytes());
            all.extend(sized::<2>(&content));
        }
        body.extend(sized::<2>(&all));
        let mut message = vec![CLIENT_HELLO];
        message.extend(sized::<3>(&body));
        message
    }
}

/// A TLS record of this content type.
pub fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut record = vec![kind, 3, 1];
    record.extend(sized::<2>(content));
    record
}

/// An alert record: `level` 1 is a warning, 2 fatal.
pub fn alert(level: u8, description: u8) -> Vec<u8> {
    record(ALERT, &[level, description])
}

impl Answer {
    /// Reads the first record of an answer.
    ///
    /// # Errors
    /// When it is neither alert nor ServerHello.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let at = |index: usize| -> Result<u8> {
            bytes.get(index).copied().context("the answer is too short")
        };
        let pair = |index| anyhow::Ok(u16::from_be_bytes([at(index)?, at(index + 1)?]));
        if at(0)? == ALERT {
            ensure!(at(5)? == 2, "a warning: {bytes:?}");
            return Ok(Self::Alert(at(6)?));
        }
        ensure!(
            at(0)? == HANDSHAKE && at(5)? == SERVER_HELLO,
            "neither alert nor ServerHello: {bytes:?}"
        );
        let after_session = 9 + 2 + 32 + 1 + usize::from(at(9 + 2 + 32)?);
        Ok(Self::ServerHello {
            version: pair(9)?,
            cipher: pair(after_session)?,
            compression: at(after_session + 2)?,
        })
    }
}

/// `content` after its length in `N` octets.
fn sized<const N: usize>(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("tests send little");
    let mut all = length.to_be_bytes()[4 - N..].to_vec();
    all.extend(content);
    all
}
