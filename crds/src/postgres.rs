//! A PostgreSQL connection string as people and other operators hand it out: a URL, or libpq's list of
//! `key=value` (PostgreSQL documentation, section 34.1.1).
//!
//! The client library refuses a string for any option that it does not know. So what is of no
//! consequence here is taken out, `sslmode` is read apart, and what is left that is not known is
//! named. Errors never quote the string: it holds a password.

/// What the client library knows, beside `sslmode`.
const KNOWN: [&str; 18] = [
    "user",
    "password",
    "dbname",
    "options",
    "application_name",
    "sslnegotiation",
    "host",
    "hostaddr",
    "port",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "target_session_attrs",
    "channel_binding",
    "load_balance_hosts",
];
/// What says nothing that is not so here anyway, with the values for which that holds; none: any. The
/// key `ca.crt` of the Secret takes the place of `sslrootcert`.
const IDLE: [(&str, &[&str]); 7] = [
    ("sslrootcert", &[]),
    ("fallback_application_name", &[]),
    ("gssencmode", &["disable", "allow", "prefer"]),
    ("sslcertmode", &["disable", "allow"]),
    ("sslcompression", &["0"]),
    ("sslsni", &["1"]),
    (
        "client_encoding",
        &["auto", "UTF8", "utf8", "UTF-8", "utf-8"],
    ),
];
/// Of these options the client library takes few values, with words for them.
const VALUES: [(&str, OptionValue); 11] = [
    (
        "sslnegotiation",
        OptionValue::OneOf(&["postgres", "direct"]),
    ),
    (
        "channel_binding",
        OptionValue::OneOf(&["disable", "prefer", "require"]),
    ),
    (
        "load_balance_hosts",
        OptionValue::OneOf(&["disable", "random"]),
    ),
    (
        "target_session_attrs",
        OptionValue::OneOf(&["any", "read-write", "read-only"]),
    ),
    ("connect_timeout", OptionValue::Seconds),
    ("tcp_user_timeout", OptionValue::Seconds),
    ("keepalives", OptionValue::Number),
    ("keepalives_idle", OptionValue::Seconds),
    ("keepalives_interval", OptionValue::Seconds),
    ("keepalives_retries", OptionValue::Number),
    ("port", OptionValue::Ports),
];
/// What else people have there. In a list of `key=value` only these are named: a piece of a password
/// that was not quoted may stand where a name is.
const FOREIGN: [&str; 20] = [
    "gssencmode",
    "gsslib",
    "krbsrvname",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslcrl",
    "sslcrldir",
    "sslcertmode",
    "sslcompression",
    "sslsni",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "requirepeer",
    "require_auth",
    "passfile",
    "service",
    "client_encoding",
    "keepalives_count",
    "replication",
];

/// A connection string that the client library can be given.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionString {
    /// With the password: never to be shown.
    pub text: String,
    /// As libpq has it: `disable`, `allow`, `prefer`, `require`, `verify-ca`, `verify-full`.
    pub ssl_mode: Option<String>,
}

/// Why a text is none. Every text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionStringError {
    #[error("is no PostgreSQL connection string: postgres://user:password@host:5432/database")]
    Form,
    #[error(
        "is a URL for JDBC: take the one that begins with postgres:// (operators of PostgreSQL have it under `uri`)"
    )]
    Jdbc,
    #[error("has the option {0:?}, which is not known here: take it out, the rest stays as it is")]
    UnknownOption(String),
    #[error(
        "has an option that is not known here: in a list of key=value put values with white space into single quotes; the options are {}, sslmode",
        KNOWN.join(", ")
    )]
    UnnamedOption,
    #[error("has for the option {name:?} another value than {wanted}: correct it, or take it out")]
    Value { name: &'static str, wanted: String },
    #[error(
        "names no host that can be: write @, /, ? and other characters of user and password percent-encoded (%40, %2F, %3F)"
    )]
    Host,
    #[error("has another sslmode than disable, allow, prefer, require, verify-ca and verify-full")]
    SslMode,
}

impl ConnectionString {
    /// Reads a text; white space at its ends and a byte order mark are not meant.
    ///
    /// # Errors
    /// [`ConnectionStringError`]: which part is wrong.
    pub fn parse(text: &str) -> Result<Self, ConnectionStringError> {
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.starts_with("jdbc:") {
            return Err(ConnectionStringError::Jdbc);
        }
        let is_url = ["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| text.starts_with(scheme));
        let read = if is_url {
            Self::of_url(text)?
        } else {
            Self::of_list(text)?
        };
        match read.ssl_mode.as_deref() {
            None
            | Some("disable" | "allow" | "prefer" | "require" | "verify-ca" | "verify-full") => {
                Ok(read)
            }
            Some(_) => Err(ConnectionStringError::SslMode),
        }
    }

    fn of_url(text: &str) -> Result<Self, ConnectionStringError> {
        // As the client library has it: credentials end at the first "@", whatever is in them.
        let credentials = text.find('@').map_or(0, |at| at + 1);
        let (before, rest) = text.split_at(credentials);
        let authority = if before.is_empty() {
            rest.split_once("://").map_or(rest, |(_, rest)| rest)
        } else {
            rest
        };
        let hosts = authority.split(['/', '?']).next().unwrap_or_default();
        // A path of a socket stands there percent-encoded.
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[],%".contains(c);
        if !hosts.chars().all(plain) {
            return Err(ConnectionStringError::Host);
        }
        let Some((path, query)) = rest.split_once('?') else {
            return Ok(Self {
                text: text.to_owned(),
                ssl_mode: None,
            });
        };
        let mut kept = Vec::new();
        let mut ssl_mode = None;
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            match fate(name, value) {
                Fate::Kept => {
                    check_value(name, value)?;
                    kept.push(option);
                }
                Fate::SslMode => ssl_mode = Some(value.to_owned()),
                Fate::Idle => {}
                Fate::Unknown => return Err(unknown(name, true)),
            }
        }
        let query = if kept.is_empty() {
            String::new()
        } else {
            format!("?{}", kept.join("&"))
        };
        Ok(Self {
            text: format!("{before}{path}{query}"),
            ssl_mode,
        })
    }

    fn of_list(text: &str) -> Result<Self, ConnectionStringError> {
        let mut kept = Vec::new();
        let mut ssl_mode = None;
        let mut rest = text;
        if !rest.contains('=') {
            return Err(ConnectionStringError::Form);
        }
        while !rest.is_empty() {
            let (name, behind) = rest.split_once('=').ok_or(ConnectionStringError::Form)?;
            let (name, behind) = (name.trim(), behind.trim_start());
            let length = value_length(behind).ok_or(ConnectionStringError::Form)?;
            let (value, after) = behind.split_at(length);
            match fate(name, value.trim_matches('\'')) {
                Fate::Kept => {
                    check_value(name, value.trim_matches('\''))?;
                    kept.push(format!("{name}={value}"));
                }
                Fate::SslMode => ssl_mode = Some(value.trim_matches('\'').to_owned()),
                Fate::Idle => {}
                Fate::Unknown => return Err(unknown(name, false)),
            }
            rest = after.trim_start();
        }
        Ok(Self {
            text: kept.join(" "),
            ssl_mode,
        })
    }
}

impl std::fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionString")
            .field("ssl_mode", &self.ssl_mode)
            .finish_non_exhaustive()
    }
}

/// Bytes of the value that a text begins with: in single quotes, or up to white space; a backslash
/// takes what follows as it is.
fn value_length(text: &str) -> Option<usize> {
    let quoted = text.starts_with('\'');
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(usize::from(quoted)) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\'' if quoted => return Some(at + 1),
            c if !quoted && c.is_whitespace() => return Some(at),
            _ => {}
        }
    }
    (!quoted).then_some(text.len())
}

/// The values that an option may have.
enum OptionValue {
    OneOf(&'static [&'static str]),
    /// A count; 0 is the default.
    Number,
    /// 0 and less are the default.
    Seconds,
    /// One for each host.
    Ports,
}

/// Whether a known option has a value that the client library takes. One that is written in another way
/// (percent-encoded, with backslashes) is left to the library.
fn check_value(name: &str, value: &str) -> Result<(), ConnectionStringError> {
    let Some((name, values)) = VALUES.iter().find(|(own, _)| *own == name) else {
        return Ok(());
    };
    if value.contains(['%', '\\']) {
        return Ok(());
    }
    let (is_taken, wanted) = match values {
        OptionValue::OneOf(words) => (words.contains(&value), words.join(", ")),
        OptionValue::Number => (value.parse::<u32>().is_ok(), "a whole number".to_owned()),
        OptionValue::Seconds => (value.parse::<i64>().is_ok(), "a whole number".to_owned()),
        OptionValue::Ports => (
            value
                .split(',')
                .all(|port| port.is_empty() || port.parse::<u16>().is_ok()),
            "a port, or one for each host".to_owned(),
        ),
    };
    if is_taken {
        return Ok(());
    }
    Err(ConnectionStringError::Value { name, wanted })
}

enum Fate {
    Kept,
    SslMode,
    Idle,
    Unknown,
}

fn fate(name: &str, value: &str) -> Fate {
    if name == "sslmode" {
        return Fate::SslMode;
    }
    if KNOWN.contains(&name) {
        return Fate::Kept;
    }
    let idle = IDLE.iter().find(|(idle, _)| *idle == name);
    match idle {
        Some((_, values)) if values.is_empty() || values.contains(&value) => Fate::Idle,
        _ => Fate::Unknown,
    }
}

fn unknown(name: &str, in_url: bool) -> ConnectionStringError {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let is_name = (1..=40).contains(&name.len()) && name.chars().all(plain);
    if FOREIGN.contains(&name) || in_url && is_name {
        ConnectionStringError::UnknownOption(name.to_owned())
    } else {
        ConnectionStringError::UnnamedOption
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k20_connection_strings_as_operators_hand_them_out() {
        let url = "postgresql://u:p@h:5432/d";
        for (text, kept, mode) in [
            (url.to_owned(), url, None),
            (
                format!("{url}?sslmode=verify-full&gssencmode=disable"),
                url,
                Some("verify-full"),
            ),
            (format!("\u{feff}{url}\r\n"), url, None),
            (
                format!("{url}?connect_timeout=3&sslrootcert=/x&client_encoding=utf8"),
                "postgresql://u:p@h:5432/d?connect_timeout=3",
                None,
            ),
            (
                format!("{url}?connect_timeout=-1&keepalives_idle=-1"),
                "postgresql://u:p@h:5432/d?connect_timeout=-1&keepalives_idle=-1",
                None,
            ),
            (
                "postgres://u:a/b?c@h:6432/d?sslmode=require".to_owned(),
                "postgres://u:a/b?c@h:6432/d",
                Some("require"),
            ),
            (
                "host=h port=6432 user=u dbname=d sslmode=verify-ca".to_owned(),
                "host=h port=6432 user=u dbname=d",
                Some("verify-ca"),
            ),
            (
                r"host = h password = 'a b\'c' gssencmode=disable user=u".to_owned(),
                r"host=h password='a b\'c' user=u",
                None,
            ),
            (
                "postgres:///db?host=h&port=6432".to_owned(),
                "postgres:///db?host=h&port=6432",
                None,
            ),
        ] {
            let read = ConnectionString::parse(&text);
            let expected = ConnectionString {
                text: kept.to_owned(),
                ssl_mode: mode.map(str::to_owned),
            };
            assert!(read == Ok(expected), "{text}: {read:?}");
        }
    }

    #[test]
    fn k20_what_cannot_be_is_named_and_no_password_with_it() {
        for (text, says) in [
            ("postgres://u:hunter2@h/d?pgbouncer=true", "\"pgbouncer\""),
            ("postgres://u:hunter2@h/d?sslcert=/x", "\"sslcert\""),
            (
                "postgres://u:hunter2@h/d?gssencmode=require",
                "\"gssencmode\"",
            ),
            (
                "postgres://u:hunter2@h/d?sslmode=sometimes",
                "another sslmode than",
            ),
            (
                "postgres://u:hunter2@h/d?target_session_attrs=primary",
                "any, read-write, read-only",
            ),
            ("host=h password=hunter2 keepalives=on", "a whole number"),
            ("host=h password=hunter2 port=x", "a port, or one"),
            ("postgres://u:hunter@2@h/d", "%40"),
            ("host=h password=hunter2 sslkey=/x", "\"sslkey\""),
            ("host=h password=a hunter2=b", "not known here"),
            ("host=h password='hunter2", "no PostgreSQL"),
            ("jdbc:postgresql://h/d?password=hunter2", "JDBC"),
            ("mysql://u:hunter2@h/d", "no PostgreSQL"),
            ("", "no PostgreSQL"),
            ("hunter2", "no PostgreSQL"),
        ] {
            let error = match ConnectionString::parse(text) {
                Err(error) => error.to_string(),
                Ok(read) => panic!("{text}: {read:?}"),
            };
            assert!(error.contains(says), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
