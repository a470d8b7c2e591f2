//! Concatenates the chunks of a streamed result. The engine writes each chunk as a document of its own. In a
//! format that has only rows, the chunks are concatenated as they are. In a format with a header, the header
//! is removed from every chunk but the first. A format with a footer or with counts cannot be concatenated.

/// How the chunks of a format become one result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concatenation {
    /// They are concatenated as they are.
    Plain,
    /// They are concatenated, all but the first without their header.
    SkipHeader(Header),
    /// They cannot be concatenated: the engine must write the result as a whole.
    Impossible,
}

/// The extent of a format's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// This many lines.
    Lines(usize),
    /// This many lines; a line end inside quotes does not count.
    QuotedLines(usize),
    /// RowBinary's header: the number of columns, then this many strings for each.
    Strings(usize),
}

/// Prefixes of settings that add a header or a footer to a format of rows.
const SETTINGS_WITH_MORE_THAN_ROWS: [&str; 3] =
    ["output_format_json_array_of_rows", "extremes", "format_binary"];

impl Concatenation {
    /// For a format, whose name is not case-sensitive. `sql` and the names of its settings can change the
    /// answer.
    pub fn of<'name>(format: &str, sql: &[u8], settings: impl Iterator<Item = &'name str>) -> Concatenation {
        let mentions =
            |word: &str| sql.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word.as_bytes()));
        let changed = settings
            .into_iter()
            .any(|set| SETTINGS_WITH_MORE_THAN_ROWS.iter().any(|name| set.starts_with(name)));
        if changed || mentions("totals") || SETTINGS_WITH_MORE_THAN_ROWS.into_iter().any(mentions) {
            return Concatenation::Impossible;
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
            | "null" => Concatenation::Plain,
            "tabseparatedwithnames"
            | "tsvwithnames"
            | "tabseparatedrawwithnames"
            | "tsvrawwithnames"
            | "rawwithnames"
            | "jsoncompacteachrowwithnames"
            | "jsoncompactstringseachrowwithnames" => Concatenation::SkipHeader(Header::Lines(1)),
            "tabseparatedwithnamesandtypes"
            | "tsvwithnamesandtypes"
            | "tabseparatedrawwithnamesandtypes"
            | "tsvrawwithnamesandtypes"
            | "rawwithnamesandtypes"
            | "jsoncompacteachrowwithnamesandtypes"
            | "jsoncompactstringseachrowwithnamesandtypes" => Concatenation::SkipHeader(Header::Lines(2)),
            "csvwithnames" => Concatenation::SkipHeader(Header::QuotedLines(1)),
            "csvwithnamesandtypes" => Concatenation::SkipHeader(Header::QuotedLines(2)),
            "rowbinarywithnames" => Concatenation::SkipHeader(Header::Strings(1)),
            "rowbinarywithnamesandtypes" => Concatenation::SkipHeader(Header::Strings(2)),
            _ => Concatenation::Impossible,
        }
    }
}

impl Header {
    /// The chunk without its header; empty if the header does not end in it.
    pub fn strip(self, chunk: &[u8]) -> &[u8] {
        let length = match self {
            Header::Lines(lines) => lines_length(chunk, lines, false),
            Header::QuotedLines(lines) => lines_length(chunk, lines, true),
            Header::Strings(strings) => strings_length(chunk, strings),
        };
        &chunk[length.unwrap_or(chunk.len())..]
    }
}

fn lines_length(chunk: &[u8], lines: usize, quotes: bool) -> Option<usize> {
    let mut quoted = false;
    let mut left = lines;
    for (at, &byte) in chunk.iter().enumerate() {
        match byte {
            // A quote inside quotes is doubled, which toggles twice.
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

fn strings_length(chunk: &[u8], strings: usize) -> Option<usize> {
    let mut at = 0;
    let columns = varint(chunk, &mut at)?;
    for _ in 0..columns.checked_mul(strings)? {
        let length = varint(chunk, &mut at)?;
        at = at.checked_add(length).filter(|&end| end <= chunk.len())?;
    }
    Some(at)
}

fn varint(chunk: &[u8], at: &mut usize) -> Option<usize> {
    let mut value = 0_usize;
    for shift in (0..63).step_by(7) {
        let byte = *chunk.get(*at)?;
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

    fn concatenation(format: &str, sql: &str) -> Concatenation {
        Concatenation::of(format, sql.as_bytes(), [].into_iter())
    }

    #[test]
    fn chunks_of_rows_are_concatenated_and_documents_are_not() {
        assert_eq!(concatenation("TSV", "SELECT 1"), Concatenation::Plain);
        assert_eq!(concatenation("jsonEachRow", "SELECT 1"), Concatenation::Plain);
        assert_eq!(concatenation("JSON", "SELECT 1"), Concatenation::Impossible);
        assert_eq!(concatenation("Parquet", "SELECT 1"), Concatenation::Impossible);
        assert_eq!(concatenation("NoSuchFormat", "SELECT 1"), Concatenation::Impossible);
        assert_eq!(concatenation("TSV", "SELECT 1 GROUP BY 1 WITH Totals"), Concatenation::Impossible);
        let set = ["output_format_json_array_of_rows"].into_iter();
        assert_eq!(Concatenation::of("JSONEachRow", b"SELECT 1", set), Concatenation::Impossible);
    }

    #[test]
    fn a_header_of_lines_is_removed() {
        let Concatenation::SkipHeader(header) = concatenation("TSVWithNamesAndTypes", "SELECT 1") else {
            panic!("has a head")
        };
        assert_eq!(header.strip(b"a\tb\nUInt8\tUInt8\n1\t2\n3\t4\n"), b"1\t2\n3\t4\n");
        assert_eq!(header.strip(b"a\tb\nUInt8\tUInt8\n"), b"");
        assert_eq!(header.strip(b"a\tb\n"), b"");
    }

    #[test]
    fn a_line_end_in_quotes_does_not_end_a_csv_header() {
        let Concatenation::SkipHeader(header) = concatenation("CSVWithNames", "SELECT 1") else {
            panic!("has a head")
        };
        assert_eq!(header.strip(b"\"a\"\"\n\",\"b\"\n1,2\n"), b"1,2\n");
    }

    #[test]
    fn a_binary_header_is_removed() {
        let Concatenation::SkipHeader(header) = concatenation("RowBinaryWithNamesAndTypes", "SELECT 1")
        else {
            panic!("has a head")
        };
        assert_eq!(header.strip(b"\x02\x01a\x02bb\x05UInt8\x06String\x07\x01x"), b"\x07\x01x");
        assert_eq!(header.strip(b"\x02\x01a\x02bb\x05UIn"), b"");
    }
}
