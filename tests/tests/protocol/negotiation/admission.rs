//! What is said of a row before any stream: rejected, or admitted with a word of what is weak.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    edge::{binary, manifest},
    peer::Open,
    rig::{Moved, OWN},
};

use super::{FIRST_INVALID, INVALID, RIG, VALID};

/// Exit code and what `validate` prints for a partner.
fn validated(spec: Value) -> Result<(i32, String)> {
    let folder = tempfile::tempdir()?;
    let mut whole = json!({ "domain": "partner.example", "partnerType": "Federated" });
    whole
        .as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    let object = manifest("XmppFederatedPartner", "partner", whole);
    fs::write(
        folder.path().join("p.yaml"),
        serde_json::to_string(&object)?,
    )?;
    let output = Command::new(binary()?)
        .args(["validate", "--output", "json", "--manifests"])
        .arg(folder.path())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.code().context("it exits")?, text))
}

fn rejected(number: u8) {
    let at = INVALID
        .iter()
        .position(|(row, _)| row.number == number)
        .unwrap();
    RIG.test(FIRST_INVALID + u8::try_from(at).unwrap(), async |s| {
        let (row, named) = &INVALID[at];
        for allow_plaintext in [false, true] {
            let (code, text) = validated(row.spec(allow_plaintext))?;
            ensure!(
                code == 1 && text.contains(named),
                "row {number}: {code} {text}"
            );
        }
        // The running edge left it out.
        let mut peer = s.connect().await?;
        peer.open_with(&Open::new(&s.domain, OWN)).await?;
        peer.header().await?;
        peer.expect_stream_error("policy-violation").await?;
        s.unharmed(Moved::Connection("PartnerNotAllowed")).await
    });
}

macro_rules! invalid {
    ($($name:ident = $number:literal;)*) => {$(
        #[test]
        fn $name() {
            rejected($number);
        }
    )*};
}

invalid! {
    n_05_no_tls_sasl_required_dialback_is_rejected = 5;
    n_06_no_tls_sasl_required_is_rejected = 6;
    n_11_no_tls_sasl_optional_dialback_is_rejected = 11;
    n_12_no_tls_sasl_optional_is_rejected = 12;
    n_14_tls_required_and_no_method_is_rejected = 14;
    n_16_tls_optional_and_no_method_is_rejected = 16;
    n_18_nothing_at_all_is_rejected = 18;
}

#[test]
fn n_03_09_15_17_plaintext_needs_an_opt_in() {
    for row in &VALID {
        let (code, text) = validated(row.spec(false)).unwrap();
        if row.plaintext() {
            assert_eq!(code, 1, "row {}: {text}", row.number);
            let both = text.contains("allowPlaintext") && text.contains("tlsNegotiation");
            assert!(both, "row {} names both ways out: {text}", row.number);
        } else {
            assert_eq!(code, 0, "row {}: {text}", row.number);
        }
        let (code, text) = validated(row.spec(true)).unwrap();
        assert_eq!(code, 0, "row {}: {text}", row.number);
    }
}

#[test]
fn n_what_is_worse_than_it_looks_is_said() {
    for row in &VALID {
        let (code, text) = validated(row.spec(row.plaintext())).unwrap();
        assert_eq!(code, 0, "row {}: {text}", row.number);
        let said: Value = serde_json::from_str(&text).unwrap();
        let secure = said["objects"][0]["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .find(|c| c["type"] == "Secure")
            .unwrap();
        // Dialback that can never be used is a message; plaintext is more than that.
        let status = if row.plaintext() { "False" } else { "True" };
        assert_eq!(secure["status"], status, "row {}: {secure}", row.number);
        let message = secure["message"].as_str().unwrap();
        if row.plaintext() {
            assert!(!message.is_empty(), "row {}", row.number);
        } else {
            let dead = row.dialback && row.expected[1].is_none();
            assert_eq!(
                message.contains("dialback is never used"),
                dead,
                "row {}",
                row.number
            );
        }
    }
}
