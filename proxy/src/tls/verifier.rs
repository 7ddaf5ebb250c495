//! What is asked of a certificate within the handshake: that the peer holds its key, and nothing else.
//! Trust is judged afterwards ([`super::Trust::judge`]), so a certificate may have any form: version 1,
//! critical extensions that nobody knows. Those leave dialback, and pins.

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::verify_tls13_signature_with_raw_key,
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use webpki::RawPublicKeyEntity;

use super::{
    certificate::{parse, unproven_rsa},
    provider,
};

/// Which handshake is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignedBy {
    Tls12,
    Tls13,
}

pub(super) fn schemes() -> Vec<SignatureScheme> {
    provider()
        .signature_verification_algorithms
        .supported_schemes()
}

/// Whether the key of `certificate` made this signature, whatever the rest of the certificate says.
///
/// # Errors
/// What the alert to the peer will be.
pub(super) fn possession(
    version: SignedBy,
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let bad = |cause| Error::InvalidCertificate(cause);
    let parsed = parse(certificate).map_err(|_| bad(CertificateError::BadEncoding))?;
    let key = SubjectPublicKeyInfoDer::from(parsed.public_key().raw);
    let algorithms = &provider().signature_verification_algorithms;
    if version == SignedBy::Tls13 {
        return verify_tls13_signature_with_raw_key(message, &key, signature, algorithms);
    }
    let key = RawPublicKeyEntity::try_from(&key).map_err(|_| bad(CertificateError::BadEncoding))?;
    let of_scheme = algorithms
        .mapping
        .iter()
        .filter(|(scheme, _)| *scheme == signature.scheme)
        .flat_map(|(_, algorithms)| algorithms.iter());
    // In TLS 1.2 a scheme says nothing of the curve.
    for algorithm in of_scheme {
        if key
            .verify_signature(*algorithm, message, signature.signature())
            .is_ok()
        {
            return Ok(HandshakeSignatureValid::assertion());
        }
    }
    Err(bad(CertificateError::BadSignature))
}

/// What both of rustls' traits ask of a signature, answered by one function of these arguments.
macro_rules! signatures_by {
    ($possession:path) => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &rustls_pki_types::CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            $possession(
                $crate::tls::verifier::SignedBy::Tls12,
                message,
                certificate,
                signature,
            )
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &rustls_pki_types::CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            $possession(
                $crate::tls::verifier::SignedBy::Tls13,
                message,
                certificate,
                signature,
            )
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            $crate::tls::verifier::schemes()
        }
    };
}
pub(super) use signatures_by;

/// Accepts every certificate whose key the peer holds, for s2s.
#[derive(Debug)]
pub(super) struct AcceptAnyCertificate;

impl AcceptAnyCertificate {
    /// RSA keys below 2048 bits prove nothing, those above 8192 bits no library checks, and some certificates
    /// nobody reads: they are let through and count as no proof ([`super::CertificateFault::WeakKey`],
    /// [`super::CertificateFault::KeyTooLong`], [`super::CertificateFault::Malformed`]), pinned or not.
    fn possession(
        version: SignedBy,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if parse(certificate).map_or(true, |parsed| unproven_rsa(&parsed).is_some()) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        possession(version, message, certificate, signature)
    }
}

impl ServerCertVerifier for AcceptAnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    signatures_by!(Self::possession);
}

impl ClientCertVerifier for AcceptAnyCertificate {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    signatures_by!(Self::possession);
}
