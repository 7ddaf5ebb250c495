//! How lists stand in messages.

use std::collections::BTreeSet;

/// Some of a list, readable however long it is.
pub(crate) fn listed<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: BTreeSet<String> = items
        .into_iter()
        .map(|item| item.as_ref().to_owned())
        .collect();
    let shown: Vec<&str> = items.iter().take(5).map(String::as_str).collect();
    match items.len() {
        0 => "none".to_owned(),
        count if count > 5 => format!("{} and {} more", shown.join(", "), count - 5),
        _ => shown.join(", "),
    }
}
