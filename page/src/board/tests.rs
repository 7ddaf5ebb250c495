#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

struct Nothing;

impl Look for Nothing {
    fn look(&self) -> Contents {
        Contents::default()
    }
}

fn board() -> Arc<Board> {
    Board::new(Arc::new(Nothing))
}

fn partners(of: impl IntoIterator<Item = (u32, String)>) -> Contents {
    let mut contents = Contents::default();
    for (number, text) in of {
        contents.add(Section::Partner, format!("ns/p{number:05}"), &json!(text));
    }
    contents
}

/// What a browser makes of updates: as `assets/board.js` does.
#[derive(Default, Debug, PartialEq)]
struct Browser(BTreeMap<(String, String), Value>);

impl Browser {
    fn hear(&mut self, text: &str) {
        let update: Value = serde_json::from_str(text).unwrap();
        if update["whole"] == true {
            self.0.clear();
        }
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        for gone in update["gone"].as_array().into_iter().flatten() {
            self.0.remove(&(text(&gone[0]), text(&gone[1])));
        }
        for record in update["records"].as_array().unwrap() {
            let key = (text(&record[0]), text(&record[1]));
            self.0.insert(key, record[2].clone());
        }
    }

    fn hear_all(&mut self, board: &Board, listener: &mut Listener) -> usize {
        let mut portions = 0;
        while let Some(text) = board.next(listener) {
            self.hear(&text);
            portions += 1;
        }
        portions
    }
}

#[test]
fn what_changed_and_what_went_is_told_and_nothing_else() {
    let board = board();
    let mut listener = board.listen().unwrap();
    let texts = |of: &[(u32, &str)]| partners(of.iter().map(|(n, text)| (*n, (*text).to_owned())));
    board.shown.lock().show(texts(&[(1, "a"), (2, "a")]));
    let mut browser = Browser::default();
    browser.hear_all(&board, &mut listener);
    assert_eq!(browser.0.len(), 2);
    board.shown.lock().show(texts(&[(1, "a"), (2, "a")]));
    assert_eq!(board.next(&mut listener), None, "nothing changed");
    board.shown.lock().show(texts(&[(2, "b"), (3, "a")]));
    let told = board.next(&mut listener).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&told).unwrap(),
        json!({"whole": false, "gone": [["partner", "ns/p00001"]], "more": false,
            "records": [["partner", "ns/p00002", "b"], ["partner", "ns/p00003", "a"]]})
    );
    assert_eq!(board.next(&mut listener), None);
}

#[test]
fn a_portion_has_an_end_whatever_there_is_to_tell() {
    let board = board();
    let mut listener = board.listen().unwrap();
    let text = "x".repeat(500);
    board
        .shown
        .lock()
        .show(partners((0..10_000).map(|n| (n, text.clone()))));
    let mut browser = Browser::default();
    let mut portions = 0;
    while let Some(told) = board.next(&mut listener) {
        assert!(told.len() <= PORTION + 1_000, "{}", told.len());
        browser.hear(&told);
        portions += 1;
    }
    assert!(portions > 50, "{portions}");
    assert_eq!(browser.0.len(), 10_000);
}

/// A browser that reads one portion while the board changes many times has a place, and no queue; in the
/// end it shows what is so.
#[test]
fn who_reads_slowly_holds_nothing_up_and_ends_with_what_is_so() {
    let board = board();
    let mut slow = board.listen().unwrap();
    let mut browser = Browser::default();
    let text = "x".repeat(400);
    for round in 0..400_u32 {
        // Some change, some go, some come again.
        let live = (0..700).filter(|number| (number + round) % 7 != 0);
        let contents = partners(live.map(|number| (number, format!("{}{text}", round / 3))));
        board.shown.lock().show(contents);
        if let Some(told) = board.next(&mut slow) {
            browser.hear(&told);
        }
        assert!(board.shown.lock().gone.len() <= GONE);
    }
    browser.hear_all(&board, &mut slow);
    let mut fresh = Browser::default();
    fresh.hear_all(&board, &mut board.listen().unwrap());
    assert_eq!(browser, fresh);
    assert_eq!(fresh.0.len(), 600);
}

#[test]
fn one_more_than_may_follow_has_no_place_until_one_leaves() {
    let board = board();
    let mut all: Vec<_> = (0..LISTENERS).map(|_| board.listen().unwrap()).collect();
    assert!(board.listen().is_none());
    all.pop();
    assert!(board.listen().is_some());
}

#[test]
fn keys_and_texts_of_peers_stay_what_they_are() {
    let board = board();
    let mut listener = board.listen().unwrap();
    let hostile = "</script>\"]\n\u{202e}\u{0}]";
    let mut contents = Contents::default();
    contents.add(Section::Partner, hostile, &json!({"text": hostile}));
    board.shown.lock().show(contents);
    let mut browser = Browser::default();
    let told = board.next(&mut listener).unwrap();
    assert!(!told.contains('\n'), "a line of an event: {told}");
    browser.hear(&told);
    let key = ("partner".to_owned(), hostile.to_owned());
    assert_eq!(browser.0[&key]["text"], hostile);
}
