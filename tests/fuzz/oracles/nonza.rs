//! What must hold for any bytes that stand on a trunk, whoever wrote them.

use std::sync::Arc;

use xmpp_edge_proxy::{
    routing::acknowledgement::{AckToken, MovedPairs},
    trunk::{
        ack_schedule::AckSchedule,
        nonza::{MOST_COUNTS, Nonza},
        receiving::ReceivedPairs,
    },
    xml::{Element, Item, Limits, Scanner, StreamHeader},
};

const HEADER: &[u8] =
    b"<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' \
    version='1.0'>";

/// What is read as a nonza is written so that it is read the same; an element is told apart or refused
/// with words; and of the pairs that are opened no more is acknowledged than came.
pub fn check(data: &[u8]) {
    let Some((mut scanner, header)) = begun() else {
        panic!("a right header");
    };
    scanner.skip_faulty();
    let mut pairs = ReceivedPairs::new(Arc::new(MovedPairs::default()));
    let mut schedule = AckSchedule::default();
    let now = std::time::Instant::now();
    let mut taken = 0;
    let mut rest = data;
    while let Ok(Some(item)) = scanner.next(rest) {
        let len = item.len();
        match item {
            Item::Other(other) => {
                let element = Element::parse(other.bytes, &header).expect("the scanner checked it");
                match Nonza::read(&element) {
                    Ok(nonza) => {
                        assert_eq!(again(&nonza), Ok(nonza.clone()));
                        follow(nonza, &mut pairs, &mut schedule);
                    }
                    Err(error) => assert!(!error.to_string().is_empty()),
                }
            }
            Item::Stanza(stanza) => {
                let domains = stanza.from.as_deref().zip(stanza.to.as_deref());
                let number = domains.and_then(|(from, to)| pairs.number(from, to));
                if let Some(number) = number
                    && let Some(first) = pairs.receive(number)
                    && let Some(pair) = pairs.get(number)
                {
                    taken += 1;
                    let ledger = Arc::clone(pair.tracker());
                    AckToken {
                        ledger,
                        first,
                        count: 1,
                    }
                    .settle();
                    schedule.moved(now);
                }
            }
            _ => {}
        }
        rest = &rest[len..];
    }
    let mut told = 0;
    while let Some(ack) = schedule.ack(&mut pairs, now, true) {
        assert!(ack.counts.len() <= MOST_COUNTS);
        told += ack
            .counts
            .iter()
            .map(|count| u64::from(count.h))
            .sum::<u64>();
    }
    assert!(
        told <= taken && pairs.unacknowledged() == 0,
        "{told} of {taken}"
    );
}

fn follow(nonza: Nonza, pairs: &mut ReceivedPairs<()>, schedule: &mut AckSchedule) {
    match nonza {
        Nonza::Pair(opened) => {
            let (number, pair) = (opened.number, opened.pair.clone());
            if pairs.open(opened, ()).is_ok() {
                let found = pairs.number(pair.from.as_str(), pair.to.as_str());
                assert_eq!(found, Some(number));
            }
        }
        Nonza::End(number) => {
            let ended = pairs.end(number).is_ok();
            assert!(!ended || pairs.get(number).is_none());
        }
        Nonza::Request(number) => schedule.asked(number),
        _ => {}
    }
}

fn again(nonza: &Nonza) -> Result<Nonza, String> {
    let mut bytes = Vec::new();
    nonza.write(&mut bytes);
    let (mut scanner, header) = begun().ok_or("no header")?;
    match scanner.next(&bytes) {
        Ok(Some(Item::Other(other))) if other.bytes.len() == bytes.len() => {
            let element =
                Element::parse(other.bytes, &header).map_err(|error| error.to_string())?;
            Nonza::read(&element).map_err(|error| error.to_string())
        }
        other => Err(format!("{}: {other:?}", String::from_utf8_lossy(&bytes))),
    }
}

fn begun() -> Option<(Scanner, Arc<StreamHeader>)> {
    let mut scanner = Scanner::new(Limits::default());
    match scanner.next(HEADER) {
        Ok(Some(Item::Header { header, .. })) => Some((scanner, header)),
        _ => None,
    }
}
