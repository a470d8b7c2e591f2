//! Allows URLs as long as ClickHouse allows them (http_max_uri_size), which is sixteen times the limit of the
//! HTTP library. This filter reads the request heads of a connection before the library does. It stores a
//! long URL and puts a short placeholder into the head instead. It counts the bytes of bodies and forwards
//! them. If a head is unusual in any way, the filter forwards it and everything after it unchanged, and the
//! library decides.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use httparse::Status;

/// The longest URL that is accepted; ClickHouse's http_max_uri_size.
pub const URL_BYTES_MAX: usize = 1 << 20;
/// A longer URL is replaced by the placeholder; the library's limit is 65,534 bytes.
const FORWARDED_URL_BYTES_MAX: usize = 60_000;
/// The headers after the URL; the library accepts about as many bytes.
const HEADERS_BYTES_MAX: usize = 400_000;
/// The library's limit on the number of headers; the library refuses a head with more.
const HEADERS_MAX: usize = 100;
/// A head whose URL is too long is read to its end, so that its client can read the refusal, but no further
/// than this.
const DISCARDED_HEAD_BYTES_MAX: usize = 64 << 20;
/// A chunk's length with its extensions, or a trailer.
const CHUNK_LINE_BYTES_MAX: usize = 16_384;
/// How many long URLs may be stored and not yet removed; the library reads one request after the other.
const LONG_URLS_MAX: usize = 4;
/// The path that replaces a long URL.
const PLACEHOLDER: &str = "/address-put-aside";

/// The long URLs of one connection, in the order of its requests.
#[derive(Debug, Clone, Default)]
pub struct LongUrls(Arc<Mutex<VecDeque<LongUrl>>>);

/// A URL that the placeholder replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LongUrl {
    Complete(String),
    /// Longer than [`URL_BYTES_MAX`].
    TooLong,
}

impl LongUrls {
    /// The next long URL, if `path` is the placeholder.
    pub fn take(&self, path: &str) -> Option<LongUrl> {
        if path != PLACEHOLDER {
            return None;
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Stores a URL; false if there is no room.
    fn put(&self, url: LongUrl) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = all.len() < LONG_URLS_MAX;
        if has_room {
            all.push_back(url);
        }
        has_room
    }
}

/// Filters what a client sends on one connection.
#[derive(Debug, Default)]
pub struct LongUrlFilter {
    pub long_urls: LongUrls,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The head so far, and how many of its bytes were searched for its end.
    Head { head: Vec<u8>, searched: usize },
    /// A head whose URL is too long: its last bytes, and how many bytes came in all.
    TooLong { method: Vec<u8>, last: Vec<u8>, bytes: usize },
    /// The bytes of a body that are still to come.
    Body(u64),
    /// The line so far that contains the next chunk's length.
    ChunkLength(Vec<u8>),
    /// The bytes of a chunk that are still to come, its line end included.
    Chunk(u64),
    /// The line so far after the last chunk; an empty line ends the body.
    Trailer(Vec<u8>),
    /// Everything that follows is forwarded unchanged.
    PassThrough,
    /// Everything that follows is discarded.
    Discard,
}

impl Default for State {
    fn default() -> State {
        State::Head { head: Vec::new(), searched: 0 }
    }
}

impl LongUrlFilter {
    /// How many of the next bytes belong to a body and need not go through [`LongUrlFilter::forward`].
    pub fn body_bytes_left(&self) -> u64 {
        match self.state {
            State::Body(left) | State::Chunk(left) => left,
            State::PassThrough => u64::MAX,
            _ => 0,
        }
    }

    /// Counts bytes of a body that did not go through [`LongUrlFilter::forward`].
    pub fn count_body(&mut self, bytes: u64) {
        match &mut self.state {
            State::Body(left) | State::Chunk(left) if *left > bytes => *left -= bytes,
            State::Body(_) => self.state = State::default(),
            State::Chunk(_) => self.state = State::ChunkLength(Vec::new()),
            _ => {}
        }
    }

    /// Reads `input` and appends to `output` what the library is to read.
    pub fn forward(&mut self, input: &[u8], output: &mut Vec<u8>) {
        let mut rest = input;
        while !rest.is_empty() {
            let plain = self.body_bytes_left().min(rest.len() as u64) as usize;
            if plain > 0 {
                output.extend_from_slice(&rest[..plain]);
                self.count_body(plain as u64);
                rest = &rest[plain..];
                continue;
            }
            let taken = match std::mem::take(&mut self.state) {
                State::Head { head, searched } => self.forward_head(head, searched, rest, output),
                State::TooLong { method, last, bytes } => {
                    self.discard_head(method, last, bytes, rest, output)
                }
                State::ChunkLength(line) => self.forward_line(line, rest, output, after_chunk_length),
                State::Trailer(line) => self.forward_line(line, rest, output, after_trailer),
                State::Discard => {
                    self.state = State::Discard;
                    rest.len()
                }
                State::Body(_) | State::Chunk(_) | State::PassThrough => {
                    unreachable!("these bytes belong to a body and were forwarded above")
                }
            };
            rest = &rest[taken..];
        }
    }

    /// Returns how many bytes of `input` it read, as the next two functions do.
    fn forward_head(
        &mut self,
        mut head: Vec<u8>,
        searched: usize,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> usize {
        // Empty lines before a request belong to none.
        let blank =
            if head.is_empty() { input.iter().take_while(|it| b"\r\n".contains(it)).count() } else { 0 };
        output.extend_from_slice(&input[..blank]);
        let had = head.len();
        head.extend_from_slice(&input[blank..]);
        let Some(end) = head_end(&head, searched.saturating_sub(3)) else {
            self.state = self.after_partial_head(head, output);
            return input.len();
        };
        head.truncate(end);
        self.state = self.after_head(&head, output);
        blank + end - had
    }

    fn after_partial_head(&self, mut head: Vec<u8>, output: &mut Vec<u8>) -> State {
        let searched = head.len();
        if head.len() <= URL_BYTES_MAX + HEADERS_BYTES_MAX {
            return State::Head { head, searched };
        }
        if head.contains(&b'\n') {
            // The headers are too long, and the library refuses them.
            output.append(&mut head);
            return State::PassThrough;
        }
        let method = head.split(|&byte| byte == b' ').next().unwrap_or_default().to_vec();
        State::TooLong { method, last: head.split_off(searched - 3), bytes: searched }
    }

    fn after_head(&self, head: &[u8], output: &mut Vec<u8>) -> State {
        let Some(read) = Head::read(head) else {
            output.extend_from_slice(head);
            return State::PassThrough;
        };
        if read.target.len() <= FORWARDED_URL_BYTES_MAX {
            output.extend_from_slice(head);
            return read.body;
        }
        let url = match read.target.len() <= URL_BYTES_MAX {
            true => LongUrl::Complete(read.target.to_owned()),
            false => LongUrl::TooLong,
        };
        if !self.long_urls.put(url) {
            output.extend_from_slice(head);
            return State::PassThrough;
        }
        for part in [read.method, b" ", PLACEHOLDER.as_bytes(), b" ", read.behind_target] {
            output.extend_from_slice(part);
        }
        read.body
    }

    /// Discards the rest of a head and forwards a short one instead, which marks a URL that is too long.
    fn discard_head(
        &mut self,
        method: Vec<u8>,
        mut last: Vec<u8>,
        bytes: usize,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> usize {
        last.extend_from_slice(input);
        let bytes = bytes + input.len();
        if head_end(&last, 0).is_none() && bytes <= DISCARDED_HEAD_BYTES_MAX {
            let last = last.split_off(last.len() - 3);
            self.state = State::TooLong { method, last, bytes };
            return input.len();
        }
        // A body of unknown length may follow.
        self.state = State::Discard;
        self.long_urls.put(LongUrl::TooLong);
        for part in
            [method.as_slice(), b" ", PLACEHOLDER.as_bytes(), b" HTTP/1.1\r\nconnection: close\r\n\r\n"]
        {
            output.extend_from_slice(part);
        }
        input.len()
    }

    fn forward_line(
        &mut self,
        mut line: Vec<u8>,
        input: &[u8],
        output: &mut Vec<u8>,
        after: fn(Vec<u8>) -> State,
    ) -> usize {
        let length = input.iter().position(|&byte| byte == b'\n').map_or(input.len(), |end| end + 1);
        output.extend_from_slice(&input[..length]);
        line.extend_from_slice(&input[..length]);
        self.state = if line.len() > CHUNK_LINE_BYTES_MAX { State::PassThrough } else { after(line) };
        length
    }
}

fn after_chunk_length(line: Vec<u8>) -> State {
    if !line.ends_with(b"\n") {
        return State::ChunkLength(line);
    }
    match httparse::parse_chunk_size(&line) {
        Ok(Status::Complete((_, 0))) => State::Trailer(Vec::new()),
        Ok(Status::Complete((_, length))) if length < u64::MAX - 2 => State::Chunk(length + 2),
        _ => State::PassThrough,
    }
}

fn after_trailer(line: Vec<u8>) -> State {
    match line.as_slice() {
        b"\r\n" | b"\n" => State::default(),
        line if line.ends_with(b"\n") => State::Trailer(Vec::new()),
        _ => State::Trailer(line),
    }
}

/// The position after the end of the head, which is searched from byte `from` on.
fn head_end(head: &[u8], from: usize) -> Option<usize> {
    let mut from = from;
    loop {
        let line_end = from + head.get(from..)?.iter().position(|&byte| byte == b'\n')?;
        match &head[line_end + 1..] {
            [b'\n', ..] => return Some(line_end + 2),
            [b'\r', b'\n', ..] => return Some(line_end + 3),
            _ => from = line_end + 1,
        }
    }
}

/// A complete head, parsed as far as its URL and the length of its body.
struct Head<'head> {
    method: &'head [u8],
    target: &'head str,
    /// Everything from the version on.
    behind_target: &'head [u8],
    body: State,
}

impl<'head> Head<'head> {
    /// Parses a head; `None` if anything about it is unusual.
    fn read(head: &'head [u8]) -> Option<Head<'head>> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        if request.parse(head) != Ok(Status::Complete(head.len())) {
            return None;
        }
        let (method, target) = (request.method?, request.path?);
        if method == "CONNECT" {
            return None;
        }
        let mut length = None;
        let mut is_chunked = false;
        for header in request.headers {
            let value = std::str::from_utf8(header.value).unwrap_or("?");
            match header.name.to_ascii_lowercase().as_str() {
                "content-length" if length.is_none() && value.bytes().all(|it| it.is_ascii_digit()) => {
                    length = Some(value.parse::<u64>().ok()?);
                }
                "transfer-encoding" if !is_chunked && value.eq_ignore_ascii_case("chunked") => {
                    is_chunked = true
                }
                "content-length" | "transfer-encoding" | "upgrade" => return None,
                _ => {}
            }
        }
        let body = match (length, is_chunked) {
            (None | Some(0), false) => State::default(),
            (Some(length), false) => State::Body(length),
            (None, true) => State::ChunkLength(Vec::new()),
            (Some(_), true) => return None,
        };
        let behind_target = &head[method.len() + 1 + target.len() + 1..];
        Some(Head { method: method.as_bytes(), target, behind_target, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the library reads and which URLs are stored, if the bytes come in pieces of `size`.
    fn passed(input: &[u8], size: usize) -> (String, Vec<LongUrl>) {
        let mut filter = LongUrlFilter::default();
        let mut output = Vec::new();
        input.chunks(size).for_each(|piece| filter.forward(piece, &mut output));
        let long_urls = std::iter::from_fn(|| filter.long_urls.take(PLACEHOLDER)).collect();
        (String::from_utf8(output).expect("plain text"), long_urls)
    }

    /// Checks that the result is the same for every size of pieces.
    fn check(input: &str, expected: &str, long_urls: &[LongUrl]) {
        for size in [1, 2, 3, 1000, usize::MAX] {
            let size = size.min(input.len());
            if input.len() / size > 200_000 {
                continue;
            }
            let (output, found) = passed(input.as_bytes(), size);
            assert_eq!((output.as_str(), found.as_slice()), (expected, long_urls), "pieces of {size}");
        }
    }

    fn long(letters: usize) -> String {
        format!("/?query=SELECT&x={}", "x".repeat(letters))
    }

    #[test]
    fn a_short_url_is_forwarded() {
        let short = "GET /?query=SELECT+1 HTTP/1.1\r\nHost: a\r\n\r\n";
        check(short, short, &[]);
        check(&format!("\r\n{short}{short}"), &format!("\r\n{short}{short}"), &[]);
    }

    #[test]
    fn a_long_url_is_replaced_in_every_request_of_a_connection() {
        let url = long(70_000);
        let head = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let post = "POST / HTTP/1.1\r\nContent-Length: 20\r\n\r\nGET / HTTP/1.1\r\n\r\n..";
        let chunked = "POST / HTTP/1.1\nTransfer-Encoding: Chunked\n\n5;x=y\r\nGET /\r\n0a\r\n HTTP/1.1\n\r\n0\r\nT: v\r\n\r\n";
        check(
            &[post, &head(&url), chunked, &head(&url)].concat(),
            &[post, &head(PLACEHOLDER), chunked, &head(PLACEHOLDER)].concat(),
            &[LongUrl::Complete(url.clone()), LongUrl::Complete(url)],
        );
    }

    #[test]
    fn a_request_with_a_long_url_keeps_its_body() {
        let url = long(70_000);
        let with = |target: &str| {
            format!("PUT {target} HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n")
        };
        check(&with(&url), &with(PLACEHOLDER), &[LongUrl::Complete(url)]);
    }

    #[test]
    fn a_url_that_is_too_long_is_refused() {
        let head = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let most = long(URL_BYTES_MAX - long(0).len());
        assert_eq!(most.len(), URL_BYTES_MAX);
        check(&head(&most), &head(PLACEHOLDER), &[LongUrl::Complete(most.clone())]);
        check(&head(&(most + "x")), &head(PLACEHOLDER), &[LongUrl::TooLong]);
        // A URL that is too long to be stored, with a body that is discarded.
        let (output, found) = passed((head(&long(2_000_000)) + "body").as_bytes(), 16_384);
        let refused = format!("GET {PLACEHOLDER} HTTP/1.1\r\nconnection: close\r\n\r\n");
        assert_eq!((output, found), (refused, vec![LongUrl::TooLong]));
    }

    #[test]
    fn unusual_requests_are_left_to_the_library() {
        let long = long(70_000);
        for head in [
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\n",
            "GET /a b HTTP/1.1\r\n\r\n",
        ] {
            let all = format!("{head}GET {long} HTTP/1.1\r\n\r\n");
            check(&all, &all, &[]);
        }
    }
}
