//! For everybody: axe-core finds nothing, in light and in dark colours, with details open. The pictures of
//! the documentation are taken on the way.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use xmpp_edge_tests::rig::ALICE;

use super::{RIG, page, row_says};

/// Writes the pictures of `docs/images` anew.
const UPDATE: &str = "UPDATE_SCREENSHOTS";

/// axe-core as a text, got by `tests/browser/build`.
fn axe() -> Result<String> {
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser/build");
    let told = Command::new(build).arg("--where").output()?;
    let place = String::from_utf8(told.stdout)?;
    let path = Path::new(place.trim()).join("node_modules/axe-core/axe.min.js");
    fs::read_to_string(&path).with_context(|| format!("no {}: make tools", path.display()))
}

#[test]
fn axe_finds_nothing_in_light_and_dark_with_details_open() {
    RIG.test(9, async |s| {
        let mut browser = page(s, "").await?;
        browser.bypass_policy().await?;
        let mut inside = s.inside().await?;
        // No such domain.
        inside.message(ALICE, &s.user("rob"), &s.fresh(), "hello").await?;
        browser.open("about:blank").await?;
        super::open(&mut browser, s, &format!("#filter=page&open=default/{}", s.name)).await?;
        row_says(&mut browser, s, "Failing").await?;
        browser.until("document.querySelector('tr.details .remedy')").await?;
        browser.evaluate(&axe()?).await?;
        for (dark, name) in [(false, "status-page.png"), (true, "status-page-dark.png")] {
            browser.prefer_dark(dark).await?;
            let run = "axe.run(document).then((found) => found.violations.map((one) => \
                `${one.id}: ${one.help}: ${one.nodes.slice(0, 3).map((node) => node.html).join(' | ')}`))";
            let found = browser.evaluate(run).await?;
            ensure!(found.as_array().is_some_and(Vec::is_empty), "dark: {dark}: {found:#}");
            if std::env::var_os(UPDATE).is_some() {
                let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/images");
                fs::create_dir_all(&folder)?;
                fs::write(folder.join(name), browser.screenshot().await?)?;
            }
        }
        Ok(())
    });
}
