//! Headers of entries for `cachekit/codec/envelope.py`, where the format is described: the usual ones here, others there.

use std::ptr::{copy_nonoverlapping, null};

use crate::class::*;
use crate::py::*;
use crate::seal::{cipher_of, open, slice, NONCE};
use crate::values::{forget_error, new_tuple};

const HEAD: usize = 68; // bytes of a header without tags and the like, and without what a lock adds
const CHECKSUM: usize = 8;
const LOCK_TAG: usize = 16;
const KEY_ID: usize = 4;
const SEALED: u8 = 4;
const SIGNED: u8 = 8;
const COPY_BELOW: usize = 32 * 1024; // bytes of an entry whose payload is hashed in one piece with key and header
const BEGIN: [u8; 3] = [0xca, b'K', 1]; // magic and format
const NEGATIVE: u8 = 16;
const COMPRESSION: u8 = 0b11;

/// ordinary(data, key, flag, Header): of an entry that is closed as `flag` says (0: not at all, 4: sealed, 8: signed) and
/// has neither tags nor validators, fingerprint or stale mark: its header; what checksum or lock bind, that is key and
/// header, for a checksum the payload too; the checksum, or the nonce; the payload, or what the lock made of it. None for
/// any other. Nothing of it is verified.
pub unsafe extern "C" fn ordinary(_module: Ptr, args: *mut Ptr, count: Py_ssize_t) -> Ptr {
    or_null((|| {
        counted("ordinary", count, 4)?;
        let (data, key, flag, class) = (*args, *args.add(1), *args.add(2), *args.add(3));
        let flag = u8::try_from(i64_of(flag)?).unwrap_or(u8::MAX);
        if PyType_Check(class) == 0 || PyType_IsSubtype(class.cast(), &raw mut PyTuple_Type) == 0 {
            return raise(PyExc_TypeError, c"ordinary() takes a class of tuples");
        }
        if PyBytes_CheckExact(data) == 0 || PyUnicode_Check(key) == 0 {
            return none();
        }
        let data = slice(data);
        let Some(end) = usual(data, flag) else {
            return none();
        };
        let Some(key) = text(key) else {
            forget_error(); // a lone surrogate
            return none();
        };
        let header = header(data, end, class)?;
        let parts = if flag == 0 {
            let payload = &data[end + CHECKSUM..];
            [header, joined(&[key.as_bytes(), &data[..end], payload])?, number(long(data, end))?, bytes(payload)?]
        } else {
            let nonce = bytes(&data[HEAD + KEY_ID..end])?;
            [header, joined(&[key.as_bytes(), &data[..end]])?, nonce, bytes(&data[end..])?]
        };
        new_tuple(&raw mut PyTuple_Type, &parts.each_ref().map(Owned::ptr))
    })())
}

/// opened(data, key, ident, cipher, Header): of a short entry that `ordinary` would take apart, sealed under the key that
/// `ident` names and `cipher` holds: its header and its payload. None for any other, and for what was tampered with.
pub unsafe extern "C" fn opened(_module: Ptr, args: *mut Ptr, count: Py_ssize_t) -> Ptr {
    or_null((|| {
        counted("opened", count, 5)?;
        let (data, key, ident, cipher, class) = (*args, *args.add(1), *args.add(2), *args.add(3), *args.add(4));
        let cipher = cipher_of(cipher)?;
        if PyType_Check(class) == 0 || PyType_IsSubtype(class.cast(), &raw mut PyTuple_Type) == 0 {
            return raise(PyExc_TypeError, c"opened() takes a class of tuples");
        }
        if PyBytes_CheckExact(data) == 0 || PyUnicode_Check(key) == 0 || PyBytes_CheckExact(ident) == 0 {
            return none();
        }
        let (data, ident) = (slice(data), slice(ident));
        let Some(end) = usual(data, SEALED).filter(|end| data.len() < COPY_BELOW && &data[HEAD..end - NONCE] == ident)
        else {
            return none();
        };
        let Some(key) = text(key) else {
            forget_error(); // a lone surrogate
            return none();
        };
        let bound = Bound::of(key.as_bytes(), &data[..end]);
        let Some(payload) = open(cipher, &data[end - NONCE..end], bound.as_slice(), &data[end..])? else {
            return none();
        };
        let header = header(data, end, class)?;
        new_tuple(&raw mut PyTuple_Type, &[header.ptr(), payload.ptr()])
    })())
}

/// What a lock binds: key and header in one piece. Nearly always short.
struct Bound {
    short: [u8; 512],
    size: usize,
    long: Vec<u8>,
}

impl Bound {
    fn of(key: &[u8], head: &[u8]) -> Bound {
        let mut bound = Bound { short: [0; 512], size: key.len() + head.len(), long: Vec::new() };
        if bound.size <= bound.short.len() {
            bound.short[..key.len()].copy_from_slice(key);
            bound.short[key.len()..bound.size].copy_from_slice(head);
        } else {
            bound.long = [key, head].concat();
        }
        bound
    }

    fn as_slice(&self) -> &[u8] {
        if self.long.is_empty() {
            &self.short[..self.size]
        } else {
            &self.long
        }
    }
}

/// Where the header ends of an entry that is closed as `flag` says and has nothing but the usual.
fn usual(data: &[u8], flag: u8) -> Option<usize> {
    let (added, after) = match flag {
        0 if data.len() < COPY_BELOW => (0, CHECKSUM),
        SEALED => (KEY_ID + NONCE, LOCK_TAG),
        SIGNED => (KEY_ID, LOCK_TAG),
        _ => return None,
    };
    let end = HEAD + added;
    let usual = data.len() >= end + after
        && data[..3] == BEGIN
        && data[4] & !(NEGATIVE | COMPRESSION) == flag
        && data[5] == 0
        && usize::from(u16::from_le_bytes([data[6], data[7]])) == end;
    usual.then_some(end)
}

unsafe fn none() -> Option<Owned> {
    Some(Owned::of(Py_None()))
}

/// In the order of `envelope.Header`.
unsafe fn header(data: &[u8], end: usize, class: Ptr) -> Option<Owned> {
    let small = |value: u8| number(value.into());
    let fields = [
        small(data[3])?,
        bytes(&data[8..24])?,
        number(long(data, 28))?,
        number(long(data, 36))?,
        number(long(data, 44))?,
        number(u32::from_le_bytes([data[24], data[25], data[26], data[27]]).into())?,
        small(data[4] & COMPRESSION)?,
        truth(false)?,
        truth(data[4] & NEGATIVE != 0)?,
        bytes(&data[52..60])?,
        bytes(&data[60..HEAD])?,
        Owned::take(PyTuple_New(0))?,
        none()?,
        none()?,
        none()?,
        bytes(&data[HEAD..end.min(HEAD + KEY_ID)])?,
    ];
    new_tuple(class.cast(), &fields.each_ref().map(Owned::ptr))
}

fn long(data: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&data[at..at + 8]);
    u64::from_le_bytes(value)
}

unsafe fn bytes(part: &[u8]) -> Option<Owned> {
    Owned::take(PyBytes_FromStringAndSize(part.as_ptr().cast(), part.len() as Py_ssize_t))
}

unsafe fn joined(parts: &[&[u8]]) -> Option<Owned> {
    let size: usize = parts.iter().map(|part| part.len()).sum();
    let whole = Owned::take(PyBytes_FromStringAndSize(null(), size as Py_ssize_t))?;
    let mut to = PyBytes_AS_STRING(whole.ptr()).cast::<u8>().cast_mut();
    for part in parts {
        copy_nonoverlapping(part.as_ptr(), to, part.len());
        to = to.add(part.len());
    }
    Some(whole)
}
