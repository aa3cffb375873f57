//! The bytes of a segment: a header, then frames. Everything is little-endian.
//!
//! ```text
//! segment   magic "TACHOJNL" | version u32 | first lsn u64 | crc32 of these
//! frame     length of payload u32 | kind u8 | flags u8 | unsynced u16 | lsn u64 | crc32 of these and the payload | payload
//! ```
//!
//! `unsynced` says how many frames before this one were not yet known to be durable when it was written. After a crash it tells a
//! torn tail, which nobody was promised, from a frame that was durable once and is damaged now.

use tacho_core::domain::lsn::Lsn;

const MAGIC: &[u8; 8] = b"TACHOJNL";
pub(super) const VERSION: u32 = 1;
pub(super) const SEGMENT_HEADER: usize = 24;
pub(super) const FRAME_HEADER: usize = 20;

/// Where a frame's payload lies, and what its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub lsn: Lsn,
    pub kind: u8,
    /// All frames up to this one were durable when it was written.
    pub durable: Lsn,
    /// Header and payload.
    pub length: usize,
}

/// What stands at a place in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Frame(Frame),
    /// The bytes end before the frame does: at least so many are needed.
    Short(usize),
    /// No frame begins here, or it is damaged.
    Bad,
}

pub(super) fn segment_header(first: Lsn) -> [u8; SEGMENT_HEADER] {
    let mut header = [0; SEGMENT_HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..20].copy_from_slice(&first.0.to_le_bytes());
    let crc = crc32fast::hash(&header[..20]);
    header[20..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// The version of a segment, if these bytes begin one.
pub(super) fn segment_version(header: &[u8]) -> Option<u32> {
    let header = header.first_chunk::<SEGMENT_HEADER>()?;
    let intact = header.starts_with(MAGIC) && crc32fast::hash(&header[..20]) == u32_at(header, 20);
    intact.then(|| u32_at(header, 8))
}

/// Appends a frame to `bytes`. `durable` is the last frame known to be durable.
pub(super) fn push(bytes: &mut Vec<u8>, kind: u8, lsn: Lsn, durable: Lsn, payload: &[u8]) {
    let start = bytes.len();
    let length = u32::try_from(payload.len()).expect("a payload is at most as long as a body");
    let unsynced = u16::try_from(lsn.before().0 - durable.0).expect("a batch has far fewer frames, and each is synced");
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&[kind, 0]);
    bytes.extend_from_slice(&unsynced.to_le_bytes());
    bytes.extend_from_slice(&lsn.0.to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[start..]);
    crc.update(payload);
    bytes.extend_from_slice(&crc.finalize().to_le_bytes());
    bytes.extend_from_slice(payload);
}

/// What begins these bytes, which run to the end of the segment or of what was read of it.
pub(super) fn at(bytes: &[u8]) -> Found {
    let Some(header) = bytes.first_chunk::<FRAME_HEADER>() else { return Found::Short(FRAME_HEADER) };
    let length = FRAME_HEADER + u32_at(header, 0) as usize;
    let Some(whole) = bytes.get(..length) else { return Found::Short(length) };
    let mut crc = crc32fast::Hasher::new();
    crc.update(&whole[..16]);
    crc.update(&whole[FRAME_HEADER..]);
    let lsn = lsn_at(header);
    let unsynced = u64::from(u16::from_le_bytes([header[6], header[7]]));
    if crc.finalize() != u32_at(header, 16) || lsn < Lsn::FIRST || unsynced >= lsn.0 {
        return Found::Bad;
    }
    Found::Frame(Frame { lsn, kind: header[4], durable: Lsn(lsn.0 - 1 - unsynced), length })
}

/// The first intact frame in these bytes with a number from `expected` on, and where it is.
pub(super) fn next_intact(bytes: &[u8], expected: Lsn) -> Option<(usize, Frame)> {
    // No more frames can have been here than there is room for; the check spares most places the checksum.
    let last = expected.0 + (bytes.len() / FRAME_HEADER) as u64;
    (0..bytes.len().saturating_sub(FRAME_HEADER - 1)).find_map(|place| {
        let header = bytes[place..].first_chunk::<FRAME_HEADER>()?;
        if !(expected.0..=last).contains(&lsn_at(header).0) {
            return None;
        }
        match at(&bytes[place..]) {
            Found::Frame(frame) => Some((place, frame)),
            Found::Short(_) | Found::Bad => None,
        }
    })
}

fn lsn_at(header: &[u8; FRAME_HEADER]) -> Lsn {
    let [.., a, b, c, d, e, f, g, h, _, _, _, _] = *header;
    Lsn(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
}

fn u32_at<const N: usize>(bytes: &[u8; N], place: usize) -> u32 {
    u32::from_le_bytes([bytes[place], bytes[place + 1], bytes[place + 2], bytes[place + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_found_whole_short_or_bad() {
        let mut bytes = Vec::new();
        push(&mut bytes, 1, Lsn(7), Lsn(4), b"payload");
        let frame = Frame { lsn: Lsn(7), kind: 1, durable: Lsn(4), length: FRAME_HEADER + 7 };
        assert_eq!(at(&bytes), Found::Frame(frame));
        assert_eq!(at(&bytes[..5]), Found::Short(FRAME_HEADER));
        assert_eq!(at(&bytes[..FRAME_HEADER + 6]), Found::Short(FRAME_HEADER + 7));
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(at(&flipped), Found::Frame(_)), "bit {bit}");
        }
        assert_eq!(at(&[0; 100]), Found::Bad);
    }

    #[test]
    fn the_next_intact_frame_is_found_behind_garbage() {
        let mut bytes = b"garbage of some length, more than a header".to_vec();
        let start = bytes.len();
        push(&mut bytes, 1, Lsn(9), Lsn(8), b"");
        assert_eq!(next_intact(&bytes, Lsn(8)).map(|(place, frame)| (place, frame.lsn)), Some((start, Lsn(9))));
        assert_eq!(next_intact(&bytes, Lsn(10)), None);
        assert_eq!(next_intact(&bytes[..start + 3], Lsn(8)), None);
    }

    #[test]
    fn a_segment_header_tells_its_version() {
        let header = segment_header(Lsn(3));
        assert_eq!(segment_version(&header), Some(VERSION));
        assert_eq!(segment_version(&header[..20]), None);
        assert_eq!(segment_version(&[0; SEGMENT_HEADER]), None);
    }
}
