//! Lets the address of a request be as long as ClickHouse lets it (http_max_uri_size), sixteen times what
//! the HTTP library takes: the heads of a connection are read here first, a long address is put aside and a
//! short one takes its place. Bodies are counted and passed on; what looks unusual in any way is passed on
//! untouched, with all that follows it, for the library to judge.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use httparse::Status;

/// http_max_uri_size.
pub const ADDRESS_BYTES_MAX: usize = 1 << 20;
/// A longer address is put aside; the library's limit is 65,534 bytes.
const PASSED_BYTES_MAX: usize = 60_000;
/// The headers behind the address; the library takes about as many.
const HEADERS_BYTES_MAX: usize = 400_000;
/// The library's limit; a head with more is the library's to refuse.
const HEADERS_MAX: usize = 100;
/// An address beyond its bound is read to its end, so that its sender gets to read why it is refused, but no
/// further than this.
const REFUSED_BYTES_MAX: usize = 64 << 20;
/// A chunk's length with what may stand behind it, or a trailer.
const LINE_BYTES_MAX: usize = 16_384;
/// Put aside and not yet asked for; the library reads one request after the other.
const ASIDE_MAX: usize = 4;
/// Takes the place of an address that is put aside.
const ASIDE: &str = "/address-put-aside";

/// The long addresses of one connection, in the order of its requests.
#[derive(Debug, Clone, Default)]
pub struct Aside(Arc<Mutex<VecDeque<Address>>>);

/// What was put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Given(String),
    /// Beyond [`ADDRESS_BYTES_MAX`].
    TooLong,
}

impl Aside {
    /// The next address, if `path` stands for one.
    pub fn take(&self, path: &str) -> Option<Address> {
        if path != ASIDE {
            return None;
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// False if there is no room.
    fn put(&self, address: Address) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = all.len() < ASIDE_MAX;
        if has_room {
            all.push_back(address);
        }
        has_room
    }
}

/// Reads what a client sends on one connection.
#[derive(Debug, Default)]
pub struct Heads {
    pub aside: Aside,
    state: State,
}

#[derive(Debug)]
enum State {
    /// A head so far, and how much of it has been looked through for its end.
    Head { head: Vec<u8>, searched: usize },
    /// A head whose address is beyond the bound: its last bytes, and how many came.
    Refused { method: Vec<u8>, last: Vec<u8>, bytes: usize },
    /// So many bytes of a body are still to come.
    Body(u64),
    /// The line so far that says how long the next chunk is.
    ChunkLength(Vec<u8>),
    /// So many bytes of a chunk, its line end included, are still to come.
    Chunk(u64),
    /// The line so far behind the last chunk; an empty one ends the body.
    Trailer(Vec<u8>),
    /// All that follows is passed on.
    Untouched,
    /// All that follows is dropped.
    Deaf,
}

impl Default for State {
    fn default() -> State {
        State::Head { head: Vec::new(), searched: 0 }
    }
}

impl Heads {
    /// How many bytes that come now need not be taken through [`Heads::pass`].
    pub fn plain_bytes(&self) -> u64 {
        match self.state {
            State::Body(left) | State::Chunk(left) => left,
            State::Untouched => u64::MAX,
            _ => 0,
        }
    }

    /// Says that so many of them came.
    pub fn count_plain(&mut self, bytes: u64) {
        match &mut self.state {
            State::Body(left) | State::Chunk(left) if *left > bytes => *left -= bytes,
            State::Body(_) => self.state = State::default(),
            State::Chunk(_) => self.state = State::ChunkLength(Vec::new()),
            _ => {}
        }
    }

    /// Takes `input` and adds to `output` what the library is to read.
    pub fn pass(&mut self, input: &[u8], output: &mut Vec<u8>) {
        let mut rest = input;
        while !rest.is_empty() {
            let plain = self.plain_bytes().min(rest.len() as u64) as usize;
            if plain > 0 {
                output.extend_from_slice(&rest[..plain]);
                self.count_plain(plain as u64);
                rest = &rest[plain..];
                continue;
            }
            let taken = match std::mem::take(&mut self.state) {
                State::Head { head, searched } => self.pass_head(head, searched, rest, output),
                State::Refused { method, last, bytes } => {
                    self.pass_refused(method, last, bytes, rest, output)
                }
                State::ChunkLength(line) => self.pass_line(line, rest, output, after_chunk_length),
                State::Trailer(line) => self.pass_line(line, rest, output, after_trailer),
                State::Deaf => {
                    self.state = State::Deaf;
                    rest.len()
                }
                State::Body(_) | State::Chunk(_) | State::Untouched => {
                    unreachable!("these bytes are plain, and were passed on above")
                }
            };
            rest = &rest[taken..];
        }
    }

    /// How much of `input` it took; so do the others.
    fn pass_head(&mut self, mut head: Vec<u8>, searched: usize, input: &[u8], output: &mut Vec<u8>) -> usize {
        // Line ends before a request belong to none.
        let blank =
            if head.is_empty() { input.iter().take_while(|it| b"\r\n".contains(it)).count() } else { 0 };
        output.extend_from_slice(&input[..blank]);
        let had = head.len();
        head.extend_from_slice(&input[blank..]);
        let Some(end) = head_end(&head, searched.saturating_sub(3)) else {
            self.state = self.go_on_with(head, output);
            return input.len();
        };
        head.truncate(end);
        self.state = self.after_head(&head, output);
        blank + end - had
    }

    fn go_on_with(&self, mut head: Vec<u8>, output: &mut Vec<u8>) -> State {
        let searched = head.len();
        if head.len() <= ADDRESS_BYTES_MAX + HEADERS_BYTES_MAX {
            return State::Head { head, searched };
        }
        if head.contains(&b'\n') {
            // The headers are too long, and the library says so.
            output.append(&mut head);
            return State::Untouched;
        }
        let method = head.split(|&byte| byte == b' ').next().unwrap_or_default().to_vec();
        State::Refused { method, last: head.split_off(searched - 3), bytes: searched }
    }

    fn after_head(&self, head: &[u8], output: &mut Vec<u8>) -> State {
        let Some(read) = Head::read(head) else {
            output.extend_from_slice(head);
            return State::Untouched;
        };
        if read.target.len() <= PASSED_BYTES_MAX {
            output.extend_from_slice(head);
            return read.body;
        }
        let address = match read.target.len() <= ADDRESS_BYTES_MAX {
            true => Address::Given(read.target.to_owned()),
            false => Address::TooLong,
        };
        if !self.aside.put(address) {
            output.extend_from_slice(head);
            return State::Untouched;
        }
        for part in [read.method, b" ", ASIDE.as_bytes(), b" ", read.behind_target] {
            output.extend_from_slice(part);
        }
        read.body
    }

    /// Drops the rest of a head; a short one in its place says that the address was too long.
    fn pass_refused(
        &mut self,
        method: Vec<u8>,
        mut last: Vec<u8>,
        bytes: usize,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> usize {
        last.extend_from_slice(input);
        let bytes = bytes + input.len();
        if head_end(&last, 0).is_none() && bytes <= REFUSED_BYTES_MAX {
            let last = last.split_off(last.len() - 3);
            self.state = State::Refused { method, last, bytes };
            return input.len();
        }
        // A body may follow whose length nobody knows.
        self.state = State::Deaf;
        self.aside.put(Address::TooLong);
        for part in [method.as_slice(), b" ", ASIDE.as_bytes(), b" HTTP/1.1\r\nconnection: close\r\n\r\n"] {
            output.extend_from_slice(part);
        }
        input.len()
    }

    fn pass_line(
        &mut self,
        mut line: Vec<u8>,
        input: &[u8],
        output: &mut Vec<u8>,
        after: fn(Vec<u8>) -> State,
    ) -> usize {
        let length = input.iter().position(|&byte| byte == b'\n').map_or(input.len(), |end| end + 1);
        output.extend_from_slice(&input[..length]);
        line.extend_from_slice(&input[..length]);
        self.state = if line.len() > LINE_BYTES_MAX { State::Untouched } else { after(line) };
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
        _ => State::Untouched,
    }
}

fn after_trailer(line: Vec<u8>) -> State {
    match line.as_slice() {
        b"\r\n" | b"\n" => State::default(),
        line if line.ends_with(b"\n") => State::Trailer(Vec::new()),
        _ => State::Trailer(line),
    }
}

/// Where a head ends that is looked through from byte `from` on.
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

/// A whole head, taken apart as far as its address and its body's length.
struct Head<'head> {
    method: &'head [u8],
    target: &'head str,
    /// From the version on.
    behind_target: &'head [u8],
    body: State,
}

impl<'head> Head<'head> {
    /// `None` if anything about it is unusual.
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

    /// What the library reads and what is put aside, of a connection whose bytes come in pieces of `size`.
    fn passed(input: &[u8], size: usize) -> (String, Vec<Address>) {
        let mut heads = Heads::default();
        let mut output = Vec::new();
        input.chunks(size).for_each(|piece| heads.pass(piece, &mut output));
        let aside = std::iter::from_fn(|| heads.aside.take(ASIDE)).collect();
        (String::from_utf8(output).expect("plain text"), aside)
    }

    /// The same however the bytes come.
    fn check(input: &str, expected: &str, aside: &[Address]) {
        for size in [1, 2, 3, 1000, usize::MAX] {
            let size = size.min(input.len());
            if input.len() / size > 200_000 {
                continue;
            }
            let (output, found) = passed(input.as_bytes(), size);
            assert_eq!((output.as_str(), found.as_slice()), (expected, aside), "pieces of {size}");
        }
    }

    fn long(letters: usize) -> String {
        format!("/?query=SELECT&x={}", "x".repeat(letters))
    }

    #[test]
    fn a_short_address_is_passed_on() {
        let short = "GET /?query=SELECT+1 HTTP/1.1\r\nHost: a\r\n\r\n";
        check(short, short, &[]);
        check(&format!("\r\n{short}{short}"), &format!("\r\n{short}{short}"), &[]);
    }

    #[test]
    fn a_long_address_is_put_aside_wherever_it_comes() {
        let address = long(70_000);
        let head = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let post = "POST / HTTP/1.1\r\nContent-Length: 20\r\n\r\nGET / HTTP/1.1\r\n\r\n..";
        let chunked = "POST / HTTP/1.1\nTransfer-Encoding: Chunked\n\n5;x=y\r\nGET /\r\n0a\r\n HTTP/1.1\n\r\n0\r\nT: v\r\n\r\n";
        check(
            &[post, &head(&address), chunked, &head(&address)].concat(),
            &[post, &head(ASIDE), chunked, &head(ASIDE)].concat(),
            &[Address::Given(address.clone()), Address::Given(address)],
        );
    }

    #[test]
    fn a_long_address_keeps_its_body() {
        let address = long(70_000);
        let with = |target: &str| {
            format!("PUT {target} HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n")
        };
        check(&with(&address), &with(ASIDE), &[Address::Given(address)]);
    }

    #[test]
    fn an_address_beyond_the_bound_is_refused() {
        let head = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let most = long(ADDRESS_BYTES_MAX - long(0).len());
        assert_eq!(most.len(), ADDRESS_BYTES_MAX);
        check(&head(&most), &head(ASIDE), &[Address::Given(most.clone())]);
        check(&head(&(most + "x")), &head(ASIDE), &[Address::TooLong]);
        // One that is too long to be held, with a body that nobody reads.
        let (output, found) = passed((head(&long(2_000_000)) + "body").as_bytes(), 16_384);
        let refused = format!("GET {ASIDE} HTTP/1.1\r\nconnection: close\r\n\r\n");
        assert_eq!((output, found), (refused, vec![Address::TooLong]));
    }

    #[test]
    fn what_is_unusual_is_left_to_the_library() {
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
