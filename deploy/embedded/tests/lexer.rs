//! The server splits SQL into tokens exactly as the engine does: `tokenizeQuery` shows the tokens of the
//! engine's lexer.

/// The server's lexer, as it is compiled into the server.
#[path = "../src/lexer.rs"]
#[allow(dead_code)]
mod lexer;
mod server;

use lexer::{Kind, tokens};
use server::Server;

/// The bytes of a token and the engine's name of its kind, as far as the server distinguishes kinds.
type Split = (usize, usize, &'static str);

fn ours(sql: &[u8]) -> Vec<Split> {
    let name = |kind: Kind| match kind {
        Kind::Word => "word",
        Kind::Identifier => "identifier",
        Kind::String => "text",
        Kind::Number => "number",
        Kind::Punctuation(_) | Kind::Other => "other",
        Kind::Unfinished => "unfinished",
    };
    tokens(sql, 0).map(|token| (token.at, token.end(), name(token.kind))).collect()
}

/// The engine's tokens of each text.
fn engines(server: &Server, texts: &[Vec<u8>]) -> Vec<Vec<Split>> {
    let hex = |text: &Vec<u8>| text.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let list: Vec<String> = texts.iter().map(|text| format!("'{}'", hex(text))).collect();
    let sql = format!(
        "SELECT arrayMap(token -> (token.begin, token.end, toString(token.type)), tokenizeQuery(unhex(text))) \
         FROM (SELECT arrayJoin([{}]) AS text) SETTINGS max_query_size = 100000000, max_threads = 1 \
         FORMAT JSONCompactEachRow",
        list.join(",")
    );
    let answer = server.sql(&sql);
    let name = |kind: &str| match kind {
        "Whitespace" | "Comment" | "EndOfStream" => None,
        "BareWord" => Some("word"),
        "QuotedIdentifier" => Some("identifier"),
        "StringLiteral" | "HereDoc" => Some("text"),
        "Number" => Some("number"),
        _ if kind.ends_with("NotClosed") => Some("unfinished"),
        _ => Some("other"),
    };
    answer
        .lines()
        .map(|line| {
            let (all,): (Vec<(usize, usize, String)>,) = serde_json::from_str(line).expect(line);
            all.iter().filter_map(|(begin, end, kind)| Some((*begin, *end, name(kind)?))).collect()
        })
        .collect()
}

fn compare(server: &Server, texts: &[Vec<u8>]) {
    let found = engines(server, texts);
    assert_eq!(found.len(), texts.len());
    for (text, mut expected) in texts.iter().zip(found) {
        // The engine continues inside an unclosed token; such a text is never run.
        if let Some(unfinished) = expected.iter().position(|(_, _, kind)| *kind == "unfinished") {
            expected.truncate(unfinished + 1);
        }
        assert_eq!(ours(text), expected, "{:?}", String::from_utf8_lossy(text));
    }
}

#[test]
fn every_character_is_a_separator_exactly_if_it_is_one_in_the_engine() {
    let server = Server::start(&[]);
    let texts: Vec<Vec<u8>> = (1..=0xffff_u32)
        .filter_map(char::from_u32)
        .map(|character| format!("a{character}b").into_bytes())
        .collect();
    for part in texts.chunks(8192) {
        compare(&server, part);
    }
}

#[test]
fn texts_are_split_as_in_the_engine() {
    let server = Server::start(&[]);
    let whole = [
        "/* /* ' */ */ INTO /* */ OUTFILE",
        "/* /* ' */ SELECT '",
        "SELECT 'it''s', 'a\\'b', \"q\"\"r\", `a\\`b` -- ; '\n#! x\n# y\n#z",
        "$$ a $$, $tag$ ' $tag$, $a b$ x $a b$, $1, $, a$b, $a$",
        "x.1.1, .5, 1.5e+3, 1.e, 0x, 0xFF_FFp1, 0b1012, 1__2, 12_, 1_000, 2nd, 1a.b, 1.1.1, t.1a, ).5, ].5",
        "‘a\\’ “b\" ” ‘a’’ “”, ‘’, −1, …",
        "x'41' X'4' b'01' B'' ax'41' 1x'41' x'4'x'' .0x'41' x'4g' y",
        "1a$a$ ' $a$ a$a$ '",
        "a->b a::b a||b a|b a==b a!=b a!b a<=>b a<>b @@x @x ?:; {x:y} [1] ~ % ^ & \\ \\G \\H",
        "\u{feff}SELECT\u{a0}1\u{3000}",
    ];
    let mut texts: Vec<Vec<u8>> = whole.iter().map(|text| text.as_bytes().to_vec()).collect();
    // Every text is cut at every byte, also inside a character.
    for text in whole {
        texts.extend((0..text.len()).map(|end| text.as_bytes()[..end].to_vec()));
    }
    texts.retain(|text| !text.is_empty());
    compare(&server, &texts);
}

#[test]
fn random_texts_are_split_as_in_the_engine() {
    let server = Server::start(&[]);
    const PIECES: [&str; 68] = [
        " ", "\n", "\t", "\r", "\0", "a", "Z", "_", "$", "$a$", "$$", "1", "0", "0x", "0b", "x'", "b'", "e",
        "p", ".", "..", ",", "-", "--", "->", "+", "/", "/*", "*/", "*", "'", "''", "\\", "\\'", "\\G", "\"",
        "`", "‘", "’", "“", "”", "\u{a0}", "\u{feff}", "−", "#", "# ", "#!", "(", ")", "]", "{", "}", ";",
        ":", "|", "=", "<", ">", "!", "@", "?", "&", "~", "%", "^", "[", "\u{1}", "ä",
    ];
    // Single bytes of characters beyond ASCII.
    const PARTS: [&[u8]; 6] = [b"\xff", b"\xc2", b"\xe2", b"\xe2\x80", b"\x98", b"\xa0"];
    let seed = std::env::var("SEED").ok().and_then(|it| it.parse().ok()).unwrap_or(0x5eed_u64);
    println!("SEED={seed}");
    let mut state = seed;
    // xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled", 2016).
    let mut random = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    };
    let texts: Vec<Vec<u8>> = (0..20_000)
        .map(|_| {
            let length = 1 + random() % 12;
            let mut text = Vec::new();
            for _ in 0..length {
                let chosen = (random() % (PIECES.len() + PARTS.len()) as u64) as usize;
                text.extend_from_slice(match PIECES.get(chosen) {
                    Some(piece) => piece.as_bytes(),
                    None => PARTS[chosen - PIECES.len()],
                });
            }
            text
        })
        .collect();
    for part in texts.chunks(5_000) {
        compare(&server, part);
    }
}
