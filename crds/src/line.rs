//! What may stand in a line that people read, when somebody else chose its words.

/// Whether a character hides or moves what is written beside it: controls, what has no width, what turns the
/// direction of writing (Unicode Bidirectional Algorithm, UAX #9), line breaks of Unicode's own, and tags.
#[must_use]
pub fn steers(one: char) -> bool {
    one.is_control()
        || matches!(
            one,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_or_moves_its_neighbours_is_told_from_letters_of_all_scripts() {
        let steering = "\n\t\u{1b}\u{85}\u{61c}\u{200b}\u{200f}\u{2028}\u{202e}\u{2066}\u{2069}\u{feff}\u{e0041}";
        assert!(steering.chars().all(steers));
        let plain = "aß é中אب 👩🏽 \u{a0}-\u{2013}…";
        assert_eq!(plain.chars().find(|it| steers(*it)), None);
    }
}
