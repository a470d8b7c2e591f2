//! Checks the structure of the repository: which package may import which, the names at the top level, the
//! length of a file, and texts that no source may contain. It reads `cargo metadata` and the files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Our packages, each with those of ours that it may import at any depth; its tests may also import
/// [`PARTS`]. No service imports a service, and only the library `aggregator` imports both `schemas` and
/// `stats`.
const MAY_IMPORT: [(&str, &[&str]); 21] = [
    ("schemas", &[]),
    ("stats", &[]),
    ("counting", &[]),
    ("unit-store", &["counting"]),
    ("ops", &[]),
    ("http-server", &["ops"]),
    ("kafka", &["ops"]),
    ("clickhouse-client", &["ops"]),
    ("assignment", &["schemas"]),
    // The server only with the feature `http`; see `definitions_import_no_server_unless_asked_to`.
    ("definitions", &["schemas", "assignment", "ops", "kafka", "http-server"]),
    ("sdk", &["schemas", "assignment", "ops", "kafka"]),
    ("edge", &["schemas", "assignment", "definitions", "sdk", "ops", "http-server", "kafka"]),
    ("producer", &["schemas", "assignment", "definitions", "sdk", "ops", "kafka", "http-server"]),
    (
        "consumer",
        &["schemas", "assignment", "definitions", "ops", "http-server", "kafka", "clickhouse-client"],
    ),
    ("lab", &["stats"]),
    (
        "aggregator",
        &[
            "schemas",
            "assignment",
            "definitions",
            "counting",
            "stats",
            "lab",
            "ops",
            "http-server",
            "kafka",
            "clickhouse-client",
        ],
    ),
    ("fetch", &[]),
    ("embedded", &["schemas", "fetch"]),
    ("local", &["schemas", "fetch"]),
    (
        "splitstream",
        &[
            "schemas",
            "assignment",
            "definitions",
            "sdk",
            "counting",
            "stats",
            "lab",
            "ops",
            "http-server",
            "kafka",
            "clickhouse-client",
            "producer",
            "edge",
            "consumer",
            "aggregator",
            "fetch",
            "local",
        ],
    ),
    ("tests", &["schemas", "assignment", "stats", "ops", "fetch", "local"]),
];

/// The packages that start the real parts, for the tests of packages that talk to them.
const PARTS: [&str; 2] = ["fetch", "local"];

/// Packages that decide and never do I/O, and the packages that would let them do it.
const PURE: [&str; 4] = ["schemas", "assignment", "stats", "counting"];
const IO_PACKAGES: [&str; 5] = ["tokio", "rdkafka", "clickhouse", "axum", "prometheus"];

/// The names allowed at the top level, besides hidden files.
const TOP_LEVEL: [&str; 11] = [
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE",
    "README.md",
    "aggregator",
    "consumer",
    "deploy",
    "producer",
    "schemas",
    "tests",
    // Cargo's output, not committed.
    "target",
];

const LINES_MAX: usize = 600;

#[test]
fn packages_import_only_allowed_packages() {
    let metadata = Metadata::read();
    let allowed: BTreeMap<_, _> = MAY_IMPORT.into_iter().collect();
    assert_eq!(
        metadata.ours.keys().map(String::as_str).collect::<Vec<_>>(),
        allowed.keys().copied().collect::<Vec<_>>(),
        "the packages of the workspace"
    );
    let mut wrong = Vec::new();
    for (name, id) in &metadata.ours {
        let built = metadata.reachable(id, &[Kind::Normal, Kind::Build]);
        for import in metadata.reachable(id, &[Kind::Normal, Kind::Build, Kind::Dev]) {
            let ours = allowed.contains_key(import.as_str()) && import != *name;
            let for_tests = PARTS.contains(&import.as_str()) && !built.contains(&import);
            if ours && !for_tests && !allowed[name.as_str()].contains(&import.as_str()) {
                wrong.push(format!("{name} imports {import}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn pure_packages_import_no_io() {
    let metadata = Metadata::read();
    let mut wrong = Vec::new();
    for name in PURE {
        for import in metadata.reachable(&metadata.ours[name], &[Kind::Normal, Kind::Build]) {
            if IO_PACKAGES.contains(&import.as_str()) {
                wrong.push(format!("{name} imports {import}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// The SDK, which users embed in their services, must not bring a server or a database client into them.
#[test]
fn the_sdk_imports_no_server_and_no_database() {
    let metadata = Metadata::read();
    let imported = metadata.reachable(&metadata.ours["sdk"], &[Kind::Normal]);
    assert!(imported.contains("rdkafka"));
    let unwanted: Vec<&str> =
        ["axum", "clickhouse", "hyper", "hyper-util", "hyper-rustls", "http-server", "clickhouse-client"]
            .into_iter()
            .filter(|name| imported.contains(*name))
            .collect();
    assert_eq!(unwanted, Vec::<&str>::new());
}

/// A service that follows the definitions gets no HTTP server with them. Cargo's metadata unites the features of
/// the whole workspace, so each tree is asked for by itself.
#[test]
fn definitions_import_no_server_unless_asked_to() {
    let imported = |arguments: &[&str]| -> BTreeSet<String> {
        let mut command = Command::new(env!("CARGO"));
        command.args(["tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"]);
        let tree = output(command.args(arguments).current_dir(root()));
        tree.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
    };
    for package in ["sdk", "assignment", "definitions", "producer"] {
        let imported = imported(&["--package", package]);
        let servers: Vec<&str> =
            ["axum", "hyper", "http-server"].into_iter().filter(|name| imported.contains(*name)).collect();
        assert_eq!(servers, Vec::<&str>::new(), "{package}");
    }
    let with_server = imported(&["--package", "definitions", "--features", "http"]);
    assert!(with_server.contains("axum") && with_server.contains("http-server"), "{with_server:?}");
}

/// The services do import I/O packages, which shows that the checks above can fail.
#[test]
fn the_check_finds_the_io_packages_of_a_service() {
    let metadata = Metadata::read();
    let consumer = metadata.reachable(&metadata.ours["consumer"], &[Kind::Normal]);
    for package in ["tokio", "rdkafka", "clickhouse"] {
        assert!(consumer.contains(package), "{package}");
    }
}

/// `cargo demo` builds the program, which then builds itself and the engine's server. The dependencies of
/// both must have the same features in the two builds, or they are compiled twice.
#[test]
fn the_demo_compiles_nothing_twice() {
    let features = |packages: &[&str]| -> BTreeMap<String, String> {
        let mut command = Command::new(env!("CARGO"));
        command.args([
            "tree",
            "--locked",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "--format",
            "{p}\t{f}",
        ]);
        for package in packages {
            command.args(["--package", package]);
        }
        let tree = output(command.current_dir(root()));
        let lines = tree.lines().filter_map(|line| line.split_once('\t'));
        lines.map(|(package, features)| (package.to_owned(), features.replace(" (*)", ""))).collect()
    };
    let (first, second) = (features(&["splitstream"]), features(&["splitstream", "embedded"]));
    assert!(first.keys().any(|package| package.starts_with("rdkafka-sys ")), "{first:?}");
    let differ: Vec<&String> = first
        .iter()
        .filter(|(package, features)| second[*package] != **features)
        .map(|(package, _)| package)
        .collect();
    assert_eq!(differ, Vec::<&String>::new());
}

#[test]
fn every_package_uses_the_lints_of_the_workspace() {
    for (name, folder) in &Metadata::read().folders {
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true\n"), "{name}");
    }
}

/// An example that is added to the docs of a package that skips the search would never be run.
#[test]
fn exactly_the_packages_without_an_example_in_their_docs_skip_the_search() {
    let skip = |folder: &Path| {
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        manifest.contains("[lib]\ndoctest = false\n")
    };
    let sources = sources();
    let mut wrong = Vec::new();
    for (name, folder) in &Metadata::read().folders {
        let of_library = format!("{}/src/", folder.strip_prefix(root()).unwrap().display());
        let mut own = sources.iter().filter(|(path, _)| path.starts_with(&of_library));
        if folder.join("src/lib.rs").exists() && skip(folder) == own.any(|(_, text)| has_example(text)) {
            wrong.push(name.clone());
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// Whether the docs of a source have a block of Rust; one of another language names it.
fn has_example(source: &str) -> bool {
    let mut inside = false;
    for line in source.lines() {
        let doc = line.trim_start();
        let Some(text) = doc.strip_prefix("///").or_else(|| doc.strip_prefix("//!")) else { continue };
        let Some(language) = text.trim_start().strip_prefix("```") else { continue };
        inside = !inside;
        if inside && language != "text" {
            return true;
        }
    }
    false
}

#[test]
fn an_example_is_distinguished_from_a_picture() {
    for (source, is_example) in [
        ("/// ```\n/// f();\n/// ```\n", true),
        ("    //! ```no_run\n    //! f();\n    //! ```\n", true),
        ("//! ```text\n//! a -> b\n//! ```\n", false),
        ("//! ```text\n//! a -> b\n//! ```\n/// ```\n/// f();\n/// ```\n", true),
        ("// ```\n", false),
    ] {
        assert_eq!(has_example(source), is_example, "{source}");
    }
}

#[test]
fn the_top_level_has_no_other_names() {
    let mut others = Vec::new();
    for entry in std::fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.starts_with('.') && !TOP_LEVEL.contains(&name.as_str()) {
            others.push(name);
        }
    }
    assert_eq!(others, Vec::<String>::new());
}

#[test]
fn every_link_of_the_readme_leads_to_a_file() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let links: Vec<&str> =
        readme.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(link, _)| link)).collect();
    let dead: Vec<&&str> =
        links.iter().filter(|link| !link.starts_with("http") && !root().join(link).exists()).collect();
    assert!(links.len() > 20, "the README has {} links", links.len());
    assert_eq!(dead, Vec::<&&str>::new());
}

#[test]
fn every_source_file_starts_with_a_doc_and_is_short() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{path}: {lines} lines; the maximum is {LINES_MAX}"));
        }
        if !text.starts_with("//! ") {
            wrong.push(format!("{path}: does not start with a module doc (//!)"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn no_source_has_unfinished_code_or_a_test_that_does_not_run() {
    // Written in halves, so that the test does not find this file.
    let banned = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("dbg", "!("),
        concat!("#[", "ignore"),
    ];
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        for (index, line) in text.lines().enumerate() {
            for word in banned {
                if line.contains(word) {
                    wrong.push(format!("{path}, line {}: {word}", index + 1));
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn sql_takes_bound_parameters_and_is_never_formatted() {
    let mut wrong = Vec::new();
    // `embedded` is the server itself, and its tests create tables with names of their own.
    let clients = sources().into_iter().filter(|(path, _)| !path.starts_with("deploy/embedded/"));
    for (path, text) in clients {
        for line in formatted_sql(&text) {
            wrong.push(format!("{path}, line {line}: SQL with a value formatted into it"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn formatted_sql_is_distinguished_from_bound_sql() {
    let format = concat!("format", "!");
    for (source, lines) in [
        ("let sql = F(\"SELECT x FROM t WHERE k = '{key}'\");", vec![1]),
        ("\n\nF(\n    \"INSERT INTO {} VALUES\",\n    t)", vec![3]),
        ("F(r#\"DELETE FROM t WHERE k = {k}\"#)", vec![1]),
        ("F(\"with {x} as (SELECT 1)\"); F(\"KILL QUERY WHERE {}\")", vec![1, 1]),
        ("F(\"SELECT x FROM t WHERE k = {{key:String}}\")", vec![]),
        ("F(\"selected {count} rows\")", vec![]),
        ("query(\"SELECT x FROM t WHERE k = {key:String}\")", vec![]),
    ] {
        let source = source.replace('F', format).replace(&format!("{format}ROM"), "FROM");
        assert_eq!(formatted_sql(&source), lines, "{source}");
    }
}

#[test]
fn the_code_map_names_every_package_and_no_missing_path() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let (_, rest) = readme.split_once("\n## Code map\n").expect("README.md has a section \"Code map\"");
    let map = rest.split("\n## ").next().unwrap_or(rest);
    let mut paths = BTreeSet::new();
    for word in map.split('`').skip(1).step_by(2) {
        if word.contains('/') {
            paths.insert(word);
        }
    }
    let mut wrong = Vec::new();
    for path in &paths {
        if !root().join(path).exists() {
            wrong.push(format!("{path} is on the map and does not exist"));
        }
    }
    for folder in Metadata::read().folders.values() {
        let folder = format!("{}/", folder.strip_prefix(root()).unwrap().display());
        if !paths.contains(folder.as_str()) {
            wrong.push(format!("{folder} is a package and not on the map"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package is a folder of the workspace")
}

/// Every Rust source in the packages' folders: its path from the root and its text.
fn sources() -> Vec<(String, String)> {
    let mut sources = Vec::new();
    let mut folders: Vec<PathBuf> = Vec::new();
    for name in TOP_LEVEL {
        if name != "target" && root().join(name).is_dir() {
            folders.push(root().join(name));
        }
    }
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                let skipped = ["target", "node_modules"];
                if !skipped.iter().any(|name| path.ends_with(name)) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                sources.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    sources.sort();
    assert!(sources.len() > 20, "only {} sources were found", sources.len());
    sources
}

/// The line numbers of formatting macros whose text is SQL with a placeholder.
fn formatted_sql(source: &str) -> Vec<usize> {
    const VERBS: [&str; 12] = [
        "SELECT ",
        "INSERT INTO ",
        "DELETE FROM ",
        "UPDATE ",
        "ALTER TABLE ",
        "CREATE TABLE ",
        "CREATE DATABASE ",
        "DROP ",
        "TRUNCATE ",
        "OPTIMIZE TABLE ",
        "KILL QUERY ",
        "SYSTEM ",
    ];
    let mut lines = Vec::new();
    for macro_name in ["format!(", "format_args!(", "write!(", "writeln!("] {
        for (at, _) in source.match_indices(macro_name) {
            let Some(text) = first_literal(&source[at + macro_name.len()..]) else {
                continue;
            };
            let placeholder = text.replace("{{", "").contains('{');
            if placeholder && VERBS.iter().any(|verb| text.contains(verb)) {
                lines.push(1 + source[..at].matches('\n').count());
            }
        }
    }
    lines.sort();
    lines
}

/// The text of the first string literal, up to its closing quote; `None` if the statement ends before one.
fn first_literal(code: &str) -> Option<&str> {
    let open = code.find('"')?;
    if code[..open].contains(';') {
        return None;
    }
    let raw = code[..open].ends_with('#') || code[..open].ends_with('r');
    let body = &code[open + 1..];
    let mut escaped = false;
    for (at, character) in body.char_indices() {
        match character {
            '\\' if !raw && !escaped => escaped = true,
            '"' if !escaped && (!raw || !code[..open].ends_with('#') || body[at..].starts_with("\"#")) => {
                return Some(&body[..at]);
            }
            _ => escaped = false,
        }
    }
    None
}

/// The purpose of a dependency.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Build,
    Dev,
}

/// The packages of the workspace and the graph of their imports.
struct Metadata {
    /// Ids of our packages by name.
    ours: BTreeMap<String, String>,
    /// Folders of our packages by name.
    folders: BTreeMap<String, PathBuf>,
    /// Names of all packages by id.
    names: BTreeMap<String, String>,
    /// Imports of all packages, by id.
    imports: BTreeMap<String, Vec<(String, Vec<Kind>)>>,
}

impl Metadata {
    /// Reads `cargo metadata` for the platform that runs the tests; packages of other platforms need not have
    /// been fetched.
    fn read() -> Metadata {
        let version = output(Command::new(env!("CARGO")).args(["--version", "--verbose"]));
        let host =
            version.lines().find_map(|line| line.strip_prefix("host: ")).expect("cargo prints its host");
        let text = output(
            Command::new(env!("CARGO"))
                .args(["metadata", "--format-version", "1", "--locked"])
                .args(["--filter-platform", host])
                .current_dir(root()),
        );
        Metadata::parse(&serde_json::from_str(&text).unwrap())
    }

    fn parse(metadata: &Value) -> Metadata {
        let text = |value: &Value| value.as_str().unwrap().to_string();
        let list = |value: &Value| value.as_array().unwrap().clone();
        let members: BTreeSet<_> = list(&metadata["workspace_members"]).iter().map(text).collect();
        let mut ours = BTreeMap::new();
        let mut folders = BTreeMap::new();
        let mut names = BTreeMap::new();
        for package in list(&metadata["packages"]) {
            let (id, name) = (text(&package["id"]), text(&package["name"]));
            if members.contains(&id) {
                let manifest = PathBuf::from(text(&package["manifest_path"]));
                folders.insert(name.clone(), manifest.parent().unwrap().to_path_buf());
                ours.insert(name.clone(), id.clone());
            }
            names.insert(id, name);
        }
        let mut imports = BTreeMap::new();
        for node in list(&metadata["resolve"]["nodes"]) {
            let mut of_node = Vec::new();
            for import in list(&node["deps"]) {
                let mut kinds = Vec::new();
                for kind in list(&import["dep_kinds"]) {
                    kinds.push(match kind["kind"].as_str() {
                        None => Kind::Normal,
                        Some("build") => Kind::Build,
                        Some("dev") => Kind::Dev,
                        Some(other) => panic!("unknown kind of import: {other}"),
                    });
                }
                of_node.push((text(&import["pkg"]), kinds));
            }
            imports.insert(text(&node["id"]), of_node);
        }
        Metadata { ours, folders, names, imports }
    }

    /// The names of all packages that `id` imports at any depth: directly for the given purposes, and further
    /// for building and running.
    fn reachable(&self, id: &str, purposes: &[Kind]) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let mut seen = BTreeSet::from([id]);
        let mut open = vec![(id, purposes)];
        while let Some((id, purposes)) = open.pop() {
            for (import, kinds) in &self.imports[id] {
                let wanted = kinds.iter().any(|kind| purposes.contains(kind));
                if wanted && seen.insert(import) {
                    names.insert(self.names[import].clone());
                    open.push((import, &[Kind::Normal, Kind::Build]));
                }
            }
        }
        names
    }
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
