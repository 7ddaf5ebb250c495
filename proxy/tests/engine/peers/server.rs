//! A scripted server: what it answers by itself, and what a test has it say.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream, tcp::OwnedWriteHalf},
    sync::{Mutex as AsyncMutex, Notify},
    task::JoinHandle,
};

use super::{
    CULPRIT, Confirms, EndsOver, GENEROUS, HEADER, KEY, Second, Unproved, connection::Stream,
};

/// A server that listens.
pub struct Server {
    state: Arc<Served>,
}

#[derive(Default)]
pub(super) struct Served {
    pub acks: bool,
    pub confirms: Confirms,
    pub ends: EndsOver,
    pub on_second: Second,
    /// Domains whose keys it does not get verified.
    pub unproved: Vec<(&'static str, Unproved)>,
    pub deaf: usize,
    /// Connections that are still to be turned away.
    pub turned_away: AtomicUsize,
    pub slow: Duration,
    pub accepted: AtomicUsize,
    pub heard: Mutex<String>,
    pub changed: Notify,
    pub writers: AsyncMutex<Vec<Option<OwnedWriteHalf>>>,
}

impl Server {
    pub(super) fn open(address: SocketAddr, served: Served) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("an option");
        if served.deaf > 0 {
            // So that the edge soon finds its own buffer full.
            socket.set_recv_buffer_size(8_192).expect("an option");
        }
        socket.bind(address).expect("a free address");
        let listener = socket.listen(64).expect("a free address");
        let state = Arc::new(served);
        let served = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let left = served.turned_away.load(Ordering::SeqCst);
                if left > 0 {
                    served.turned_away.store(left - 1, Ordering::SeqCst);
                    continue;
                }
                tokio::spawn(Arc::clone(&served).serve(stream));
            }
        });
        Self { state }
    }

    async fn waits_until(&self, what: &str, mut holds: impl FnMut(&Served) -> bool) {
        let came = tokio::time::timeout(GENEROUS, async {
            loop {
                let changed = self.state.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if holds(&self.state) {
                    return;
                }
                changed.await;
            }
        })
        .await;
        assert!(came.is_ok(), "{what}; heard: {}", self.all_heard());
    }

    fn all_heard(&self) -> String {
        self.state.heard.lock().clone()
    }

    /// Until so many connections whose stream is to carry stanzas have come.
    pub async fn connected(&self, count: usize) {
        self.waits_until("connections", |state| {
            state.accepted.load(Ordering::SeqCst) >= count
        })
        .await;
    }

    /// Until so many stanzas have come, on all connections together.
    pub async fn heard_stanzas(&self, count: usize) {
        self.waits_until("stanzas", |state| ids(&state.heard.lock()).len() >= count)
            .await;
    }

    pub async fn hears(&self, text: &str) {
        self.hears_times(text, 1).await;
    }

    pub async fn hears_times(&self, text: &str, times: usize) {
        self.waits_until(text, |state| {
            state.heard.lock().matches(text).count() >= times
        })
        .await;
    }

    pub fn heard_times(&self, text: &str) -> usize {
        self.all_heard().matches(text).count()
    }

    /// Ids of all stanzas in the order in which they came.
    pub fn ids(&self) -> Vec<String> {
        ids(&self.all_heard())
    }

    /// The newest id that begins so, of whatever came.
    pub fn newest_id(&self, prefix: &str) -> String {
        let heard = self.all_heard();
        let at = heard.rfind(prefix).expect("one came");
        let rest = &heard[at..];
        rest[..rest.find('\'').unwrap_or(rest.len())].to_owned()
    }

    /// On the stanza connection of this number, from 1 on.
    pub async fn say(&self, connection: usize, text: &str) {
        let mut writers = self.state.writers.lock().await;
        let writer = writers[connection - 1].as_mut().expect("it is open");
        writer.write_all(text.as_bytes()).await.expect("it is read");
    }

    /// It is down for so many connections from here on.
    pub fn turn_away(&self, connections: usize) {
        self.state.turned_away.store(connections, Ordering::SeqCst);
    }

    /// Connections whose stream carries stanzas, so far.
    pub fn streams(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }

    /// Answers every ping that the edge asks this server by, each on the one of these streams of the server's
    /// own whose domains it is for, until it is aborted.
    pub fn answers_pings(
        &self,
        streams: Vec<(&'static str, &'static str, Stream)>,
    ) -> JoinHandle<()> {
        const PREFIX: &str = "xmpp-edge-ack-";
        let (state, mut streams) = (Arc::clone(&self.state), streams);
        tokio::spawn(async move {
            let mut answered = 0;
            loop {
                let changed = state.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let pings: Vec<(String, String)> = {
                    let heard = state.heard.lock();
                    let tags = heard.split("<iq ").skip(1);
                    let whole = tags.filter_map(|rest| Some(&rest[..rest.find('>')?]));
                    let tags = whole.map(|tag| format!(" {tag}"));
                    let pings = tags.filter(|tag| attribute(tag, "id").starts_with(PREFIX));
                    let asked = pings.map(|tag| (attribute(&tag, "to"), attribute(&tag, "id")));
                    asked.skip(answered).collect()
                };
                answered += pings.len();
                for (to, id) in pings {
                    let own = streams.iter_mut().find(|(own, ..)| *own == to);
                    let (from, to, stream) = own.expect("a stream of that domain");
                    let ends = format!("from='{from}' to='{to}'");
                    stream
                        .say(&format!("<iq {ends} type='result' id='{id}'/>"))
                        .await;
                }
                changed.await;
            }
        })
    }

    /// How many stanzas of this id came: without and with `type='error'`.
    pub fn came(&self, id: &str) -> (usize, usize) {
        let heard = self.state.heard.lock();
        let tags = heard.split('<').filter(|rest| {
            ["message ", "iq ", "presence "]
                .iter()
                .any(|name| rest.starts_with(name))
        });
        let mine = tags.filter(|tag| attribute(&tag[..tag.find('>').unwrap_or(0)], "id") == id);
        let (errors, others): (Vec<_>, Vec<_>) =
            mine.partition(|tag| attribute(tag, "type") == "error");
        (others.len(), errors.len())
    }

    /// Until the stanzas of each of these ids have come.
    pub async fn comes<'a>(&self, ids: impl Iterator<Item = &'a String> + Clone) {
        self.waits_until("stanzas by id", |state| {
            let heard = state.heard.lock();
            ids.clone().all(|id| {
                heard.contains(&format!(" id='{id}'")) || heard.contains(&format!(" id=\"{id}\""))
            })
        })
        .await;
    }

    pub async fn hang_up(&self, connection: usize) {
        let mut writer = self.state.writers.lock().await[connection - 1]
            .take()
            .expect("it is open");
        writer.shutdown().await.expect("it is open");
    }
}

fn ids(heard: &str) -> Vec<String> {
    heard
        .split("<message ")
        .skip(1)
        .filter(|rest| rest.contains("</message>"))
        .filter_map(|rest| {
            let tag = &rest[..rest.find('>')?];
            Some(attribute(tag, "id"))
        })
        .collect()
}

fn attribute(tag: &str, name: &str) -> String {
    for quote in ['\'', '"'] {
        let start = format!(" {name}={quote}");
        if let Some(at) = tag.find(&start) {
            let value = &tag[at + start.len()..];
            return value[..value.find(quote).unwrap_or(0)].to_owned();
        }
    }
    String::new()
}

fn stanzas_in(text: &str) -> usize {
    let starts = ["<message ", "<iq ", "<presence "];
    starts.map(|start| text.matches(start).count()).iter().sum()
}

impl EndsOver {
    /// What it says last, where it has handled so many stanzas and can tell.
    fn last_words(self, handled: Option<usize>) -> String {
        let ack = handled.map(|h| format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
        let end = match self {
            Self::Never | Self::HangingUp => String::new(),
            Self::Closing => "</stream:stream>".to_owned(),
            Self::Saying(condition) => format!(
                "<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
                 </stream:error></stream:stream>"
            ),
        };
        ack.unwrap_or_default() + &end
    }
}

impl Served {
    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let (mut reader, writer) = stream.into_split();
        let mut writer = Some(writer);
        let mut mine: Option<usize> = None;
        let mut pending = String::new();
        let mut buf = vec![0; 65_536];
        let mut handled = 0;
        loop {
            let Ok(count @ 1..) = reader.read(&mut buf).await else {
                return;
            };
            let text = String::from_utf8_lossy(&buf[..count]).into_owned();
            pending.push_str(&text);
            let culprit = self.culprit(&pending);
            let surplus = culprit.map_or(0, |(_, end)| pending.len() - end);
            let read = text.len().saturating_sub(surplus);
            self.heard.lock().push_str(&text[..read]);
            let mut answer = String::new();
            if let Some((start, _)) = culprit {
                pending.truncate(start);
            }
            while let Some((reply, rest)) = self.answer(&pending, mine.is_some(), &mut handled) {
                answer.push_str(&reply);
                pending = rest;
            }
            if culprit.is_some() {
                handled += stanzas_in(&pending);
                let acks = matches!(self.confirms, Confirms::Acks);
                answer += &self.ends.last_words(acks.then_some(handled));
            }
            let is_valid = answer.contains(" type='valid'/>") && answer.contains("<db:result");
            if answer.contains("<stream:stream") {
                tokio::time::sleep(self.slow).await;
            }
            if let Some(number) = mine {
                let mut writers = self.writers.lock().await;
                if let Some(writer) = &mut writers[number] {
                    let _ = writer.write_all(answer.as_bytes()).await;
                }
                if culprit.is_some() {
                    writers[number] = None;
                    drop(writers);
                    self.changed.notify_waiters();
                    // Closed with bytes unread, the connection would be reset, and the last words lost.
                    while matches!(reader.read(&mut buf).await, Ok(1..)) {}
                    return;
                }
            } else if let Some(mut own) = writer.take() {
                let _ = own.write_all(answer.as_bytes()).await;
                if is_valid {
                    let mut writers = self.writers.lock().await;
                    mine = Some(writers.len());
                    writers.push(Some(own));
                    drop(writers);
                    let number = self.accepted.fetch_add(1, Ordering::SeqCst);
                    if number < self.deaf {
                        self.changed.notify_waiters();
                        std::future::pending::<()>().await;
                    }
                } else {
                    writer = Some(own);
                }
            }
            self.changed.notify_waiters();
        }
    }

    /// Where the first stanza that it does not take starts and ends.
    fn culprit(&self, text: &str) -> Option<(usize, usize)> {
        if self.ends == EndsOver::Never {
            return None;
        }
        let found = text.find(CULPRIT)?;
        let start = text[..found].rfind("<message ")?;
        let end = found + text[found..].find("</message>")? + "</message>".len();
        Some((start, end))
    }

    /// What is to be said to the next thing that wants an answer, and what follows it.
    fn answer(&self, text: &str, carries: bool, handled: &mut usize) -> Option<(String, String)> {
        let acks_itself = self.confirms == Confirms::Acks;
        let asked = ["<stream:stream", "<db:result", "<db:verify", "<enable"].into_iter();
        let first = asked
            .chain(acks_itself.then_some("<r xmlns='urn:xmpp:sm:3'/>"))
            .filter_map(|start| text.find(start))
            .min()?;
        let rest = &text[first..];
        let end = rest.find('>')?;
        let (tag, after) = (&rest[..end], &rest[end + 1..]);
        if acks_itself {
            *handled += stanzas_in(&text[..first]);
        }
        if tag.starts_with("<r ") {
            let ack = format!("<a xmlns='urn:xmpp:sm:3' h='{handled}'/>");
            return Some((ack, after.to_owned()));
        }
        if tag.starts_with("<stream:stream") {
            let acks = if self.acks || acks_itself {
                "<sm xmlns='urn:xmpp:sm:3'/>"
            } else {
                ""
            };
            // Without errors it is never asked for a sign of life: written is delivered.
            let asks = self.deaf == 0 && self.confirms != Confirms::Nothing;
            let errors = if asks { "<errors/>" } else { "" };
            let reply = format!(
                "{HEADER} id='{:x}'><stream:features><dialback xmlns='urn:xmpp:features:dialback'>\
                 {errors}</dialback>{acks}</stream:features>",
                self.accepted.load(Ordering::SeqCst)
            );
            return Some((reply, after.to_owned()));
        }
        if tag.starts_with("<enable") {
            return Some((
                "<enabled xmlns='urn:xmpp:sm:3'/>".to_owned(),
                after.to_owned(),
            ));
        }
        let close = after.find("</db:")?;
        let (key, after) = (&after[..close], &after[close..]);
        let after = after[after.find('>')? + 1..].to_owned();
        let (from, to) = (attribute(tag, "from"), attribute(tag, "to"));
        let reply = if tag.starts_with("<db:result") {
            let unproved = self.unproved.iter().find(|(domain, _)| *domain == from);
            if let Some((_, unproved)) = unproved {
                return Some((unproved.answer(&from, &to), after));
            }
            match (carries, self.on_second) {
                (true, Second::Silence) => String::new(),
                (true, Second::Error) => {
                    format!("<db:result from='{to}' to='{from}' type='error'/>")
                }
                (false, _) | (true, Second::Valid) => {
                    format!("<db:result from='{to}' to='{from}' type='valid'/>")
                }
            }
        } else {
            let id = attribute(tag, "id");
            let verdict = if key == KEY { "valid" } else { "invalid" };
            format!("<db:verify from='{to}' to='{from}' id='{id}' type='{verdict}'/>")
        };
        Some((reply, after))
    }
}
