//! Known-bad variants of the example participant: each is one change of its text, and has a duty
//! that must catch it.

/// A change of the example that breaks a duty.
pub(super) struct LedgerMutant {
    pub(super) name: &'static str,
    /// What stands in the example, once.
    good: &'static str,
    bad: &'static str,
    pub(super) caught_by: &'static str,
}

impl LedgerMutant {
    /// The example with this change.
    pub(super) fn of(&self, source: &str) -> String {
        let count = source.matches(self.good).count();
        assert_eq!(count, 1, "{}: the example has {:?} {count} times", self.name, self.good);
        source.replace(self.good, self.bad)
    }
}

const fn mutant(
    name: &'static str,
    good: &'static str,
    bad: &'static str,
    caught_by: &'static str,
) -> LedgerMutant {
    LedgerMutant { name, good, bad, caught_by }
}

pub(super) const MUTANTS: &[LedgerMutant] = &[
    mutant("a vote has no redo", r#""redo": redo, "incarnation""#, r#""incarnation""#, "write"),
    mutant(
        "a refused branch is staged all the same",
        "if not 0 <= balance <= AMOUNT_MAX:",
        "if not 0 <= balance <= AMOUNT_MAX:\n            self.db.execute(\"INSERT INTO branches \
         VALUES (?, ?, ?, ?, 'staged', ?, ?, ?, '{}')\", [txid, log, epoch, n, body[\"id\"], \
         account, amount])",
        "refusal",
    ),
    mutant(
        "a repeated prepare is refused",
        r#"if state == "staged" or state == "done" and body["mode"] == "one_phase":"#,
        r#"if state == "done" and body["mode"] == "one_phase":"#,
        "same-vote",
    ),
    mutant(
        "a repeated commit applies again",
        r#"if state == "staged":
                self.apply"#,
        r#"if state in ("staged", "done"):
                self.apply"#,
        "once",
    ),
    mutant(
        "an aborted branch votes yes",
        "            if state:\n                return no(kind, \"wrong_state\"",
        "            if state == \"fenced\":\n                self.db.execute(\"DELETE FROM \
         branches WHERE txid = ?\", [txid])\n            if state == \"done\":\n                \
         return no(kind, \"wrong_state\"",
        "aborts",
    ),
    mutant(
        "an abort undoes what is applied",
        r#"if kind == "abort" and state == "done":"#,
        r#"if kind == "nothing" and state == "done":"#,
        "applied-stays",
    ),
    mutant(
        "an abort of an unknown branch leaves no fence",
        r#"if kind in ("abort", "settle"):
"#,
        r#"if kind == "abort" and not state:
            return {"state": "aborted"}
        if kind in ("abort", "settle"):
"#,
        "fence",
    ),
    mutant(
        "a commit of an unknown branch is called applied",
        r#"elif state != "done":"#,
        r#"elif state == "fenced":"#,
        "no-vote",
    ),
    mutant(
        "nothing is locked",
        "if holder := self.row(\"SELECT id, txid FROM branches WHERE account = ? AND state = \
         'staged'\", account):",
        "self.db.execute(\"DROP INDEX IF EXISTS locks\")\n        if holder := None:",
        "isolation",
    ),
    mutant(
        "an abort frees the locks of others",
        r#"if kind in ("abort", "settle"):
"#,
        r#"if kind in ("abort", "settle"):
            self.db.execute("UPDATE branches SET account = txid WHERE state = 'staged'")
"#,
        "frees",
    ),
    mutant(
        "a batch is answered in the wrong order",
        "return [self.message(kind, body) for kind, body in messages]",
        "return [self.message(kind, body) for kind, body in messages][::-1]",
        "order",
    ),
    mutant(
        "looking and writing are two steps",
        r#"        txid = body["txid"]
        found = self.row("SELECT state, account, amount, answer FROM branches WHERE txid = ?", txid)
"#,
        r#"        txid = body["txid"]
        found = self.row("SELECT state, account, amount, answer FROM branches WHERE txid = ?", txid)
        self.db.execute("COMMIT")
        self.lock.release()
        time.sleep(0.1)
        self.lock.acquire()
        self.db.execute("BEGIN IMMEDIATE")
"#,
        "at-once",
    ),
    mutant(
        "a branch of one phase is only staged",
        "if one_phase:\n            self.apply(txid, account, amount)",
        "if one_phase and not amount:\n            self.apply(txid, account, amount)",
        "one-phase",
    ),
    mutant(
        "the path answers like a batch",
        r#"answers[0] if alone else {"answers": answers}"#,
        r#"{"answers": answers}"#,
        "write",
    ),
    mutant(
        "a settle leaves no fence",
        r#"if kind in ("abort", "settle"):
"#,
        r#"if kind == "settle":
            return {"state": "aborted"}
        if kind in ("abort", "settle"):
"#,
        "settle",
    ),
    mutant(
        "any log may speak of any branch",
        "any(of(body)[0] != log or of(body)[1] > epoch for _, body in messages)",
        "False",
        "authority",
    ),
    mutant(
        "messages for others are taken",
        r#"if batch["participant"] != self.name:"#,
        "if False:",
        "authority",
    ),
    mutant(
        "an earlier life may begin",
        r#"if epoch < self.row("SELECT epoch FROM logs WHERE log = ?", log)[0]:"#,
        "if False:",
        "epoch",
    ),
    mutant(
        "all markers go with a mark",
        "WHERE log = ? AND (epoch, n) < (?, ?) AND state != 'staged'\",\n                        \
         [log, *mark])",
        "WHERE ? != '' AND 0 < ? + ? AND state != 'staged'\",\n                        [log, \
         *mark])",
        "mark",
    ),
    mutant(
        "a mark goes down",
        "epoch, mark = max(epoch, heard[0]), max(mark, heard[1:3])",
        "epoch = max(epoch, heard[0])",
        "mark",
    ),
    mutant(
        "votes have no numbers of their own",
        "SET seq = seq + 1",
        "SET seq = max(seq, 1)",
        "numbers",
    ),
    mutant(
        "a branch in doubt gives up",
        "if outcome in (\"committed\", \"aborted\"):",
        "if txid in seen:",
        "stands",
    ),
    mutant(
        "nobody is asked",
        "threading.Thread(target=ledger.keep_asking",
        "threading.Thread(target=lambda _: None",
        "asks",
    ),
    mutant(
        "aborted is not believed",
        "if outcome in (\"committed\", \"aborted\"):",
        "if outcome == \"committed\":",
        "presumed",
    ),
    mutant(
        "any media type is believed",
        "if answer.headers.get_content_type() == OURS else {}",
        "if answer else {}",
        "lies",
    ),
    mutant(
        "any log is believed",
        "if (said.get(\"txid\"), said.get(\"log_id\")) == (txid, log) else None",
        "if said.get(\"txid\") == txid else None",
        "lies",
    ),
    mutant(
        "an unknown authority is an abort",
        "outcome = outcome_of(txid, log, url) if txid in seen else None",
        "outcome = outcome_of(txid, log, url) if txid in seen else None\n                outcome = \
         \"aborted\" if outcome == \"unknown_authority\" else outcome",
        "lies",
    ),
    mutant(
        "a 404 is an abort",
        "    except (OSError, ValueError):\n        return None",
        "    except (OSError, ValueError) as error:\n        return \"aborted\" if getattr(error, \
         \"code\", 0) == 404 else None",
        "lies",
    ),
    mutant(
        "it answers before it commits",
        r#"            self.db.execute("BEGIN IMMEDIATE")
            try:
                answer = work(*arguments)
                self.db.execute("COMMIT")
"#,
        r#"            if work == self.batch and self.db.in_transaction:
                self.db.execute("COMMIT")
            if not self.db.in_transaction:
                self.db.execute("BEGIN IMMEDIATE")
            try:
                answer = work(*arguments)
"#,
        "kept-yes",
    ),
    mutant(
        "what is staged is dropped at the start",
        "        self.db.executescript(SCHEMA)\n",
        "        self.db.executescript(SCHEMA)\n        self.db.execute(\"DELETE FROM branches \
         WHERE state = 'staged'\")\n",
        "kept-yes",
    ),
    mutant(
        "done-markers are dropped at the start",
        "        self.db.executescript(SCHEMA)\n",
        "        self.db.executescript(SCHEMA)\n        self.db.execute(\"DELETE FROM branches \
         WHERE state = 'done'\")\n",
        "kept-done",
    ),
    mutant(
        "fences are dropped at the start",
        "        self.db.executescript(SCHEMA)\n",
        "        self.db.executescript(SCHEMA)\n        self.db.execute(\"DELETE FROM branches \
         WHERE state = 'fenced'\")\n",
        "kept-fence",
    ),
    mutant(
        "marks are dropped at the start",
        "        self.db.executescript(SCHEMA)\n",
        "        self.db.executescript(SCHEMA)\n        self.db.execute(\"UPDATE logs SET \
         mark_epoch = 0, mark_n = 0\")\n",
        "kept-mark",
    ),
    mutant(
        "epochs are dropped at the start",
        "        self.db.executescript(SCHEMA)\n",
        "        self.db.executescript(SCHEMA)\n        self.db.execute(\"UPDATE logs SET \
         epoch = 0\")\n",
        "kept-epoch",
    ),
    mutant(
        "addresses are dropped at the start",
        "        self.db.executescript(SCHEMA)\n",
        "        self.db.executescript(SCHEMA)\n        self.db.execute(\"UPDATE logs SET \
         url = ''\")\n",
        "kept-doubt",
    ),
    mutant(
        "numbers begin anew at the start",
        "        self.db.executescript(SCHEMA)\n",
        "        self.db.executescript(SCHEMA)\n        self.db.execute(\"UPDATE data SET \
         seq = 0\")\n",
        "kept-numbers",
    ),
    mutant("data that was lost is not missed", "or known[\"seq\"] > seq)", "or False)", "loss"),
];
