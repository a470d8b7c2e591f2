//! Compresses and decompresses bodies: HTTP's content codings, and ClickHouse's own blocks (`compress=1`,
//! `decompress=1`). Knows only bytes.

use std::io::{self, Read, Write};

use cityhash_rs::cityhash_102_128;

use super::exception::{Exception, code};
use super::spool::Spool;

/// The coding of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Identity,
    /// Blocks of LZ4, each with a CityHash128 checksum, as ClickHouse writes columns and its native protocol.
    Blocks,
    /// The LZ4 frame format.
    Lz4,
    Zstd,
    Brotli,
    Gzip,
    /// The zlib format, as HTTP defines it.
    Deflate,
}

impl Coding {
    /// The coding with HTTP's name `name`.
    pub fn from_http(name: &str) -> Option<Coding> {
        match name.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Some(Coding::Identity),
            "lz4" => Some(Coding::Lz4),
            "zstd" => Some(Coding::Zstd),
            "br" => Some(Coding::Brotli),
            "gzip" | "x-gzip" => Some(Coding::Gzip),
            "deflate" => Some(Coding::Deflate),
            _ => None,
        }
    }

    /// The coding for an Accept-Encoding header: the one that costs the server least. A coding with `q=0` is
    /// not acceptable.
    pub fn negotiate(accept_encoding: &str) -> Coding {
        let acceptable = |wanted: Coding| {
            accept_encoding.split(',').any(|offer| {
                let mut parts = offer.split(';');
                let name = parts.next().unwrap_or("");
                let refused = parts.any(|part| {
                    part.trim().strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok()) == Some(0.0)
                });
                !refused && !name.trim().is_empty() && Coding::from_http(name) == Some(wanted)
            })
        };
        [Coding::Lz4, Coding::Zstd, Coding::Brotli, Coding::Gzip, Coding::Deflate]
            .into_iter()
            .find(|&coding| acceptable(coding))
            .unwrap_or(Coding::Identity)
    }

    /// HTTP's name for the Content-Encoding header; `None` if the body needs no such header.
    pub fn http_name(self) -> Option<&'static str> {
        match self {
            Coding::Identity | Coding::Blocks => None,
            Coding::Lz4 => Some("lz4"),
            Coding::Zstd => Some("zstd"),
            Coding::Brotli => Some("br"),
            Coding::Gzip => Some("gzip"),
            Coding::Deflate => Some("deflate"),
        }
    }
}

/// Decompresses `compressed` into `decompressed`, whose limit refuses a body that becomes too large.
pub fn decompress(coding: Coding, compressed: impl Read, decompressed: &mut Spool) -> Result<(), Exception> {
    match coding {
        Coding::Identity => copy(compressed, decompressed),
        Coding::Blocks => decompress_blocks(compressed, decompressed),
        Coding::Lz4 => copy(lz4_flex::frame::FrameDecoder::new(compressed), decompressed),
        Coding::Zstd => copy(zstd::stream::read::Decoder::new(compressed).map_err(broken)?, decompressed),
        Coding::Brotli => copy(brotli::Decompressor::new(compressed, COPY_BYTES), decompressed),
        Coding::Gzip => copy(flate2::read::MultiGzDecoder::new(compressed), decompressed),
        Coding::Deflate => copy(flate2::read::ZlibDecoder::new(compressed), decompressed),
    }
}

const COPY_BYTES: usize = 256 * 1024;

fn copy(mut from: impl Read, to: &mut Spool) -> Result<(), Exception> {
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => to.append(&buffer[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(broken(error)),
        }
    }
}

fn broken(error: io::Error) -> Exception {
    let code = match error.kind() {
        io::ErrorKind::UnexpectedEof => code::CANNOT_READ_ALL_DATA,
        _ => code::CANNOT_DECOMPRESS,
    };
    Exception::new(code, format_args!("cannot decompress the body: {error}"))
}

// A block: checksum of the rest (16), method (1), size with this header of 9 (4), size decompressed (4).
const CHECKSUM_BYTES: usize = 16;
const HEADER_BYTES: usize = 9;
const METHOD_NONE: u8 = 0x02;
const METHOD_LZ4: u8 = 0x82;
const METHOD_ZSTD: u8 = 0x90;
/// The size of one block, compressed or not; ClickHouse's limit.
const BLOCK_BYTES_MAX: usize = 1 << 30;
/// The size of the blocks that are written; ClickHouse's default.
const BLOCK_BYTES: usize = 1 << 20;

fn decompress_blocks(mut compressed: impl Read, decompressed: &mut Spool) -> Result<(), Exception> {
    loop {
        let mut checksum = [0; CHECKSUM_BYTES];
        if !read_whole(&mut compressed, &mut checksum)? {
            return Ok(());
        }
        let mut block = vec![0; HEADER_BYTES];
        if !read_whole(&mut compressed, &mut block)? {
            return Err(cut());
        }
        let number =
            |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]) as usize;
        let (compressed_bytes, decompressed_bytes) = (number(1), number(5));
        if !(HEADER_BYTES..=BLOCK_BYTES_MAX).contains(&compressed_bytes)
            || decompressed_bytes > BLOCK_BYTES_MAX
        {
            return Err(Exception::new(
                code::TOO_LARGE_SIZE_COMPRESSED,
                format_args!(
                    "a compressed block claims {compressed_bytes} bytes for {decompressed_bytes} decompressed"
                ),
            ));
        }
        // The memory grows as bytes arrive: a claimed size alone allocates none.
        let body_bytes = compressed_bytes - HEADER_BYTES;
        let arrived = (&mut compressed).take(body_bytes as u64).read_to_end(&mut block).map_err(broken)?;
        if arrived < body_bytes {
            return Err(cut());
        }
        if checksum_of(&block) != checksum {
            return Err(Exception::new(
                code::CHECKSUM_DOESNT_MATCH,
                "Checksum doesn't match: corrupted data in a compressed block of the body",
            ));
        }
        let body = &block[HEADER_BYTES..];
        let corrupt = |error: &dyn std::fmt::Display| {
            Exception::new(
                code::CANNOT_DECOMPRESS,
                format_args!("cannot decompress a block of the body: {error}"),
            )
        };
        match block[0] {
            METHOD_NONE => decompressed.append(body)?,
            METHOD_LZ4 => {
                let bytes =
                    lz4_flex::block::decompress(body, decompressed_bytes).map_err(|error| corrupt(&error))?;
                decompressed.append(&bytes)?;
            }
            METHOD_ZSTD => {
                let bytes =
                    zstd::bulk::decompress(body, decompressed_bytes).map_err(|error| corrupt(&error))?;
                decompressed.append(&bytes)?;
            }
            method => {
                return Err(Exception::new(
                    code::UNKNOWN_COMPRESSION_METHOD,
                    format_args!(
                        "Unknown compression method: {method:#04x}; blocks of LZ4, ZSTD or NONE are read"
                    ),
                ));
            }
        }
    }
}

/// Fills `buffer`; false at the end of the data, an error in the middle of it.
fn read_whole(from: &mut impl Read, buffer: &mut [u8]) -> Result<bool, Exception> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(cut()),
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(broken(error)),
        }
    }
    Ok(true)
}

fn cut() -> Exception {
    Exception::new(
        code::CANNOT_READ_ALL_DATA,
        "Cannot read all data: a compressed block of the body is cut short",
    )
}

fn checksum_of(block: &[u8]) -> [u8; CHECKSUM_BYTES] {
    // CityHash writes its low half first; in the crate's number that is the high half.
    cityhash_102_128(block).rotate_left(64).to_le_bytes()
}

/// Compresses a stream of bytes.
pub enum Encoder {
    Identity,
    /// The bytes that do not fill a block yet.
    Blocks(Vec<u8>),
    Lz4(Box<lz4_flex::frame::FrameEncoder<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Deflate(flate2::write::ZlibEncoder<Vec<u8>>),
}

impl Encoder {
    /// An encoder at the level that costs the server least.
    pub fn new(coding: Coding) -> io::Result<Encoder> {
        Ok(match coding {
            Coding::Identity => Encoder::Identity,
            Coding::Blocks => Encoder::Blocks(Vec::new()),
            Coding::Lz4 => Encoder::Lz4(Box::new(lz4_flex::frame::FrameEncoder::new(Vec::new()))),
            Coding::Zstd => Encoder::Zstd(zstd::stream::write::Encoder::new(Vec::new(), 1)?),
            Coding::Brotli => {
                Encoder::Brotli(Box::new(brotli::CompressorWriter::new(Vec::new(), COPY_BYTES, 1, 22)))
            }
            Coding::Gzip => {
                Encoder::Gzip(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()))
            }
            Coding::Deflate => {
                Encoder::Deflate(flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast()))
            }
        })
    }

    /// Compresses `bytes`, and appends to `compressed` what is complete so far.
    pub fn push(&mut self, bytes: &[u8], compressed: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Encoder::Identity => compressed.extend_from_slice(bytes),
            Encoder::Blocks(pending) => {
                pending.extend_from_slice(bytes);
                let whole = pending.len() - pending.len() % BLOCK_BYTES;
                pending[..whole].chunks(BLOCK_BYTES).for_each(|block| compress_block(block, compressed));
                pending.drain(..whole);
            }
            Encoder::Lz4(encoder) => write_and_take(encoder.as_mut(), bytes, compressed, |it| it.get_mut())?,
            Encoder::Zstd(encoder) => write_and_take(encoder, bytes, compressed, |it| it.get_mut())?,
            Encoder::Brotli(encoder) => {
                write_and_take(encoder.as_mut(), bytes, compressed, |it| it.get_mut())?
            }
            Encoder::Gzip(encoder) => write_and_take(encoder, bytes, compressed, |it| it.get_mut())?,
            Encoder::Deflate(encoder) => write_and_take(encoder, bytes, compressed, |it| it.get_mut())?,
        }
        Ok(())
    }

    /// Appends the rest to `compressed`.
    pub fn finish(self, compressed: &mut Vec<u8>) -> io::Result<()> {
        let mut rest = match self {
            Encoder::Identity => Vec::new(),
            Encoder::Blocks(pending) => {
                if !pending.is_empty() {
                    compress_block(&pending, compressed);
                }
                Vec::new()
            }
            Encoder::Lz4(encoder) => encoder.finish().map_err(io::Error::other)?,
            Encoder::Zstd(encoder) => encoder.finish()?,
            Encoder::Brotli(encoder) => encoder.into_inner(),
            Encoder::Gzip(encoder) => encoder.finish()?,
            Encoder::Deflate(encoder) => encoder.finish()?,
        };
        compressed.append(&mut rest);
        Ok(())
    }
}

fn write_and_take<W: Write>(
    encoder: &mut W,
    bytes: &[u8],
    compressed: &mut Vec<u8>,
    inner: impl Fn(&mut W) -> &mut Vec<u8>,
) -> io::Result<()> {
    encoder.write_all(bytes)?;
    compressed.append(inner(encoder));
    Ok(())
}

fn compress_block(bytes: &[u8], compressed: &mut Vec<u8>) {
    let body = lz4_flex::block::compress(bytes);
    let mut block = Vec::with_capacity(HEADER_BYTES + body.len());
    block.push(METHOD_LZ4);
    // Both fit: a block has at most BLOCK_BYTES, which LZ4 grows by less than one percent.
    block.extend_from_slice(&((HEADER_BYTES + body.len()) as u32).to_le_bytes());
    block.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    block.extend_from_slice(&body);
    compressed.extend_from_slice(&checksum_of(&block));
    compressed.extend_from_slice(&block);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::SpoolSpace;

    const ALL: [Coding; 7] = [
        Coding::Identity,
        Coding::Blocks,
        Coding::Lz4,
        Coding::Zstd,
        Coding::Brotli,
        Coding::Gzip,
        Coding::Deflate,
    ];

    fn compress(coding: Coding, chunks: &[&[u8]]) -> Vec<u8> {
        let mut encoder = Encoder::new(coding).expect("an encoder");
        let mut compressed = Vec::new();
        for chunk in chunks {
            encoder.push(chunk, &mut compressed).expect("compresses");
        }
        encoder.finish(&mut compressed).expect("compresses");
        compressed
    }

    fn decompressed(coding: Coding, compressed: &[u8], bytes_max: u64) -> Result<Vec<u8>, Exception> {
        let mut spool = SpoolSpace::new(bytes_max, bytes_max).new_spool()?;
        decompress(coding, compressed, &mut spool)?;
        let mut bytes = Vec::new();
        spool.read_from(0).read_to_end(&mut bytes).expect("readable");
        Ok(bytes)
    }

    #[test]
    fn decompression_restores_the_bytes() {
        let long: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
        for coding in ALL {
            let compressed = compress(coding, &[b"head ", &long, b" tail"]);
            let expected = [b"head ".as_slice(), &long, b" tail"].concat();
            assert!(
                decompressed(coding, &compressed, 1 << 22).expect("decompresses") == expected,
                "{coding:?}"
            );
        }
    }

    #[test]
    fn a_cut_body_is_refused() {
        for coding in &ALL[1..] {
            let compressed = compress(*coding, &[&[7; 100_000]]);
            let cut = decompressed(*coding, &compressed[..compressed.len() - 5], 1 << 20);
            assert!(cut.is_err(), "{coding:?}");
        }
    }

    #[test]
    fn a_body_that_grows_too_large_is_refused() {
        for coding in ALL {
            let compressed = compress(coding, &[&[0; 1_000_000]]);
            let refused = decompressed(coding, &compressed, 999_999).expect_err("too large");
            assert_eq!(refused.code, code::QUERY_IS_TOO_LARGE, "{coding:?}");
        }
    }

    #[test]
    fn a_changed_block_is_refused() {
        let mut compressed = compress(Coding::Blocks, &[b"some bytes"]);
        *compressed.last_mut().expect("bytes") ^= 1;
        assert_eq!(decompressed(Coding::Blocks, &compressed, 100).expect_err("changed").code, 40);
    }

    #[test]
    fn accept_encoding_is_read() {
        assert_eq!(Coding::negotiate("gzip, deflate, br"), Coding::Brotli);
        assert_eq!(Coding::negotiate("gzip;q=1.0, zstd;q=0, *;q=0.5"), Coding::Gzip);
        assert_eq!(Coding::negotiate("LZ4"), Coding::Lz4);
        assert_eq!(Coding::negotiate("identity"), Coding::Identity);
        assert_eq!(Coding::negotiate(""), Coding::Identity);
    }
}
