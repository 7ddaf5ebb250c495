#![allow(clippy::unwrap_used)]
use std::{fs, path::PathBuf};

use proptest::prelude::*;
use xmpp_edge_crds::kinds::validate_manifest;

use super::*;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lync")).join(name)
}

fn imported(name: &str) -> Imported {
    import(&fs::read(fixture(name)).unwrap(), name).unwrap()
}

fn clixml(inner: &str) -> String {
    format!(
        "<Objs Version=\"1.1.0.1\" xmlns=\"http://schemas.microsoft.com/powershell/2004/04\">{inner}</Objs>"
    )
}

/// `UPDATE_GOLDEN=1 cargo test -p xmpp-edge-operator --lib lync` rewrites the outputs.
#[test]
fn exports_become_the_manifests_beside_them() {
    for name in [
        "partners-utf16.clixml",
        "partners.json",
        "policies.json",
        "policies-in-a-list.clixml",
        "gateway.json",
        "gateway.clixml",
    ] {
        let yaml = imported(name).yaml();
        let golden = fixture(&format!("{name}.expected.yaml"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &yaml).unwrap();
        }
        assert_eq!(
            yaml,
            fs::read_to_string(&golden).unwrap_or_default(),
            "{name}"
        );
    }
}

#[test]
fn a_manifest_that_would_be_rejected_says_so() {
    for name in ["partners-utf16.clixml", "partners.json", "policies.json"] {
        let imported = imported(name);
        for object in &imported.objects {
            let reference = reference(object);
            let told = imported
                .warnings
                .iter()
                .filter(|w| w.object.as_ref() == Some(&reference))
                .filter(|w| w.message.starts_with("is rejected as it stands"))
                .count();
            assert_eq!(told, validate_manifest(object).len(), "{reference}");
        }
    }
}

#[test]
fn plaintext_is_never_opted_into_for_anyone() {
    let imported = imported("partners-utf16.clixml");
    let google = &imported.objects[1];
    assert_eq!(google["spec"]["tlsNegotiation"], "NotSupported");
    assert!(google["spec"].get("allowPlaintext").is_none());
    assert!(imported.warnings.iter().any(|w| {
        w.object.as_deref() == Some("XmppFederatedPartner/gmail.example")
            && w.message.contains("allowPlaintext: true")
    }));
}

#[test]
fn the_passphrase_is_never_echoed() {
    let imported = imported("gateway.json");
    let everything = format!("{imported:?}{}", imported.yaml());
    assert!(!everything.contains("horse"));
    assert!(
        imported
            .warnings
            .iter()
            .any(|w| w.message.starts_with("DialbackPassphrase"))
    );
    // Nor where the file does not parse.
    let broken = br#"{"DialbackPassphrase":"correct horse", "PartnerConnectionLimit": }"#;
    assert!(
        !import(broken, "gateway.json")
            .unwrap_err()
            .to_string()
            .contains("horse")
    );
}

#[test]
fn an_enum_told_as_a_number_becomes_the_strictest() {
    let imported = imported("partners.json");
    let spec = &imported.objects[0]["spec"];
    assert_eq!(spec["tlsNegotiation"], "Required");
    assert_eq!(spec["saslNegotiation"], "Required");
    assert_eq!(spec["partnerType"], "PublicUnverified");
    let told = imported
        .warnings
        .iter()
        .filter(|w| w.message.contains("as the number"))
        .count();
    assert_eq!(told, 3);
}

#[test]
fn every_encoding_of_powershell_is_read() {
    let text = "{\"Identity\":\"Tag:Zoë\",\"EnableXmppAccess\":true}";
    let utf16 = |mark: [u8; 2], bytes: fn(u16) -> [u8; 2]| {
        let units = text.encode_utf16().flat_map(bytes);
        mark.into_iter().chain(units).collect::<Vec<u8>>()
    };
    let marked = [b"\xef\xbb\xbf".as_slice(), text.as_bytes()].concat();
    let encodings = [
        text.as_bytes().to_vec(),
        marked,
        utf16([0xff, 0xfe], u16::to_le_bytes),
        utf16([0xfe, 0xff], u16::to_be_bytes),
    ];
    let expected = import(&encodings[0], "a").unwrap();
    assert_eq!(expected.objects.len(), 1);
    for bytes in encodings {
        assert_eq!(import(&bytes, "a").unwrap(), expected);
    }
}

#[test]
fn what_is_no_export_is_named() {
    let deep = "<Obj><Props>".repeat(5_000);
    let cases: [(Vec<u8>, &str); 13] = [
        (b"".to_vec(), "is empty"),
        (b" \r\n".to_vec(), "is empty"),
        (
            b"Identity : partner.example".to_vec(),
            "neither JSON nor CLIXML",
        ),
        (b"\xff\xfe{".to_vec(), "neither UTF-8 nor UTF-16"),
        (b"{\0\"\0".to_vec(), "neither UTF-8 nor UTF-16"),
        (b"\x80abc".to_vec(), "neither UTF-8 nor UTF-16"),
        (
            b"{\"Identity\":".to_vec(),
            "is not JSON: EOF while parsing a value at line 1",
        ),
        (b"[]".to_vec(), "holds no object of"),
        (b"{\"Name\":\"x\"}".to_vec(), "holds no object of"),
        (b"<html/>".to_vec(), "its root is not Objs"),
        (
            b"<!DOCTYPE a [<!ENTITY b 'c'>]><Objs/>".to_vec(),
            "a DTD has no place in it",
        ),
        (clixml(&deep).into_bytes(), "too deep"),
        (
            clixml("<Obj RefId=\"0\"><Props><Ref N=\"a\" RefId=\"9\" /></Props></Obj>")
                .into_bytes(),
            "did not come before",
        ),
    ];
    for (bytes, expected) in cases {
        let error = import(&bytes, "export").unwrap_err().to_string();
        assert!(error.starts_with("export: "), "{error}");
        assert!(error.contains(expected), "{expected:?} is not in {error:?}");
    }
}

#[test]
fn references_and_escapes_of_clixml_are_followed() {
    let text = clixml(concat!(
        "<Obj RefId=\"0\"><TN RefId=\"0\"><T>A.XmppAllowedPartner</T></TN><Props>",
        "<S N=\"Identity\">a.example</S>",
        "<Obj N=\"AdditionalDomains\" RefId=\"7\"><LST><S>b.example</S></LST></Obj>",
        "<S N=\"Description\">1 &lt; 2_x000D__x000A_&#x41;_xZZZZ_ _x005F_x</S>",
        "</Props></Obj>",
        "<Obj RefId=\"1\"><TNRef RefId=\"0\" /><MS><S N=\"Identity\">c.example</S>",
        "<Ref N=\"AdditionalDomains\" RefId=\"7\" /></MS></Obj>",
    ));
    let imported = import(text.as_bytes(), "x").unwrap();
    assert_eq!(imported.objects.len(), 2);
    assert_eq!(
        imported.objects[0]["spec"]["description"],
        "1 < 2\r\nA_xZZZZ_ _x"
    );
    assert_eq!(
        imported.objects[1]["spec"]["additionalDomains"][0],
        "b.example"
    );
}

#[test]
fn text_of_an_export_stays_inside_its_comment() {
    let export = r#"{"Identity":"Site:a\nkind: EdgePool\u2028b","EnableXmppAccess":true}"#;
    let imported = import(export.as_bytes(), "x").unwrap();
    let yaml = imported.yaml();
    assert!(!imported.warnings.is_empty());
    assert_eq!(yaml.matches("\nkind: ").count(), 1, "{yaml}");
    let read: Value = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!(read, imported.objects[0]);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = import(&bytes, "x");
    }

    #[test]
    fn no_clixml_makes_it_panic(inner in "(<(Obj|Props|LST|S|TN|T|Ref|Nil)( N=\"[a-z]{1,3}\")?( RefId=\"[0-9]\")?/?>|</(Obj|Props|LST|S|TN)>|&[a-z]{0,3};|_x[0-9A-F]{4}_|[a-zé<]){0,30}") {
        let _ = import(clixml(&inner).as_bytes(), "x");
    }

    /// Whatever an identity is, the manifest's name is one, and the YAML says what the object says.
    #[test]
    fn any_identity_makes_a_readable_manifest(identity in "\\PC{1,40}") {
        let export = serde_json::json!({ "Identity": identity, "EnableXmppAccess": true });
        let imported = import(export.to_string().as_bytes(), "x").unwrap();
        for object in &imported.objects {
            let read: Value = serde_saphyr::from_str(&imported.yaml()).unwrap();
            prop_assert_eq!(&read, object);
        }
    }
}

#[test]
fn k23_lists_below_the_depth_of_convert_to_json_are_read_or_named() {
    let partner = |domains: &str| {
        let text = format!(
            r#"{{"value":[{{"Identity":"a.example","AdditionalDomains":{domains},"TlsNegotiation":"Required"}}],"Count":1}}"#
        );
        let imported = import(text.as_bytes(), "partners.json").unwrap();
        let told: Vec<String> = imported.warnings.into_iter().map(|it| it.message).collect();
        let spec = &imported.objects[0]["spec"];
        (spec["additionalDomains"].clone(), told.join("\n"))
    };
    for domains in [
        r#""b.example c.example""#,
        r#""b.example, c.example""#,
        r#"["b.example","c.example"]"#,
        r#"["b.example c.example"]"#,
        r#"{"value":["b.example","c.example"],"Count":2}"#,
    ] {
        let (read, told) = partner(domains);
        assert_eq!(
            read,
            serde_json::json!(["b.example", "c.example"]),
            "{domains}"
        );
        assert!(!told.contains("dditional"), "{domains}: {told}");
    }
    for domains in [
        r#""System.Object[]""#,
        r#""System.Collections.Generic.List`1[System.String]""#,
        r#"[{"Length":9}]"#,
        r#""@{Length=9}""#,
    ] {
        let (read, told) = partner(domains);
        assert_eq!(read, serde_json::Value::Null, "{domains}");
        assert!(
            told.contains("ConvertTo-Json -Depth 4"),
            "{domains}: {told}"
        );
    }
}
