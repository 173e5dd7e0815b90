//! Headers of entries for `cachekit/codec/envelope.py`, where the format is described: the usual ones here, others there.

use std::ptr::{copy_nonoverlapping, null};

use crate::class::*;
use crate::py::*;
use crate::values::{forget_error, new_tuple};

const HEAD: usize = 68; // bytes of a header without tags and the like, and without what a lock adds
const CHECKSUM: usize = 8;
const LOCK_TAG: usize = 16;
const KEY_ID: usize = 4;
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
        let data = std::slice::from_raw_parts(PyBytes_AS_STRING(data).cast::<u8>(), Py_SIZE(data) as usize);
        let (added, after) = match flag {
            0 if data.len() < COPY_BELOW => (0, CHECKSUM),
            4 => (KEY_ID + 12, LOCK_TAG),
            8 => (KEY_ID, LOCK_TAG),
            _ => return none(),
        };
        let end = HEAD + added;
        if data.len() < end + after
            || data[..3] != BEGIN
            || data[4] & !(NEGATIVE | COMPRESSION) != flag
            || data[5] != 0
            || usize::from(u16::from_le_bytes([data[6], data[7]])) != end
        {
            return none();
        }
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
