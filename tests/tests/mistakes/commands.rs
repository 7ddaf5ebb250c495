//! Wrong command lines, and commands that cannot do what they were asked for.

use std::{fs, path::Path};

use xmpp_edge_tests::{edge, mistakes};

use crate::run;

const POOL: &str = "apiVersion: xmpp-edge.dev/v1alpha1\nkind: EdgePool\nmetadata: {name: NAME}\n\
    spec: {site: NAME, domains: [NAME.example], accessEdge: {fqdn: edge.NAME.example}, \
    gateways: [{domains: [NAME.example], address: '10.0.0.9:5269'}], certificate: {selfSigned: {}}}\n";

/// What a command says on stderr, by its exit code: it must not be 0.
fn fails(program: &Path, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    assert!(!output.status.success(), "{arguments:?} succeeds");
    let said = String::from_utf8(output.stderr).unwrap();
    let said: Vec<&str> = said.lines().filter(|it| it.starts_with("error:")).collect();
    assert!(!said.is_empty(), "{arguments:?} does not say why");
    said.join("\n")
}

#[test]
fn every_fault_of_a_command_line_is_listed() {
    let operator = edge::binary().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let one = POOL.replace("NAME", "hq");
    write("one/hq.yaml", &one);
    write("two/hq.yaml", &one);
    write("two/west.yaml", &POOL.replace("NAME", "west"));
    write("none/empty.yaml", "");
    let place = |name: &str| folder.path().join(name).display().to_string();
    let (one, two, none, state) = (place("one"), place("two"), place("none"), place("state"));
    write(
        "wrong/hq.yaml",
        &POOL.replace("NAME", "hq").replace("mode", "").replace(
            "5269'",
            "5269', trust: {caConfigMapRef: {name: nowhere, key: ca.crt}}",
        ),
    );
    let wrong = place("wrong");
    let nothing = write("empty.json", "");
    let other = write("other.json", "{\"Name\": \"x\"}");
    let text = write("text", "hello");
    let broken = write("broken.json", "[{");
    let standalone = |manifests: &str, more: &[&str]| {
        let mut arguments = vec!["standalone", "--manifests", manifests, "--state", &state];
        arguments.extend(more);
        fails(&operator, &arguments)
    };
    let explain = |from: &str, to: &str| {
        fails(
            &operator,
            &["explain", "--manifests", &one, "--from", from, "--to", to],
        )
    };
    let import = |file: &str| fails(&operator, &["import-lync", file]);
    let held = place("held");
    fs::create_dir_all(&held).unwrap();
    let lock = fs::File::create(folder.path().join("held/lock")).unwrap();
    lock.lock().unwrap();
    let in_use = fails(
        &operator,
        &["standalone", "--manifests", &one, "--state", &held],
    );
    let messages = [
        fails(&operator, &["validate", "--manifest", &one]),
        fails(&operator, &["validate"]),
        fails(&operator, &["validated"]),
        fails(&operator, &["validate", "--manifests", &place("nowhere")]),
        fails(
            &operator,
            &["validate", "--manifests", &one, "--output", "xml"],
        ),
        fails(&operator, &["run", "--allowed-domains", "chat"]),
        fails(&operator, &["run", "--allowed-dns-server", "a:b:c"]),
        fails(&operator, &["run", "--page-listen", "0.0.0.0:9092"]),
        standalone(&none, &[]),
        standalone(&two, &[]),
        standalone(&two, &["--pool", "east"]),
        standalone(&wrong, &[]),
        standalone(&one, &["--bind", "everywhere"]),
        standalone(&one, &["--resolver", "192.0.2.1"]),
        in_use,
        explain("a@b@c", "b@hq.example"),
        explain("a@x.example", "b@y.example"),
        explain("a@hq.example", "b@hq.example"),
        import(&place("nowhere")),
        import(&nothing),
        import(&other),
        import(&text),
        import(&broken),
    ];
    mistakes::compare("Command lines", &messages);
}
