//! Checks a directory of jars against its pins: their names and their digests. Knows nothing of where jars
//! come from.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};
use thiserror::Error;

/// The first difference between a directory and its pins, or why it could not be compared.
#[derive(Debug, Error)]
pub enum JarError {
    /// A line of the pins is not `<64 hex digits>  <name>`.
    #[error("line {line} of the pins is not a SHA-256, two spaces and a file name: {text:?}")]
    Pin { line: usize, text: String },
    /// The content is not the pinned one: a damaged download, or an attack.
    #[error("{jar} has SHA-256 {found}, pinned is {pinned}")]
    Digest { jar: String, found: String, pinned: String },
    /// A pinned jar did not arrive.
    #[error("{jar} is pinned but did not arrive")]
    Missing { jar: String },
    /// A jar arrived that is not pinned.
    #[error("{jar} arrived but is not pinned")]
    Extra { jar: String },
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: io::Error },
}

/// Checks that `directory` contains exactly the files in `pins`, each with its digest. Returns their number.
pub fn verify(directory: &Path, pins: &str) -> Result<usize, JarError> {
    let mut pinned = parse(pins)?;
    let count = pinned.len();
    let read = |source| JarError::Read { path: directory.display().to_string(), source };
    for entry in std::fs::read_dir(directory).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let jar = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Some(pinned) = pinned.remove(&jar) else {
            return Err(JarError::Extra { jar });
        };
        let found =
            sha256(&path).map_err(|source| JarError::Read { path: path.display().to_string(), source })?;
        if found != pinned {
            return Err(JarError::Digest { jar, found, pinned });
        }
    }
    match pinned.into_keys().next() {
        Some(jar) => Err(JarError::Missing { jar }),
        None => Ok(count),
    }
}

/// Parses the pins into digests by name. Lines that begin with `#` are comments.
fn parse(pins: &str) -> Result<BTreeMap<String, String>, JarError> {
    let mut pinned = BTreeMap::new();
    for (index, text) in pins.lines().enumerate() {
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        match text.split_once("  ") {
            Some((digest, jar)) if is_sha256(digest) && !jar.is_empty() => {
                pinned.insert(jar.to_owned(), digest.to_owned());
            }
            _ => {
                return Err(JarError::Pin { line: index + 1, text: text.to_owned() });
            }
        }
    }
    Ok(pinned)
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn sha256(path: &Path) -> io::Result<String> {
    // The largest jar has 10 MB.
    Ok(hex::encode(Sha256::digest(std::fs::read(path)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    // sha256("jar\n")
    const JAR: &str = "fb8ce05502991565de98e3e21d9ab98151c1cd1715b14a3f7c349cba300cb2b9";

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        directory
    }

    fn refusal(files: &[(&str, &str)], pins: &str) -> String {
        let directory = directory(files);
        verify(directory.path(), pins).unwrap_err().to_string()
    }

    #[test]
    fn a_directory_with_exactly_the_pinned_jars_passes() {
        let directory = directory(&[("a.jar", "jar\n"), ("b.jar", "jar\n")]);
        let pins = format!("# two of them\n{JAR}  a.jar\n{JAR}  b.jar\n");
        assert_eq!(verify(directory.path(), &pins).unwrap(), 2);
    }

    #[test]
    fn a_changed_byte_is_refused_by_name() {
        assert_eq!(
            refusal(&[("a.jar", "jaR\n")], &format!("{JAR}  a.jar\n")),
            format!(
                "a.jar has SHA-256 1a7083b191a13cdb2c96351d8245448f62e43fe473b2c4faaef75b0e8e705f93, pinned is {JAR}"
            )
        );
    }

    #[test]
    fn an_extra_jar_and_a_missing_jar_are_refused_by_name() {
        assert_eq!(
            refusal(&[("a.jar", "jar\n"), ("b.jar", "jar\n")], &format!("{JAR}  a.jar\n")),
            "b.jar arrived but is not pinned"
        );
        assert_eq!(refusal(&[], &format!("{JAR}  a.jar\n")), "a.jar is pinned but did not arrive");
    }

    #[test]
    fn a_pin_that_cannot_be_read_is_refused_with_its_line() {
        assert_eq!(
            refusal(&[], "# pins\nabc  a.jar\n"),
            "line 2 of the pins is not a SHA-256, two spaces and a file name: \"abc  a.jar\""
        );
    }
}
