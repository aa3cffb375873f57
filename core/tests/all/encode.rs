//! Protobuf by hand, so that tests can write what no encoder would.

/// A varint of the usual length.
pub fn varint(value: u64) -> Vec<u8> {
    padded_varint(value, 1)
}

/// A varint of at least `length` bytes: zeros that add nothing stand at its end.
pub fn padded_varint(mut value: u64, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 && bytes.len() + 1 >= length {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn key(tag: u32, kind: u32) -> Vec<u8> {
    varint(u64::from(tag << 3 | kind))
}

pub fn number(tag: u32, value: u64) -> Vec<u8> {
    [key(tag, 0), varint(value)].concat()
}

pub fn padded_number(tag: u32, value: u64, length: usize) -> Vec<u8> {
    [key(tag, 0), padded_varint(value, length)].concat()
}

pub fn fixed64(tag: u32, value: u64) -> Vec<u8> {
    [key(tag, 1), value.to_le_bytes().into()].concat()
}

pub fn fixed32(tag: u32, value: u32) -> Vec<u8> {
    [key(tag, 5), value.to_le_bytes().into()].concat()
}

/// Bytes, a text or a message.
pub fn bytes(tag: u32, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    [&key(tag, 2), &varint(content.len() as u64), content].concat()
}

pub fn group(tag: u32, content: impl AsRef<[u8]>) -> Vec<u8> {
    [&key(tag, 3), content.as_ref(), &key(tag, 4)].concat()
}

/// The path from a request to one of its spans, with nothing else in it.
pub fn request_of_span(span: impl AsRef<[u8]>) -> Vec<u8> {
    bytes(1, bytes(2, bytes(2, span)))
}

/// An attribute with a text.
pub fn text_attribute(tag: u32, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    bytes(tag, [bytes(1, key), bytes(2, bytes(1, value))].concat())
}
