//! One end of a SIP connection: it keeps what it is asked, answers as it is told to, and asks.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{Notify, mpsc},
    task::JoinHandle,
};

use super::SipMessage;
use crate::wait;

/// How requests are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// By this code, with these header fields.
    Code(u16, String),
    /// By nothing, but it is there: OPTIONS are answered.
    Silence,
    /// By nothing, whatever it is asked.
    Nothing,
}

/// One end of a connection; it closes with the value.
pub struct SipParty {
    write: mpsc::UnboundedSender<Vec<u8>>,
    state: Arc<PartyState>,
    task: JoinHandle<()>,
    contact: Option<String>,
}

struct PartyState {
    /// Requests that came and nobody took.
    requests: Mutex<Vec<SipMessage>>,
    answers: Mutex<Vec<SipMessage>>,
    /// How many OPTIONS came.
    options: Mutex<usize>,
    reply: Mutex<Reply>,
    ended: Mutex<bool>,
    changed: Notify,
}

impl Drop for SipParty {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SipParty {
    /// Over an open connection. Requests are answered by 200 until something else is said.
    pub fn over<S>(stream: S) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (write, written) = mpsc::unbounded_channel();
        let state = Arc::new(PartyState {
            requests: Mutex::default(),
            answers: Mutex::default(),
            options: Mutex::default(),
            reply: Mutex::new(Reply::Code(200, String::new())),
            ended: Mutex::new(false),
            changed: Notify::new(),
        });
        let (own, answers) = (Arc::clone(&state), write.clone());
        let task = tokio::spawn(async move {
            // Whatever ended it, those who wait see that it did.
            let _ = serve(stream, &own, &answers, written).await;
            *own.ended.lock() = true;
            own.changed.notify_waiters();
        });
        Self {
            write,
            state,
            task,
            contact: None,
        }
    }

    /// As a user agent that is reached at this URI.
    #[must_use]
    pub fn reached_at(mut self, contact: String) -> Self {
        self.contact = Some(contact);
        self
    }

    /// Where it is reached, if that was said.
    pub fn contact(&self) -> Option<&str> {
        self.contact.as_deref()
    }

    /// How requests are answered from here on.
    pub fn reply(&self, reply: Reply) {
        *self.state.reply.lock() = reply;
    }

    /// Writes these bytes.
    pub fn send(&self, bytes: impl Into<Vec<u8>>) {
        // Who has ended takes nothing; who waits for an answer sees that.
        let _ = self.write.send(bytes.into());
    }

    /// The request that `fits`, now or later; it is taken out.
    ///
    /// # Errors
    /// When none comes in time.
    pub async fn requested(
        &self,
        what: &str,
        fits: impl Fn(&SipMessage) -> bool,
    ) -> Result<SipMessage> {
        self.next(what, &self.state.requests, fits).await
    }

    /// The MESSAGE with this body.
    ///
    /// # Errors
    /// As [`Self::requested`].
    pub async fn text(&self, body: &str) -> Result<SipMessage> {
        let what = format!("MESSAGE {body:?}");
        let fits = |it: &SipMessage| it.method() == Some("MESSAGE") && it.body == body;
        self.requested(&what, fits).await
    }

    /// Sends a request and waits for its final answer.
    ///
    /// # Errors
    /// When none comes in time.
    pub async fn ask(&self, request: String) -> Result<SipMessage> {
        let (sent, _) = SipMessage::read(request.as_bytes()).context("a whole request")?;
        let call = sent.header("Call-ID").context("a Call-ID")?.to_owned();
        self.send(request);
        self.answered(&call).await
    }

    /// The final answer to the request of this Call-ID.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn answered(&self, call: &str) -> Result<SipMessage> {
        let is_final = |it: &SipMessage| it.code().is_some_and(|code| code >= 200);
        let fits = |it: &SipMessage| it.header("Call-ID") == Some(call) && is_final(it);
        self.next(&format!("the answer to {call}"), &self.state.answers, fits)
            .await
    }

    /// Requests that came and were not taken, in their order.
    pub fn requests(&self) -> Vec<SipMessage> {
        self.state.requests.lock().clone()
    }

    /// Answers that came and were not taken, provisional ones too.
    pub fn answers(&self) -> Vec<SipMessage> {
        self.state.answers.lock().clone()
    }

    /// How many requests came and were not taken.
    pub fn request_count(&self) -> usize {
        self.state.requests.lock().len()
    }

    /// How often it was asked whether it is there.
    pub fn options(&self) -> usize {
        *self.state.options.lock()
    }

    /// How many answers came and were not taken.
    pub fn answer_count(&self) -> usize {
        self.state.answers.lock().len()
    }

    /// Whether the other end has closed.
    pub fn is_ended(&self) -> bool {
        *self.state.ended.lock()
    }

    /// Waits until the other end has closed.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn ended(&self) -> Result<()> {
        wait::until("the connection ends", wait::GENEROUS, async || {
            self.is_ended().then_some(())
        })
        .await
    }

    async fn next(
        &self,
        what: &str,
        among: &Mutex<Vec<SipMessage>>,
        fits: impl Fn(&SipMessage) -> bool,
    ) -> Result<SipMessage> {
        let waiting = async {
            loop {
                let mut changed = std::pin::pin!(self.state.changed.notified());
                changed.as_mut().enable();
                {
                    let mut all = among.lock();
                    if let Some(at) = all.iter().position(&fits) {
                        return Ok(all.remove(at));
                    }
                }
                if self.is_ended() {
                    bail!("the connection has ended");
                }
                changed.await;
            }
        };
        let found = wait::within(what, wait::GENEROUS, waiting).await;
        found.with_context(|| format!("there is {:#?}", among.lock()))
    }
}

async fn serve<S>(
    stream: S,
    state: &PartyState,
    answers: &mpsc::UnboundedSender<Vec<u8>>,
    mut written: mpsc::UnboundedReceiver<Vec<u8>>,
) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (mut read, mut write) = tokio::io::split(stream);
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        tokio::select! {
            count = read.read(&mut buffer) => match count? {
                0 => return Ok(()),
                count => bytes.extend_from_slice(&buffer[..count]),
            },
            Some(text) = written.recv() => {
                write.write_all(&text).await?;
                write.flush().await?;
            }
        }
        loop {
            if bytes.starts_with(b"\r\n\r\n") {
                bytes.drain(..4);
                // Nobody waits where the writing side has ended.
                let _ = answers.send(b"\r\n".to_vec());
            } else if bytes.starts_with(b"\r\n") && bytes.len() != 3 {
                bytes.drain(..2);
            } else {
                break;
            }
        }
        while let Some((message, length)) = SipMessage::read(&bytes) {
            bytes.drain(..length);
            took(message, state, answers);
        }
    }
}

fn took(message: SipMessage, state: &PartyState, answers: &mpsc::UnboundedSender<Vec<u8>>) {
    if message.code().is_some() {
        state.answers.lock().push(message);
    } else {
        // A server is asked whether it is there all the time, and is.
        let told = state.reply.lock().clone();
        let reply = match message.method() {
            Some("OPTIONS") if told != Reply::Nothing => Reply::Code(200, String::new()),
            _ => told,
        };
        if let Reply::Code(code, more) = reply {
            let _ = answers.send(message.answer(code, &more).into_bytes());
        }
        if message.method() == Some("OPTIONS") {
            *state.options.lock() += 1;
        } else {
            state.requests.lock().push(message);
        }
    }
    state.changed.notify_waiters();
}
