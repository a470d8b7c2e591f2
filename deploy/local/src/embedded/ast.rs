//! How the engine itself reads a statement: what it is, and which format it asks for. EXPLAIN AST shows
//! the statement's kind in its first line, and each of its parts in a line that begins with one blank.

use super::engine::{Connection, Parameter};
use super::exception::Exception;
use super::lexer::Token;

/// A statement that the engine can read.
pub struct Ast {
    lines: Vec<u8>,
}

/// The kinds that read alone; SET and USE change the session, which the engine bounds.
const READS: [&str; 6] =
    ["SelectWithUnionQuery", "Explain", "DescribeQuery", "DescribeCacheQuery", "Set", "UseQuery"];
/// The same, by how they begin.
const READS_BEGIN: [&str; 4] = ["Show", "SHOW", "Exists", "Check"];
/// What may be about a temporary table, which belongs to the session.
const OF_TABLES: [&str; 3] = ["CreateQuery", "DropQuery", "TruncateQuery"];

impl Ast {
    /// Asks the engine, which runs nothing of the statement.
    ///
    /// # Errors
    /// What the engine cannot read, it cannot run either.
    pub fn of(connection: &mut Connection, sql: &[u8], parameters: &[Parameter]) -> Result<Ast, Exception> {
        let explain = [b"EXPLAIN AST ", sql].concat();
        let shown = connection.run(&explain, "TSVRaw", parameters)?;
        Ok(Ast { lines: shown.bytes().to_vec() })
    }

    /// Whether the engine may be left to judge the statement in a request that only reads. It does not look
    /// at everything by itself: statements that are combined, backups, named collections and some of SYSTEM
    /// run whatever `readonly` says.
    pub fn may_be_a_read(&self, tokens: &[Token], is_in_session: bool) -> bool {
        let kind = self.kind();
        let names_temporary = || tokens.iter().any(|token| token.is("TEMPORARY"));
        READS.contains(&kind)
            || READS_BEGIN.iter().any(|begin| kind.starts_with(begin))
            || (OF_TABLES.contains(&kind) && names_temporary())
            || (kind == "InsertQuery" && is_in_session)
    }

    /// Whether `name` is the answer's format: the last part but for the settings.
    pub fn has_format(&self, name: &str) -> bool {
        let mut lines = self.lines.split(|&byte| byte == b'\n');
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
    use super::super::lexer::tokens;
    use super::*;

    fn ast(lines: &str) -> Ast {
        Ast { lines: lines.as_bytes().to_vec() }
    }

    #[test]
    fn reads_are_told_by_their_kind() {
        let may = |lines: &str, sql: &str, is_in_session: bool| {
            let all: Vec<Token> = tokens(sql.as_bytes(), 0).collect();
            ast(lines).may_be_a_read(&all, is_in_session)
        };
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
            assert!(may(kind, "", false), "{kind}");
        }
        for kind in [
            "ParallelWithQuery 2 DropQuery__a (children 2)",
            "SetRoleQuery",
            "SYSTEM query",
            "BackupQuery",
            "KillQueryQuery",
            "CreateNamedCollectionQuery",
            "",
        ] {
            assert!(!may(kind, "", true), "{kind}");
        }
        assert!(may("CreateQuery t (children 2)", "CREATE TEMPORARY TABLE t (a Int8)", false));
        assert!(!may("CreateQuery t (children 2)", "CREATE TABLE t (a Int8)", true));
        assert!(may("InsertQuery   (children 2)", "INSERT INTO t SELECT 1", true));
        assert!(!may("InsertQuery   (children 2)", "INSERT INTO t SELECT 1", false));
    }

    #[test]
    fn the_format_is_the_last_part() {
        let select = "SelectWithUnionQuery (children 3)\n ExpressionList (children 1)\n  Identifier ASC\n Set\n Identifier CSV\n";
        assert!(ast(select).has_format("CSV"));
        assert!(!ast(select).has_format("ASC"));
        assert!(
            !ast("SelectWithUnionQuery (children 1)\n ExpressionList (children 1)\n  Identifier ASC\n")
                .has_format("ASC")
        );
    }
}
