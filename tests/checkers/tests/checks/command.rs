//! The command, as a person or a script uses it.

use std::path::Path;
use std::process::{Command, Stdio};

use assent_checkers::generate::{Plan, Workload, generate, to_lines};

use crate::support::transactions;

fn run(arguments: &[&str], file: &Path) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_assent-check"))
        .args(arguments)
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn verdicts_are_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("history.jsonl");
    let write = |text: &str| std::fs::write(&file, text).unwrap();

    write(&to_lines(&transactions(&["0 1 ok ax1", "2 3 ok rx1"])));
    let (code, out, _) = run(&[], &file);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("list-append  holds (2 examined)"), "{out}");
    assert!(out.contains("bank         absent"), "{out}");
    // A checker that is named must have something to look at.
    assert_eq!(run(&["--only", "list-append"], &file).0, Some(0));
    assert_eq!(run(&["--only", "list-append,bank"], &file).0, Some(4));
    assert_eq!(run(&["--only", "elle"], &file).0, Some(2));

    write(&to_lines(&transactions(&["0 1 ok ax1", "2 3 ok rx"])));
    let (code, out, _) = run(&[], &file);
    assert_eq!(code, Some(1));
    assert!(out.contains("T2 -rw-> T0: T2 saw x empty, without the 1 that T0 appended"), "{out}");
    let (code, out, _) = run(&["-o", "json"], &file);
    assert_eq!(code, Some(1));
    let reports: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(reports[0]["verdict"], "violated");
    assert_eq!(reports[0]["anomalies"][0]["name"], "lost-append");
    assert_eq!(reports[0]["anomalies"][1]["cycle"][0]["dependency"], "rw");

    write(&to_lines(&transactions(&["0 1 ok ax1"])));
    assert_eq!(run(&[], &file).0, Some(4));
    write("");
    assert_eq!(run(&[], &file).0, Some(4));

    write("{\"type\":\"ok\"}\n");
    let (code, _, err) = run(&[], &file);
    assert_eq!(code, Some(2));
    assert!(err.contains("line 1"), "{err}");
}

#[test]
fn one_file_may_hold_several_workloads_and_a_torn_end() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("history.jsonl");
    let mut events = Vec::new();
    for (place, workload) in Workload::ALL.into_iter().enumerate() {
        let some = generate(Plan { workload, operations: 200, processes: 4, seed: 5 });
        for mut event in some {
            event.index = events.len() as u64;
            if let assent_checkers::Process::Client(process) = &mut event.process {
                *process += 1_000_000 * place as i64;
            }
            events.push(event);
        }
    }
    let lines = to_lines(&events) + "{\"index\":99999,\"type\":\"inv";
    std::fs::write(&file, lines).unwrap();
    let (code, out, err) = run(&[], &file);
    assert_eq!(code, Some(0), "{out}");
    assert_eq!(out.matches("holds").count(), 6, "{out}");
    assert!(err.contains("torn"), "{err}");
}
