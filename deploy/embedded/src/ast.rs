//! How the engine itself reads a statement: what it is, and which format it asks for. EXPLAIN AST shows
//! the statement's kind in its first line, and each of its parts in a line that begins with one blank.

use super::engine::{Connection, Parameter};
use super::exception::Exception;

/// A statement that the engine can read.
pub struct Ast {
    lines: Vec<u8>,
}

/// The kinds that read alone; SET and USE change the session, which the engine bounds.
const READS: [&str; 6] =
    ["SelectWithUnionQuery", "Explain", "DescribeQuery", "DescribeCacheQuery", "Set", "UseQuery"];
/// The same, by how they begin.
const READS_BEGIN: [&str; 4] = ["Show", "SHOW", "Exists", "Check"];

impl Ast {
    /// Asks the engine, which runs nothing of the statement.
    ///
    /// # Errors
    /// The engine cannot read it; it may be able to without what stands before it here (max_query_size).
    pub fn of(connection: &mut Connection, sql: &[u8], parameters: &[Parameter]) -> Result<Ast, Exception> {
        const EXPLAIN: &[u8] = b"EXPLAIN AST ";
        let shown = connection.run(&[EXPLAIN, sql].concat(), "TSVRaw", parameters);
        let shown = shown.map_err(|exception| exception.moved_back(EXPLAIN.len()))?;
        Ok(Ast { lines: shown.bytes().to_vec() })
    }

    /// Whether the statement reads alone. The engine's own `readonly` is not enough: it lets temporary tables
    /// and table functions be written, which may be files or addresses, and statements that are combined,
    /// backups, named collections and some of SYSTEM run whatever it says.
    pub fn is_read(&self) -> bool {
        let kind = self.kind();
        READS.contains(&kind) || READS_BEGIN.iter().any(|begin| kind.starts_with(begin))
    }

    /// Whether `name` is the answer's format: the last part but for the settings.
    pub fn has_format(&self, name: &str) -> bool {
        // With a setting, lines end in \r\n.
        let mut lines = self.lines.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end);
        let last = lines.rfind(|line| line.starts_with(b" ") && !line.starts_with(b"  ") && *line != b" Set");
        last.and_then(|line| line.strip_prefix(b" Identifier ")) == Some(name.as_bytes())
    }

    fn kind(&self) -> &str {
        let word = self.lines.split(|byte| byte.is_ascii_whitespace()).next().unwrap_or_default();
        std::str::from_utf8(word).unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ast(lines: &str) -> Ast {
        Ast { lines: lines.as_bytes().to_vec() }
    }

    #[test]
    fn reads_are_told_by_their_kind() {
        for kind in [
            "SelectWithUnionQuery (children 1)",
            "Explain EXPLAIN AST (children 1)",
            "ShowTables",
            "SHOW USERS query",
            "ExistsTableQuery  t (children 1)",
            "CheckAllQuery",
            "Set",
            "UseQuery d",
        ] {
            assert!(ast(kind).is_read(), "{kind}");
        }
        for kind in [
            "ParallelWithQuery 2 SelectWithUnionQuery (children 2)",
            "InsertQuery   (children 2)",
            "CreateQuery t (children 2)",
            "DropQuery  t (children 1)",
            "SetRoleQuery",
            "ExecuteAsQuery (children 2)",
            "SYSTEM query",
            "BackupQuery",
            "KillQueryQuery",
            "CreateNamedCollectionQuery",
            "",
        ] {
            assert!(!ast(kind).is_read(), "{kind}");
        }
    }

    #[test]
    fn the_format_is_the_last_part() {
        let select = "SelectWithUnionQuery (children 3)\n ExpressionList (children 1)\n  Identifier ASC\n Set\n Identifier CSV\n";
        assert!(ast(select).has_format("CSV"));
        assert!(ast(&select.replace("\n", "\r\n")).has_format("CSV"));
        assert!(!ast(select).has_format("ASC"));
        assert!(
            !ast("SelectWithUnionQuery (children 1)\n ExpressionList (children 1)\n  Identifier ASC\n")
                .has_format("ASC")
        );
    }
}
