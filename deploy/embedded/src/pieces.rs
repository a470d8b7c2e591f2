//! How the pieces of a streamed result make one document. The engine writes each piece as a document of
//! its own, with a head: in formats of rows alone the pieces simply follow each other, in formats with a
//! head every piece but the first loses it, and what has a foot or counts cannot be put together at all.

/// What a format's pieces need to become one result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joining {
    /// They follow each other.
    Rows,
    /// They follow each other, all but the first without its head.
    Head(Head),
    /// They do not: the result must be made as a whole.
    Whole,
}

/// How long a head is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// So many lines.
    Lines(usize),
    /// So many lines, in which a line end may stand between quotes.
    QuotedLines(usize),
    /// RowBinary's: the number of columns, then so many texts for each.
    Texts(usize),
}

/// Settings after which even a format of rows has a head or a foot.
const WHOLE_IF_SET: [&str; 3] = ["output_format_json_array_of_rows", "extremes", "format_binary"];

impl Joining {
    /// Of a format by its name, in any case of letters; `sql` and the names of the settings that came with
    /// it tell of what changes it.
    pub fn of<'name>(format: &str, sql: &[u8], settings: impl Iterator<Item = &'name str>) -> Joining {
        let mentions =
            |word: &str| sql.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word.as_bytes()));
        let changed = settings.into_iter().any(|set| WHOLE_IF_SET.iter().any(|name| set.starts_with(name)));
        if changed || mentions("totals") || WHOLE_IF_SET.into_iter().any(mentions) {
            return Joining::Whole;
        }
        match format.to_ascii_lowercase().as_str() {
            "tabseparated"
            | "tsv"
            | "tabseparatedraw"
            | "tsvraw"
            | "raw"
            | "csv"
            | "tskv"
            | "jsoneachrow"
            | "jsonlines"
            | "ndjson"
            | "jsonstringseachrow"
            | "jsoncompacteachrow"
            | "jsoncompactstringseachrow"
            | "rowbinary"
            | "native"
            | "msgpack"
            | "bsoneachrow"
            | "rawblob"
            | "null" => Joining::Rows,
            "tabseparatedwithnames"
            | "tsvwithnames"
            | "tabseparatedrawwithnames"
            | "tsvrawwithnames"
            | "rawwithnames"
            | "jsoncompacteachrowwithnames"
            | "jsoncompactstringseachrowwithnames" => Joining::Head(Head::Lines(1)),
            "tabseparatedwithnamesandtypes"
            | "tsvwithnamesandtypes"
            | "tabseparatedrawwithnamesandtypes"
            | "tsvrawwithnamesandtypes"
            | "rawwithnamesandtypes"
            | "jsoncompacteachrowwithnamesandtypes"
            | "jsoncompactstringseachrowwithnamesandtypes" => Joining::Head(Head::Lines(2)),
            "csvwithnames" => Joining::Head(Head::QuotedLines(1)),
            "csvwithnamesandtypes" => Joining::Head(Head::QuotedLines(2)),
            "rowbinarywithnames" => Joining::Head(Head::Texts(1)),
            "rowbinarywithnamesandtypes" => Joining::Head(Head::Texts(2)),
            _ => Joining::Whole,
        }
    }
}

impl Head {
    /// The piece without its head; all of it is head if the head does not end in it.
    pub fn strip(self, piece: &[u8]) -> &[u8] {
        let length = match self {
            Head::Lines(lines) => lines_length(piece, lines, false),
            Head::QuotedLines(lines) => lines_length(piece, lines, true),
            Head::Texts(texts) => texts_length(piece, texts),
        };
        &piece[length.unwrap_or(piece.len())..]
    }
}

fn lines_length(piece: &[u8], lines: usize, quotes: bool) -> Option<usize> {
    let mut quoted = false;
    let mut left = lines;
    for (at, &byte) in piece.iter().enumerate() {
        match byte {
            // A quote inside quotes is doubled, which leaves them and enters them again.
            b'"' if quotes => quoted = !quoted,
            b'\n' if !quoted => left -= 1,
            _ => {}
        }
        if left == 0 {
            return Some(at + 1);
        }
    }
    None
}

fn texts_length(piece: &[u8], texts: usize) -> Option<usize> {
    let mut at = 0;
    let columns = varint(piece, &mut at)?;
    for _ in 0..columns.checked_mul(texts)? {
        let length = varint(piece, &mut at)?;
        at = at.checked_add(length).filter(|&end| end <= piece.len())?;
    }
    Some(at)
}

fn varint(piece: &[u8], at: &mut usize) -> Option<usize> {
    let mut value = 0_usize;
    for shift in (0..63).step_by(7) {
        let byte = *piece.get(*at)?;
        *at += 1;
        value |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joining(format: &str, sql: &str) -> Joining {
        Joining::of(format, sql.as_bytes(), [].into_iter())
    }

    #[test]
    fn rows_follow_each_other_and_documents_do_not() {
        assert_eq!(joining("TSV", "SELECT 1"), Joining::Rows);
        assert_eq!(joining("jsonEachRow", "SELECT 1"), Joining::Rows);
        assert_eq!(joining("JSON", "SELECT 1"), Joining::Whole);
        assert_eq!(joining("Parquet", "SELECT 1"), Joining::Whole);
        assert_eq!(joining("NoSuchFormat", "SELECT 1"), Joining::Whole);
        assert_eq!(joining("TSV", "SELECT 1 GROUP BY 1 WITH Totals"), Joining::Whole);
        let set = ["output_format_json_array_of_rows"].into_iter();
        assert_eq!(Joining::of("JSONEachRow", b"SELECT 1", set), Joining::Whole);
    }

    #[test]
    fn the_head_of_lines_is_cut_off() {
        let Joining::Head(head) = joining("TSVWithNamesAndTypes", "SELECT 1") else { panic!("has a head") };
        assert_eq!(head.strip(b"a\tb\nUInt8\tUInt8\n1\t2\n3\t4\n"), b"1\t2\n3\t4\n");
        assert_eq!(head.strip(b"a\tb\nUInt8\tUInt8\n"), b"");
        assert_eq!(head.strip(b"a\tb\n"), b"");
    }

    #[test]
    fn a_line_end_between_quotes_does_not_end_a_csv_head() {
        let Joining::Head(head) = joining("CSVWithNames", "SELECT 1") else { panic!("has a head") };
        assert_eq!(head.strip(b"\"a\"\"\n\",\"b\"\n1,2\n"), b"1,2\n");
    }

    #[test]
    fn a_binary_head_is_counted_and_cut_off() {
        let Joining::Head(head) = joining("RowBinaryWithNamesAndTypes", "SELECT 1") else {
            panic!("has a head")
        };
        assert_eq!(head.strip(b"\x02\x01a\x02bb\x05UInt8\x06String\x07\x01x"), b"\x07\x01x");
        assert_eq!(head.strip(b"\x02\x01a\x02bb\x05UIn"), b"");
    }
}
