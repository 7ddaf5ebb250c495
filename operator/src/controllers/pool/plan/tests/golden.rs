//! Pools in, objects out, as they stand in `golden/*.out.yaml`. `UPDATE_GOLDEN=1` rewrites them:
//! read the difference before it is kept.

use std::{fs, path::Path};

use super::*;

/// All children, a document each; packed shards by their size class alone, since packing is not
/// the same in every version of the library.
fn rendered(plan: &PoolPlan) -> String {
    let mut text = String::new();
    for child in &plan.children {
        let mut manifest = child.manifest().unwrap();
        if let Some(shard) = manifest.pointer_mut("/binaryData/shard") {
            *shard = "(packed)".into();
        }
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&manifest).unwrap());
    }
    for (kind, name) in &plan.absent {
        text.push_str(&format!("# absent: {kind:?} {name}\n"));
    }
    text
}

#[test]
fn pools_become_the_objects_that_the_golden_files_show() {
    let directory =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/controllers/pool/plan/tests/golden");
    let mut cases = 0;
    for entry in fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        let Some(case) = path.to_str().unwrap().strip_suffix(".in.yaml") else {
            continue;
        };
        cases += 1;
        let pool = pool(&fs::read_to_string(&path).unwrap());
        let found = rendered(&plan(&pool, &config(&pool), &facts()));
        let file = format!("{case}.out.yaml");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&file, &found).unwrap();
        }
        let expected = fs::read_to_string(&file).unwrap();
        assert!(
            found == expected,
            "{file} differs; UPDATE_GOLDEN=1 shows where"
        );
    }
    assert!(cases >= 3, "{}", directory.display());
}
