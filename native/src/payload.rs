//! What can be told of stored bytes before they are decoded: how deep they are nested, since a stack has an end, and how
//! much memory they may become. The native twin of `cachekit/codec/depth.py` and `cachekit/codec/weight.py`.

use crate::class::*;
use crate::py::*;
use crate::seal::slice;
use std::mem::MaybeUninit;

/// deep_msgpack(payload, limit): whether more than that many containers lie within one another
pub unsafe extern "C" fn deep_msgpack(_module: Ptr, args: *mut Ptr, count: Py_ssize_t) -> Ptr {
    or_null((|| {
        counted("deep_msgpack", count, 2)?;
        let limit = u64_of(*args.add(1))? as usize;
        told(*args, |data| is_deep_msgpack(data, limit))
    })())
}

/// deep_json(payload, limit): the same of a text
pub unsafe extern "C" fn deep_json(_module: Ptr, args: *mut Ptr, count: Py_ssize_t) -> Ptr {
    or_null((|| {
        counted("deep_json", count, 2)?;
        let limit = u64_of(*args.add(1))? as usize;
        told(*args, |data| is_deep_json(data, limit))
    })())
}

/// heavy_msgpack(payload, limit, costs): whether it may become more bytes of memory; `costs` has those of each ext code,
/// two bytes each, the lower one first
pub unsafe extern "C" fn heavy_msgpack(_module: Ptr, args: *mut Ptr, count: Py_ssize_t) -> Ptr {
    or_null((|| {
        counted("heavy_msgpack", count, 3)?;
        let (limit, costs) = (u64_of(*args.add(1))?, *args.add(2));
        if PyBytes_CheckExact(costs) == 0 || Py_SIZE(costs) != 512 {
            return raise(PyExc_TypeError, c"costs are 512 bytes");
        }
        told(*args, |data| is_heavy_msgpack(data, limit, slice(costs)))
    })())
}

unsafe fn told(payload: Ptr, of: impl FnOnce(&[u8]) -> bool) -> Option<Owned> {
    if PyBytes_CheckExact(payload) != 0 {
        return truth(of(slice(payload))); // nearly always
    }
    let mut view = MaybeUninit::<Py_buffer>::uninit();
    if PyObject_GetBuffer(payload, view.as_mut_ptr(), PyBUF_SIMPLE) < 0 {
        return None;
    }
    let mut view = view.assume_init();
    let answer = view.len > 0 && of(std::slice::from_raw_parts(view.buf.cast::<u8>(), view.len as usize));
    PyBuffer_Release(&mut view);
    truth(answer)
}

/// What begins with one byte of msgpack.
struct Head {
    size: usize,  // of its own bytes and of those that are no value by themselves
    count: usize, // as it says: items of a list, pairs of a map, bytes
    kind: Kind,
}

#[derive(PartialEq)]
enum Kind {
    List,
    Map,
    Text,
    Bytes,
    Ext(u8), // its code
    Number,
    There, // small numbers, nil, false, true
}

impl Head {
    /// `None` where the bytes end before, or where none begins like this: no decoder gets further.
    fn at(data: &[u8], at: usize) -> Option<Head> {
        let head = *data.get(at)?;
        let long = |width: usize, kind: Kind| {
            let bytes = data.get(at + 1..at + 1 + width)?;
            let count = bytes.iter().fold(0, |number, &byte| number << 8 | usize::from(byte));
            let following = if matches!(kind, Kind::List | Kind::Map) { 0 } else { count };
            let size = (1 + width).saturating_add(following); // some machines count to 2^32 only
            Some(Head { size, count, kind })
        };
        let ext = |width: usize| {
            let head = long(width, Kind::Bytes)?;
            Some(Head { size: head.size.saturating_add(1), kind: Kind::Ext(*data.get(at + 1 + width)?), ..head })
        };
        let short = |size: usize, count: u8, kind: Kind| Some(Head { size, count: count.into(), kind });
        match head {
            0x80..=0x8f => short(1, head & 15, Kind::Map),
            0x90..=0x9f => short(1, head & 15, Kind::List),
            0xa0..=0xbf => short(1 + usize::from(head & 31), head & 31, Kind::Text),
            0xc1 => None,
            0xc4..=0xc6 => long(1 << (head - 0xc4), Kind::Bytes),
            0xc7..=0xc9 => ext(1 << (head - 0xc7)),
            0xca..=0xd3 => short(1 + [4, 8, 1, 2, 4, 8, 1, 2, 4, 8][usize::from(head - 0xca)], 0, Kind::Number),
            0xd4..=0xd8 => short(2 + (1 << (head - 0xd4)), 0, Kind::Ext(u8::MAX)),
            0xd9..=0xdb => long(1 << (head - 0xd9), Kind::Text),
            0xdc | 0xdd => long(2 << (head - 0xdc), Kind::List),
            0xde | 0xdf => long(2 << (head - 0xde), Kind::Map),
            _ => short(1, 0, Kind::There),
        }
    }
}

fn is_heavy_msgpack(data: &[u8], limit: u64, costs: &[u8]) -> bool {
    const MANY: usize = 256; // bytes of a text that is looked at
    let (mut at, mut left) = (0, limit);
    while let Some(head) = Head::at(data, at) {
        let next = at.saturating_add(head.size);
        let count = head.count as u64;
        let cost = match head.kind {
            Kind::List => 72 + 8 * count,
            Kind::Map if count == 0 => 64,
            Kind::Map if count < 6 => 192 - if data.get(next) == Some(&0xa1) { 64 } else { 0 },
            Kind::Map => 192 + 64 * count,
            Kind::Text if count == 0 => 0,
            Kind::Text if count == 1 => 64,
            Kind::Text if count < 4 => 80,
            Kind::Text => {
                let text = data.get(next - head.count..next).filter(|text| text.len() >= MANY);
                80 + count * if text.is_some_and(<[u8]>::is_ascii) { 1 } else { 4 }
            }
            Kind::Bytes => 48 + count,
            Kind::Ext(code) => {
                let code = usize::from(code);
                count + u64::from(u16::from_le_bytes([costs[2 * code], costs[2 * code + 1]]))
            }
            Kind::Number => 32,
            Kind::There => 0,
        };
        match left.checked_sub(cost) {
            Some(rest) => left = rest,
            None => return true,
        }
        at = next;
    }
    false
}

/// How many bytes are of these. Most payloads have too few to be deep, and this is quicker than to read them.
fn occurrences(data: &[u8], of: fn(u8) -> bool) -> usize {
    data.chunks(255).map(|chunk| chunk.iter().map(|&byte| u8::from(of(byte))).sum::<u8>() as usize).sum()
}

fn opens_container(byte: u8) -> bool {
    byte & 0xe0 == 0x80 || byte & 0xfc == 0xdc
}

fn is_deep_msgpack(data: &[u8], limit: usize) -> bool {
    if data.len() <= limit || occurrences(data, opens_container) <= limit {
        return false;
    }
    let mut left: Vec<usize> = Vec::with_capacity(limit); // items of each container that are still to come
    let mut at = 0;
    while let Some(head) = Head::at(data, at) {
        at = at.saturating_add(head.size);
        if let Some(last) = left.last_mut() {
            *last -= 1;
        }
        if matches!(head.kind, Kind::List | Kind::Map) {
            if left.len() >= limit {
                return true;
            }
            left.push(if head.kind == Kind::Map { head.count.saturating_mul(2) } else { head.count });
        }
        while left.last() == Some(&0) {
            left.pop();
        }
        if left.is_empty() {
            return false;
        }
    }
    false
}

fn is_deep_json(text: &[u8], limit: usize) -> bool {
    if text.len() <= limit || occurrences(text, |byte| byte == b'[' || byte == b'{') <= limit {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0, false, false);
    for &byte in text {
        if in_string {
            (in_string, escaped) = (escaped || byte != b'"', !escaped && byte == b'\\');
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = usize::saturating_sub(depth, 1),
            _ => {}
        }
        if depth > limit {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_found_exactly() {
        for (open, close) in [(&b"\x91"[..], &b"\xc0"[..]), (b"\x81\xa1a", b"\xc0"), (b"\xdd\0\0\0\x01", b"")] {
            for (levels, deep) in [(255, false), (256, false), (257, true), (9999, true)] {
                assert_eq!(is_deep_msgpack(&[&open.repeat(levels), close].concat(), 256), deep);
            }
        }
        for (levels, deep) in [(256, false), (257, true)] {
            assert_eq!(is_deep_json(&b"[".repeat(levels), 256), deep);
            assert_eq!(is_deep_json(&br#"{"\"]":"#.repeat(levels), 256), deep);
        }
    }

    #[test]
    fn what_is_long_is_not_deep() {
        assert!(!is_deep_msgpack(&[&b"\xdc\x10\0"[..], &b"\x90".repeat(4096)].concat(), 256));
        assert!(!is_deep_msgpack(&[&b"\xda\x10\0"[..], &b"\x91".repeat(4096)].concat(), 256));
        assert!(!is_deep_msgpack(&b"\x90".repeat(1000), 256)); // one value and what no decoder reads
        assert!(!is_deep_msgpack(&[&b"\xdd\0\0\x03\0"[..], &b"\x90".repeat(300), b"\xdd\xff"].concat(), 256));
        assert!(!is_deep_json(&[&b"[[],"[..], &b"[{}],".repeat(400), b"[]]"].concat(), 256));
        assert!(!is_deep_json(&[&b"[\""[..], &b"[".repeat(400), b"\"]"].concat(), 256));
    }
}
