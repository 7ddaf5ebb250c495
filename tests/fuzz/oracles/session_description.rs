//! What must hold for any body of an INVITE or an INFO in a session of messages.

use xmpp_edge_proxy::sip::{
    body::Typing,
    session::{ACTIVITY_TYPE, SessionDescription, TypingForm, read_activity, write_activity},
};

/// An offer is answered exactly where it has messages. The answer is a description of as many media, of which one is
/// taken, and no line of it is anybody else's. What an INFO says of typing is one of two things, said again the same.
pub fn check(data: &[u8]) {
    if let Some(typing) = read_activity(Some(ACTIVITY_TYPE), data) {
        let again = read_activity(Some(ACTIVITY_TYPE), write_activity(typing).as_bytes());
        assert_eq!(again, Some(typing));
        assert!(matches!(
            typing,
            Typing::Idle | Typing::Active { refresh: 1..=3_600 }
        ));
    }
    let Ok(offered) = SessionDescription::read(data) else {
        return;
    };
    let answer = offered.answer("edge.example", "sip:rob@partner.example");
    assert_eq!(answer.is_some(), offered.messages().is_some());
    let Some(answer) = answer else {
        return;
    };
    let read = SessionDescription::read(answer.as_bytes()).expect("ours");
    assert_eq!(read.messages(), Some(TypingForm::Composing));
    let media = |text: &str| text.lines().filter(|line| line.starts_with("m=")).count();
    let text = String::from_utf8_lossy(data);
    assert_eq!(media(&answer), media(&text));
    let taken = "m=message 5060 sip sip:rob@partner.example";
    let taken_before = "m=x-ms-message 5060 sip sip:rob@partner.example";
    let lines: Vec<String> = answer.lines().map(str::to_ascii_lowercase).collect();
    let is_taken = |line: &&String| [taken, taken_before].contains(&line.as_str());
    assert_eq!(lines.iter().filter(is_taken).count(), 1, "{answer}");
    let others = lines
        .iter()
        .filter(|line| line.starts_with("m=") && !is_taken(line));
    for line in others {
        assert_eq!(line.split(' ').nth(1), Some("0"), "{line}");
    }
}
