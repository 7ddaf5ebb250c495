//! The one reader of PEM (RFC 7468), for files as people have them.
//!
//! What can be read in one way only is read: blocks joined without a line break, CRLF or CR alone, a
//! byte order mark before a block, trailing spaces, an indented body, text around the blocks. All
//! else that looks like a block is refused with its line and the remedy: nothing that might be a
//! certificate or a key is left out in silence. A text is bounded by who reads the file; memory is
//! linear in it.

mod authorities;

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

pub use authorities::{AuthoritiesError, Authority, authorities};

/// Why a text is not the PEM that is wanted. Lines count from 1. Every text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    #[error("holds no certificate (expected -----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    #[error("no private key found (expected PKCS#8, SEC1 or PKCS#1 in PEM, not encrypted)")]
    NoKey,
    #[error(
        "is UTF-16 text: save it as UTF-8, or run `iconv -f UTF-16 -t UTF-8`; in a ConfigMap it then stands under data, not binaryData"
    )]
    Utf16,
    #[error("is {0}, not PEM: convert it with `{remedy}`", remedy = .0.remedy())]
    Binary(BinaryForm),
    #[error(
        "is a PEM file in base64: decode it once (`base64 -d`); the data of a Secret is encoded once, its stringData not at all"
    )]
    Base64OfPem,
    #[error(
        "line {line}: its line breaks are the two characters \\n: write real ones (`printf '%b'`)"
    )]
    EscapedLineBreaks { line: usize },
    #[error(
        "line {line}: -----{word} does not stand at the beginning of the line: take the indentation or what else is before it away"
    )]
    NotAtLineStart { line: usize, word: &'static str },
    #[error(
        "line {line}: is no right line of PEM: five hyphens, BEGIN or END, what it is in capitals, five hyphens (-----BEGIN CERTIFICATE-----)"
    )]
    Marker { line: usize },
    #[error("line {line}: a block {label:?} is not read here: {remedy}")]
    Label {
        line: usize,
        label: String,
        remedy: &'static str,
    },
    #[error("line {line}: the block {label:?} has no -----END {label}-----: the file is cut short")]
    NoEnd { line: usize, label: String },
    #[error("line {line}: an end without a beginning: the file is cut short, or two are mixed up")]
    NoBeginning { line: usize },
    #[error("line {line}: holds what is not base64: export the file again")]
    NotBase64 { line: usize },
    #[error(
        "line {line}: the block {label:?} is not what it says it is, or was cut short: export it again"
    )]
    Contents { line: usize, label: String },
    #[error(
        "line {line}: the block {label:?} holds more than one value: the lines END and BEGIN between two are lost; export it again"
    )]
    Joined { line: usize, label: String },
    #[error(
        "line {line}: base64 outside of a block: put -----BEGIN CERTIFICATE----- (or what it is) before it and the END of that behind it, or take it out"
    )]
    NoArmour { line: usize },
    #[error("line {line}: the block CERTIFICATE holds {form}: convert it with `{remedy}`", remedy = .form.remedy())]
    Wrapped { line: usize, form: BinaryForm },
    #[error("line {line}: the key is encrypted: decrypt it with `openssl pkey`")]
    EncryptedKey { line: usize },
    #[error("line {line}: a second private key (the first is at line {first}): leave one")]
    SecondKey { first: usize, line: usize },
}

/// What binary certificates and keys come as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BinaryForm {
    Der,
    Pkcs7,
    Pkcs12,
}

impl BinaryForm {
    fn remedy(self) -> &'static str {
        match self {
            Self::Der => {
                "openssl x509 -inform der -in FILE -out FILE.pem (a key: openssl pkey -inform der)"
            }
            Self::Pkcs7 => "openssl pkcs7 -print_certs -in FILE -out FILE.pem (DER: -inform der)",
            Self::Pkcs12 => "openssl pkcs12 -nodes -in FILE -out FILE.pem",
        }
    }

    /// What a DER value is by its first members: PKCS #7 begins with its object identifier
    /// (RFC 2315 section 14), PKCS #12 with the version 3 (RFC 7292 section 4).
    fn of(der: &[u8]) -> Option<Self> {
        let (&0x30, rest) = der.split_first()? else {
            return None;
        };
        let (&length, rest) = rest.split_first()?;
        let members = match length {
            0..=0x80 => rest,
            0x81..=0x84 => rest.get(usize::from(length & 0x0f)..)?,
            _ => return None,
        };
        Some(if members.starts_with(PKCS7) {
            Self::Pkcs7
        } else if members.starts_with(&[2, 1, 3]) {
            Self::Pkcs12
        } else {
            Self::Der
        })
    }
}

/// Bytes of the first value of a DER text, its tag and length included (X.690 section 8.1.3); none where the
/// length is not definite, or has more than four bytes.
fn value_length(der: &[u8]) -> Option<usize> {
    let (&first, rest) = der.get(1..)?.split_first()?;
    if first < 0x80 {
        return Some(2 + usize::from(first));
    }
    let count = usize::from(first & 0x7f);
    let bytes = rest.get(..count).filter(|_| (1..=4).contains(&count))?;
    let length = bytes
        .iter()
        .fold(0_u64, |length, byte| (length << 8) | u64::from(*byte));
    usize::try_from(length).ok()?.checked_add(2 + count)
}

impl std::fmt::Display for BinaryForm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Der => "DER (binary)",
            Self::Pkcs7 => "PKCS #7 (p7b)",
            Self::Pkcs12 => "PKCS #12 (pfx)",
        })
    }
}

/// id-signedData.
const PKCS7: &[u8] = &[
    0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02,
];

/// The certificates of a text, at least one, in its order. Private keys and key parameters may stand
/// beside them; any other block is an error, so that no bundle is silently shorter than it looks.
///
/// # Errors
/// [`PemError`], with the line.
pub fn certificates(text: impl AsRef<[u8]>) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let mut found = Vec::new();
    for block in Blocks::of(text.as_ref())? {
        let block = block?;
        match Label::of(&block.label) {
            Label::Certificate => {
                let der = CertificateDer::from_pem_slice(block.canonical().as_bytes())
                    .map_err(|_| block.contents())?;
                match BinaryForm::of(&der) {
                    Some(BinaryForm::Der) => match value_length(&der) {
                        Some(length) if length == der.len() => found.push(der),
                        Some(length) if length < der.len() => {
                            return Err(PemError::Joined {
                                line: block.line,
                                label: block.label.clone(),
                            });
                        }
                        _ => return Err(block.contents()),
                    },
                    Some(form) => {
                        return Err(PemError::Wrapped {
                            line: block.line,
                            form,
                        });
                    }
                    None => return Err(block.contents()),
                }
            }
            Label::PrivateKey | Label::EncryptedKey | Label::Parameters => {}
            Label::Other(remedy) => {
                return Err(block.refused(remedy));
            }
        }
    }
    if found.is_empty() {
        return Err(PemError::NoCertificate);
    }
    Ok(found)
}

/// A key as the form that it has: labels are written by hand, and some tools write one for all forms.
fn as_held(mut key: PrivateKeyDer<'static>) -> PrivateKeyDer<'static> {
    let held = PrivateKeyDer::try_from(key.secret_der());
    let Some(held) = held.ok().map(|held| held.clone_key()) else {
        return key;
    };
    zeroize::Zeroize::zeroize(&mut key);
    held
}

/// The one private key of a text: PKCS #8, PKCS #1 or SEC 1, not encrypted. Certificates and key
/// parameters may stand beside it.
///
/// # Errors
/// [`PemError`], with the line.
pub fn private_key(text: impl AsRef<[u8]>) -> Result<PrivateKeyDer<'static>, PemError> {
    let mut found: Option<(usize, PrivateKeyDer<'static>)> = None;
    for block in Blocks::of(text.as_ref())? {
        let block = block?;
        match Label::of(&block.label) {
            Label::PrivateKey if block.encrypted => {
                return Err(PemError::EncryptedKey { line: block.line });
            }
            Label::EncryptedKey => return Err(PemError::EncryptedKey { line: block.line }),
            Label::PrivateKey => {
                if let Some((first, _)) = found {
                    return Err(PemError::SecondKey {
                        first,
                        line: block.line,
                    });
                }
                let key = PrivateKeyDer::from_pem_slice(block.canonical().as_bytes())
                    .map_err(|_| block.contents())?;
                found = Some((block.line, as_held(key)));
            }
            Label::Other(remedy) if block.label.ends_with("KEY") => {
                return Err(block.refused(remedy));
            }
            Label::Certificate | Label::Parameters | Label::Other(_) => {}
        }
    }
    found.map(|(_, key)| key).ok_or(PemError::NoKey)
}

/// What a block says it is.
enum Label {
    Certificate,
    PrivateKey,
    EncryptedKey,
    /// Of a key; nothing here needs them.
    Parameters,
    /// With what to do about it.
    Other(&'static str),
}

impl Label {
    fn of(label: &str) -> Self {
        match label {
            "CERTIFICATE" => Self::Certificate,
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => Self::PrivateKey,
            "ENCRYPTED PRIVATE KEY" => Self::EncryptedKey,
            "EC PARAMETERS" | "DH PARAMETERS" | "X9.42 DH PARAMETERS" => Self::Parameters,
            "TRUSTED CERTIFICATE" | "X509 CERTIFICATE" => Self::Other(
                "write it as a plain certificate with `openssl x509 -in FILE -out FILE.pem`, each on its own",
            ),
            "PKCS7" | "CMS" | "PKCS #7 SIGNED DATA" => {
                Self::Other("take its certificates with `openssl pkcs7 -print_certs -in FILE`")
            }
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => Self::Other(
                "it is a request, not what the authority made of it: put the issued certificate here",
            ),
            "X509 CRL" => {
                Self::Other("revocation lists are not used: take it out, keep the certificates")
            }
            "OPENSSH PRIVATE KEY" => {
                Self::Other("write it as PEM with `ssh-keygen -p -m PEM -f FILE`")
            }
            "PUBLIC KEY" | "RSA PUBLIC KEY" => {
                Self::Other("it is a public key: put the private one here, or take it out")
            }
            _ => Self::Other("take it out, or convert it with openssl"),
        }
    }
}

/// One block: its label, its base64 without white space, the line of its beginning.
struct Block {
    label: String,
    body: String,
    line: usize,
    /// It has the headers of an encrypted key (RFC 1421 section 4.6).
    encrypted: bool,
}

impl Block {
    fn contents(&self) -> PemError {
        PemError::Contents {
            line: self.line,
            label: self.label.clone(),
        }
    }

    fn refused(&self, remedy: &'static str) -> PemError {
        PemError::Label {
            line: self.line,
            label: self.label.clone(),
            remedy,
        }
    }

    fn no_end(&self) -> PemError {
        PemError::NoEnd {
            line: self.line,
            label: self.label.clone(),
        }
    }

    /// As RFC 7468 section 3 has it, for the decoder (which takes its time regardless of a key's bits).
    fn canonical(&self) -> Text {
        let Self { label, body, .. } = self;
        Text(format!(
            "-----BEGIN {label}-----\n{body}\n-----END {label}-----\n"
        ))
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.body);
    }
}

/// A text that may hold a key: wiped when it goes.
struct Text(String);

impl Text {
    fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

const MARK: &[u8] = b"\xef\xbb\xbf";

/// The blocks of a text, one after the other.
struct Blocks<'a> {
    /// What is not read yet behind this line.
    rest: &'a [u8],
    /// Lines begun so far.
    line: usize,
    /// Of the line that is being read, what stands behind a marker.
    unread: &'a [u8],
}

impl<'a> Blocks<'a> {
    fn of(text: &'a [u8]) -> Result<Self, PemError> {
        if is_utf16(text) {
            return Err(PemError::Utf16);
        }
        if text.first() == Some(&0x30)
            && std::str::from_utf8(text).is_err()
            && let Some(form) = BinaryForm::of(text)
        {
            return Err(PemError::Binary(form));
        }
        // "-----BEGIN", as base64 has it
        if plain(text).starts_with(b"LS0tLS1CRUdJT") {
            return Err(PemError::Base64OfPem);
        }
        Ok(Self {
            rest: text,
            line: 0,
            unread: &[],
        })
    }

    /// What is left of this line, else the next one, without its end (LF, CR or both), without a
    /// byte order mark before it or white space behind it.
    fn next_line(&mut self) -> Option<&'a [u8]> {
        if !self.unread.is_empty() {
            return Some(std::mem::take(&mut self.unread));
        }
        if self.rest.is_empty() {
            return None;
        }
        self.line += 1;
        let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
        let length = self.rest.iter().position(is_end);
        let (line, rest) = self.rest.split_at(length.unwrap_or(self.rest.len()));
        self.rest = rest
            .strip_prefix(b"\r\n")
            .or_else(|| rest.get(1..))
            .unwrap_or_default();
        let line = line.strip_prefix(MARK).unwrap_or(line);
        Some(line.trim_ascii_end())
    }

    /// Takes a line's marker, leaving what stands behind it to be read as a line of its own.
    fn marker(&mut self, line: &'a [u8], word: &'static str) -> Result<String, PemError> {
        let number = self.line;
        if contains(line, br"\n") {
            return Err(PemError::EscapedLineBreaks { line: number });
        }
        let malformed = PemError::Marker { line: number };
        let rest = &line["-----".len() + word.len()..];
        let (Some(rest), Some(length)) = (rest.strip_prefix(b" "), find(rest, b"-----")) else {
            return Err(malformed);
        };
        let label = &rest[..length - 1];
        let is_label = |byte: &u8| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b' ' | b'#' | b'.');
        if label.is_empty() || label.len() > 64 || !label.iter().all(is_label) {
            return Err(malformed);
        }
        let behind = rest[length - 1 + "-----".len()..].trim_ascii_start();
        self.unread = behind.strip_prefix(MARK).unwrap_or(behind);
        if self.unread.starts_with(b"-") && !self.unread.starts_with(b"-----") {
            return Err(malformed);
        }
        Ok(String::from_utf8_lossy(label).into_owned())
    }

    /// What is wrong with base64 outside of a block: an end that follows says that the beginning alone is lost.
    fn of_bare(&mut self, error: PemError) -> PemError {
        while let Some(line) = self.next_line() {
            if line.starts_with(b"-----END") {
                return PemError::NoBeginning { line: self.line };
            }
            if line.starts_with(b"-----") {
                break;
            }
        }
        error
    }

    /// The block that begins with `line`, to its end.
    fn block(&mut self, line: &'a [u8]) -> Result<Block, PemError> {
        let mut block = Block {
            line: self.line,
            label: self.marker(line, "BEGIN")?,
            body: String::new(),
            encrypted: false,
        };
        while let Some(line) = self.next_line() {
            let text = line.trim_ascii();
            let (body, end) = match find(text, b"-----") {
                Some(at) => text.split_at(at),
                None => (text, &b""[..]),
            };
            if contains(body, br"\n") {
                return Err(PemError::EscapedLineBreaks { line: self.line });
            }
            if body.contains(&b':') && block.label.ends_with("KEY") {
                block.encrypted |= contains(body, b"ENCRYPTED") || contains(body, b"DEK-Info");
                continue;
            }
            let before = block.body.len();
            block.body.extend(
                body.iter()
                    .filter(|byte| !byte.is_ascii_whitespace())
                    .map(|byte| char::from(*byte)),
            );
            let is_base64 =
                |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
            // The headers of an encrypted key go over several lines; it is not decoded anyway.
            if !block.encrypted && !block.body[before..].bytes().all(is_base64) {
                return Err(PemError::NotBase64 { line: self.line });
            }
            if end.starts_with(b"-----END") {
                if self.marker(end, "END")? != block.label {
                    return Err(block.no_end());
                }
                return Ok(block);
            }
            if end.starts_with(b"-----BEGIN") {
                return Err(block.no_end());
            }
            if !end.is_empty() {
                return Err(PemError::Marker { line: self.line });
            }
        }
        Err(block.no_end())
    }
}

impl Iterator for Blocks<'_> {
    type Item = Result<Block, PemError>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(line) = self.next_line() {
            if line.starts_with(b"-----BEGIN") {
                return Some(self.block(line));
            }
            match is_prose(line, self.line) {
                Ok(()) => {}
                Err(error @ PemError::NoArmour { .. }) => return Some(Err(self.of_bare(error))),
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }
}

/// That a line outside of blocks is text around them, and no block that was spoilt.
fn is_prose(line: &[u8], number: usize) -> Result<(), PemError> {
    if line.starts_with(b"-----END") {
        return Err(PemError::NoBeginning { line: number });
    }
    for (marker, word) in [(&b"-----BEGIN "[..], "BEGIN"), (b"-----END ", "END")] {
        if contains(line, marker) {
            return Err(if contains(line, br"\n") {
                PemError::EscapedLineBreaks { line: number }
            } else {
                PemError::NotAtLineStart { line: number, word }
            });
        }
    }
    let upper = line.to_ascii_uppercase();
    let looks = |word: &[u8]| {
        find(&upper, word).is_some_and(|at| {
            let what = &upper[at + word.len()..];
            contains(what, b"CERTIFICATE") || contains(what, b"PRIVATE KEY")
        })
    };
    // Typed by hand, "corrected" by a word processor, or with another number of hyphens.
    let has_dashes = contains(line, b"--")
        || DASHES[1..]
            .iter()
            .any(|dash| contains(line, dash.as_bytes()));
    if (looks(b"BEGIN") || looks(b"END")) && has_dashes || is_between_dashes(&upper) {
        return Err(PemError::Marker { line: number });
    }
    // So a certificate or a key begins in base64 (a SEQUENCE of more than 127 bytes), where both lines around
    // it are lost.
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    let bare = line.trim_ascii();
    if bare.len() >= 40 && bare.starts_with(b"MI") && bare.iter().all(is_base64) {
        return Err(PemError::NoArmour { line: number });
    }
    Ok(())
}

/// What stands where hyphens are meant: the hyphen itself first.
const DASHES: [&str; 8] = [
    "-", "\u{2010}", "\u{2011}", "\u{2012}", "\u{2013}", "\u{2014}", "\u{2015}", "\u{2212}",
];

/// Whether a line in capitals is BEGIN or END of something, with dashes of whatever kind and number right before and
/// behind it: `--- End of chain ---` is what somebody writes around blocks.
fn is_between_dashes(upper: &[u8]) -> bool {
    let mut rest = upper.trim_ascii();
    let whole = rest.len();
    while let Some(behind) = DASHES
        .iter()
        .find_map(|dash| rest.strip_prefix(dash.as_bytes()))
    {
        rest = behind;
    }
    let mut before = rest;
    while let Some(shorter) = DASHES
        .iter()
        .find_map(|dash| before.strip_suffix(dash.as_bytes()))
    {
        before = shorter;
    }
    let has_end = before.len() < rest.len() && !before.ends_with(b" ");
    let is_word = |word: &[u8]| {
        rest.strip_prefix(word).is_some_and(|what| {
            what.starts_with(b" ") && what.iter().any(u8::is_ascii_alphanumeric)
        })
    };
    rest.len() < whole && has_end && (is_word(b"BEGIN") || is_word(b"END"))
}

/// Text without what may stand before its first line.
fn plain(text: &[u8]) -> &[u8] {
    text.strip_prefix(MARK).unwrap_or(text).trim_ascii_start()
}

/// By its byte order mark, or because one of the first two bytes is 0: text has none, and what begins
/// a file of PEM is ASCII.
fn is_utf16(text: &[u8]) -> bool {
    let beginning = &text[..text.len().min(2)];
    [&b"\xff\xfe"[..], b"\xfe\xff"].contains(&beginning) || beginning.contains(&0)
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    find(text, part).is_some()
}

#[cfg(test)]
mod tests;
