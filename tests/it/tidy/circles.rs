//! No files of a crate use each other in a circle: who reads one of them can read what it uses
//! first, and is not led back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::root;

/// The crates that are looked through.
const CRATES: [&str; 9] = [
    "common",
    "engine",
    "edge",
    "resp",
    "client",
    "coordinator",
    "participant",
    "process",
    "check",
];

/// A module below the root of its crate.
type Module = Vec<String>;

/// A path of names, as it stands in the code.
type NamePath = Vec<String>;

/// The files of a crate, by their modules: what they use, and what they pass on under a name.
#[derive(Default)]
struct Files {
    texts: BTreeMap<Module, Vec<String>>,
    passed_on: BTreeMap<Module, BTreeMap<String, NamePath>>,
}

#[test]
fn no_files_of_a_crate_use_each_other_in_a_circle() {
    for name in CRATES {
        let mut files = Files::default();
        files.read(&root().join(name).join("src"), &Module::new());
        assert!(files.texts.len() > 3, "{name}: the test looks at the wrong place");
        let circle = circle(&files.uses());
        assert!(circle.is_empty(), "{name}: files that use each other in a circle: {circle:#?}");
    }
}

/// A checker that cannot fire is a comment.
#[test]
fn a_circle_is_found_through_groups_folders_and_names_that_are_passed_on() {
    let files = |texts: &[(&str, &str)]| {
        let mut files = Files::default();
        for (module, text) in texts {
            files.add(module.split('/').map(str::to_owned).collect(), text);
        }
        circle(&files.uses()).into_keys().collect::<Vec<_>>()
    };
    let a_uses = |text| [("a", text), ("b", "use crate::a::A;"), ("c", "use super::b::{B, D};")];
    assert_eq!(files(&a_uses("pub struct A; // crate::b::B")), Vec::<String>::new());
    assert_eq!(files(&a_uses("use crate::{c::C, b::B};")), ["a", "b", "c"]);
    assert_eq!(files(&a_uses("fn f() -> super::b::B {}")), ["a", "b"], "nobody uses c");
    assert_eq!(files(&a_uses("#[cfg(test)]\nmod tests { use crate::b::B; }")), [""; 0]);
    assert_eq!(files(&[("f", "use g::G;"), ("f/g", "pub(in super::super) struct G;")]), [""; 0]);
    // A folder that passes a name on does not use it, and who takes the name uses its file.
    let passes =
        [("f", "mod g; pub use g::G;"), ("f/g", "use super::F;"), ("h", "use crate::f::G;")];
    assert_eq!(files(&passes), [""; 0]);
    let uses = [("f", "mod g; use g::G;"), ("f/g", "use super::F;")];
    assert_eq!(files(&uses), ["f", "f/g"]);
}

/// What is left when every file is taken away that uses only what was taken away before.
fn circle(uses: &BTreeMap<Module, BTreeSet<Module>>) -> BTreeMap<String, Vec<String>> {
    let path = |module: &Module| module.join("/");
    let mut left: BTreeMap<String, BTreeSet<String>> =
        uses.iter().map(|(module, used)| (path(module), used.iter().map(path).collect())).collect();
    loop {
        let is_over = |(file, used): &(&String, &BTreeSet<String>)| {
            used.iter().all(|used| used == *file || !left.contains_key(used))
        };
        let Some(next) = left.iter().find(is_over).map(|(file, _)| file.clone()) else { break };
        left.remove(&next);
    }
    // And what nobody uses who is left: it only leads to a circle.
    loop {
        let used: BTreeSet<&String> =
            left.iter().flat_map(|(file, all)| all.iter().filter(move |it| *it != file)).collect();
        let Some(next) = left.keys().find(|file| !used.contains(file)).cloned() else { break };
        left.remove(&next);
    }
    let files: BTreeSet<String> = left.keys().cloned().collect();
    let in_it = |used: BTreeSet<String>| used.intersection(&files).cloned().collect();
    left.into_iter().map(|(file, used)| (file, in_it(used))).collect()
}

impl Files {
    fn read(&mut self, folder: &Path, module: &Module) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let inner = [module.as_slice(), std::slice::from_ref(&stem)].concat();
            if stem == "tests" || stem.ends_with("_tests") {
                continue;
            } else if path.is_dir() {
                self.read(&path, &inner);
            } else if path.extension().is_some_and(|is| is == "rs") {
                let is_folders = ["mod", "lib", "main"].contains(&&*stem);
                let text = std::fs::read_to_string(&path).unwrap();
                self.add(if is_folders { module.clone() } else { inner }, &text);
            }
        }
    }

    fn add(&mut self, module: Module, text: &str) {
        let of_product = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let lines = of_product.lines().map(|line| line.split("//").next().unwrap_or_default());
        let text = lines.collect::<Vec<_>>().join("\n");
        let tokens = tokens(&text.replace("'{'", "").replace("'}'", ""));
        let mut passed_on = BTreeMap::new();
        for (place, token) in tokens.iter().enumerate() {
            if token == "use" && is_public(&tokens[..place]) {
                for path in tree(&tokens, &mut (place + 1)) {
                    passed_on.extend(path.last().cloned().map(|name| (name, path)));
                }
            }
        }
        self.passed_on.insert(module.clone(), passed_on);
        self.texts.insert(module, tokens);
    }

    fn uses(&self) -> BTreeMap<Module, BTreeSet<Module>> {
        let uses = |(module, tokens): (&Module, &Vec<String>)| {
            let mut used = BTreeSet::new();
            // The modules that are inside of the file, and how deep each begins.
            let (mut inside, mut depth) = (Vec::new(), 0_usize);
            for (place, token) in tokens.iter().enumerate() {
                match &**token {
                    "{" if is_of_module(&tokens[..place]) => inside.push(depth),
                    "}" if inside.last() == Some(&depth.saturating_sub(1)) => drop(inside.pop()),
                    _ => {}
                }
                depth = match &**token {
                    "{" => depth + 1,
                    "}" => depth.saturating_sub(1),
                    _ => depth,
                };
                if self.begins_path(module, tokens, place) {
                    let here = [module.as_slice(), &vec![String::new(); inside.len()]].concat();
                    let paths = tree(tokens, &mut { place });
                    used.extend(paths.iter().map(|path| self.file_of(&here, path, 0)));
                }
            }
            used.remove(module);
            (module.clone(), used)
        };
        self.texts.iter().map(uses).collect()
    }

    /// Whether a path of this crate begins here, that is not passed on only.
    fn begins_path(&self, module: &Module, tokens: &[String], place: usize) -> bool {
        let before = &tokens[..place];
        let is_passed_on =
            before.last().is_some_and(|it| it == "use") && is_public(&before[..before.len() - 1]);
        let is_inside = before.last().is_some_and(|it| it == "::");
        // `pub(in super::super)` says who may use it, and uses nothing.
        let is_scope = matches!(before, [.., brace, word] if brace == "(" && word == "in");
        let child = [module.as_slice(), std::slice::from_ref(&tokens[place])].concat();
        let is_of_crate = ["crate", "super", "self"].contains(&&*tokens[place]);
        let goes_on = tokens.get(place + 1).is_some_and(|it| it == "::");
        let is_path = is_of_crate || self.texts.contains_key(&child);
        goes_on && is_path && !is_inside && !is_scope && !is_passed_on
    }

    /// The file in which the name is that this path leads to.
    fn file_of(&self, module: &Module, path: &[String], depth: usize) -> Module {
        let mut at = module.clone();
        let mut rest = path;
        while let [first, behind @ ..] = rest {
            match &**first {
                "crate" => at.clear(),
                "self" => {}
                "super" => drop(at.pop()),
                _ => break,
            }
            rest = behind;
        }
        while let [first, behind @ ..] = rest {
            let inner = [at.as_slice(), std::slice::from_ref(first)].concat();
            if !self.texts.contains_key(&inner) {
                break;
            }
            (at, rest) = (inner, behind);
        }
        let passed_on = rest.first().and_then(|name| self.passed_on.get(&at)?.get(name));
        match passed_on {
            Some(path) if depth < 8 => self.file_of(&at, path, depth + 1),
            _ => at,
        }
    }
}

/// Whether a brace behind these is that of a module.
fn is_of_module(before: &[String]) -> bool {
    matches!(before, [.., word, _name] if word == "mod")
}

/// Whether what follows is public: `pub`, or `pub(…)`.
fn is_public(before: &[String]) -> bool {
    match before {
        [.., last] if last == "pub" => true,
        [.., last] if last == ")" => before.iter().rev().take(6).any(|token| token == "pub"),
        _ => false,
    }
}

/// The paths of a tree of names, such as `a::{b, c::{d, e}}`.
fn tree(tokens: &[String], place: &mut usize) -> Vec<NamePath> {
    let mut path = NamePath::new();
    loop {
        match tokens.get(*place).map(String::as_str) {
            Some("{") => {
                let mut paths = Vec::new();
                *place += 1;
                while let Some(token) = tokens.get(*place) {
                    if token == "}" {
                        *place += 1;
                        break;
                    } else if token == "," {
                        *place += 1;
                        continue;
                    }
                    let begun = *place;
                    let below = tree(tokens, place);
                    paths.extend(below.into_iter().map(|it| [path.as_slice(), &it].concat()));
                    if *place == begun {
                        // No tree of names after all.
                        break;
                    }
                }
                return paths;
            }
            Some(name) if name == "*" || name.starts_with(is_of_name) => {
                path.push(name.to_owned());
                *place += 1;
            }
            _ => return vec![path],
        }
        match tokens.get(*place).map(String::as_str) {
            Some("::") => *place += 1,
            Some("as") => {
                *place += 2;
                return vec![path];
            }
            _ => return vec![path],
        }
    }
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The text in names, `::`, and single signs.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut is_in_name = false;
    let mut last = ' ';
    for c in text.chars() {
        match (is_of_name(c), tokens.last_mut()) {
            (true, Some(name)) if is_in_name => name.push(c),
            (false, Some(colon)) if c == ':' && last == ':' && colon == ":" => colon.push(c),
            _ if c.is_whitespace() => {}
            _ => tokens.push(c.to_string()),
        }
        is_in_name = is_of_name(c);
        last = c;
    }
    tokens
}
