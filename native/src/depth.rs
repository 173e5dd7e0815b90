//! How deep stored bytes are nested, before a decoder goes down there: a stack has an end. The native twin of
//! `cachekit/codec/depth.py`.

use crate::class::*;
use crate::py::*;
use crate::seal::slice;
use std::mem::MaybeUninit;

/// deep_msgpack(payload, limit): whether more than that many containers lie within one another
pub unsafe extern "C" fn deep_msgpack(_module: Ptr, args: *mut Ptr, count: Py_ssize_t) -> Ptr {
    or_null(asked(args, count, is_deep_msgpack))
}

/// deep_json(payload, limit): the same of a text
pub unsafe extern "C" fn deep_json(_module: Ptr, args: *mut Ptr, count: Py_ssize_t) -> Ptr {
    or_null(asked(args, count, is_deep_json))
}

unsafe fn asked(args: *mut Ptr, count: Py_ssize_t, is_deep: fn(&[u8], usize) -> bool) -> Option<Owned> {
    counted("deep", count, 2)?;
    let limit = u64_of(*args.add(1))? as usize;
    if PyBytes_CheckExact(*args) != 0 {
        return truth(is_deep(slice(*args), limit)); // nearly always
    }
    let mut view = MaybeUninit::<Py_buffer>::uninit();
    if PyObject_GetBuffer(*args, view.as_mut_ptr(), PyBUF_SIMPLE) < 0 {
        return None;
    }
    let mut view = view.assume_init();
    let deep = view.len > 0 && is_deep(std::slice::from_raw_parts(view.buf.cast::<u8>(), view.len as usize), limit);
    PyBuffer_Release(&mut view);
    truth(deep)
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
    while let Some(&head) = data.get(at) {
        let number = |width: usize| {
            let bytes = data.get(at + 1..at + 1 + width)?;
            Some(bytes.iter().fold(0, |number, &byte| number << 8 | usize::from(byte)))
        };
        let (size, items) = match head {
            0x80..=0x8f => (Some(1), Some(2 * usize::from(head & 15))),
            0x90..=0x9f => (Some(1), Some(usize::from(head & 15))),
            0xa0..=0xbf => (Some(1 + usize::from(head & 31)), None),
            0xc4 | 0xd9 => (number(1).map(|size| 2 + size), None),
            0xc5 | 0xda => (number(2).map(|size| 3 + size), None),
            0xc6 | 0xdb => (number(4).map(|size| 5 + size), None),
            0xc7 => (number(1).map(|size| 3 + size), None),
            0xc8 => (number(2).map(|size| 4 + size), None),
            0xc9 => (number(4).map(|size| 6 + size), None),
            0xcc | 0xd0 => (Some(2), None),
            0xcd | 0xd1 => (Some(3), None),
            0xca | 0xce | 0xd2 => (Some(5), None),
            0xcb | 0xcf | 0xd3 => (Some(9), None),
            0xd4..=0xd8 => (Some(2 + (1 << (head - 0xd4))), None),
            0xdc => (Some(3), number(2)),
            0xdd => (Some(5), number(4)),
            0xde => (Some(3), number(2).map(|pairs| 2 * pairs)),
            0xdf => (Some(5), number(4).map(|pairs| 2 * pairs)),
            _ => (Some(1), None),
        };
        let Some(size) = size else { return false }; // cut short: no decoder gets further
        at += size;
        if let Some(last) = left.last_mut() {
            *last -= 1;
        }
        if opens_container(head) {
            if left.len() >= limit {
                return true;
            }
            left.push(items.unwrap_or(0));
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
        assert!(!is_deep_msgpack(&b"\xdd\xff\xff\xff".repeat(1000), 256));
        assert!(!is_deep_json(&[&b"[[],"[..], &b"[{}],".repeat(400), b"[]]"].concat(), 256));
        assert!(!is_deep_json(&[&b"[\""[..], &b"[".repeat(400), b"\"]"].concat(), 256));
    }
}
