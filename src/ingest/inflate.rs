//! Decompression with a lid: a body that would grow past the limit is refused when it reaches it, never inflated whole.

use std::io::Read;

use bytes::Bytes;

/// 8 MiB, what RFC 8878 asks decoders to support.
const LARGEST_ZSTD_WINDOW_LOG: u32 = 23;

/// A `Content-Encoding` we read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Deflate,
    Zstd,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InflateError {
    #[error("body is larger than {limit} bytes after decompression")]
    TooLarge { limit: usize },
    #[error("body is no valid {0} stream")]
    Broken(&'static str),
}

impl Encoding {
    /// `None` for an encoding we do not read, lists of several among them.
    pub(super) fn parse(header: &str) -> Option<Self> {
        match header.trim().to_ascii_lowercase().as_str() {
            "" | "identity" | "none" => Some(Self::Identity),
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    pub(super) fn inflate(self, body: Bytes, limit: usize) -> Result<Bytes, InflateError> {
        match self {
            Self::Identity if body.len() > limit => Err(InflateError::TooLarge { limit }),
            Self::Identity => Ok(body),
            Self::Gzip => read_up_to(limit, flate2::read::MultiGzDecoder::new(&*body), "gzip"),
            // RFC 9110 means zlib, some senders mean the bare stream.
            Self::Deflate if is_zlib(&body) => read_up_to(limit, flate2::read::ZlibDecoder::new(&*body), "deflate"),
            Self::Deflate => read_up_to(limit, flate2::read::DeflateDecoder::new(&*body), "deflate"),
            Self::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(&*body).map_err(|_| InflateError::Broken("zstd"))?;
                // The sender chooses the window, and the decoder would take up to 128 MiB for it.
                decoder.window_log_max(LARGEST_ZSTD_WINDOW_LOG).map_err(|_| InflateError::Broken("zstd"))?;
                read_up_to(limit, decoder, "zstd")
            }
        }
    }
}

/// The two bytes of a zlib header are a multiple of 31, the low half of the first is 8.
fn is_zlib(body: &[u8]) -> bool {
    matches!(body, [first, second, ..] if first & 0x0f == 8 && (u16::from(*first) << 8 | u16::from(*second)) % 31 == 0)
}

fn read_up_to(limit: usize, reader: impl Read, name: &'static str) -> Result<Bytes, InflateError> {
    let mut inflated = Vec::new();
    let lid = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(lid).read_to_end(&mut inflated).map_err(|_| InflateError::Broken(name))?;
    if inflated.len() > limit { Err(InflateError::TooLarge { limit }) } else { Ok(inflated.into()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_was_deflated_comes_back() {
        let text = b"spans spans spans".repeat(100);
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(&text).unwrap();
        let mut bare = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        bare.write_all(&text).unwrap();
        for (encoding, body) in [
            (Encoding::Identity, text.clone()),
            (Encoding::Gzip, gzip(&text)),
            (Encoding::Deflate, zlib.finish().unwrap()),
            (Encoding::Deflate, bare.finish().unwrap()),
            (Encoding::Zstd, zstd::encode_all(&*text, 3).unwrap()),
        ] {
            let body = Bytes::from(body);
            assert_eq!(encoding.inflate(body.clone(), text.len()).unwrap(), text, "{encoding:?}");
            assert_eq!(encoding.inflate(body, text.len() - 1), Err(InflateError::TooLarge { limit: text.len() - 1 }));
        }
    }

    #[test]
    fn a_bomb_is_refused_at_the_lid() {
        let bomb = gzip(&vec![0; 64 << 20]);
        assert!(bomb.len() < 100_000);
        assert_eq!(Encoding::Gzip.inflate(bomb.into(), 1 << 20), Err(InflateError::TooLarge { limit: 1 << 20 }));
    }

    #[test]
    fn broken_and_truncated_streams_are_named() {
        let whole = Bytes::from(gzip(b"spans"));
        assert_eq!(Encoding::Gzip.inflate(whole.slice(..whole.len() - 4), 99), Err(InflateError::Broken("gzip")));
        assert_eq!(Encoding::Zstd.inflate(Bytes::from_static(b"no zstd"), 99), Err(InflateError::Broken("zstd")));
        assert_eq!(Encoding::parse("gzip, zstd"), None);
    }
}
