#![allow(clippy::unwrap_used)]

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::prelude::*;

use super::*;

/// A certificate, self-signed, and its key.
fn issued(name: &str) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new([name.to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn lines(text: &str) -> Vec<&str> {
    text.trim_end().split("\n").map(str::trim_end).collect()
}

#[test]
fn k3_blocks_joined_without_a_line_break_are_all_read() {
    let (one, _) = issued("one.example");
    let (two, key) = issued("two.example");
    let apart = certificates(format!("{one}{two}")).unwrap();
    assert_eq!(apart.len(), 2);
    for joint in ["", " ", "\u{feff}", "\t"] {
        let joined = format!("{}{joint}{two}", one.trim_end());
        assert_eq!(certificates(joined).unwrap(), apart, "{joint:?}");
    }
    let with_key = format!("{}{}{}", one.trim_end(), key.trim_end(), two.trim_end());
    assert_eq!(certificates(&with_key).unwrap(), apart);
    assert_eq!(
        private_key(&with_key).unwrap(),
        private_key(&key).unwrap(),
        "the key between them"
    );
    let on_one_line = lines(&one).join(" ") + &lines(&two).concat();
    assert_eq!(certificates(on_one_line).unwrap(), apart);
}

#[test]
fn k4_a_byte_order_mark_hides_no_block() {
    let (one, key) = issued("one.example");
    let (two, _) = issued("two.example");
    let plain = certificates(format!("{one}{two}")).unwrap();
    let marked = format!("\u{feff}{one}\u{feff}{two}");
    assert_eq!(certificates(marked).unwrap(), plain);
    assert_eq!(
        private_key(format!("\u{feff}{key}")).unwrap(),
        private_key(&key).unwrap()
    );
}

#[test]
fn k4_what_other_readers_take_is_read() {
    let (one, key) = issued("one.example");
    let plain = certificates(&one).unwrap();
    for (what, text) in [
        ("CRLF", one.replace("\r\n", "\n").replace('\n', "\r\n")),
        ("CR", lines(&one).join("\r")),
        ("trailing spaces", lines(&one).join("  \n")),
        (
            "bag attributes",
            format!("Bag Attributes\n    friendlyName: -- the end --\nsubject=/CN=x\n{one}\n# end"),
        ),
        (
            "prose with hyphens",
            format!(
                "- the beginning of a self-signed certificate -\n-- begin --\nBegin - of the certificates\n--- begin intermediates ---\n{one}-end-\n--- End of chain ---\n"
            ),
        ),
        ("an indented body", {
            let lines = lines(&one);
            let (last, body) = lines[1..].split_last().unwrap();
            format!("{}\n  {}\n{last}", lines[0], body.join("\n  "))
        }),
        ("a key beside it", format!("{key}{one}")),
        (
            "parameters of a curve",
            format!(
                "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{one}"
            ),
        ),
    ] {
        assert_eq!(certificates(&text).as_ref(), Ok(&plain), "{what}\n{text}");
    }
    let windows_1252 = [&b"friendlyName: M\xfcller\n"[..], one.as_bytes()].concat();
    assert_eq!(certificates(windows_1252).unwrap(), plain);
}

#[test]
fn k4_what_looks_like_a_block_is_refused_with_its_line_and_the_remedy() {
    let (one, key) = issued("one.example");
    let relabelled = |label: &str| one.replace("CERTIFICATE", label);
    let der = certificates(&one).unwrap()[0].to_vec();
    let wrapped = |der: &[u8]| {
        format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            STANDARD.encode(der)
        )
    };
    let utf16 = |text: &str, mark: bool| {
        mark.then_some(0xfeff)
            .into_iter()
            .chain(text.encode_utf16())
            .flat_map(u16::to_le_bytes)
            .collect::<Vec<u8>>()
    };
    let signed_data = [&[0x30, 0x82, 1, 0][..], PKCS7, &[0; 240]].concat();
    let escaped = lines(&one).join("\\n");
    let body_at = |text: &str| text.replacen("MII", "M!I", 1).into_bytes();
    for (what, text, expected) in [
        ("empty", vec![], "holds no certificate"),
        (
            "a key alone",
            key.clone().into_bytes(),
            "holds no certificate",
        ),
        ("UTF-16", utf16(&one, true), "iconv"),
        ("UTF-16 without mark", utf16(&one, false), "iconv"),
        ("DER", der.clone(), "openssl x509 -inform der"),
        ("PKCS #7 in DER", signed_data.clone(), "openssl pkcs7"),
        (
            "PKCS #12",
            [&[0x30, 0x82, 9, 9, 2, 1, 3][..], &[0xff; 40]].concat(),
            "openssl pkcs12",
        ),
        (
            "base64 twice",
            STANDARD.encode(&one).into_bytes(),
            "decode it once",
        ),
        (
            "literal \\n",
            escaped.into_bytes(),
            "line 1: its line breaks",
        ),
        (
            "literal \\n, quoted",
            format!("\"{}\"", lines(&one).join("\\n")).into_bytes(),
            "line 1: its line breaks",
        ),
        (
            "an indented block behind a sound one",
            format!("{one}  {}", lines(&one).join("\n  ")).into_bytes(),
            "does not stand at the beginning of the line",
        ),
        (
            "quoted",
            format!("> {}", lines(&one).join("\n> ")).into_bytes(),
            "line 1: -----BEGIN does not stand",
        ),
        (
            "TRUSTED",
            format!("{one}{}", relabelled("TRUSTED CERTIFICATE")).into_bytes(),
            "openssl x509",
        ),
        (
            "X509",
            relabelled("X509 CERTIFICATE").into_bytes(),
            "line 1: a block \"X509 CERTIFICATE\"",
        ),
        (
            "PKCS7",
            relabelled("PKCS7").into_bytes(),
            "openssl pkcs7 -print_certs",
        ),
        (
            "a request",
            relabelled("CERTIFICATE REQUEST").into_bytes(),
            "issued certificate",
        ),
        (
            "a CRL",
            relabelled("X509 CRL").into_bytes(),
            "line 1: a block \"X509 CRL\"",
        ),
        (
            "p7b under another label",
            wrapped(&signed_data).into_bytes(),
            "openssl pkcs7",
        ),
        (
            "no DER",
            wrapped(b"hello").into_bytes(),
            "line 1: the block \"CERTIFICATE\" is not",
        ),
        (
            "not base64",
            body_at(&one),
            "line 2: holds what is not base64",
        ),
        (
            "cut short",
            one.as_bytes()[..one.len() / 2].to_vec(),
            "line 1: the block \"CERTIFICATE\" has no -----END CERTIFICATE-----",
        ),
        (
            "no end before the next",
            format!("{}\n{one}", lines(&one)[..3].join("\n")).into_bytes(),
            "line 1: the block \"CERTIFICATE\" has no -----END",
        ),
        (
            "no beginning",
            lines(&one)[1..].join("\n").into_bytes(),
            "an end without a beginning",
        ),
        (
            "four hyphens",
            one.replace("-----BEGIN", "----BEGIN").into_bytes(),
            "line 1: is no right line",
        ),
        (
            "long dashes",
            one.replace("-----", "—").into_bytes(),
            "line 1: is no right line",
        ),
        (
            "one hyphen",
            one.replace("-----", "-").into_bytes(),
            "line 1: is no right line",
        ),
        (
            "hyphens that do not break",
            one.replace('-', "\u{2011}").into_bytes(),
            "line 1: is no right line",
        ),
        (
            "minus signs",
            one.replace('-', "\u{2212}").into_bytes(),
            "line 1: is no right line",
        ),
        (
            "four hyphens, and no certificate by its label",
            format!(
                "{one}{}",
                relabelled("PKCS7").replace("-----BEGIN", "----BEGIN")
            )
            .into_bytes(),
            "is no right line",
        ),
        (
            "a second one without armour",
            format!("{one}{}", lines(&one)[1..lines(&one).len() - 1].join("\n")).into_bytes(),
            "base64 outside of a block",
        ),
        (
            "two in one block",
            wrapped(&[&der[..], &der].concat()).into_bytes(),
            "line 1: the block \"CERTIFICATE\" holds more than one value",
        ),
        (
            "bytes behind it",
            wrapped(&[&der[..], b"\0"].concat()).into_bytes(),
            "holds more than one value",
        ),
        (
            "lower case",
            one.to_lowercase().into_bytes(),
            "line 1: is no right line",
        ),
        (
            "six hyphens",
            one.replace("-----\n", "------\n")
                .replace("-----\r\n", "------\r\n")
                .into_bytes(),
            "line 1: is no right line",
        ),
    ] {
        let error = certificates(&text).expect_err(what).to_string();
        assert!(error.contains(expected), "{what}: {error}");
        assert!(error.len() < 300, "{what}: {error}");
    }
}

#[test]
fn k4_a_key_is_read_or_refused_for_what_it_is() {
    let (certificate, key) = issued("one.example");
    let plain = private_key(&key).unwrap();
    let (_, other) = issued("two.example");
    let crlf = lines(&key).join("\r\n");
    for (what, text) in [
        ("CRLF", crlf),
        ("beside its certificate", format!("{certificate}{key}")),
        ("joined to it", format!("{}{key}", certificate.trim_end())),
    ] {
        assert_eq!(private_key(text).unwrap(), plain, "{what}");
    }
    let legacy = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    for (what, text, expected) in [
        ("none", certificate.clone(), "no private key found"),
        (
            "encrypted",
            key.replace("PRIVATE", "ENCRYPTED PRIVATE"),
            "openssl pkey",
        ),
        ("encrypted the old way", legacy.to_owned(), "openssl pkey"),
        (
            "OpenSSH's",
            key.replace("PRIVATE", "OPENSSH PRIVATE"),
            "ssh-keygen",
        ),
        (
            "a public one",
            key.replace("PRIVATE", "PUBLIC"),
            "public key",
        ),
        (
            "two",
            format!("{key}{other}"),
            "a second private key (the first is at line 1)",
        ),
        (
            "indented",
            format!("  {}", lines(&key).join("\n  ")),
            "line 1: -----BEGIN does not",
        ),
    ] {
        let error = private_key(&text).expect_err(what).to_string();
        assert!(error.contains(expected), "{what}: {error}");
        assert!(!error.contains(lines(&key)[1]), "{what} quotes the key");
    }
}

/// PKCS #8 (RFC 5958), PKCS #1 (RFC 8017) and SEC 1 (RFC 5915), as far as they are told apart.
#[test]
fn k4_a_key_is_what_it_holds_whatever_its_label_says() {
    type IsForm = fn(&PrivateKeyDer<'_>) -> bool;
    let forms: [(&[u8], IsForm); 3] = [
        (&[0x30, 5, 2, 1, 0, 0x30, 0], |it| {
            matches!(it, PrivateKeyDer::Pkcs8(_))
        }),
        (&[0x30, 6, 2, 1, 0, 2, 1, 5], |it| {
            matches!(it, PrivateKeyDer::Pkcs1(_))
        }),
        (&[0x30, 6, 2, 1, 1, 4, 1, 7], |it| {
            matches!(it, PrivateKeyDer::Sec1(_))
        }),
    ];
    for (der, is_form) in forms {
        for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"] {
            let body = STANDARD.encode(der);
            let text = format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
            let key = private_key(&text).unwrap();
            assert!(is_form(&key) && key.secret_der() == der, "{label} {der:?}");
        }
    }
}

proptest! {
    /// However blocks are put together, each is read, in order.
    #[test]
    fn k3_each_block_is_read_whatever_stands_between(
        joints in prop::collection::vec(prop::sample::select(vec![
            "", " ", "\n", "\r\n", "\r", "\n\n", "\u{feff}", "  \r\n\u{feff}", "\n# a comment\n", "\nsubject=CN = x\r",
        ]), 1..6),
    ) {
        static ONE: std::sync::LazyLock<(String, String)> = std::sync::LazyLock::new(|| issued("one.example"));
        let mut text = String::new();
        for joint in &joints {
            text.push_str(ONE.0.trim_end());
            text.push_str(joint);
        }
        let read = certificates(&text);
        prop_assert_eq!(read.map(|found| found.len()), Ok(joints.len()), "{}", text);
    }

    /// What is taken is taken whole: as many certificates as there are beginnings of them.
    #[test]
    fn k4_nothing_is_left_out_in_silence(
        parts in prop::collection::vec(prop::sample::select(vec![
            "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----", "\n", "\r", " ", "MAA=", "\u{feff}", "-", "\\n", ":",
            "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "-----BEGIN X509 CRL-----", "text", "Proc-Type: 4,ENCRYPTED",
        ]), 0..24),
    ) {
        let text = parts.concat();
        let begun = text.matches("-----BEGIN CERTIFICATE-----").count();
        if let Ok(found) = certificates(&text) {
            prop_assert_eq!(found.len(), begun, "{}", text);
            prop_assert!(!text.contains("X509 CRL"));
        }
        let _ = private_key(&text);
    }
}
