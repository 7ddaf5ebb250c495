//! What a peer answers on a stream that is left unread is no silence of the peer's. The partner answers pings
//! on a stream of its own, as Prosody does; the server inside lives and takes nothing, so that this stream is
//! not read, and the answer stands in it behind stanzas.

use crate::peers::{Confirms, Lab, Plan, Server, Stream, message, outward};

/// All of these are more than the queue of a pair takes.
const BYTES: usize = 100_000;
const COUNT: u32 = 16;
const REQUEST: &str = "<r xmlns='urn:xmpp:sm:3'";
const PING: &str = "xmpp-edge-ack-";

/// A partner that has answered one ping, and whose next answer stands behind what is not read.
struct UnreadAnswer {
    lab: Lab,
    inside: Stream,
    /// How often the server inside said that it took nothing more.
    said: usize,
}

impl UnreadAnswer {
    async fn begin(number: u8, plan: Plan) -> Self {
        let plan = Plan {
            gateway_acks: true,
            partner_confirms: Confirms::Nothing,
            ..plan
        };
        let lab = Lab::start(number, plan).await;
        let mut theirs = lab.partner_stream().await;
        let mut inside = lab.inside_stream("org.example", "partner.example").await;
        inside
            .say(&outward("org.example", "partner.example", "one"))
            .await;
        lab.partner.hears_times(PING, 1).await;
        theirs.say(&answer(&lab.partner.newest_id(PING))).await;
        inside
            .say(&outward("org.example", "partner.example", "two"))
            .await;
        lab.partner.hears_times(PING, 2).await;
        let body = "x".repeat(BYTES);
        let stanzas = (0..COUNT).map(|id| message(id).replace("hello", &body));
        let text = stanzas.collect::<String>() + &answer(&lab.partner.newest_id(PING));
        let (_, mut writer) = theirs.split();
        tokio::spawn(async move { writer.say(&text).await });
        Self {
            lab,
            inside,
            said: 0,
        }
    }

    /// The server inside is asked once more, and says how many stanzas it took.
    async fn asked(&mut self, took: usize) {
        self.said += 1;
        self.lab.gateway.hears_times(REQUEST, self.said).await;
        let ack = format!("<a xmlns='urn:xmpp:sm:3' h='{took}'/>");
        self.lab.gateway.say(1, &ack).await;
    }
}

fn answer(id: &str) -> String {
    format!("<iq from='partner.example' to='org.example' type='result' id='{id}'/>")
}

#[tokio::test]
async fn a_partner_whose_answer_is_left_unread_is_not_taken_for_dead() {
    let mut own = UnreadAnswer::begin(
        40,
        Plan {
            queue_timeout_seconds: 4,
            ..Plan::default()
        },
    )
    .await;
    // A second apart: longer than an answer may take.
    for _ in 0..7 {
        own.asked(0).await;
    }
    assert_eq!(own.lab.partner.streams(), 1);
    while own.lab.gateway.ids().len() < COUNT as usize {
        let took = own.lab.gateway.ids().len();
        own.asked(took).await;
    }
    own.inside
        .say(&outward("org.example", "partner.example", "three"))
        .await;
    own.lab.partner.hears("id='three'").await;
    // Confirmed, or it would have gone again before.
    assert_eq!(own.lab.partner.ids(), ["one", "two", "three"]);
    assert_eq!(own.lab.partner.streams(), 1);
}

/// Where it is not read on either: all that its partner may hold is used up.
#[tokio::test]
async fn an_answer_that_is_left_unread_is_not_waited_for_for_ever() {
    let mut own = UnreadAnswer::begin(
        41,
        Plan {
            queue_timeout_seconds: 1,
            queue_total_bytes: 1_000_000,
            ..Plan::default()
        },
    )
    .await;
    while own.lab.partner.ids().len() < 3 {
        own.asked(0).await;
    }
    assert_eq!(own.lab.partner.ids(), ["one", "two", "two"]);
}

/// A server inside and a partner that answer pings, each on a stream of its own, and say much at once: the answer
/// of each stands behind stanzas that wait for room, which the other one's answer would make.
pub struct Circle {
    pub partner: Server,
    pub theirs: Stream,
    pub gateway: Server,
    pub inside: Stream,
}

impl Circle {
    /// All that they say comes once, in order, and no stream ends.
    pub async fn comes_round(mut self) {
        // Each answers once, so that its next answer is waited for, and is asked.
        for asked in 1..=2 {
            self.inside.say(&out(&format!("first-{asked}"))).await;
            self.theirs.say(&message(1_000 + asked)).await;
            let times = usize::try_from(asked).expect("twice");
            self.partner.hears_times(PING, times).await;
            self.gateway.hears_times(PING, times).await;
            if asked == 1 {
                let (of_partner, own) =
                    (self.partner.newest_id(PING), self.gateway.newest_id(PING));
                self.theirs.say(&answer(&of_partner)).await;
                let own = format!(
                    "<iq from='org.example' to='partner.example' type='result' id='{own}'/>"
                );
                self.inside.say(&own).await;
            }
        }
        let body = "x".repeat(BYTES);
        let large = |stanza: String| stanza.replace("hello", &body);
        let theirs: String = (0..COUNT).map(|id| large(message(id))).collect();
        let own: String = (0..COUNT).map(|id| large(out(&id.to_string()))).collect();
        let Self {
            partner,
            theirs: mut their_stream,
            gateway,
            inside: mut own_stream,
        } = self;
        let server = partner.clone();
        tokio::spawn(async move {
            their_stream.say(&theirs).await;
            server.answers_pings(their_stream, "partner.example", "org.example");
        });
        let server = gateway.clone();
        tokio::spawn(async move {
            own_stream.say(&own).await;
            server.answers_pings(own_stream, "org.example", "partner.example");
        });
        for (server, first) in [
            (partner, ["first-1", "first-2"]),
            (gateway, ["1001", "1002"]),
        ] {
            server.heard_stanzas(2 + COUNT as usize).await;
            let all = first.map(str::to_owned).into_iter();
            let all: Vec<_> = all.chain((0..COUNT).map(|id| id.to_string())).collect();
            assert_eq!(server.ids(), all);
            assert_eq!(server.streams(), 1);
        }
    }
}

fn out(id: &str) -> String {
    outward("org.example", "partner.example", id)
}

#[tokio::test]
async fn two_streams_that_wait_for_each_other_s_answers_are_read_on_and_nothing_is_sent_twice() {
    let plan = Plan {
        queue_timeout_seconds: 2,
        gateway_confirms: Confirms::Nothing,
        partner_confirms: Confirms::Nothing,
        ..Plan::default()
    };
    let lab = Lab::start(44, plan).await;
    let circle = Circle {
        theirs: lab.partner_stream().await,
        inside: lab.inside_stream("org.example", "partner.example").await,
        partner: lab.partner.clone(),
        gateway: lab.gateway.clone(),
    };
    circle.comes_round().await;
}
