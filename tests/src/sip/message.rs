//! SIP as text: framed by `Content-Length`, compared as it stands.

/// A request or an answer as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SipMessage {
    /// The start line.
    pub start: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl SipMessage {
    /// The first message of `bytes`, and how many bytes it is.
    pub fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let blank = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..blank]);
        let mut lines = head.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .collect();
        let length = headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("Content-Length") || name == "l")
            .and_then(|(_, value)| value.parse().ok())
            .unwrap_or(0);
        let body = bytes.get(blank + 4..blank + 4 + length)?;
        let message = Self {
            start,
            headers,
            body: String::from_utf8_lossy(body).into_owned(),
        };
        Some((message, blank + 4 + length))
    }

    /// The first field of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.headers.iter();
        fields
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Of an answer.
    pub fn code(&self) -> Option<u16> {
        let rest = self.start.strip_prefix("SIP/2.0 ")?;
        rest.split(' ').next()?.parse().ok()
    }

    /// Of a request.
    pub fn method(&self) -> Option<&str> {
        let method = self.start.split(' ').next()?;
        (self.code().is_none()).then_some(method)
    }

    /// As [`Self::answer`], with a body.
    pub fn answer_with(&self, code: u16, more: &str, body: &str) -> String {
        let length = format!("Content-Length: {}\r\n\r\n{body}", body.len());
        let answer = self.answer(code, more);
        answer.replace("Content-Length: 0\r\n\r\n", &length)
    }

    /// An answer to this request.
    pub fn answer(&self, code: u16, more: &str) -> String {
        let mut text = format!("SIP/2.0 {code} As told\r\n");
        for (name, value) in &self.headers {
            let is = |known: &str| name.eq_ignore_ascii_case(known);
            if is("To") && !value.contains(";tag=") {
                text += &format!("To: {value};tag=answered\r\n");
            } else if ["Via", "From", "To", "Call-ID", "CSeq"]
                .iter()
                .any(|it| is(it))
            {
                text += &format!("{name}: {value}\r\n");
            }
        }
        text + more + "Content-Length: 0\r\n\r\n"
    }
}

/// A request from `from` to `to`, both URIs; `unique` makes it one of its own. `more` are header fields, each with its
/// line end.
pub fn request(method: &str, from: &str, to: &str, unique: &str, more: &str, body: &str) -> String {
    format!(
        "{method} {to} SIP/2.0\r\n\
         Via: SIP/2.0/TLS sip.org.example:5061;branch=z9hG4bK{unique}\r\n\
         Max-Forwards: 70\r\n\
         From: <{from}>;tag={unique}\r\n\
         To: <{to}>\r\n\
         Call-ID: {unique}@sip.org.example\r\n\
         CSeq: 1 {method}\r\n\
         {more}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
