//! What a peer answers on a stream that is left unread is no silence of the peer's. The partner answers pings
//! on a stream of its own, as Prosody does; the server inside lives and takes nothing, so that this stream is
//! not read, and the answer stands in it behind stanzas.

use crate::peers::{Confirms, Lab, Plan, Stream, message, outward};

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
    async fn begin(number: u8, queue_timeout_seconds: u32) -> Self {
        let plan = Plan {
            queue_timeout_seconds,
            gateway_acks: true,
            partner_confirms: Confirms::Nothing,
            ..Plan::default()
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
    let mut own = UnreadAnswer::begin(40, 4).await;
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

#[tokio::test]
async fn an_answer_that_is_left_unread_is_not_waited_for_for_ever() {
    let mut own = UnreadAnswer::begin(41, 1).await;
    while own.lab.partner.ids().len() < 3 {
        own.asked(0).await;
    }
    assert_eq!(own.lab.partner.ids(), ["one", "two", "two"]);
}
