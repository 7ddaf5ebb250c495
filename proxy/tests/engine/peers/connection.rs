//! What a test says and hears on a stream of its own.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::{GENEROUS, HEADER, KEY, within};

/// A connection of the test's own.
pub struct Stream {
    reader: Reader,
    writer: Writer,
}

pub struct Reader {
    half: Option<OwnedReadHalf>,
    heard: String,
}

pub struct Writer(Option<OwnedWriteHalf>);

impl Stream {
    pub(super) fn new(stream: TcpStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self {
            reader: Reader {
                half: Some(reader),
                heard: String::new(),
            },
            writer: Writer(Some(writer)),
        }
    }

    /// A stream to whoever listens there or soon will, authenticated by dialback.
    pub async fn authenticated(address: SocketAddr, from: &str, to: &str) -> Self {
        let stream = within("a connection", async {
            loop {
                if let Ok(stream) = TcpStream::connect(address).await {
                    return stream;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Self::new(stream.await).authenticate(from, to).await
    }

    /// Authenticates by dialback.
    pub async fn authenticate(mut self, from: &str, to: &str) -> Self {
        self.open(from, to).await;
        self.ask(from, to).await;
        self.hears("type='valid'").await;
        self
    }

    /// Authenticates a further pair by dialback.
    pub async fn further(mut self, from: &str, to: &str) -> Self {
        self.ask(from, to).await;
        self.hears_times("type='valid'", 2).await;
        self
    }

    /// Opens the stream.
    pub async fn open(&mut self, from: &str, to: &str) {
        self.say(&format!("{HEADER} from='{from}' to='{to}'>"))
            .await;
        self.hears("</stream:features>").await;
    }

    /// Asks for a pair by dialback.
    pub async fn ask(&mut self, from: &str, to: &str) {
        let result = format!("<db:result from='{from}' to='{to}'>{KEY}</db:result>");
        self.say(&result).await;
    }

    /// Reads until `text` has come once more.
    pub async fn hears_another(&mut self, text: &str) {
        let times = self.heard().matches(text).count();
        self.hears_times(text, times + 1).await;
    }

    pub fn split(&mut self) -> (Reader, Writer) {
        let reader = Reader {
            half: self.reader.half.take(),
            heard: std::mem::take(&mut self.reader.heard),
        };
        (reader, Writer(self.writer.0.take()))
    }

    pub async fn say(&mut self, text: &str) {
        self.writer.say(text).await;
    }

    /// Reads until `text` has come.
    pub async fn hears(&mut self, text: &str) {
        self.reader.hears(text).await;
    }

    async fn hears_times(&mut self, text: &str, times: usize) {
        self.reader.hears_times(text, times).await;
    }

    pub fn heard(&self) -> &str {
        &self.reader.heard
    }

    /// Asks until so many stanzas are acknowledged.
    pub async fn acknowledged(&mut self, stanzas: usize) {
        let wanted = format!("h='{stanzas}'");
        for _ in 0..600 {
            let answers = self.heard().matches("<a ").count();
            self.say("<r xmlns='urn:xmpp:sm:3'/>").await;
            self.reader.hears_times("<a ", answers + 1).await;
            if self.heard().contains(&wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{wanted} did not come, but: {}", self.heard());
    }

    /// Reads until the other end has closed the connection.
    pub async fn ended(&mut self) {
        let half = self.reader.half.as_mut().expect("not split off");
        within("the end of the connection", async {
            let mut buf = [0; 4096];
            while matches!(half.read(&mut buf).await, Ok(count) if count > 0) {}
        })
        .await;
    }

    pub async fn close(mut self) {
        self.writer.say("</stream:stream>").await;
        self.reader.close().await;
    }
}

impl Writer {
    /// The other end may be gone: what it heard decides.
    pub async fn say(&mut self, text: &str) {
        let half = self.0.as_mut().expect("not split off");
        let _ = half.write_all(text.as_bytes()).await;
    }
}

impl Reader {
    pub async fn hears(&mut self, text: &str) {
        self.hears_times(text, 1).await;
    }

    async fn hears_times(&mut self, text: &str, times: usize) {
        let half = self.half.as_mut().expect("not split off");
        let heard = &mut self.heard;
        let came = tokio::time::timeout(GENEROUS, async {
            let mut buf = vec![0; 65_536];
            while heard.matches(text).count() < times {
                match half.read(&mut buf).await {
                    Ok(0) | Err(_) => return false,
                    Ok(count) => heard.push_str(&String::from_utf8_lossy(&buf[..count])),
                }
            }
            true
        })
        .await;
        assert!(came == Ok(true), "{text:?} did not come, but: {heard}");
    }

    pub async fn close(&mut self) {
        self.half = None;
    }
}
