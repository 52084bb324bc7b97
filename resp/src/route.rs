//! Which participant a key lies at: the first rule that matches it.

use std::fmt;
use std::str::FromStr;

use assent_common::ParticipantName;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Keys of a pattern lie at a participant. As text: `PATTERN=NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// A glob: `*` and `?` stand for any bytes, `[ab]` for one of them, `{a,b}` for one of two
    /// texts; a backslash takes the meaning from what follows.
    pub pattern: String,
    /// The participant.
    pub participant: ParticipantName,
}

/// A rule cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRule {
    /// It has no `=`.
    #[error("{0:?} is no rule; write PATTERN=NAME, as in acct:*=bank-a")]
    Form(String),
    /// What stands behind the last `=` is no name of a participant.
    #[error("the rule {rule:?}: {why}")]
    Name {
        /// The rule.
        rule: String,
        /// Why.
        why: String,
    },
    /// The pattern is no glob.
    #[error("the rule {rule:?}: the pattern cannot be read: {why}")]
    Pattern {
        /// The rule.
        rule: String,
        /// Why.
        why: String,
    },
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.pattern, self.participant)
    }
}

impl FromStr for Rule {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        // A pattern may have an `=`, a name has none.
        let form = || InvalidRule::Form(text.to_owned());
        let (pattern, name) = text.rsplit_once('=').ok_or_else(form)?;
        let participant = name.trim().parse().map_err(|error| InvalidRule::Name {
            rule: text.to_owned(),
            why: format!("{error}"),
        })?;
        let rule = Self { pattern: pattern.trim().to_owned(), participant };
        Routes::new(vec![rule.clone()])?;
        Ok(rule)
    }
}

/// The rules, in order.
#[derive(Debug, Clone)]
pub struct Routes {
    patterns: GlobSet,
    rules: Vec<Rule>,
}

impl Routes {
    /// Takes the rules; an error if a pattern cannot be read.
    pub fn new(rules: Vec<Rule>) -> Result<Self, InvalidRule> {
        let unreadable = |rule: &Rule, why: &globset::Error| InvalidRule::Pattern {
            rule: rule.to_string(),
            why: why.kind().to_string(),
        };
        let mut patterns = GlobSetBuilder::new();
        for rule in &rules {
            // A key is no path: a slash in it is a byte like any other.
            let mut pattern = GlobBuilder::new(&rule.pattern);
            let pattern = pattern.literal_separator(false).backslash_escape(true).build();
            patterns.add(pattern.map_err(|why| unreadable(rule, &why))?);
        }
        let patterns = patterns.build().map_err(|why| InvalidRule::Pattern {
            rule: rules.last().map(Rule::to_string).unwrap_or_default(),
            why: why.to_string(),
        })?;
        Ok(Self { patterns, rules })
    }

    /// The participant that a key lies at.
    #[must_use]
    pub fn of(&self, key: &[u8]) -> Option<&ParticipantName> {
        use std::os::unix::ffi::OsStrExt as _;
        let key = std::path::Path::new(std::ffi::OsStr::from_bytes(key));
        let first = self.patterns.matches(key).into_iter().min()?;
        Some(&self.rules[first].participant)
    }

    /// The rules, in order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(rules: &[&str]) -> Routes {
        Routes::new(rules.iter().map(|rule| rule.parse().unwrap()).collect()).unwrap()
    }

    #[test]
    fn the_first_rule_that_matches_says_where_a_key_lies() {
        let routes = routes(&["acct:9*=bank-b", "acct:*=bank-a", "a=b:{x,y}?=stock", r"\*=star"]);
        let of = |key: &[u8]| routes.of(key).map(ParticipantName::as_str);
        assert_eq!(of(b"acct:91"), Some("bank-b"));
        assert_eq!(of(b"acct:1"), Some("bank-a"));
        assert_eq!(of(b"acct:"), Some("bank-a"));
        assert_eq!(of(b"a=b:x1"), Some("stock"));
        assert_eq!(of(b"*"), Some("star"));
        for key in [&b""[..], b"acct", b"a=b:z1", b"a=b:x", b"x"] {
            assert_eq!(of(key), None, "{}", key.escape_ascii());
        }
    }

    /// A key is any bytes, and no path.
    #[test]
    fn a_key_is_matched_byte_by_byte() {
        let routes = routes(&["acct:*=bank-a", "*/.=dots"]);
        for key in [&b"acct:\xff\x00\n"[..], b"acct:a/b", b"acct://", b"acct:/../x", b"acct:."] {
            assert_eq!(routes.of(key).unwrap().as_str(), "bank-a", "{}", key.escape_ascii());
        }
        assert_eq!(routes.of(b"x//.").unwrap().as_str(), "dots");
        assert_eq!(routes.of(b"x//"), None);
    }

    #[test]
    fn a_rule_that_cannot_be_read_is_named() {
        assert!(matches!("acct:*".parse::<Rule>(), Err(InvalidRule::Form(_))));
        assert!(matches!("acct:*=No Name".parse::<Rule>(), Err(InvalidRule::Name { .. })));
        let error = "acct:[=bank-a".parse::<Rule>().unwrap_err().to_string();
        assert!(error.contains("acct:[=bank-a"), "{error}");
        assert_eq!("acct:*=bank-a".parse::<Rule>().unwrap().to_string(), "acct:*=bank-a");
    }
}
