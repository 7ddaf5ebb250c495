//! The one HTTP client beside that of the API server: one question on a connection of its own.
//!
//! Its use bounds it in time and in bytes: it dials pods, and ports of this product's own.

use std::fmt;

use http_body_util::Empty;
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, ToSocketAddrs},
};
use zeroize::Zeroizing;

/// Why nothing was answered.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("{0}")]
    Connect(std::io::Error),
    #[error("{0}")]
    Exchange(#[from] hyper::Error),
    #[error("the question cannot be written: {0}")]
    Request(#[from] hyper::http::Error),
}

/// What a bearer shows. Wiped when dropped, and never shown otherwise.
#[derive(Clone, PartialEq, Eq)]
pub struct BearerToken(Zeroizing<String>);

impl BearerToken {
    #[must_use]
    pub fn new(token: &str) -> Self {
        Self(Zeroizing::new(token.to_owned()))
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BearerToken").finish_non_exhaustive()
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct HttpQuestion<'a> {
    pub method: &'a Method,
    /// Value of `Host`.
    pub host: &'a str,
    /// Path and query.
    pub path: &'a str,
    pub token: Option<&'a BearerToken>,
}

impl HttpQuestion<'_> {
    /// Asks in clear, and hands the answer to `read`; the connection ends with that.
    ///
    /// # Errors
    /// [`HttpError`], and those of `read`.
    pub async fn send<T, E: From<HttpError>>(
        &self,
        address: impl ToSocketAddrs,
        read: impl AsyncFnOnce(Response<Incoming>) -> Result<T, E>,
    ) -> Result<T, E> {
        let socket = TcpStream::connect(address).await;
        let socket = socket.map_err(HttpError::Connect)?;
        self.send_on(socket, read).await
    }

    /// As [`Self::send`], on a connection that is there, which ends with it.
    ///
    /// # Errors
    /// As there.
    pub async fn send_on<T, E: From<HttpError>>(
        &self,
        connection: impl AsyncRead + AsyncWrite + Unpin,
        read: impl AsyncFnOnce(Response<Incoming>) -> Result<T, E>,
    ) -> Result<T, E> {
        let request = self.request().map_err(HttpError::from)?;
        let shaken = http1::handshake(TokioIo::new(connection)).await;
        let (mut sender, connection) = shaken.map_err(HttpError::from)?;
        // Owns the sender, whose end closes the connection.
        let exchange = async move {
            let answer = sender.send_request(request).await;
            read(answer.map_err(HttpError::from)?).await
        };
        let (answer, _) = tokio::join!(exchange, async {
            // Its end is the exchange's end, and its fault is told there.
            let _ = connection.await;
        });
        answer
    }

    fn request(&self) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
        let mut request = Request::builder()
            .method(self.method)
            .uri(self.path)
            .header(header::HOST, self.host);
        if let Some(token) = self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", *token.0));
        }
        request.body(Empty::new())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http_body_util::BodyExt;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn one_question_one_answer_and_the_connection_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(socket.read_u8().await.unwrap());
            }
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            socket.write_all(answer).await.unwrap();
            assert_eq!(socket.read(&mut [0]).await.unwrap(), 0, "it ends");
            String::from_utf8(asked).unwrap()
        };
        let get = HttpQuestion {
            method: &Method::GET,
            host: "edge",
            path: "/status?since=7",
            token: Some(&BearerToken::new("t")),
        };
        let ask = get.send(address, async |answer| {
            let body = answer.into_body().collect().await;
            Ok::<_, HttpError>(body?.to_bytes())
        });
        let (asked, body) = tokio::join!(server, ask);
        assert_eq!(body.unwrap(), "ok");
        assert!(!format!("{:?}", BearerToken::new("shown")).contains("shown"));
        assert!(asked.starts_with("GET /status?since=7 HTTP/1.1\r\n"));
        for line in ["host: edge\r\n", "authorization: Bearer t\r\n"] {
            assert!(
                asked.to_lowercase().contains(&line.to_lowercase()),
                "{asked}"
            );
        }
    }
}
