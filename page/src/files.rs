//! The files of the page, a part of the program. They hold nothing of what is shown, and the browser is
//! told to take nothing from anywhere else.

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

/// What a browser may do with the page: nothing but what its own files do. Text never becomes markup,
/// even by a fault of ours (`require-trusted-types-for`).
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

static HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Name below `/page/`, type, content.
const FILES: [(&str, &str, &str); 9] = [
    (
        "page.css",
        "text/css; charset=utf-8",
        include_str!("../assets/page.css"),
    ),
    (
        "icon.svg",
        "image/svg+xml",
        include_str!("../assets/icon.svg"),
    ),
    ("main.js", SCRIPT, include_str!("../assets/main.js")),
    ("board.js", SCRIPT, include_str!("../assets/board.js")),
    ("dom.js", SCRIPT, include_str!("../assets/dom.js")),
    ("partners.js", SCRIPT, include_str!("../assets/partners.js")),
    ("pools.js", SCRIPT, include_str!("../assets/pools.js")),
    ("explain.js", SCRIPT, include_str!("../assets/explain.js")),
    ("probe.js", SCRIPT, include_str!("../assets/probe.js")),
];

/// What is at `/`.
pub fn index() -> Response {
    respond(
        "text/html; charset=utf-8",
        include_str!("../assets/index.html"),
    )
}

/// A file by its name below `/page/`.
pub fn file(name: &str) -> Response {
    match FILES.iter().find(|(own, ..)| *own == name) {
        Some((_, kind, content)) => respond(kind, content),
        None => (StatusCode::NOT_FOUND, "no such file of the page\n").into_response(),
    }
}

/// Whether a question names this server as somebody beside it would: by an address, by `localhost`, or
/// by a name of one label. A page elsewhere that has its own name lead here (DNS rebinding) does not. For
/// servers that want no token.
#[must_use]
pub fn is_asked_locally(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|it| it.to_str().ok()) else {
        return false;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let is_label = !name.is_empty() && !name.contains('.') && !name.contains(':');
    is_label || name.ends_with(".localhost") || bare.parse::<std::net::IpAddr>().is_ok()
}

/// Whether a browser asks on behalf of a page of another origin, as far as it says so: it does with every
/// POST (Fetch section 3.2). For what is more than looking.
#[must_use]
pub fn comes_from_elsewhere(headers: &HeaderMap) -> bool {
    let text = |name: &HeaderName| headers.get(name).map(|it| it.to_str().unwrap_or_default());
    let Some(origin) = text(&header::ORIGIN) else {
        return false;
    };
    let asked = origin.split_once("://").map(|(_, asked)| asked);
    asked.is_none() || asked != text(&header::HOST)
}

/// Headers that go with everything that the page shows.
pub(crate) fn guard(headers: &mut HeaderMap) {
    for (name, value) in &HEADERS {
        headers.insert(name.clone(), HeaderValue::from_static(value));
    }
}

fn respond(kind: &'static str, content: &'static str) -> Response {
    let mut response = ([(header::CONTENT_TYPE, kind)], content).into_response();
    guard(response.headers_mut());
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nothing_of_the_page_comes_from_elsewhere_and_no_text_becomes_markup() {
        let index = include_str!("../assets/index.html");
        let files = FILES.iter().map(|(name, _, content)| (*name, *content));
        for (name, content) in files.chain([("index.html", index)]) {
            // The name of SVG's namespace leads nowhere.
            let content = content.replace("http://www.w3.org/2000/svg", "");
            for forbidden in [
                "http://",
                "https://",
                "//cdn",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "style=",
                "onclick=",
                "@import",
            ] {
                assert!(!content.contains(forbidden), "{name}: {forbidden}");
            }
        }
        assert!(!index.contains("<style") && !index.contains("<script>"));
    }

    #[test]
    fn every_file_that_the_page_names_is_there_and_guarded() {
        let index = include_str!("../assets/index.html");
        let named = index.split("\"page/").skip(1);
        let named: Vec<_> = named.filter_map(|rest| rest.split('"').next()).collect();
        assert!(named.len() >= 3, "{named:?}");
        for name in named {
            assert_eq!(file(name).status(), StatusCode::OK, "{name}");
        }
        for (script, _, content) in FILES {
            for import in content.split(" from \"./").skip(1) {
                let name = import.split('"').next().unwrap();
                assert_eq!(file(name).status(), StatusCode::OK, "{script}: {name}");
            }
        }
        let response = index_headers();
        let policy = response[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"));
        assert_eq!(file("../secret").status(), StatusCode::NOT_FOUND);
    }

    fn index_headers() -> HeaderMap {
        super::index().headers().clone()
    }

    #[test]
    fn a_page_elsewhere_that_has_its_name_lead_here_is_not_asked_locally() {
        let asked = |host: &str| {
            let host = HeaderValue::from_str(host).unwrap();
            is_asked_locally(&[(header::HOST, host)].into_iter().collect())
        };
        for host in [
            "localhost",
            "localhost:9090",
            "127.0.0.1:9090",
            "[::1]:9090",
            "[::1]",
            "edge:9090",
            "hq.localhost:1",
            "198.51.100.7",
        ] {
            assert!(asked(host), "{host}");
        }
        for host in [
            "rebind.example:9090",
            "evil.example",
            "",
            ":9090",
            "127.0.0.1.evil.example",
        ] {
            assert!(!asked(host), "{host}");
        }
        assert!(!is_asked_locally(&HeaderMap::new()));
    }

    #[test]
    fn a_page_of_another_origin_has_nothing_done() {
        let asked = |origin: Option<&str>| {
            let of = |text: &str| HeaderValue::from_str(text).unwrap();
            let origin = origin.map(|origin| (header::ORIGIN, of(origin)));
            let host = (header::HOST, of("10.0.0.5:9090"));
            comes_from_elsewhere(&origin.into_iter().chain([host]).collect())
        };
        for own in [
            None,
            Some("http://10.0.0.5:9090"),
            Some("https://10.0.0.5:9090"),
        ] {
            assert!(!asked(own), "{own:?}");
        }
        for other in ["https://evil.example", "http://10.0.0.5:9091", "null", ""] {
            assert!(asked(Some(other)), "{other}");
        }
    }
}
