//! How the engine itself parses a statement: its kind and its format. EXPLAIN AST prints the kind in the
//! first line, and each part of the statement in a line that begins with one space.

use super::engine::{Connection, Parameter};
use super::exception::Exception;

/// A statement that the engine can parse.
pub struct Ast {
    lines: Vec<u8>,
}

/// The kinds that only read. SET and USE change only the session, within the limits of the engine.
const READS: [&str; 6] =
    ["SelectWithUnionQuery", "Explain", "DescribeQuery", "DescribeCacheQuery", "Set", "UseQuery"];
/// Prefixes of more kinds that only read.
const READS_BEGIN: [&str; 4] = ["Show", "SHOW", "Exists", "Check"];

impl Ast {
    /// Asks the engine, which does not run the statement.
    ///
    /// # Errors
    /// The engine cannot parse it. It may still accept the statement without the prefix (max_query_size).
    pub fn of(connection: &mut Connection, sql: &[u8], parameters: &[Parameter]) -> Result<Ast, Exception> {
        const EXPLAIN: &[u8] = b"EXPLAIN AST ";
        let shown = connection.run(&[EXPLAIN, sql].concat(), "TSVRaw", parameters);
        let shown = shown.map_err(|exception| exception.shift_position_back(EXPLAIN.len()))?;
        Ok(Ast { lines: shown.bytes().to_vec() })
    }

    /// Returns whether the statement only reads. The engine's own `readonly` is not enough. It allows writes
    /// to temporary tables and to table functions, which may be files or remote servers. It does not apply to
    /// PARALLEL WITH, to backups, to named collections and to some SYSTEM statements.
    pub fn is_read(&self) -> bool {
        let kind = self.kind();
        READS.contains(&kind) || READS_BEGIN.iter().any(|begin| kind.starts_with(begin))
    }

    /// Returns whether `name` is the format of the result: the last part, or the last before the settings.
    pub fn has_format(&self, name: &str) -> bool {
        // A setting can make lines end in \r\n.
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
    fn reads_are_recognized_by_their_kind() {
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
