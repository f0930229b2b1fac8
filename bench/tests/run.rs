//! The program itself, as short as it goes.

use std::process::{Command, Output};

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tessera-bench"))
        .args(["--rounds", "3", "--turn", "1"])
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn measures_the_driver_alone() {
    let output = bench(&["--native", "--filter", "one bind"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout);
    let row = said.lines().find(|line| line.contains("buffer: one bind")).unwrap();
    assert!(row.contains(" us") || row.contains(" ms"), "{row}");
}

#[test]
fn the_layer_sends_no_operation_too_many() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("performance.md");
    let output = bench(&["--filter", ": ", "--markdown", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document = std::fs::read_to_string(file).unwrap();
    let rows: Vec<Vec<&str>> = document
        .lines()
        .filter(|line| line.contains(": ") && line.starts_with("| "))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert!(rows.len() >= 15, "{document}");
    for row in rows {
        let count = |column: usize| row[column].replace(',', "").parse::<f64>().unwrap();
        assert!(count(6) <= count(7), "operations sent and changes: {row:?}");
    }
}

#[test]
fn a_row_that_is_not_there_names_those_that_are() {
    let output = bench(&["--filter", "no such row"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("buffer: contiguous"));
}

#[test]
fn a_folder_without_the_layer_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let output = bench(&["--filter", "one bind", "--layer-path", folder.path().to_str().unwrap()]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("cargo build --release"));
}
