//! Pairs of one partner on one stream.

use crate::peers::{Lab, Plan, Second, Stream, outward};

/// Sender and target.
type Pair = (&'static str, &'static str);

const FIRST: Pair = ("org.example", "partner.example");
const OTHER_SENDER: Pair = ("org2.example", "partner.example");
const OTHER_TARGET: Pair = ("org.example", "partner2.example");

/// A server inside, on its stream for one pair.
struct Voice {
    stream: Stream,
    pair: Pair,
}

impl Voice {
    async fn of(lab: &Lab, pair: Pair) -> Self {
        Self {
            stream: lab.inside_stream(pair.0, pair.1).await,
            pair,
        }
    }

    /// Sends a message with this id.
    async fn say(&mut self, id: &str) {
        let message = outward(self.pair.0, self.pair.1, id);
        self.stream.say(&message).await;
    }
}

/// Two pairs on one stream, which has carried `a0` and `b0`.
async fn two_on_one(lab: &Lab) -> (Voice, Voice) {
    let mut first = Voice::of(lab, FIRST).await;
    let mut second = Voice::of(lab, OTHER_TARGET).await;
    first.say("a0").await;
    lab.partner.heard_stanzas(1).await;
    second.say("b0").await;
    lab.partner.heard_stanzas(2).await;
    assert_eq!(lab.partner.streams(), 1);
    (first, second)
}

/// The second pair comes to belong to a partner object of its own: their stream ends.
async fn belong_to_two_objects(lab: &Lab) {
    lab.change(|config| {
        let mut other = config.partners[0].clone();
        other.name = "other".to_owned();
        other.domains.remove(0);
        config.partners[0].domains.truncate(1);
        config.partners.push(other);
    });
    lab.partner.hears("</stream:stream>").await;
}

/// Ids `{name}0`, `{name}1`, … that came, in their order.
fn ids_of(lab: &Lab, name: &str) -> Vec<String> {
    let mut ids = lab.partner.ids();
    ids.retain(|id| id.starts_with(name));
    ids
}

#[tokio::test]
async fn further_senders_and_targets_join_the_stream_that_stands() {
    let lab = Lab::start(8, Plan::default()).await;
    let mut count = 0;
    for from in ["org.example", "org2.example"] {
        for to in ["partner.example", "partner2.example"] {
            let mut inside = Voice::of(&lab, (from, to)).await;
            inside.say(&count.to_string()).await;
            count += 1;
            lab.partner.heard_stanzas(count).await;
        }
    }
    assert_eq!(lab.partner.ids(), ["0", "1", "2", "3"]);
    assert_eq!(lab.partner.streams(), 1);
    lab.stop().await;
}

#[tokio::test]
async fn pairs_that_need_a_stream_at_the_same_time_share_it() {
    let lab = Lab::start(9, Plan::default()).await;
    let mut first = Voice::of(&lab, FIRST).await;
    let mut second = Voice::of(&lab, OTHER_SENDER).await;
    let mut third = Voice::of(&lab, OTHER_TARGET).await;
    first.say("a").await;
    second.say("b").await;
    third.say("c").await;
    lab.partner.heard_stanzas(3).await;
    assert_eq!(lab.partner.streams(), 1);
    lab.stop().await;
}

#[tokio::test]
async fn a_pair_that_is_refused_dials_its_own_and_harms_nobody() {
    let plan = Plan {
        partner_on_second: Second::Error,
        ..Plan::default()
    };
    let lab = Lab::start(10, plan).await;
    let mut first = Voice::of(&lab, FIRST).await;
    first.say("a0").await;
    lab.partner.heard_stanzas(1).await;
    let mut second = Voice::of(&lab, OTHER_SENDER).await;
    for id in ["b0", "b1", "b2"] {
        second.say(id).await;
        let id = id.replace('b', "a1");
        first.say(&id).await;
    }
    lab.partner.heard_stanzas(7).await;
    assert_eq!(ids_of(&lab, "a"), ["a0", "a10", "a11", "a12"]);
    assert_eq!(ids_of(&lab, "b"), ["b0", "b1", "b2"]);
    assert_eq!(lab.partner.streams(), 2);
    // It dies: the refusal is remembered, nothing is asked again.
    lab.partner.hang_up(2).await;
    second.say("b3").await;
    lab.partner.hears("id='b3'").await;
    let asked = lab
        .partner
        .heard_times("<db:result from='org2.example' to='partner.example'>");
    assert_eq!(asked, 3, "on the shared stream, on its own, on its next");
    lab.stop().await;
}

#[tokio::test]
async fn a_late_yes_to_a_pair_that_has_dialled_changes_nothing() {
    let plan = Plan {
        partner_on_second: Second::Silence,
        queue_timeout_seconds: 4,
        ..Plan::default()
    };
    let lab = Lab::start(14, plan).await;
    let mut first = Voice::of(&lab, FIRST).await;
    first.say("a0").await;
    lab.partner.heard_stanzas(1).await;
    let mut second = Voice::of(&lab, OTHER_SENDER).await;
    second.say("b0").await;
    lab.partner.heard_stanzas(2).await;
    assert_eq!(lab.partner.streams(), 2);
    lab.partner
        .say(
            1,
            "<db:result from='partner.example' to='org2.example' type='valid'/>",
        )
        .await;
    for id in ["b1", "b2"] {
        second.say(id).await;
        lab.partner.hears(&format!("id='{id}'")).await;
    }
    // Its own stream dies: the shared one lives, and what waits is carried once.
    lab.partner.hang_up(2).await;
    second.say("b3").await;
    lab.partner.hears("id='b3'").await;
    let ids = ids_of(&lab, "b");
    assert_eq!(ids[..3], ["b0", "b1", "b2"]);
    // What it had not confirmed may have come once more before it.
    assert_eq!(ids.last().map(String::as_str), Some("b3"));
    lab.stop().await;
}

#[tokio::test]
async fn when_a_shared_stream_dies_each_pair_sends_again_what_was_not_acknowledged() {
    let plan = Plan {
        partner_acks: true,
        ..Plan::default()
    };
    let lab = Lab::start(11, plan).await;
    let mut first = Voice::of(&lab, FIRST).await;
    let mut second = Voice::of(&lab, OTHER_SENDER).await;
    let mut sent = 0;
    for id in 0..3 {
        first.say(&format!("a{id}")).await;
        sent += 1;
        lab.partner.heard_stanzas(sent).await;
        second.say(&format!("b{id}")).await;
        sent += 1;
        lab.partner.heard_stanzas(sent).await;
    }
    assert_eq!(lab.partner.streams(), 1);
    // a0, b0 and a1 are handled: the count is the stream's, over its pairs.
    lab.partner.say(1, "<a xmlns='urn:xmpp:sm:3' h='3'/>").await;
    // The next question shows that the answer was read.
    lab.partner.hears_times("<r xmlns", 2).await;
    lab.partner.hang_up(1).await;
    lab.partner.heard_stanzas(sent + 3).await;
    assert_eq!(ids_of(&lab, "a"), ["a0", "a1", "a2", "a2"]);
    assert_eq!(ids_of(&lab, "b"), ["b0", "b1", "b2", "b1", "b2"]);
    assert_eq!(lab.partner.streams(), 2, "they share the next one too");
    lab.partner.say(2, "<a xmlns='urn:xmpp:sm:3' h='3'/>").await;
    lab.stop().await;
}

#[tokio::test]
async fn a_pair_that_becomes_forbidden_ends_its_stream_and_the_others_go_on() {
    let plan = Plan {
        partner_acks: true,
        ..Plan::default()
    };
    let lab = Lab::start(12, plan).await;
    let _voices = two_on_one(&lab).await;
    lab.change(|config| config.partners[0].domains.truncate(1));
    lab.partner.hears("policy-violation").await;
    lab.partner.connected(2).await;
    lab.partner.heard_stanzas(3).await;
    assert_eq!(ids_of(&lab, "a"), ["a0", "a0"], "it was not acknowledged");
    assert_eq!(
        ids_of(&lab, "b"),
        ["b0"],
        "nothing more for who is forbidden"
    );
    lab.gateway.hears("not-allowed").await;
    lab.partner.say(2, "<a xmlns='urn:xmpp:sm:3' h='1'/>").await;
    lab.stop().await;
}

#[tokio::test]
async fn pairs_that_come_to_belong_to_two_partner_objects_share_no_longer() {
    let lab = Lab::start(13, Plan::default()).await;
    let (mut first, mut second) = two_on_one(&lab).await;
    belong_to_two_objects(&lab).await;
    first.say("a1").await;
    second.say("b1").await;
    lab.partner.heard_stanzas(4).await;
    assert_eq!(lab.partner.streams(), 3);
    lab.stop().await;
}

/// What the peer has got of a stream that we end is not sent again on the next (XEP-0198 section 4).
#[tokio::test]
async fn what_is_acknowledged_after_our_end_of_a_stream_goes_once() {
    let plan = Plan {
        partner_acks: true,
        ..Plan::default()
    };
    let lab = Lab::start(57, plan).await;
    let (mut first, mut second) = two_on_one(&lab).await;
    belong_to_two_objects(&lab).await;
    let last = "<a xmlns='urn:xmpp:sm:3' h='2'/></stream:stream>";
    lab.partner.say(1, last).await;
    first.say("a1").await;
    second.say("b1").await;
    lab.partner
        .comes(["a1", "b1"].map(str::to_owned).iter())
        .await;
    assert_eq!(ids_of(&lab, "a"), ["a0", "a1"]);
    assert_eq!(ids_of(&lab, "b"), ["b0", "b1"]);
    for stream in [2, 3] {
        let ack = "<a xmlns='urn:xmpp:sm:3' h='1'/>";
        lab.partner.say(stream, ack).await;
    }
    lab.stop().await;
}
