//! Decompression in parts: a body is inflated as it is read, so that whoever reads it may stop where it becomes too large.

use std::io::{self, Read};

use bytes::{Buf, Bytes};

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

    /// The body, inflated as it is read.
    pub(super) fn reader(self, body: Bytes) -> io::Result<Box<dyn Read + Send>> {
        // RFC 9110 means zlib, some senders mean the bare stream.
        let is_zlib = is_zlib(&body);
        let body = body.reader();
        Ok(match self {
            Self::Identity => Box::new(body),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(body)),
            Self::Deflate if is_zlib => Box::new(flate2::bufread::ZlibDecoder::new(body)),
            Self::Deflate => Box::new(flate2::bufread::DeflateDecoder::new(body)),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(body)?;
                // The sender chooses the window, and the decoder would take up to 128 MiB for it.
                decoder.window_log_max(LARGEST_ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        }
    }
}

/// The two bytes of a zlib header are a multiple of 31, the low half of the first is 8.
fn is_zlib(body: &[u8]) -> bool {
    matches!(body, [first, second, ..] if first & 0x0f == 8 && (u16::from(*first) << 8 | u16::from(*second)) % 31 == 0)
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
            assert_eq!(inflated(encoding, body).unwrap(), text, "{encoding:?}");
        }
    }

    fn inflated(encoding: Encoding, body: impl Into<Bytes>) -> io::Result<Vec<u8>> {
        let mut inflated = Vec::new();
        encoding.reader(body.into())?.read_to_end(&mut inflated)?;
        Ok(inflated)
    }

    #[test]
    fn broken_and_truncated_streams_are_found() {
        let whole = gzip(b"spans");
        assert!(inflated(Encoding::Gzip, whole[..whole.len() - 4].to_vec()).is_err());
        assert!(inflated(Encoding::Zstd, &b"no zstd"[..]).is_err());
        assert_eq!(Encoding::parse("gzip, zstd"), None);
    }
}
