//! The table of classes of failure in the guide is that of the tests which provoke them.

use xmpp_edge_tests::failure_class;

#[test]
fn the_guide_has_the_classes_of_failure_that_are_provoked() {
    let guide = include_str!("../../../docs/guide/troubleshooting.md");
    let section = guide.split("## Where a failure is told").nth(1).unwrap();
    let rows: Vec<&str> = section
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(2)
        .collect();
    let expected: Vec<String> = failure_class::ALL
        .iter()
        .map(|class| {
            format!(
                "| {} | `{}` | `{}` |",
                class.name, class.step, class.outcome
            )
        })
        .collect();
    assert_eq!(rows, expected);
}
