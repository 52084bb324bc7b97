//! What a server says of its commands (`COMMAND DOCS`), and calls of them that follow it.

use redis::Value;

use crate::harness::Numbers;

/// A command, or one of its subcommands: the words that it begins with, and its arguments.
#[derive(Debug, Clone)]
pub(super) struct Documented {
    pub(super) name: String,
    pub(super) words: Vec<String>,
    group: String,
    arguments: Vec<Argument>,
}

#[derive(Debug, Clone, Default)]
struct Argument {
    name: String,
    kind: String,
    token: Option<String>,
    is_optional: bool,
    is_multiple: bool,
    repeats_token: bool,
    arguments: Vec<Self>,
}

/// The keys of a group, and one that is absent; those whose elements can be sorted.
fn keys_of(group: &str, name: &str) -> &'static [&'static str] {
    match group {
        _ if name.starts_with("SORT") => &["l1", "none"],
        "string" | "bitmap" => &["s0", "s1", "none"],
        "hash" => &["h0", "h1", "none"],
        "list" => &["l0", "l1", "none"],
        "set" => &["t0", "t1", "none"],
        "sorted-set" | "sorted_set" => &["z0", "z1", "none"],
        "stream" => &["x0", "x1", "none"],
        "geo" => &["g0", "g1", "none"],
        "hyperloglog" => &["p0", "p1", "none"],
        _ => ALL,
    }
}

/// All keys.
pub(super) const ALL: &[&str] = &[
    "s0", "s1", "h0", "h1", "l0", "l1", "t0", "t1", "z0", "z1", "x0", "x1", "g0", "g1", "p0", "p1",
    "none",
];

fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        _ => String::new(),
    }
}

fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        _ => &[],
    }
}

/// The values of a map in RESP2, by name.
fn get<'a>(map: &'a Value, name: &str) -> Option<&'a Value> {
    items(map).chunks(2).find(|pair| text(&pair[0]) == name).map(|pair| &pair[1])
}

impl Argument {
    fn read(value: &Value) -> Self {
        let is = |flag: &str| {
            get(value, "flags").is_some_and(|flags| items(flags).iter().any(|f| text(f) == flag))
        };
        Self {
            name: get(value, "name").map(text).unwrap_or_default(),
            kind: get(value, "type").map(text).unwrap_or_default(),
            token: get(value, "token").map(text),
            is_optional: is("optional"),
            is_multiple: is("multiple"),
            repeats_token: is("multiple_token"),
            arguments: get(value, "arguments").map(arguments).unwrap_or_default(),
        }
    }
}

fn arguments(value: &Value) -> Vec<Argument> {
    items(value).iter().map(Argument::read).collect()
}

impl Documented {
    /// Those of an answer to `COMMAND DOCS`, subcommands each for itself.
    pub(super) fn all(answer: &Value) -> Vec<Self> {
        let mut found = Vec::new();
        for pair in items(answer).chunks(2) {
            let name = text(&pair[0]).to_uppercase();
            let of = |words: Vec<String>, docs: &Value| Self {
                name: name.clone(),
                words,
                group: get(docs, "group").map(text).unwrap_or_default(),
                arguments: get(docs, "arguments").map(arguments).unwrap_or_default(),
            };
            match get(&pair[1], "subcommands") {
                None => found.push(of(vec![name.clone()], &pair[1])),
                Some(subcommands) => {
                    for pair in items(subcommands).chunks(2) {
                        let words = text(&pair[0]).to_uppercase();
                        let words: Vec<_> = words.split('|').map(str::to_owned).collect();
                        // A text for people, and no key.
                        if words.last().is_none_or(|word| word != "HELP") {
                            found.push(of(words, &pair[1]));
                        }
                    }
                }
            }
        }
        // The server gives subcommands in an order that is another one at each start.
        found.sort_by(|one: &Self, other| one.words.cmp(&other.words));
        found
    }

    /// A call that follows the documentation.
    pub(super) fn call(&self, numbers: &mut Numbers) -> Vec<String> {
        let mut caller = Caller { numbers, group: &self.group, name: &self.name, count: None };
        let mut words = self.words.clone();
        caller.push_all(&self.arguments, &mut words);
        words
    }
}

struct Caller<'a> {
    numbers: &'a mut Numbers,
    group: &'a str,
    name: &'a str,
    /// How many of something must follow.
    count: Option<u64>,
}

impl Caller<'_> {
    fn pick(&mut self, words: &[&str]) -> String {
        words[usize::try_from(self.numbers.below(words.len() as u64)).unwrap()].to_owned()
    }

    fn push_all(&mut self, arguments: &[Argument], words: &mut Vec<String>) {
        for argument in arguments {
            self.push(argument, words);
        }
    }

    fn push(&mut self, argument: &Argument, words: &mut Vec<String>) {
        // A pause is no part of a transaction, and another database does not exist.
        let is_refused = match argument.token.as_deref() {
            Some("BLOCK" | "DB" | "BY") => true,
            // Where a scan goes on depends on a seed of each server.
            Some("COUNT") => self.name.ends_with("SCAN"),
            _ => false,
        };
        if argument.is_optional && (is_refused || self.numbers.below(2) == 0) {
            return;
        }
        let times = match self.count {
            Some(count) if argument.is_multiple => {
                self.count = None;
                count
            }
            _ if argument.is_multiple => 1 + self.numbers.below(2),
            _ => 1,
        };
        for n in 0..times {
            if let Some(token) = &argument.token
                && (n == 0 || argument.repeats_token)
                && !token.is_empty()
            {
                words.push(token.to_uppercase());
            }
            self.push_value(argument, words);
        }
    }

    fn push_value(&mut self, argument: &Argument, words: &mut Vec<String>) {
        match argument.kind.as_str() {
            "pure-token" => {}
            "block" => self.push_all(&argument.arguments, words),
            "oneof" => {
                let place = self.numbers.below(argument.arguments.len() as u64);
                self.push(&argument.arguments[usize::try_from(place).unwrap()], words);
            }
            "key" => {
                let rarely = self.numbers.below(12) == 0;
                let word = self.pick(if rarely { ALL } else { keys_of(self.group, self.name) });
                words.push(word);
            }
            kind => {
                let word = self.value(kind, &argument.name.to_lowercase().replace('_', "-"));
                words.push(word);
            }
        }
    }

    fn value(&mut self, kind: &str, name: &str) -> String {
        match (kind, name) {
            ("integer", "numkeys" | "numfields" | "numids") => {
                let count = 1 + self.numbers.below(2);
                self.count = Some(count);
                count.to_string()
            }
            ("integer", "bit" | "value") if self.group == "bitmap" => self.pick(&["0", "1"]),
            ("integer" | "unix-time", name) if name.contains("milliseconds") => {
                let now = self.name.ends_with("AT") || name.contains("unix");
                if now || kind == "unix-time" { "4102444800000" } else { "100000000" }.to_owned()
            }
            ("integer" | "unix-time", name) if name.contains("seconds") => {
                let now = self.name.ends_with("AT") || name.contains("unix");
                if now || kind == "unix-time" { "4102444800" } else { "100000" }.to_owned()
            }
            ("unix-time", _) => "4102444800000".to_owned(),
            ("integer", "cursor") => "0".to_owned(),
            ("integer", _) => self.pick(&["0", "1", "2", "3", "-1", "10"]),
            ("double", "longitude") => self.pick(&["13.361389", "15.087269", "2.35"]),
            ("double", "latitude") => self.pick(&["38.115556", "37.502669", "48.85"]),
            ("double", "radius" | "width" | "height") => self.pick(&["200", "5000"]),
            ("double", "min" | "max") => self.pick(&["-inf", "+inf", "0", "(1", "2"]),
            ("double", _) => self.pick(&["1.5", "0", "-2", "3"]),
            ("pattern", _) => self.pick(&["*", "m*", "#"]),
            (_, name) => self.text(name),
        }
    }

    fn text(&mut self, name: &str) -> String {
        let is_stream = self.group == "stream";
        let is_lex = self.name.ends_with("LEX") || self.name == "ZLEXCOUNT";
        match name {
            "min" | "max" if is_lex => self.pick(&["-", "+", "[m1", "(m2"]),
            "min" | "max" => self.pick(&["-inf", "+inf", "0", "(1", "2"]),
            "group" => self.pick(&["gr", "gr", "gs"]),
            "consumer" | "newconsumer" => self.pick(&["c1", "c2"]),
            "id" if self.name == "XGROUP" => self.pick(&["0", "1-1", "9-9"]),
            "id" if self.name == "XREADGROUP" => self.pick(&[">", "0", "1-1"]),
            "operation" => self.pick(&["AND", "OR", "XOR"]),
            "id" | "last-id" | "lastid" | "max-deleted-id" | "maxdeletedid" | "threshold" => {
                self.pick(&["0", "1-1", "2-1", "9-9", "9-9", "3"])
            }
            "start" if is_stream => self.pick(&["-", "0", "1-1"]),
            "end" if is_stream => self.pick(&["+", "9-9", "1-1"]),
            "encoding" => self.pick(&["u8", "i5", "u1"]),
            "min-idle-time" => "0".to_owned(),
            "start" | "stop" if self.name.starts_with("ZRANGE") => {
                self.pick(&["0", "1", "-1", "2"])
            }
            "key1" | "key2" => self.pick(keys_of(self.group, self.name)),
            "comparison-value" | "ifeq-value" => self.pick(&["hello", "10"]),
            _ => self.pick(&["m1", "m2", "m3", "10", "hello", "m\u{e9}"]),
        }
    }
}
