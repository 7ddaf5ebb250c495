//! A real Kamailio with its users: registrar, presence agent and store of messages, one domain inside, the edge for
//! all else.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tokio::net::TcpStream;

use super::{SIP_PORT, SipParty, request};
use crate::{pki::Leaf, process::Daemon, wait};

/// Name by which it knows the edge: dNSName of the edge's certificate.
pub const EDGE_NAME: &str = "edge.default.xmpp-edge.internal";
/// What a database of Debian's package is made from.
const TABLES: [&str; 3] = ["standard", "presence", "msilo"];

/// How it finds the edge for partners' domains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EdgeRoute {
    /// There, whichever domain.
    Static(SocketAddr),
    /// As DNS says, with this resolver: the edge's view. `asks`: by SNI for the partner's domain.
    ByDns { resolver: Ipv4Addr, asks: bool },
}

/// A server of one domain.
pub struct Kamailio {
    ip: Ipv4Addr,
    tls_port: u16,
    domain: String,
    route: EdgeRoute,
    directory: PathBuf,
    daemon: Option<Daemon>,
}

impl Kamailio {
    /// Writes its files and starts it. It listens by TLS at `address`, by TCP beside that, and finds the edge by
    /// `route`.
    ///
    /// # Errors
    /// When it does not get ready in time; carries the end of its log.
    pub async fn start(
        domain: &str,
        address: SocketAddrV4,
        route: EdgeRoute,
        identity: &Leaf,
        trust: &str,
        directory: &Path,
    ) -> Result<Self> {
        let directory = directory.join("kamailio");
        fs::create_dir_all(&directory)?;
        let mut server = Self {
            ip: *address.ip(),
            tls_port: address.port(),
            domain: domain.to_owned(),
            route,
            directory,
            daemon: None,
        };
        server.write("own.pem", &identity.certificate)?;
        server.write("own.key", &identity.key)?;
        server.write("ca.pem", trust)?;
        server.write("tls.cfg", &server.tls())?;
        server.write("kamailio.cfg", &server.configuration())?;
        if let EdgeRoute::ByDns { resolver, .. } = route {
            server.write("resolv.conf", &format!("nameserver {resolver}\n"))?;
        }
        server.make_database()?;
        server.launch().await?;
        Ok(server)
    }

    /// Starts the process (again), on the same data.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn launch(&mut self) -> Result<()> {
        let at = |name: &str| self.directory.join(name).display().to_string();
        let arguments = [
            "-DD",
            "-E",
            "-m",
            "512",
            "-M",
            "8",
            "-f",
            &at("kamailio.cfg"),
            "-P",
            &at("kamailio.pid"),
            "-Y",
            &self.directory.display().to_string(),
        ]
        .map(str::to_owned);
        let name = format!("Kamailio of {}", self.domain);
        let log = self.directory.join("log.txt");
        let program = "/usr/sbin/kamailio";
        let mut daemon = match self.route {
            EdgeRoute::Static(_) => {
                Daemon::start(&name, Path::new(program), &arguments, &[], &log)?
            }
            EdgeRoute::ByDns { .. } => {
                // It has the machine's resolver, which is another file for it alone.
                let own = format!(
                    "mount --bind {} /etc/resolv.conf && exec {program} {}",
                    at("resolv.conf"),
                    arguments.join(" ")
                );
                let arguments = ["--mount", "sh", "-c", &own].map(str::to_owned);
                Daemon::start(&name, Path::new("/usr/bin/unshare"), &arguments, &[], &log)?
            }
        };
        daemon
            .until("Kamailio is ready", wait::GENEROUS, async || {
                for port in [SIP_PORT, self.tls_port] {
                    TcpStream::connect((self.ip, port)).await.ok()?;
                }
                Some(())
            })
            .await?;
        self.daemon = Some(daemon);
        match self.route {
            EdgeRoute::Static(edge) => self.name_edge(edge),
            EdgeRoute::ByDns { .. } => Ok(()),
        }
    }

    /// Its NOTIFYs go to where the edge's Contact says: a name that no DNS of this machine has.
    fn name_edge(&self, edge: SocketAddr) -> Result<()> {
        let socket = format!("unix:{}/ctl.sock", self.directory.display());
        let address = edge.ip().to_string();
        let arguments = [
            "-s",
            &socket,
            "dns.add_a",
            EDGE_NAME,
            "100000",
            &address,
            "4",
        ];
        let named = Command::new("kamcmd").args(arguments).output()?;
        let said = [named.stdout, named.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        ensure!(named.status.success() && !said.contains("error"), "{said}");
        Ok(())
    }

    /// Kills it, as a host that loses power does.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill();
        }
    }

    /// Stops all of its processes where they stand.
    pub fn freeze(&self) {
        if let Some(daemon) = &self.daemon {
            daemon.freeze();
        }
    }

    /// Undoes [`Self::freeze`].
    pub fn thaw(&self) {
        if let Some(daemon) = &self.daemon {
            daemon.thaw();
        }
    }

    /// CPU time of all of its processes.
    pub fn cpu(&self) -> Duration {
        self.daemon
            .as_ref()
            .map_or(Duration::ZERO, Daemon::group_cpu)
    }

    /// Its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log.txt")).unwrap_or_default()
    }

    /// A user agent of `user`, registered by TCP.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn register(&self, user: &str) -> Result<SipParty> {
        let stream = TcpStream::connect((self.ip, SIP_PORT)).await?;
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        let contact = format!("sip:{user}@{local};transport=tcp");
        let agent = SipParty::over(stream).reached_at(contact.clone());
        let address = format!("sip:{user}@{}", self.domain);
        let unique = format!("register-{user}-{}", local.port());
        let more = format!("Contact: <{contact}>\r\nExpires: 600\r\n");
        let to_domain = format!("REGISTER sip:{} ", self.domain);
        let text = request("REGISTER", &address, &address, &unique, &more, "")
            .replace(&format!("REGISTER {address} "), &to_domain)
            .replace(
                "SIP/2.0/TLS sip.org.example:5061",
                &format!("SIP/2.0/TCP {local}"),
            );
        let answer = agent.ask(text).await?;
        ensure!(answer.code() == Some(200), "{answer:?}");
        Ok(agent)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.directory.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())
    }

    fn make_database(&self) -> Result<()> {
        let database = self.directory.join("kamailio.db");
        for tables in TABLES {
            let script = format!("/usr/share/kamailio/db_sqlite/{tables}-create.sql");
            let read = format!(".read {script}");
            let made = Command::new("sqlite3").arg(&database).arg(&read).output()?;
            let said = String::from_utf8_lossy(&made.stderr);
            ensure!(made.status.success(), "{script}: {said}");
        }
        Ok(())
    }

    fn tls(&self) -> String {
        let directory = self.directory.display();
        let both = format!(
            "method = TLSv1.2+\nverify_certificate = yes\nrequire_certificate = yes\n\
             private_key = {directory}/own.key\ncertificate = {directory}/own.pem\n\
             ca_list = {directory}/ca.pem\n"
        );
        format!("[server:default]\n{both}\n[client:default]\n{both}")
    }

    fn configuration(&self) -> String {
        let Self {
            ip,
            tls_port,
            domain,
            directory,
            route,
            ..
        } = self;
        let directory = directory.display();
        // RFC 3263 section 4.1: NAPTR says that it is TLS, and SRV where.
        let dns = match route {
            EdgeRoute::Static(_) => "",
            EdgeRoute::ByDns { .. } => {
                "dns_try_naptr=on dns_retr_time=1 dns_retr_no=3 use_dns_failover=on"
            }
        };
        let to_edge = match route {
            EdgeRoute::Static(edge) => format!("$du = \"sip:{edge};transport=tls\";"),
            EdgeRoute::ByDns { asks, .. } => {
                let asked = if *asks {
                    "$xavp(tls=>server_name) = $rd;"
                } else {
                    ""
                };
                format!("{asked} t_on_reply(\"SHOWN\");")
            }
        };
        format!(
            r#"#!KAMAILIO
debug=2 log_stderror=yes fork=yes children=1 tcp_children=1 auto_aliases=no alias="{domain}"
listen=tcp:{ip}:{SIP_PORT} listen=tls:{ip}:{tls_port}
enable_tls=yes tcp_source_ipv4={ip} tcp_rd_buf_size=262144 tcp_connection_lifetime=3605 tcp_connect_timeout=3 {dns}
mpath="/usr/lib/x86_64-linux-gnu/kamailio/modules/"
loadmodule "tm.so" loadmodule "tmx.so" loadmodule "sl.so" loadmodule "rr.so" loadmodule "pv.so" loadmodule "maxfwd.so" loadmodule "usrloc.so"
loadmodule "registrar.so" loadmodule "textops.so" loadmodule "siputils.so" loadmodule "sanity.so" loadmodule "tls.so" loadmodule "ctl.so"
loadmodule "db_sqlite.so" loadmodule "presence.so" loadmodule "presence_xml.so" loadmodule "msilo.so" loadmodule "xlog.so"
modparam("tls", "xavp_cfg", "tls")
modparam("tls", "config", "{directory}/tls.cfg") modparam("tm", "fr_timer", 30000)
modparam("usrloc", "db_mode", 0) modparam("ctl", "binrpc", "unix:{directory}/ctl.sock")
modparam("db_sqlite", "db_set_journal_mode", "{directory}/kamailio.db=WAL")
modparam("presence|presence_xml|msilo", "db_url", "sqlite://{directory}/kamailio.db")
modparam("presence", "server_address", "sip:{ip}:{SIP_PORT};transport=tcp") modparam("presence", "subs_db_mode", 0)
modparam("presence", "min_expires", 5) modparam("presence", "min_expires_action", 1) modparam("presence", "clean_period", 5)
modparam("presence_xml", "force_active", 1) modparam("presence_xml", "integrated_xcap_server", 1)
modparam("msilo", "outbound_proxy", "sip:{ip}:{SIP_PORT};transport=tcp")
request_route {{
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    if (!sanity_check("17895", "7")) exit;
    $var(edge) = 0;
    if (proto == TLS) {{
        if ($tls_peer_san_hostname != "{EDGE_NAME}") {{ sl_send_reply("403", "Unknown peer"); exit; }}
        $var(edge) = 1;
    }}
    if (has_totag()) {{
        if (is_method("SUBSCRIBE") && uri == myself) route(PRESENCE);
        if (loose_route() || is_method("NOTIFY|MESSAGE|INFO|BYE|ACK")) {{ t_relay(); exit; }}
        sl_send_reply("404", "Not here"); exit;
    }}
    if ($var(edge) == 1 && $fd == "{domain}") {{ sl_send_reply("403", "Own domain from the edge"); exit; }}
    if ($var(edge) == 0 && !(src_ip == myself) && $fd != "{domain}") {{ sl_send_reply("403", "Foreign domain inside"); exit; }}
    if (is_method("REGISTER")) {{ if (!save("location")) sl_reply_error(); m_dump(); exit; }}
    if (is_method("PUBLISH") || (is_method("SUBSCRIBE") && $rd == "{domain}")) route(PRESENCE);
    record_route();
    if ($rd != "{domain}" && !(uri == myself)) {{
        if ($var(edge) == 1) {{ sl_send_reply("482", "Loop Detected"); exit; }}
        {to_edge} t_relay(); exit;
    }}
    if ($rU == $null) {{ sl_send_reply("484", "Address Incomplete"); exit; }}
    if ($rU == "nobody") {{ sl_send_reply("404", "Not Found"); exit; }}
    if (lookup("location")) {{ t_relay(); exit; }}
    if (is_method("MESSAGE") && m_store("$ru")) sl_send_reply("202", "Accepted");
    else sl_send_reply("480", "Temporarily Unavailable");
}}
onreply_route[SHOWN] {{ xlog("L_ERR", "the edge shows $tls_peer_san_hostname\n"); }}
route[PRESENCE] {{
    if (!t_newtran()) {{ sl_reply_error(); exit; }}
    if (is_method("PUBLISH")) handle_publish(); else handle_subscribe();
    t_release(); exit;
}}
"#
        )
    }

    /// Stops it in order.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn stop(&mut self) -> Result<()> {
        match self.daemon.take() {
            Some(mut daemon) => daemon.terminate(Duration::from_secs(20)).await.map(drop),
            None => Ok(()),
        }
    }
}
