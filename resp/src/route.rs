//! Which participant a key lies at: the first rule that matches it.

use std::fmt;
use std::str::FromStr;

use assent_common::value::readable;
use assent_common::{ParticipantName, text};
use regex::bytes::{RegexSet, RegexSetBuilder};

/// Rules that an error tells.
const RULES_TOLD_MAX: usize = 8;

/// Bytes of a rule in an error.
const RULE_BYTES_TOLD_MAX: usize = 100;

/// Keys of a pattern lie at a participant. As text: `PATTERN=NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// A pattern as that of Redis' `KEYS`: `*` stands for any bytes, `?` for one, `[a-c]` for one
    /// of these and `[^a]` for one of the others; a backslash takes the meaning from what follows.
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
    /// The pattern has a bracket that is not closed, or is too large.
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
    patterns: RegexSet,
    rules: Vec<Rule>,
}

impl Routes {
    /// Takes the rules; an error if a pattern cannot be read.
    pub fn new(rules: Vec<Rule>) -> Result<Self, InvalidRule> {
        let unreadable = |rule: String, why: String| InvalidRule::Pattern { rule, why };
        let read = |rule: &Rule| {
            let pattern = expression(&rule.pattern);
            pattern.ok_or_else(|| unreadable(rule.to_string(), "a [ is not closed".to_owned()))
        };
        let patterns = rules.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let patterns = RegexSetBuilder::new(patterns).unicode(false).build();
        let last = || rules.last().map(Rule::to_string).unwrap_or_default();
        let patterns = patterns.map_err(|why| unreadable(last(), why.to_string()))?;
        Ok(Self { patterns, rules })
    }

    /// The participant that a key lies at.
    #[must_use]
    pub fn of(&self, key: &[u8]) -> Option<&ParticipantName> {
        let first = self.patterns.matches(key).iter().next()?;
        Some(&self.rules[first].participant)
    }

    /// The rules, in order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What rules there are, for whoever has a key that none of them matches: the first ones.
    pub(crate) fn told(&self) -> String {
        let told = self.rules.iter().take(RULES_TOLD_MAX).map(|rule| {
            let rule = rule.to_string();
            text::cut(&readable(rule.as_bytes()), RULE_BYTES_TOLD_MAX).into_owned()
        });
        let told = told.collect::<Vec<_>>().join(", ");
        match self.rules.len() {
            0 => "there are no rules".to_owned(),
            1..=RULES_TOLD_MAX => format!("the rules are {told}"),
            rules => format!("the rules are {told} and {} more", rules - RULES_TOLD_MAX),
        }
    }
}

/// The regular expression of a pattern; nothing if a bracket is not closed. Not by a library for
/// globs: those are about paths, where dots, slashes and `**` have a meaning of their own.
fn expression(pattern: &str) -> Option<String> {
    let mut expression = r"(?s-u)\A".to_owned();
    let mut rest = pattern.chars();
    while let Some(letter) = rest.next() {
        match letter {
            '*' => expression.push_str(".*"),
            '?' => expression.push('.'),
            '[' => expression.push_str(&class(&mut rest)?),
            // The last one stands for itself.
            '\\' => push_literal(&mut expression, rest.next().unwrap_or('\\')),
            letter => push_literal(&mut expression, letter),
        }
    }
    expression.push_str(r"\z");
    Some(expression)
}

/// What stands between brackets, from behind the first one.
fn class(rest: &mut std::str::Chars<'_>) -> Option<String> {
    let mut class = "[".to_owned();
    if rest.as_str().starts_with('^') {
        rest.next();
        class.push('^');
    }
    loop {
        match rest.next()? {
            ']' => break,
            '-' => class.push('-'),
            '\\' => push_literal(&mut class, rest.next()?),
            letter => push_literal(&mut class, letter),
        }
    }
    class.push(']');
    Some(class)
}

fn push_literal(expression: &mut String, letter: char) {
    let mut bytes = [0; 4];
    for byte in letter.encode_utf8(&mut bytes).bytes() {
        // By its number, whatever it means to an expression.
        expression.push_str(&format!(r"\x{byte:02x}"));
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
        let routes = routes(&["acct:9*=bank-b", "acct:*=bank-a", "a=b:[w-y]?=stock", r"\*=star"]);
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
        let routes = routes(&["acct:*=bank-a", "*/.=dots", "[^b-z.]**/c=stars", "*.=end"]);
        for key in [&b"acct:\xff\x00\n"[..], b"acct:a/b", b"acct://", b"acct:/../x", b"acct:."] {
            assert_eq!(routes.of(key).unwrap().as_str(), "bank-a", "{}", key.escape_ascii());
        }
        assert_eq!(routes.of(b"x//.").unwrap().as_str(), "dots");
        assert_eq!(routes.of(b"x//"), None);
        assert_eq!(routes.of(b"a/c").unwrap().as_str(), "stars");
        assert_eq!(routes.of(b"b/c"), None);
        assert_eq!(routes.of(b"..").unwrap().as_str(), "end");
    }

    #[test]
    fn the_rules_that_are_told_are_bounded() {
        assert_eq!(
            routes(&["a:*=bank-a", "b:*=bank-b"]).told(),
            "the rules are a:*=bank-a, b:*=bank-b"
        );
        assert_eq!(routes(&[]).told(), "there are no rules");
        let long = format!("{}*=bank-a", "k".repeat(500));
        let told = routes(&vec![&*long; 100]).told();
        assert!(told.ends_with(" and 92 more") && told.len() < 1_000, "{told}");
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
