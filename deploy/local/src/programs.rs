//! Finds the platform's own programs, which are in the directory of the running one. In a checkout it builds
//! them first, with the same cargo and the same profile, so that the demo and the tests never run an old
//! build.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};

/// The workspace that this program was built from.
const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Tests set this variable for the programs that they start, which then build with the same features as the
/// test.
pub const FOR_TESTS: &str = "SPLITSTREAM_PROGRAMS_FOR_TESTS";

/// The program that users install; each service is a process of it.
pub const SPLITSTREAM: &str = "splitstream";

/// The packages of the platform's programs.
const PACKAGES: [&str; 2] = ["splitstream", "embedded"];

/// Builds the programs if the running one is in the target directory of its workspace; does nothing if they
/// are installed. Cargo prints its own progress. If nothing has changed, it takes a second. Only the first
/// call in a process builds.
pub fn ensure_built() -> Result<()> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    DONE.get_or_init(|| build().map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)
}

/// A command that runs the platform's program, which is built first in a checkout.
pub fn splitstream() -> Result<Command> {
    ensure_built()?;
    Ok(Command::new(path(SPLITSTREAM)?))
}

/// The path of the program called `name`.
pub fn path(name: &str) -> Result<PathBuf> {
    let path = directory()?.join(name);
    ensure!(
        path.is_file(),
        "{} is not there: `cargo build --workspace` builds it; an installation keeps all programs in one \
         directory",
        path.display()
    );
    Ok(path)
}

/// The directory of the running program; for a test, which runs from `deps`, the parent of that.
fn directory() -> Result<&'static Path> {
    // Read only once, at the first call: a build may replace the running program's own file.
    static DIRECTORY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = DIRECTORY.get_or_init(|| {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let parent = program.parent().ok_or("a program without a directory")?;
        Ok(match parent.file_name() {
            Some(name) if name == "deps" => parent.parent().unwrap_or(parent).to_owned(),
            _ => parent.to_owned(),
        })
    });
    match found {
        Ok(directory) => Ok(directory),
        Err(error) => bail!("finding the directory of the running program: {error}"),
    }
}

/// Prefixes of the variables in which cargo describes the package of a program that it runs.
const CARGO_PACKAGE_PREFIXES: [&str; 5] =
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE"];

/// The same cargo, for another build.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Another cargo must not inherit these variables: build scripts that watch them would run again whenever
    // the values differ, and half of the dependencies would be built again.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if CARGO_PACKAGE_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
}

fn build() -> Result<()> {
    let directory = directory()?;
    let Some(target) = target_directory(directory) else { return Ok(()) };
    let profile = profile(directory);
    eprintln!("building the programs ...");
    let mut command = cargo();
    command
        .current_dir(WORKSPACE)
        .args(["build", "--locked", "--bins", "--profile", &profile, "--target-dir"])
        .arg(target)
        .stdin(Stdio::null());
    command.args(package_args());
    let status = command.status().context("starting cargo to build the programs")?;
    ensure!(status.success(), "building the programs failed ({status}); cargo printed the reason above");
    Ok(())
}

/// The arguments that select the packages to build: those of the programs. For a test they select the whole
/// workspace and one small test, so that the dependencies get the features of `cargo test --workspace`: with
/// other features, half of them would be compiled a second time.
fn package_args() -> Vec<&'static str> {
    if runs_as_test() {
        return vec!["--workspace", "--test", "tidy"];
    }
    PACKAGES.iter().flat_map(|package| ["--package", package]).collect()
}

/// Returns whether this program is a test, which cargo puts into `deps`, or was started by one.
fn runs_as_test() -> bool {
    let program = std::env::current_exe();
    let is_test =
        program.is_ok_and(|program| program.parent().is_some_and(|parent| parent.ends_with("deps")));
    is_test || std::env::var_os(FOR_TESTS).is_some()
}

/// Cargo's target directory, if `directory` is a profile's directory in it and the workspace exists.
fn target_directory(directory: &Path) -> Option<&Path> {
    let built_by_cargo = directory.join(".cargo-lock").is_file();
    let checkout = Path::new(WORKSPACE).join("Cargo.toml").is_file();
    if built_by_cargo && checkout { directory.parent() } else { None }
}

/// The profile whose output goes to `directory`. The directory of the profile `dev` is called `debug`.
fn profile(directory: &Path) -> String {
    match directory.file_name().map(|name| name.to_string_lossy().into_owned()) {
        Some(name) if name != "debug" => name,
        _ => "dev".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_names_the_profile() {
        assert_eq!(profile(Path::new("/w/target/debug")), "dev");
        assert_eq!(profile(Path::new("/w/target/release")), "release");
    }

    #[test]
    fn installed_programs_are_not_built() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(target_directory(directory.path()), None);
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = path("no-such-program").unwrap_err().to_string();
        let expected = directory().unwrap().join("no-such-program").display().to_string();
        assert!(error.starts_with(&format!("{expected} is not there: `cargo build --workspace`")), "{error}");
    }
}
