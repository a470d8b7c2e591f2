//! Checks whether Kafka is up with one Metadata request (api key 3, version 7, protocol guide
//! <https://kafka.apache.org/protocol>) over a connection without TLS. The answer lists the live brokers.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// A broker on this machine answers in a millisecond; a remote one may take longer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// An answer without topics has some forty bytes for each broker.
const ANSWER_BYTES_MAX: usize = 1 << 20;

const API_KEY: i16 = 3;
const API_VERSION: i16 = 7;
const CORRELATION: i32 = 7;
const CLIENT: &str = "splitstream-local";

/// The number of live brokers according to the broker at `address` ("host:port").
pub fn live_brokers(address: &str) -> io::Result<usize> {
    let mut last_error = io::Error::new(io::ErrorKind::NotFound, format!("{address} is no address"));
    for socket in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&socket, TIMEOUT) {
            Ok(connection) => return request_metadata(connection),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

fn request_metadata(mut connection: TcpStream) -> io::Result<usize> {
    connection.set_read_timeout(Some(TIMEOUT))?;
    connection.set_write_timeout(Some(TIMEOUT))?;
    connection.write_all(&request())?;
    let mut size = [0; 4];
    connection.read_exact(&mut size)?;
    let size = usize::try_from(i32::from_be_bytes(size)).unwrap_or(usize::MAX);
    if size > ANSWER_BYTES_MAX {
        return Err(invalid("the answer's size is not one that Kafka would send"));
    }
    let mut answer = vec![0; size];
    connection.read_exact(&mut answer)?;
    count_brokers(&answer).ok_or_else(|| invalid("the answer is not one that Kafka would send"))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The request: size, header (key, version, correlation, client), body (no topics, do not create any).
fn request() -> Vec<u8> {
    let mut message = Vec::new();
    message.extend(API_KEY.to_be_bytes());
    message.extend(API_VERSION.to_be_bytes());
    message.extend(CORRELATION.to_be_bytes());
    message.extend((CLIENT.len() as i16).to_be_bytes());
    message.extend(CLIENT.as_bytes());
    message.extend(0_i32.to_be_bytes());
    message.push(0);
    let mut framed = (message.len() as i32).to_be_bytes().to_vec();
    framed.extend(message);
    framed
}

/// Counts the brokers in an answer: correlation, throttle time, then the brokers (id, host, port, nullable
/// rack). `None` if the answer has another form.
fn count_brokers(answer: &[u8]) -> Option<usize> {
    let mut rest = answer;
    if read_i32(&mut rest)? != CORRELATION {
        return None;
    }
    read_i32(&mut rest)?;
    let count = usize::try_from(read_i32(&mut rest)?).ok()?;
    for _ in 0..count {
        read_i32(&mut rest)?;
        skip_text(&mut rest)?;
        read_i32(&mut rest)?;
        skip_text(&mut rest)?;
    }
    Some(count)
}

fn read_i32(rest: &mut &[u8]) -> Option<i32> {
    let (bytes, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(i32::from_be_bytes(*bytes))
}

/// Skips a string after its length; a length of -1 means null.
fn skip_text(rest: &mut &[u8]) -> Option<()> {
    let (length, after) = rest.split_first_chunk()?;
    let length = usize::try_from(i16::from_be_bytes(*length)).unwrap_or(0);
    *rest = after.get(length..)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer of Kafka 4.3.1 with one node, at 127.0.0.1:21192.
    const ANSWER: &[u8] = b"\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x09\
        127.0.0.1\x00\x00\x52\xc8\xff\xff\x00\x16c3BsaXRzdHJlYW1sb2NhbA\x00\x00\x00\x01\x00\x00\x00\x00";

    #[test]
    fn one_broker_is_counted() {
        assert_eq!(count_brokers(ANSWER), Some(1));
    }

    #[test]
    fn a_short_answer_and_an_answer_of_another_protocol_are_refused() {
        assert_eq!(count_brokers(&ANSWER[..26]), None);
        assert_eq!(count_brokers(b"HTTP/1.1 400 Bad Request"), None);
    }

    #[test]
    fn the_request_is_the_one_of_the_protocol_guide() {
        assert_eq!(
            request(),
            b"\x00\x00\x00\x20\x00\x03\x00\x07\x00\x00\x00\x07\x00\x11splitstream-local\x00\x00\x00\x00\x00"
        );
    }
}
