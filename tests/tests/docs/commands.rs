//! Every command line in the documents is one that its program takes: of our own programs, of kubectl
//! and of helm. Each is run with `--help` at its end, so that it is parsed and does nothing.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Output},
};

use xmpp_edge_tests::{
    cluster::{Helm, Kubectl, Major, Missing, skip},
    edge,
};

use super::{split, texts};

const PROGRAMS: [&str; 4] = ["xmpp-edge-operator", "xmpp-edge-proxy", "kubectl", "helm"];

/// The commands of a line as a shell would split them; what is redirected is left out.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    let (mut word, mut quote, mut redirected) = (None::<String>, None, false);
    for c in line.chars().chain([' ']) {
        let ends = quote.is_none() && (c.is_whitespace() || "|><;&()".contains(c));
        if !ends {
            match quote {
                Some(open) if c == open => quote = None,
                None if c == '\'' || c == '"' => {
                    quote = Some(c);
                    word.get_or_insert_default();
                }
                _ => word.get_or_insert_default().push(c),
            }
            continue;
        }
        let ended = word.take().filter(|_| !redirected);
        all.last_mut().expect("there is one").extend(ended);
        match c {
            '>' | '<' => redirected = true,
            '|' | ';' | '&' | '(' | ')' => {
                redirected = false;
                all.push(Vec::new());
            }
            _ => {}
        }
    }
    for words in &mut all {
        // `# what follows is for the reader`
        let end = words.iter().position(|word| word == "#");
        words.truncate(end.unwrap_or(words.len()));
    }
    all
}

/// The commands of a line that are checked: program and arguments.
fn checked(line: &str) -> Vec<(&'static str, Vec<String>)> {
    let line = line.trim().trim_start_matches("$ ");
    let line = line.strip_prefix("ExecStart=").unwrap_or(line);
    let known = |words: Vec<String>| {
        let name = Path::new(words.first()?).file_name()?.to_str()?;
        let program = PROGRAMS.into_iter().find(|it| *it == name)?;
        let arguments = words[1..].to_vec();
        (!arguments.is_empty()).then_some((program, arguments))
    };
    commands(line).into_iter().filter_map(known).collect()
}

/// How a command line stands in a document: to be typed as it is, or named in a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Block,
    Sentence,
}

/// Lines of blocks, continued ones joined; and what stands in backticks in the prose and is no
/// pattern of command lines, as a table of options is.
fn lines(document: &str) -> Vec<(Place, String)> {
    let (prose, blocks) = split(document);
    let mut lines: Vec<(Place, String)> = blocks
        .iter()
        .flat_map(|block| {
            let joined = block.text.replace("\\\n", " ");
            joined
                .lines()
                .map(|line| (Place::Block, line.to_owned()))
                .collect::<Vec<_>>()
        })
        .collect();
    let prose = prose.replace("\\|", "|");
    let inline = prose
        .lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2));
    lines.extend(
        inline
            .filter(|code| !code.contains(['[', '…']))
            .map(|code| (Place::Sentence, code.to_owned())),
    );
    lines
}

/// Runs it with `--help` at its end; `Err` where the program is not here.
fn parsed(program: &str, arguments: &[String]) -> Result<Output, Missing> {
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    arguments.push("--help");
    Ok(match program {
        "kubectl" => Kubectl::offline()?.output(&arguments, "").unwrap(),
        "helm" => {
            let home = tempfile::tempdir().unwrap();
            let helm = Helm::offline(Major::Four, home.path().to_owned())?;
            helm.output(&arguments).unwrap()
        }
        own => {
            let path = edge::binary().unwrap().with_file_name(own);
            Command::new(path).args(arguments).output().unwrap()
        }
    })
}

/// What clap's usage line asks for and the arguments do not have. Others' programs say it otherwise.
fn missing(usage: &str, arguments: &[String]) -> Vec<String> {
    let line = usage
        .lines()
        .find_map(|line| line.trim().strip_prefix("Usage: "));
    let Some((_, wanted)) = line.and_then(|line| line.split_once("[OPTIONS]")) else {
        return Vec::new();
    };
    let wanted = wanted.split_whitespace();
    wanted
        .filter(|word| word.starts_with("--") && !arguments.iter().any(|it| it == word))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_command_line_is_one_that_its_program_takes() {
    let mut found = BTreeMap::new();
    for (path, text) in texts() {
        for (place, line) in lines(&text) {
            for (program, arguments) in checked(&line) {
                found.insert((place, program, arguments), path.display().to_string());
            }
        }
    }
    assert!(
        found.len() > 20,
        "the documents are read wrongly: {found:?}"
    );
    let (mut wrong, mut skipped) = (Vec::new(), BTreeMap::new());
    for ((place, program, arguments), path) in &found {
        let line = format!("{path}: {program} {}", arguments.join(" "));
        let output = match parsed(program, arguments) {
            Ok(output) => output,
            Err(missing) => {
                skipped.insert(*program, missing);
                continue;
            }
        };
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            wrong.push(format!(
                "{line}\n{}",
                String::from_utf8_lossy(&output.stderr)
            ));
        } else if *place == Place::Block && program.starts_with("xmpp-edge") {
            let missing = missing(&said, arguments);
            if !missing.is_empty() {
                wrong.push(format!("{line}\nlacks {missing:?}"));
            }
        }
    }
    skipped.values().for_each(skip);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
