//! The command line from outside: results, exit codes, and faults that name place and remedy.
#![allow(clippy::unwrap_used)]

mod sidecars;

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use assert_cmd::Command;
use serde_json::Value;

fn run(arguments: &[&str]) -> Output {
    Command::cargo_bin("xmpp-edge-operator")
        .unwrap()
        .args(arguments)
        .output()
        .unwrap()
}

fn on(command: &str, directory: &Path, more: &[&str]) -> Output {
    let mut arguments = vec![command, "--manifests", directory.to_str().unwrap()];
    arguments.extend(more);
    run(&arguments)
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn directory(yaml: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("a.yaml"), yaml).unwrap();
    directory
}

const PARTNER: &str = "apiVersion: xmpp-edge.dev/v1alpha1\nkind: XmppFederatedPartner\nmetadata: {name: p}\nspec: {domain: p.example}\n";

/// Manifests in, diagnostics and documents out, as they stand in `expected.json`. Rewritten under
/// `UPDATE_GOLDEN=1`: read the difference before it is kept.
#[test]
fn manifests_mean_what_the_golden_files_say() {
    for entry in fs::read_dir(golden("")).unwrap() {
        let case = entry.unwrap().path();
        let manifests = case.join("manifests");
        let parse = |output: &Output| -> Value { serde_json::from_slice(&output.stdout).unwrap() };
        let validation = parse(&on("validate", &manifests, &["--output", "json"]));
        let rendered = parse(&on("render", &manifests, &["--output", "json"]));
        let documents: Vec<&Value> = rendered
            .as_array()
            .unwrap()
            .iter()
            .map(|pool| &pool["edgeConfig"])
            .collect();
        let records: Vec<&Value> = rendered
            .as_array()
            .unwrap()
            .iter()
            .map(|pool| &pool["records"])
            .collect();
        let found = serde_json::json!({
            "objects": validation["objects"],
            "findings": validation["findings"],
            "edgeConfigs": documents,
            "records": records,
        });
        let file = case.join("expected.json");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(
                &file,
                format!("{}\n", serde_json::to_string_pretty(&found).unwrap()),
            )
            .unwrap();
        }
        let expected: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(found, expected, "{}", case.display());
    }
}

/// A pool whose certificate stands in the manifests.
fn given_pair(chain: &str) -> String {
    let pool = fs::read_to_string(golden("federation").join("manifests/pool.yaml")).unwrap();
    let pool = pool.replace("{selfSigned: {}}", "{secretRef: {name: site}}");
    format!(
        "{pool}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: site}}\nstringData: {{tls.crt: {chain}, tls.key: x}}\n"
    )
}

/// What `validate` says, with its exit code, of the pool of the golden federation with this for that.
fn validated(that: &str, this: &str, more: &str) -> (Option<i32>, String) {
    let pool = fs::read_to_string(golden("federation").join("manifests/pool.yaml")).unwrap();
    assert!(pool.contains(that), "{pool}");
    let directory = directory(&format!("{}{more}", pool.replace(that, this)));
    let output = on("validate", directory.path(), &[]);
    (output.status.code(), out(&output))
}

#[test]
fn validate_warns_of_what_a_pool_needs_beside_the_manifests() {
    const SELF_SIGNED: &str = "certificate: {selfSigned: {}}";
    const SECRET: &str = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {secret: 0123456789abcdef0123456789abcdef}\n";
    for (this, code, says) in [
        ("certificate: {selfSigned: {}}", 0, "0 warnings"),
        (
            "certificate: {certManager: {issuerRef: {name: i}}}",
            0,
            "warning: EdgePool/hq: spec.certificate.certManager: this needs a cluster",
        ),
        (
            "certificate: {secretRef: {name: s}}",
            0,
            "spec.certificate.secretRef: Secret \"s\"",
        ),
        (
            "certificate: {csr: {chainSecretRef: {name: later}}}",
            0,
            "0 warnings",
        ),
        (
            "certificate: {selfSigned: {}}\n  settings: {dialbackSecretRef: {name: s}}",
            0,
            "spec.settings.dialbackSecretRef: Secret \"s\"",
        ),
        (
            "certificate: {selfSigned: {}}\n  contacts: {postgres: {secretRef: {name: s}}}",
            0,
            "spec.contacts.postgres.secretRef: Secret \"s\"",
        ),
        (
            "certificate: {selfSigned: {}}\n  dns: {rfc2136: {server: '192.0.2.1', tsigSecretRef: {name: s}}}",
            0,
            "spec.dns.rfc2136.tsigSecretRef: Secret \"s\"",
        ),
        // What compiling needs is an error.
        (
            "certificate: {selfSigned: {}}\n  trust: {caConfigMapRef: {name: m, key: k}}",
            1,
            "error: EdgePool/hq: spec.trust.caConfigMapRef: ",
        ),
    ] {
        let (found, text) = validated(SELF_SIGNED, this, "");
        assert_eq!(found, Some(code), "{this}\n{text}");
        assert!(text.contains(says), "{this}\n{text}");
    }
    let users = "---\napiVersion: xmpp-edge.dev/v1alpha1\nkind: ExternalAccessPolicy\nmetadata: {name: u}\nspec: {scope: User, usersFrom: [{configMapRef: {name: m, key: k}}]}\n";
    let (code, text) = validated(SELF_SIGNED, SELF_SIGNED, users);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("spec.usersFrom[0].configMapRef: there is no ConfigMap \"m\""),
        "{text}"
    );
    let settings = "certificate: {selfSigned: {}}\n  settings: {dialbackSecretRef: {name: s}}";
    let (_, text) = validated(SELF_SIGNED, settings, SECRET);
    assert!(text.contains("0 warnings"), "{text}");
}

#[test]
fn validate_shows_each_fault_of_each_object_where_it_stands_and_none_twice() {
    let partner = |name: &str, spec: &str| {
        format!(
            "---\napiVersion: xmpp-edge.dev/v1alpha1\nkind: XmppFederatedPartner\nmetadata:\n  name: {name}\nspec:\n{spec}"
        )
    };
    let yaml = [
        partner(
            "one",
            "  domain: one.example\n  connectionLimit: none\n  tlsNegotation: Required\n",
        ),
        partner(
            "two",
            "  domain: fine.example\n  additionalDomains:\n  - a.example\n  - B.example\n",
        ),
        partner("three", "  domain: Three.Example\n"),
        partner("four", "  domain: four.example\n"),
    ]
    .concat();
    let directory = directory(&yaml);
    let output = on("validate", directory.path(), &[]);
    assert_eq!(output.status.code(), Some(1), "{}", out(&output));
    let text = out(&output);
    let lines: Vec<&str> = text.lines().collect();
    for (begin, source, column) in [
        (
            "a.yaml:8:3: error: XmppFederatedPartner/one: spec.connectionLimit: ",
            "  connectionLimit: none",
            3,
        ),
        (
            "a.yaml:9:3: error: XmppFederatedPartner/one: spec.tlsNegotation: ",
            "  tlsNegotation: Required",
            3,
        ),
        (
            "a.yaml:19:5: error: XmppFederatedPartner/two: spec.additionalDomains[1]: ",
            "  - B.example",
            5,
        ),
        (
            "a.yaml:26:3: error: XmppFederatedPartner/three: spec.domain: ",
            "  domain: Three.Example",
            3,
        ),
    ] {
        let at: Vec<usize> = (0..lines.len())
            .filter(|at| lines[*at].starts_with(begin))
            .collect();
        assert_eq!(at.len(), 1, "{begin}: {text}");
        assert_eq!(lines[at[0] + 1], format!("    {source}"), "{text}");
        assert_eq!(lines[at[0] + 2], format!("    {:>column$}", "^"), "{text}");
    }
    assert!(text.contains("not valid: 4 objects, 4 errors"), "{text}");
    let json = on("validate", directory.path(), &["--output", "json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    let first = &json["findings"][0];
    for (field, value) in [
        ("file", "a.yaml"),
        ("severity", "error"),
        ("kind", "XmppFederatedPartner"),
        ("name", "one"),
        ("field", "spec.connectionLimit"),
        ("reason", "Invalid"),
        ("namespace", "default"),
    ] {
        assert_eq!(first[field], value, "{first}");
    }
    assert_eq!(
        (&first["line"], &first["column"]),
        (&8.into(), &3.into()),
        "{first}"
    );
}

/// What follows from a mistake is none: partners are in no pool, as the pool is wrong.
#[test]
fn validate_counts_one_mistake_once() {
    let pool = fs::read_to_string(golden("federation").join("manifests/pool.yaml")).unwrap();
    let wrong = pool.replace("site: ", "site: -");
    assert_ne!(pool, wrong);
    let directory = directory(&format!("{wrong}---\n{PARTNER}"));
    let text = out(&on("validate", directory.path(), &[]));
    assert!(text.contains(": spec.site: "), "{text}");
    assert!(text.contains("1 errors, 0 warnings"), "{text}");
    // Nor that a domain which is none has no gateway.
    let (code, text) = validated(
        "hq\n  domains: [org.example]",
        "hq\n  domains: [Org.example]",
        "",
    );
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains(": spec.domains[0]: write the domain in lower case"),
        "{text}"
    );
    assert!(text.contains("1 errors, 0 warnings"), "{text}");
}

/// A broken Secret is told by its place: what stands there is not shown.
#[test]
fn validate_never_shows_a_line_of_a_secret() {
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {key: 'hunter2!'}\n";
    let directory = directory(secret);
    for output in ["text", "json"] {
        let said = out(&on("validate", directory.path(), &["--output", output]));
        assert!(
            said.contains("base64") && !said.contains("hunter2"),
            "{said}"
        );
    }
}

#[test]
fn validate_tells_errors_from_warnings_by_its_exit_code() {
    let wrong = PARTNER.replace("p.example", "p.example, tlsNegotiation: Optional");
    let policy = "---\napiVersion: xmpp-edge.dev/v1alpha1\nkind: ExternalAccessPolicy\nmetadata: {name: e}\nspec: {scope: Global, enableXmppAccess: true}\n";
    for (yaml, code, says) in [
        (PARTNER.to_owned(), 0, "valid: 1 objects, 0 errors"),
        (
            format!("{PARTNER}{policy}"),
            0,
            "warning: ExternalAccessPolicy/e: ",
        ),
        (wrong, 1, "allowPlaintext"),
        (
            format!("{PARTNER}---\n{PARTNER}"),
            1,
            "document 1, line 2 already",
        ),
        ("kind: [".to_owned(), 1, "a.yaml:1:1: error: "),
        (
            "apiVersion: xmpp-edge.dev/v1\nkind: EdgePool\nmetadata: {name: x}\n".to_owned(),
            1,
            "xmpp-edge.dev/v1alpha1",
        ),
        (
            given_pair("no PEM"),
            0,
            "[CertificateReady=False, InvalidCertificate]",
        ),
        (PARTNER.replace("{name: p}", "{}"), 1, "metadata.name"),
        (
            PARTNER.replace("p.example", "p.example, tlsNegotation: Required"),
            1,
            "tlsNegotation",
        ),
    ] {
        let directory = directory(&yaml);
        let output = on("validate", directory.path(), &[]);
        assert_eq!(output.status.code(), Some(code), "{yaml}\n{}", out(&output));
        assert!(out(&output).contains(says), "{yaml}\n{}", out(&output));
    }
}

#[test]
fn wrong_usage_is_code_2_and_says_what_to_do() {
    for (arguments, says) in [
        (vec![], "Usage"),
        (vec!["nonsense"], "nonsense"),
        (vec!["validate"], "--manifests"),
        (
            vec!["validate", "--manifests", "/does/not/exist"],
            "/does/not/exist",
        ),
        (
            vec![
                "explain",
                "--manifests",
                ".",
                "--from",
                "@",
                "--to",
                "b@c.example",
            ],
            "--from",
        ),
        (
            vec!["standalone", "--manifests", ".", "--bind", "nowhere"],
            "--bind",
        ),
    ] {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            err(&output).contains(says),
            "{arguments:?}: {}",
            err(&output)
        );
    }
    for arguments in [["--help"], ["--version"]] {
        assert_eq!(run(&arguments).status.code(), Some(0));
    }
}

#[test]
fn explain_follows_the_direction_and_names_the_rule() {
    let manifests = golden("federation").join("manifests");
    for (from, to, says) in [
        (
            "alice@org.example",
            "bob@partner.example",
            "(Outbound): passes",
        ),
        (
            "bob@partner.example",
            "alice@org.example/phone",
            "(Inbound): passes",
        ),
        (
            "bob@unknown.example",
            "alice@org.example",
            "refused: PartnerNotAllowed",
        ),
        (
            "blocked@org.example",
            "bob@partner.example",
            "refused: AccessPolicy",
        ),
    ] {
        let output = on("explain", &manifests, &["--from", from, "--to", to]);
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        assert!(out(&output).contains(says), "{from} {to}: {}", out(&output));
    }
    let json = on(
        "explain",
        &manifests,
        &[
            "--from",
            "a@org.example",
            "--to",
            "b@partner.example",
            "--output",
            "json",
        ],
    );
    let value: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(value["direction"], "Outbound");
    let nobody = on(
        "explain",
        &manifests,
        &["--from", "a@x.example", "--to", "b@y.example"],
    );
    assert_eq!(nobody.status.code(), Some(1));
    assert!(err(&nobody).contains("org.example"), "{}", err(&nobody));
}

#[test]
fn render_shows_documents_and_elides_secrets() {
    let output = on("render", &golden("federation").join("manifests"), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let text = out(&output);
    for part in [
        "hq-config-0",
        "xmpp-edge-gateway-org.example",
        "hq-internal-issuer",
        "_xmpp-server._tcp.org.example.",
        // The namespace that the guides install into.
        "kubernetes.io/metadata.name: edge-system",
    ] {
        assert!(text.contains(part), "{part}");
    }
    assert!(!text.contains("PRIVATE KEY"));
}

#[test]
fn crds_prints_the_three_definitions() {
    let output = run(&["crds"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        out(&output)
            .matches("kind: CustomResourceDefinition")
            .count(),
        3
    );
}

#[test]
fn crds_prints_the_reference_that_is_checked_in() {
    let output = run(&["crds", "--output", "markdown"]);
    assert_eq!(output.status.code(), Some(0));
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference");
    let mut pages = 0;
    for entry in fs::read_dir(reference).unwrap() {
        let page = fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(out(&output).contains(&page), "{page}");
        pages += 1;
    }
    assert_eq!(pages, 3);
}

#[test]
fn standalone_without_a_pool_to_run_says_why() {
    let pool = |name: &str| {
        fs::read_to_string(golden("federation").join("manifests/pool.yaml"))
            .unwrap()
            .replace("name: hq", &format!("name: {name}"))
    };
    for (yaml, more, says) in [
        (PARTNER.to_owned(), vec![], "no EdgePool"),
        (format!("{}---\n{}", pool("a"), pool("b")), vec![], "--pool"),
        (pool("a"), vec!["--pool", "other"], "default/a"),
        (
            pool("a").replace("org.example", "org..example"),
            vec![],
            "spec.domains",
        ),
    ] {
        let directory = directory(&yaml);
        let state = directory.path().join("state");
        let mut arguments = vec!["--state", state.to_str().unwrap()];
        arguments.extend(more);
        let output = on("standalone", directory.path(), &arguments);
        assert_eq!(output.status.code(), Some(1), "{}", err(&output));
        assert!(err(&output).contains(says), "{says}: {}", err(&output));
    }
}

#[test]
fn import_lync_prints_manifests_and_warns_beside_them() {
    let export = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lync/policies.json");
    let output = run(&["import-lync", export.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).contains("kind: ExternalAccessPolicy"));
    let directory = directory("no export");
    let wrong = directory.path().join("a.yaml");
    for (file, code, says) in [
        (wrong.to_str().unwrap(), 1, "CLIXML"),
        ("/does/not/exist", 2, "/does/not/exist"),
    ] {
        let output = run(&["import-lync", file]);
        assert_eq!(output.status.code(), Some(code));
        assert!(err(&output).contains(says), "{}", err(&output));
    }
}

/// Ports that nobody uses at this moment.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: Vec<TcpListener> = (0..N)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    std::array::from_fn(|index| listeners[index].local_addr().unwrap().port())
}

/// Waits until `found` answers, as long as a person would at most.
fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn standalone_says_ready_follows_edits_and_stops_in_order() {
    let [s2s, internal, admin] = free_ports();
    let pool = fs::read_to_string(golden("federation").join("manifests/pool.yaml")).unwrap();
    let pool = format!(
        "{pool}  listeners: {{s2s: {s2s}, directTls: 0, internal: {internal}, admin: {admin}}}\n"
    );
    let directory = directory(&pool);
    let state = directory.path().join("state");
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("xmpp-edge-operator"))
        .args(["standalone", "--bind", "127.0.0.1", "--manifests"])
        .arg(directory.path())
        .arg("--state")
        .arg(&state)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready: EdgePool default/hq");
    let status = || -> Value {
        serde_json::from_slice(&fs::read(state.join("status.json")).unwrap()).unwrap()
    };
    assert_eq!(status()["generation"], 1);
    fs::write(directory.path().join("b.yaml"), PARTNER).unwrap();
    eventually("the edit", || (status()["generation"] == 2).then_some(()));
    fs::write(directory.path().join("b.yaml"), "spec: [").unwrap();
    eventually("the fault", || {
        status()["notes"]
            .to_string()
            .contains("b.yaml")
            .then_some(())
    });
    assert_eq!(status()["generation"], 2, "a broken edit changes nothing");
    let killed = std::process::Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(lines.next().is_none(), "one line on stdout");
}
