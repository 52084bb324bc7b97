//! The lines of `/readyz`.

/// One check of `/readyz`.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) detail: String,
}

impl Check {
    /// In one line, whatever its detail is: a probe is read line by line.
    pub(crate) fn line(&self) -> String {
        let Self { name, verdict, detail } = self;
        let (sign, word) = match verdict {
            Verdict::Passing => ("+", "ok"),
            Verdict::Warning => ("!", "warning"),
            Verdict::Failing => ("-", "failing"),
        };
        let colon = if detail.is_empty() { "" } else { ": " };
        let detail: Vec<&str> = detail.lines().map(str::trim).collect();
        format!("[{sign}] {name} {word}{colon}{}\n", detail.join(" "))
    }
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passing,
    /// Ready, but something is not as it should be: a promise that the operator gave up, say.
    Warning,
    Failing,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_one_line_with_all_that_is_wrong() {
        let detail =
            "Redis would lose votes:\n  - role is \"slave\"\n  - it has no file".to_owned();
        let check = Check { name: "redis", verdict: Verdict::Failing, detail };
        let line =
            "[-] redis failing: Redis would lose votes: - role is \"slave\" - it has no file\n";
        assert_eq!(check.line(), line);
        let check = Check { name: "data", verdict: Verdict::Passing, detail: String::new() };
        assert_eq!(check.line(), "[+] data ok\n");
    }
}
