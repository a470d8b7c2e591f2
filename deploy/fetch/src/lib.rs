//! Fetches the foreign parts of the local stack with their package clients (Maven, npm, pip): in pinned
//! versions, with checked digests, once, into a cache that all checkouts share. A part is complete or absent.
//! It is built in another directory under a lock, then renamed; its name is the digest of its pins. Knows
//! nothing of how the parts are run. [`progress`] and [`tail`] are public, so that callers show progress and
//! quote logs in the same way.

mod client;
mod jars;
pub mod progress;
pub mod tail;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::OnceLock;

use sha2::{Digest, Sha256};
use thiserror::Error;

pub use client::{JAVA, Prerequisite};
pub use jars::JarError;

use crate::progress::Step;

/// The packages that Maven is asked for, and the jars that must arrive.
const KAFKA_POM: &str = include_str!("../kafka/pom.xml");
const KAFKA_JARS: &str = include_str!("../kafka/jars.sha256");

/// The archive of the schema registry.
const REGISTRY_ARCHIVE: &str = include_str!("../registry/archive.sha256");
const REGISTRY_FILE: &str = "apicurio-registry-app-2.6.13.Final-all.tar.gz";
const REGISTRY_RUNNER: &str = "apicurio-registry-app-2.6.13.Final-runner.jar";

/// The package of the ClickHouse engine, and its lock file with the digest.
const ENGINE_PACKAGE: &str = include_str!("../clickhouse/package.json");
const ENGINE_LOCK: &str = include_str!("../clickhouse/package-lock.json");

/// The path of the library in the engine's package, and the only platform that the lock file pins.
const ENGINE_LIBRARY: &str = "node_modules/@chdb/lib-linux-x64-gnu/libchdb.so";
const ENGINE_PLATFORM: (&str, &str) = ("linux", "x86_64");

/// Maven's arguments for copying what `pom.xml` asks for into [`JARS`].
const JARS_FETCH: &[&str] = &[
    "-B",
    "-C",
    "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies",
    "-DincludeScope=runtime",
    "-DoutputDirectory=jars",
];

const JARS: &str = "jars";

const REGISTRY_FETCH: &[&str] = &[
    "-B",
    "-C",
    "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy",
    "-Dartifact=io.apicurio:apicurio-registry-app:2.6.13.Final:tar.gz:all",
    "-DoutputDirectory=archive",
];

const NPM_FETCH: &[&str] = &["ci", "--ignore-scripts", "--no-audit", "--no-fund"];

/// Why a part could not be fetched.
#[derive(Debug, Error)]
pub enum FetchError {
    /// A program is not installed: install it and call again.
    #[error("{} is not installed: {}. To get it: {}", .0.program, .0.why, .0.how)]
    Missing(Prerequisite),
    /// The program is installed, but too old.
    #[error("{} is too old ({found}): {}. To get it: {}", .needed.program, .needed.why, .needed.how)]
    TooOld { needed: Prerequisite, found: String },
    /// No engine is pinned for this platform: use a server that runs already.
    #[error(
        "no ClickHouse engine is pinned for {os} on {arch}: start a ClickHouse server and give its \
         address with --clickhouse http://host:8123"
    )]
    Platform { os: &'static str, arch: &'static str },
    /// The package client failed, most often because of the network. Its log contains the reason.
    #[error("`{command}` ended with {status}; its log {} ends:\n{last_lines}", .log.display())]
    Client { command: String, status: ExitStatus, log: PathBuf, last_lines: String },
    /// The jars that arrived are not those that are pinned.
    #[error(
        "refused what Maven brought: {0}. Remove that file from Maven's repository (~/.m2/repository) and try again"
    )]
    Jars(#[from] JarError),
    /// The client succeeded, but a file is missing.
    #[error("{part} was fetched, but {} is not in it; the client's log is {}", .path.display(), .log.display())]
    Incomplete { part: &'static str, path: PathBuf, log: PathBuf },
    /// SPLITSTREAM_CACHE, XDG_CACHE_HOME and HOME are all unset.
    #[error("no directory for the cache: set SPLITSTREAM_CACHE to a directory, or HOME")]
    NoHome,
    #[error("{doing} {}: {source}", .path.display())]
    Disk { doing: &'static str, path: PathBuf, source: io::Error },
}

impl FetchError {
    /// For `map_err`: adds what was being done to which path.
    fn disk(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FetchError {
        let path = path.to_owned();
        move |source| FetchError::Disk { doing, path, source }
    }
}

/// The directory of all fetched parts. Several processes may use it at once.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache at `SPLITSTREAM_CACHE`, else `$XDG_CACHE_HOME/splitstream`, else
    /// `~/.cache/splitstream`. Created if it does not exist.
    pub fn open() -> Result<Cache, FetchError> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let root = if let Some(given) = variable("SPLITSTREAM_CACHE") {
            PathBuf::from(given)
        } else if let Some(caches) = variable("XDG_CACHE_HOME") {
            PathBuf::from(caches).join("splitstream")
        } else if let Some(home) = variable("HOME") {
            PathBuf::from(home).join(".cache/splitstream")
        } else {
            return Err(FetchError::NoHome);
        };
        Cache::at(&root)
    }

    /// The cache at `root`. Created if it does not exist.
    pub fn at(root: &Path) -> Result<Cache, FetchError> {
        fs::create_dir_all(root).map_err(FetchError::disk("creating the cache", root))?;
        let root = fs::canonicalize(root).map_err(FetchError::disk("resolving", root))?;
        Ok(Cache { root })
    }

    /// The directory with the jars of Apache Kafka: 92 jars, 54 MB, half a minute the first time.
    pub fn kafka(&self) -> Result<PathBuf, FetchError> {
        let part = Part { name: "kafka", title: "Apache Kafka (54 MB)", key: key(&[KAFKA_POM, KAFKA_JARS]) };
        self.maven(&part, KAFKA_POM, KAFKA_JARS)
    }

    /// The directory with the jars that `pom.xml` in `package_dir` asks for, checked against `jars.sha256` beside it.
    pub fn java(&self, package_dir: &Path) -> Result<PathBuf, FetchError> {
        let pom = read(&package_dir.join("pom.xml"))?;
        let pins = read(&package_dir.join("jars.sha256"))?;
        let part = Part { name: "java", title: "the Java packages", key: key(&[&pom, &pins]) };
        self.maven(&part, &pom, &pins)
    }

    /// The directory of a part that consists of jars.
    fn maven(&self, part: &Part, pom: &str, pins: &str) -> Result<PathBuf, FetchError> {
        let path = self.part(part, |directory, log, step| {
            require_java_17()?;
            write(&directory.join("pom.xml"), pom)?;
            let maven = Path::new(client::MAVEN.program);
            client::run(client::MAVEN, maven, JARS_FETCH, directory, log, step)?;
            jars::verify(&directory.join(JARS), pins)?;
            Ok(())
        })?;
        Ok(path.join(JARS))
    }

    /// The jar that runs the schema registry: 142 MB to fetch, 146 MB on disk.
    pub fn registry(&self) -> Result<PathBuf, FetchError> {
        let part = Part {
            name: "registry",
            title: "the schema registry (142 MB)",
            key: key(&[REGISTRY_ARCHIVE, REGISTRY_FILE]),
        };
        let path = self.part(&part, |directory, log, step| {
            require_java_17()?;
            let maven = Path::new(client::MAVEN.program);
            client::run(client::MAVEN, maven, REGISTRY_FETCH, directory, log, step)?;
            let archive = directory.join("archive");
            jars::verify(&archive, REGISTRY_ARCHIVE)?;
            let file = archive.join(REGISTRY_FILE).display().to_string();
            let tar = Path::new(client::TAR.program);
            client::run(client::TAR, tar, &["-xzf", &file], directory, log, step)?;
            remove(&archive)?;
            expect_file(part.name, directory.join(REGISTRY_RUNNER), log)
        })?;
        Ok(path.join(REGISTRY_RUNNER))
    }

    /// The ClickHouse engine, `libchdb.so`: 150 MB to fetch, 559 MB on disk.
    pub fn engine(&self) -> Result<PathBuf, FetchError> {
        use std::env::consts::{ARCH, OS};
        if (OS, ARCH) != ENGINE_PLATFORM {
            return Err(FetchError::Platform { os: OS, arch: ARCH });
        }
        let part = Part {
            name: "engine",
            title: "the ClickHouse engine (150 MB)",
            key: key(&[ENGINE_PACKAGE, ENGINE_LOCK]),
        };
        let path = self.part(&part, |directory, log, step| {
            write(&directory.join("package.json"), ENGINE_PACKAGE)?;
            write(&directory.join("package-lock.json"), ENGINE_LOCK)?;
            npm_install(directory, log, step)?;
            expect_file(part.name, directory.join(ENGINE_LIBRARY), log)
        })?;
        Ok(path.join(ENGINE_LIBRARY))
    }

    /// A Python environment with exactly the packages in `requirements`; returns the interpreter. The file is
    /// pip's, with a version and a `--hash` in every line.
    pub fn python(&self, requirements: &Path) -> Result<PathBuf, FetchError> {
        let pins = read(requirements)?;
        let version = client::output(client::PYTHON, &["--version"])?;
        let part = Part { name: "python", title: "the Python packages", key: key(&[&version, &pins]) };
        let python = "bin/python";
        let path = self.part(&part, |directory, log, step| {
            write(&directory.join("requirements.txt"), &pins)?;
            let system = Path::new(client::PYTHON.program);
            let make = ["-m", "venv", "."];
            client::run(client::PYTHON, system, &make, directory, log, step)?;
            let install = [
                "-m",
                "pip",
                "install",
                "--no-input",
                "--require-hashes",
                "--requirement",
                "requirements.txt",
            ];
            let own = directory.join(python);
            client::run(client::PYTHON, &own, &install, directory, log, step)?;
            expect_file(part.name, own, log)
        })?;
        // Run tools as `python -m tool`: a script in bin/ contains the path where it was built.
        Ok(path.join(python))
    }

    /// The packages that the lock file in `package_dir` pins; returns the directory that contains
    /// `node_modules` (run Node there, or add it to NODE_PATH).
    pub fn node(&self, package_dir: &Path) -> Result<PathBuf, FetchError> {
        let package = read(&package_dir.join("package.json"))?;
        let lock = read(&package_dir.join("package-lock.json"))?;
        let part = Part { name: "node", title: "the JavaScript packages", key: key(&[&package, &lock]) };
        self.part(&part, |directory, log, step| {
            write(&directory.join("package.json"), &package)?;
            write(&directory.join("package-lock.json"), &lock)?;
            npm_install(directory, log, step)
        })
    }

    /// The path of a part. If it does not exist, `build` builds it in a directory of its own.
    fn part(
        &self,
        part: &Part,
        build: impl FnOnce(&Path, &Path, &Step) -> Result<(), FetchError>,
    ) -> Result<PathBuf, FetchError> {
        let parts = self.root.join(part.name);
        let path = parts.join(&part.key);
        if path.is_dir() {
            return Ok(path);
        }
        fs::create_dir_all(&parts).map_err(FetchError::disk("creating", &parts))?;
        let step = Step::start(format!("fetching {}", part.title));
        let _lock = lock(&parts.join("lock"), &step)?;
        if path.is_dir() {
            step.done("by another process");
            return Ok(path);
        }
        // Nobody else has the lock, so what is here was left by a process that died.
        let directory = parts.join("building");
        remove(&directory)?;
        fs::create_dir(&directory).map_err(FetchError::disk("creating", &directory))?;
        build(&directory, &parts.join("log"), &step)?;
        fs::rename(&directory, &path).map_err(FetchError::disk("moving into place", &path))?;
        step.done("");
        Ok(path)
    }
}

struct Part {
    /// The directory under the cache's root.
    name: &'static str,
    /// The name in the progress line.
    title: &'static str,
    /// The digest of the pins: other pins have another path.
    key: String,
}

/// A short digest of the pins. The length after each pin makes any two lists different.
fn key(pins: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for pin in pins {
        hasher.update(pin.as_bytes());
        hasher.update((pin.len() as u64).to_le_bytes());
    }
    hex::encode(&hasher.finalize()[..8])
}

/// A lock that at most one process holds, until it is dropped; the operating system releases it when the
/// process dies.
fn lock(path: &Path, step: &Step) -> Result<File, FetchError> {
    let disk = |doing| FetchError::disk(doing, path);
    let file = File::create(path).map_err(disk("creating the lock"))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => step.note("waiting for another process that fetches it"),
        Err(TryLockError::Error(error)) => return Err(disk("locking")(error)),
    }
    file.lock().map_err(disk("locking"))?;
    Ok(file)
}

fn npm_install(directory: &Path, log: &Path, step: &Step) -> Result<(), FetchError> {
    let npm = Path::new(client::NPM.program);
    client::run(client::NPM, npm, NPM_FETCH, directory, log, step)
}

/// What the installed Java says of itself, in three lines. Only the first call in a process runs it.
pub fn java_version() -> Result<String, FetchError> {
    static VERSION: OnceLock<String> = OnceLock::new();
    if let Some(version) = VERSION.get() {
        return Ok(version.clone());
    }
    let version = client::output(JAVA, &["-version"])?;
    Ok(VERSION.get_or_init(|| version).clone())
}

/// Maven runs on older versions, Kafka does not. This check comes before 54 MB are fetched.
fn require_java_17() -> Result<(), FetchError> {
    let output = java_version()?;
    match java_major(&output) {
        Some(major) if major < 17 => Err(FetchError::TooOld {
            needed: JAVA,
            found: output.lines().next().unwrap_or_default().to_owned(),
        }),
        // If the version cannot be parsed, Kafka itself will check it.
        _ => Ok(()),
    }
}

/// The major version: 17 for `openjdk version "17.0.15" 2025-04-15`, 1 for `java version "1.8.0_292"`.
fn java_major(output: &str) -> Option<u32> {
    let quoted = output.split('"').nth(1)?;
    quoted.split(['.', '-', '+']).next()?.parse().ok()
}

fn expect_file(part: &'static str, path: PathBuf, log: &Path) -> Result<(), FetchError> {
    if path.is_file() {
        return Ok(());
    }
    Err(FetchError::Incomplete { part, path, log: log.to_owned() })
}

fn read(path: &Path) -> Result<String, FetchError> {
    fs::read_to_string(path).map_err(FetchError::disk("reading", path))
}

fn write(path: &Path, text: &str) -> Result<(), FetchError> {
    fs::write(path, text).map_err(FetchError::disk("writing", path))
}

fn remove(directory: &Path) -> Result<(), FetchError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FetchError::disk("removing", directory)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_purpose_and_how_to_get_it() {
        assert_eq!(
            FetchError::Missing(client::MAVEN).to_string(),
            "mvn is not installed: Apache Maven 3.6 or later fetches Apache Kafka and the schema registry. \
             To get it: apt-get install maven, or brew install maven"
        );
    }

    #[test]
    fn both_forms_of_javas_version_are_parsed() {
        let modern = "openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime Environment";
        assert_eq!(java_major(modern), Some(17));
        assert_eq!(java_major("java version \"1.8.0_292\""), Some(1));
        assert_eq!(java_major("openjdk version \"26-ea\""), Some(26));
        assert_eq!(java_major("no such thing"), None);
    }

    #[test]
    fn pins_that_differ_only_in_where_one_ends_have_different_keys() {
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
    }

    #[test]
    fn a_part_is_built_once_and_a_failed_one_leaves_no_directory() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path()).unwrap();
        let part = Part { name: "thing", title: "a thing", key: key(&["pin"]) };
        let failed = cache.part(&part, |directory, _, _| {
            write(&directory.join("half"), "half")?;
            Err(FetchError::NoHome)
        });
        assert!(matches!(failed, Err(FetchError::NoHome)));
        let path = cache.part(&part, |directory, _, _| write(&directory.join("whole"), "1")).unwrap();
        assert_eq!(path, cache.root.join("thing").join(&part.key));
        let names: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["whole"], "nothing of the failed attempt is left");
        let again = cache.part(&part, |_, _, _| panic!("it is there already"));
        assert_eq!(again.unwrap(), path);
    }

    #[test]
    fn a_program_that_does_not_exist_is_reported_as_missing() {
        const ABSENT: Prerequisite = Prerequisite {
            program: "no-such-program-anywhere",
            why: "nothing does",
            how: "it cannot be had",
        };
        let refused = client::output(ABSENT, &[]).unwrap_err();
        assert!(matches!(refused, FetchError::Missing(ABSENT)));
    }
}
