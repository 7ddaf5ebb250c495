//! ejabberd: configuration, resolver file and command line.
//!
//! It is started by `erl` itself, as a node without distribution: no epmd, no cookie, no node name
//! that two tests could both want.

use std::{fs, path::Path};

use anyhow::Result;

use super::{
    Acknowledge, C2S_PORT, DIRECT_TLS_PORT, Kind, S2S_PORT, Security, Server, Spec, debian_13,
};
use crate::{client::PASSWORD, process::Daemon};

/// File that exists once users are registered.
pub(super) const READY: &str = "ready";

pub(super) fn configure(server: &Server) -> Result<()> {
    let spec = server.spec();
    server.write("ejabberd.yml", &configuration(spec, &server.directory))?;
    // SRV look-ups are Erlang's own and follow this file; address look-ups are the C library's and
    // follow /etc/resolv.conf, which `launch` replaces for this process alone. `resolv_conf` must
    // come first: else /etc/resolv.conf overwrites the name server.
    let [a, b, c, d] = spec.resolver.octets();
    server.write(
        "inetrc",
        &format!(
            "{{resolv_conf, \"\"}}.\n{{lookup, [file, native]}}.\n{{nameserver, {{{a},{b},{c},{d}}}, 53}}.\n\
             {{cache_size, 0}}.\n"
        ),
    )?;
    server.write("resolv.conf", &format!("nameserver {}\n", spec.resolver))?;
    fs::create_dir_all(server.path("spool"))?;
    Ok(())
}

pub(super) fn launch(server: &Server, log: &Path) -> Result<Daemon> {
    let spec = server.spec();
    let ready = server.path(READY);
    let _ = fs::remove_file(&ready);
    let users: Vec<_> = spec
        .users
        .iter()
        .map(|user| format!("<<\"{user}\">>"))
        .collect();
    let register = format!(
        "[ejabberd_auth:try_register(U, <<\"{}\">>, <<\"{PASSWORD}\">>) || U <- [{}]], \
         file:write_file(\"{}\", <<>>).",
        spec.domain,
        users.join(","),
        ready.display()
    );
    let spool = format!("{:?}", server.path("spool").display().to_string());
    let resolver = server.path("resolv.conf");
    let arguments = [
        // Few schedulers without busy waiting: many servers share the machine.
        "+K",
        "true",
        "+S",
        "2:2",
        "+sbwt",
        "none",
        "+P",
        "250000",
        "-noinput",
        "-mnesia",
        "dir",
        &spool,
        "-ejabberd",
        "log_rate_limit",
        "1000",
        "-s",
        "ejabberd",
        "-eval",
        &register,
    ]
    .map(str::to_owned);
    let arguments = match server.kind() {
        Kind::Ejabberd24 => debian_13::within("/usr/bin/erl", &resolver, &arguments)?,
        _ => {
            let script = "mount --bind \"$0\" /etc/resolv.conf && exec erl \"$@\"";
            let resolver = resolver.display().to_string();
            let enter = ["--mount", "sh", "-c", script, &resolver].map(str::to_owned);
            enter.into_iter().chain(arguments).collect()
        }
    };
    let file = |name: &str| server.path(name).display().to_string();
    Daemon::start(
        &format!("ejabberd of {}", spec.domain),
        Path::new("unshare"),
        &arguments,
        &[
            ("EJABBERD_CONFIG_PATH", file("ejabberd.yml")),
            ("EJABBERD_LOG_PATH", file("ejabberd.log")),
            ("ERL_INETRC", file("inetrc")),
            ("ERL_LIBS", "/usr/lib/x86_64-linux-gnu".into()),
            ("ERL_CRASH_DUMP", file("erl_crash.dump")),
            ("ERL_MAX_PORTS", "32000".into()),
            ("HOME", file("spool")),
        ],
        log,
    )
}

fn configuration(spec: &Spec, directory: &Path) -> String {
    let Spec { domain, ip, .. } = spec;
    let dir = directory.display();
    let starttls = match spec.security {
        Security::TcpDialback => "false",
        Security::Certificates | Security::TlsDialback => "required",
    };
    // With certificates dialback authenticates nobody, but answering it is all that ejabberd has to
    // confirm what it read.
    let dialback = match (spec.security, spec.acknowledge) {
        (Security::Certificates, Acknowledge::AsPackaged) => "",
        _ => "  mod_s2s_dialback: {}\n",
    };
    let direct_tls = if spec.direct_tls {
        format!(
            "  - {{ port: {DIRECT_TLS_PORT}, ip: \"{ip}\", module: ejabberd_s2s_in, tls: true, max_stanza_size: 524288 }}\n"
        )
    } else {
        String::new()
    };
    let level = if std::env::var_os("INTEROP_DEBUG").is_some() {
        "debug"
    } else {
        "info"
    };
    format!(
        r#"# written by a test
loglevel: {level}
hosts: ["{domain}"]
certfiles: ["{dir}/both.pem"]
ca_file: "{dir}/trust.pem"
s2s_cafile: "{dir}/trust.pem"
s2s_use_starttls: {starttls}
s2s_dns_timeout: 5
s2s_max_retry_delay: 1
outgoing_s2s_families: [ipv4]
auth_method: [internal]
auth_password_format: plain
disable_sasl_mechanisms: ["digest-md5", "X-OAUTH2"]
listen:
  - {{ port: {C2S_PORT}, ip: "{ip}", module: ejabberd_c2s, max_stanza_size: 524288 }}
  - {{ port: {S2S_PORT}, ip: "{ip}", module: ejabberd_s2s_in, max_stanza_size: 524288 }}
{direct_tls}access_rules:
  local: [{{allow: all}}]
modules:
  mod_disco: {{}}
  mod_ping: {{}}
  mod_roster: {{}}
  mod_vcard: {{search: false}}
  mod_version: {{}}
  mod_time: {{}}
{dialback}"#
    )
}
