use std::time::{Duration, Instant};

use super::*;
use crate::sip::{
    code::StatusCode,
    method::SipMethod,
    share::SipShare,
    wire::{Framed, Framer, SipHeaders, SipRequest, SipResponse, StartLine},
};

const FIRST: LinkConnection = LinkConnection(1);
const SECOND: LinkConnection = LinkConnection(2);

fn headers(fields: &str) -> SipHeaders {
    let text = format!("OPTIONS sip:a SIP/2.0\r\n{fields}Content-Length: 0\r\n\r\n");
    match Framer::default().next(text.as_bytes()) {
        Ok(Some(Framed::Message {
            start: StartLine::Request { .. },
            headers,
            ..
        })) => headers,
        other => panic!("{fields}: {other:?}"),
    }
}

fn fields(branch: &str, tag: &str, cseq: &str) -> SipHeaders {
    headers(&format!(
        "Via: SIP/2.0/TLS h;branch={branch}\r\nFrom: <sip:a@b.example>;tag={tag}\r\n\
         To: <sip:c@d.example>\r\nCall-ID: i\r\nCSeq: {cseq}\r\n"
    ))
}

fn response(code: u16, branch: &str, method: &str) -> SipResponse {
    let code = StatusCode::new(code).expect("a code");
    SipResponse::read(code, fields(branch, "t", &format!("1 {method}"))).expect("well-formed")
}

fn request(branch: &str, tag: &str, cseq: u32) -> SipRequest {
    let headers = fields(branch, tag, &format!("{cseq} MESSAGE"));
    SipRequest::read(SipMethod::Message, "sip:c@d.example".to_owned(), headers).expect("right")
}

fn begin(
    open: &mut ClientTransactions<u8>,
    ticket: u8,
    connection: LinkConnection,
    expires: Instant,
) {
    let started = Started {
        branch: format!("z9hG4bK{ticket}").into(),
        method: SipMethod::Message,
        connection,
        at: expires,
        expires,
        ticket,
    };
    assert!(open.begin(started).is_ok());
}

#[test]
fn an_answer_is_whose_branch_and_method_it_names_and_the_final_one_counts_once() {
    let now = Instant::now();
    let later = now + Duration::from_secs(60);
    let mut open = ClientTransactions::default();
    begin(&mut open, 1, FIRST, later);
    begin(&mut open, 2, FIRST, later);
    assert_eq!(
        open.answer(&response(200, "z9hG4bK3", "MESSAGE")),
        Answered::Stray
    );
    assert_eq!(
        open.answer(&response(200, "z9hG4bK1", "NOTIFY")),
        Answered::Stray
    );
    assert_eq!(
        open.answer(&response(100, "z9hG4bK2", "MESSAGE")),
        Answered::Provisional
    );
    let found = open.answer(&response(404, "z9hG4bK2", "MESSAGE"));
    let code = StatusCode::new(404).expect("a code");
    let expected = Answered::Final {
        code,
        since: later,
        ticket: 2,
    };
    assert_eq!(found, expected);
    assert_eq!(
        open.answer(&response(200, "z9hG4bK2", "MESSAGE")),
        Answered::Stray
    );
    assert_eq!(open.len(), 1);
}

#[test]
fn a_branch_in_work_is_never_begun_again() {
    let mut open = ClientTransactions::default();
    begin(&mut open, 1, FIRST, Instant::now());
    let again = Started {
        branch: "z9hG4bK1".into(),
        method: SipMethod::Message,
        connection: SECOND,
        at: Instant::now(),
        expires: Instant::now(),
        ticket: 9,
    };
    assert_eq!(open.begin(again).err().map(|it| it.ticket), Some(9));
    assert_eq!(open.lost(FIRST), [1]);
}

#[test]
fn what_nobody_waits_for_ends_in_the_order_of_its_time() {
    let now = Instant::now();
    let at = |seconds| now + Duration::from_secs(seconds);
    let mut open = ClientTransactions::default();
    for (ticket, seconds) in [(1, 30), (2, 10), (3, 20), (4, 10)] {
        begin(&mut open, ticket, FIRST, at(seconds));
    }
    assert_eq!(open.next_deadline(), Some(at(10)));
    assert!(open.expired(at(9)).is_empty());
    assert_eq!(open.expired(at(20)), [2, 4, 3]);
    assert_eq!((open.next_deadline(), open.len()), (Some(at(30)), 1));
    let first = response(183, "z9hG4bK1", "MESSAGE");
    assert_eq!(open.ticket_mut(&first), Some(&mut 1));
    let stray = response(183, "z9hG4bK1", "INVITE");
    assert_eq!(open.ticket_mut(&stray), None);
    // A provisional answer gives no more time.
    assert_eq!(
        open.answer(&response(183, "z9hG4bK1", "MESSAGE")),
        Answered::Provisional
    );
    assert_eq!(open.expired(at(30)), [1]);
    assert!(open.is_empty() && open.next_deadline().is_none());
}

#[test]
fn sip_40_what_a_dead_connection_left_goes_on_in_its_order() {
    let later = Instant::now() + Duration::from_secs(60);
    let mut open = ClientTransactions::default();
    for ticket in 1..=6 {
        let connection = if ticket % 2 == 0 { SECOND } else { FIRST };
        begin(&mut open, ticket, connection, later);
    }
    let _ = open.answer(&response(200, "z9hG4bK3", "MESSAGE"));
    assert_eq!(open.lost(FIRST), [1, 5]);
    assert!(open.lost(FIRST).is_empty());
    assert_eq!(open.len(), 3);
    // Its answer may come over another connection.
    assert!(matches!(
        open.answer(&response(200, "z9hG4bK2", "MESSAGE")),
        Answered::Final { ticket: 2, .. }
    ));
}

#[test]
fn a_request_is_in_work_once_however_it_comes() {
    let now = Instant::now();
    let mut open = ServerTransactions::new(12);
    let arrive = |open: &mut ServerTransactions, branch: &str, tag: &str, cseq| {
        let share = SipShare::of(Some(tag));
        open.arrive(&request(branch, tag, cseq), FIRST, now, share)
    };
    let Arrival::New(number) = arrive(&mut open, "z9hG4bKa", "t", 1) else {
        panic!("not new");
    };
    assert_eq!(arrive(&mut open, "z9hG4bKa", "t", 1), Arrival::Again);
    assert_eq!(arrive(&mut open, "z9hG4bKb", "t", 1), Arrival::Merged);
    assert!(matches!(
        arrive(&mut open, "z9hG4bKb", "t", 2),
        Arrival::New(_)
    ));
    assert!(matches!(
        arrive(&mut open, "z9hG4bKc", "u", 1),
        Arrival::New(_)
    ));
    let asked = open.finish(number).expect("in work");
    assert_eq!(
        (asked.method, asked.connection),
        (SipMethod::Message, FIRST)
    );
    assert_eq!(open.finish(number), None);
    assert!(
        matches!(arrive(&mut open, "z9hG4bKe", "t", 1), Arrival::New(_)),
        "it is another one"
    );
}

#[test]
fn one_partner_has_a_quarter_of_the_requests_in_work_and_the_others_are_taken_on() {
    let now = Instant::now();
    let mut open = ServerTransactions::new(8);
    let arrive = |open: &mut ServerTransactions, branch: &str, partner: &str| {
        let share = SipShare::of(Some(partner));
        open.arrive(&request(branch, branch, 1), FIRST, now, share)
    };
    let mut taken = Vec::new();
    for partner in ["a", "b", "c", "d"] {
        for number in 0..2 {
            match arrive(&mut open, &format!("z9hG4bK{partner}{number}"), partner) {
                Arrival::New(number) => taken.push(number),
                other => panic!("{partner} {number}: {other:?}"),
            }
        }
        assert_eq!(
            arrive(&mut open, &format!("z9hG4bK{partner}more"), partner),
            Arrival::Full
        );
    }
    assert!(open.is_full());
    assert_eq!(arrive(&mut open, "z9hG4bKe", "e"), Arrival::Full);
    assert!(open.finish(taken[0]).is_some());
    assert_eq!(arrive(&mut open, "z9hG4bKbmore", "b"), Arrival::Full);
    assert!(matches!(
        arrive(&mut open, "z9hG4bKamore", "a"),
        Arrival::New(_)
    ));
}

#[test]
fn a_connection_has_work_until_its_last_request_is_answered() {
    let now = Instant::now();
    let mut open = ServerTransactions::new(3);
    let arrivals = [
        ("z9hG4bKa", FIRST),
        ("z9hG4bKb", FIRST),
        ("z9hG4bKc", SECOND),
    ];
    let numbers = arrivals.map(|(branch, connection)| {
        let (request, share) = (request(branch, branch, 1), SipShare::of(Some(branch)));
        match open.arrive(&request, connection, now, share) {
            Arrival::New(number) => number,
            other => panic!("{branch}: {other:?}"),
        }
    });
    for number in &numbers[..2] {
        assert!(open.are_on(FIRST) && open.are_on(SECOND));
        assert!(open.finish(*number).is_some());
    }
    assert!(!open.are_on(FIRST) && open.are_on(SECOND));
}

#[test]
fn sip_50_who_waits_is_told_once_and_not_after_the_end() {
    let now = Instant::now();
    let at = |millis| now + Duration::from_millis(millis);
    let mut open = ServerTransactions::new(12);
    let mut arrive = |branch: &str, cseq, millis| match open.arrive(
        &request(branch, "t", cseq),
        FIRST,
        at(millis),
        SipShare::of(None),
    ) {
        Arrival::New(number) => number,
        other => panic!("{other:?}"),
    };
    let first = arrive("z9hG4bKa", 1, 0);
    let _second = arrive("z9hG4bKb", 2, 100);
    let _third = arrive("z9hG4bKc", 3, 200);
    assert_eq!(open.next_deadline(), Some(at(3_500)));
    assert!(open.due(at(3_499)).is_empty());
    let _ = open.finish(first);
    assert_eq!(open.due(at(3_600)).len(), 1);
    assert!(open.due(at(3_600)).is_empty());
    assert_eq!(open.next_deadline(), Some(at(3_700)));
    assert_eq!(open.lost(SECOND), 0);
    assert_eq!(open.lost(FIRST), 2);
    assert!(open.is_empty() && open.next_deadline().is_none());
}
