//! Prosody: configuration and command line.

use std::path::Path;

use anyhow::Result;

use super::{Acknowledge, DIRECT_TLS_PORT, Kind, Security, Server, Spec, debian_13};
use crate::{client::PASSWORD, process::Daemon};

const CONFIGURATION: &str = "prosody.cfg.lua";
/// Its resolvers, where there are several: `forward` takes one.
const RESOLVERS: &str = "resolv.conf";

pub(super) fn configure(server: &Server) -> Result<()> {
    let spec = server.spec();
    server.write(CONFIGURATION, &configuration(spec, &server.directory))?;
    let resolvers = spec.resolvers.iter();
    let lines = resolvers.map(|it| format!("nameserver {}@{}\n", it.ip(), it.port()));
    server.write(RESOLVERS, &lines.collect::<String>())?;
    let host = encode(&spec.domain);
    for user in &spec.users {
        server.write(
            &format!("data/{host}/accounts/{}.dat", encode(user)),
            &format!("return {{ [\"password\"] = \"{PASSWORD}\"; }};\n"),
        )?;
    }
    Ok(())
}

pub(super) fn launch(server: &Server, log: &Path) -> Result<Daemon> {
    let program = "/usr/bin/prosody";
    let configuration = server.path(CONFIGURATION).display().to_string();
    let arguments = vec!["-F".to_owned(), "--config".to_owned(), configuration];
    let (program, arguments) = match server.kind() {
        Kind::Prosody13 => {
            let resolver = server.path(RESOLVERS);
            (
                "unshare",
                debian_13::within(program, &resolver, &arguments)?,
            )
        }
        _ => (program, arguments),
    };
    Daemon::start(
        &format!("Prosody of {}", server.spec().domain),
        Path::new(program),
        &arguments,
        &[],
        log,
    )
}

fn configuration(spec: &Spec, directory: &Path) -> String {
    let Spec {
        domain,
        ip,
        resolver,
        ..
    } = spec;
    let dir = directory.display();
    let mut modules = vec![
        "roster",
        "saslauth",
        "disco",
        "ping",
        "vcard",
        "time",
        "version",
        "blocklist",
        "smacks",
    ];
    if spec.security != Security::TcpDialback {
        modules.push("tls");
    }
    if spec.security != Security::Certificates {
        modules.push("dialback");
    }
    if spec.trace {
        modules.push("stanza_debug");
    }
    if spec.bidi {
        modules.push("s2s_bidi");
    }
    let modules: Vec<_> = modules.iter().map(|m| format!("{m:?};")).collect();
    let modules = modules.join(" ");
    let direct_tls = if spec.direct_tls {
        format!("{{ {DIRECT_TLS_PORT} }}")
    } else {
        "{ }".into()
    };
    let tls = spec.security != Security::TcpDialback;
    let certificates_only = spec.security == Security::Certificates;
    let acknowledge = match spec.acknowledge {
        Acknowledge::AsPackaged => "",
        Acknowledge::Resending => "smacks_s2s_resend = true\nsmacks_max_queue_size = 100000\n",
    };
    let level = if spec.trace || std::env::var_os("INTEROP_DEBUG").is_some() {
        "debug"
    } else {
        "info"
    };
    let unbound = if spec.resolvers.is_empty() {
        format!("resolvconf = false; forward = \"{resolver}@53\"")
    } else {
        format!("resolvconf = \"{dir}/{RESOLVERS}\"")
    };
    // The host's `ssl` table replaces the global one as a whole, so both name the trust.
    format!(
        r#"-- written by a test
run_as_root = true
pidfile = "{dir}/prosody.pid"
data_path = "{dir}/data"
certificates = "{dir}"
log = {{ {{ levels = {{ min = "{level}" }}, to = "console" }} }}
interfaces = {{ "{ip}" }}
use_ipv6 = false
unbound = {{ hoststxt = false; {unbound} }}
modules_enabled = {{ {modules} }}
modules_disabled = {{ "offline" }}
authentication = "internal_plain"
storage = "internal"
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
s2s_require_encryption = {tls}
s2s_secure_auth = {certificates_only}
s2s_direct_tls_ports = {direct_tls}
s2s_direct_tls_ssl = {{ certificate = "{dir}/certificate.pem"; key = "{dir}/key.pem"; cafile = "{dir}/trust.pem"; capath = "/nonexistent" }}
s2s_timeout = 30
{acknowledge}ssl = {{ cafile = "{dir}/trust.pem"; capath = "/nonexistent" }}
VirtualHost "{domain}"
  ssl = {{ certificate = "{dir}/certificate.pem"; key = "{dir}/key.pem"; cafile = "{dir}/trust.pem"; capath = "/nonexistent" }}
"#
    )
}

/// How Prosody's file storage spells a host or user in a path.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02x}")
            }
        })
        .collect()
}
