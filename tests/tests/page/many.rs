//! A thousand partners: what is not seen is not made, and what did not change is not made again.

use anyhow::ensure;
use serde_json::json;
use xmpp_edge_tests::edge::manifest;

use super::{QUIET, RIG, ensure_no_complaints, page};

#[test]
fn a_thousand_partners_are_found_and_one_that_changes_touches_no_other_row() {
    RIG.test(8, async |s| {
        let mut browser = page(s, "#sort=name").await?;
        let rows = "document.querySelectorAll('#partners-body tr').length";
        browser.until(&format!("{rows} === 200")).await?;
        let count = browser
            .evaluate("document.getElementById('count').textContent")
            .await?;
        // Those of the tests, and the good one.
        let all = QUIET + 21;
        ensure!(
            count
                .to_string()
                .contains(&format!("of {},{:03}", all / 1000, all % 1000)),
            "{count}"
        );
        browser
            .evaluate("document.getElementById('more').click()")
            .await?;
        browser.until(&format!("{rows} === 400")).await?;
        let remember = "window.rows = new Map([...document.querySelectorAll('#partners-body tr')]\
            .map((row) => [row.innerText.split('\\t')[0], row])); window.rows.size";
        ensure!(browser.evaluate(remember).await? == 400);
        let spec =
            json!({"domain": "q0003.example", "partnerType": "Federated", "suspended": true});
        let edit = manifest("XmppFederatedPartner", "quiet-0003", spec);
        s.rig.edge.lock().await.apply(&edit)?;
        browser
            .until("[...document.querySelectorAll('.Suspended')].length > 0")
            .await?;
        let same = "[...document.querySelectorAll('#partners-body tr')]\
            .filter((row) => window.rows.get(row.innerText.split('\\t')[0]) === row).length";
        let same = browser.evaluate(same).await?.as_u64().unwrap();
        // The other tests of this rig change theirs meanwhile.
        ensure!(same >= 400 - 12, "{same} rows of 400 are those of before");
        ensure_no_complaints(&browser.complaints())
    });
}
