//! Every unit in the documents is one that systemd takes as it stands (`systemd-analyze verify`), with the
//! programs where they were built.

use std::{fs, process::Command};

use xmpp_edge_tests::edge;

use super::{documents, split, texts};

/// Where the documents have the programs.
const INSTALLED: &str = "/usr/local/bin/";
const ANALYZE: &str = "/usr/bin/systemd-analyze";

/// What systemd says of a unit; nothing where it is right.
fn verify(unit: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let built = edge::binary().unwrap();
    let built = format!("{}/", built.parent().unwrap().display());
    let path = folder.path().join("checked.service");
    fs::write(&path, unit.replace(INSTALLED, &built)).unwrap();
    let output = Command::new(ANALYZE)
        .arg("verify")
        .arg(&path)
        .output()
        .unwrap();
    // It takes what it does not know, and says so.
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Files with keys are the user's of the program, mode 0600: it is one that is there before they are.
#[test]
fn every_unit_runs_as_a_user_that_its_page_makes() {
    let mut checked = 0;
    for (path, text) in texts() {
        let (_, blocks) = split(&text);
        let units = blocks.iter().filter(|it| it.text.contains("[Service]"));
        for unit in units {
            let mut lines = unit.text.lines();
            let user = lines.find_map(|line| line.strip_prefix("User="));
            let user = user.unwrap_or_else(|| panic!("{}: no User=", path.display()));
            let made = format!("`useradd --system {user}`");
            assert!(text.contains(&made), "{}: {made}", path.display());
            checked += 1;
        }
    }
    assert!(checked >= 2, "the documents are read wrongly");
}

#[test]
fn every_unit_is_one_that_systemd_takes() {
    if !std::path::Path::new(ANALYZE).exists() {
        eprintln!("skipped: there is no {ANALYZE} here");
        return;
    }
    let mut checked = 0;
    for (path, blocks) in documents() {
        for block in blocks {
            if block.info == "ini" && block.text.contains("[Service]") {
                assert_eq!(verify(&block.text), "", "{}", path.display());
                let wrong = block.text.replace("Restart=", "Restrt=");
                assert!(verify(&wrong).contains("Restrt"), "it is not looked at");
                checked += 1;
            }
        }
    }
    assert!(checked >= 2, "the documents are read wrongly");
}
