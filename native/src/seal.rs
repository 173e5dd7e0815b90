//! AES-256-GCM for `cachekit/codec/seal.py`, by the crate `ring`: opening alone, which hits wait for.

use std::ffi::CStr;
use std::ptr::null;

use ring::aead::{Aad, LessSafeKey, Nonce, Tag, UnboundKey, AES_256_GCM};

use crate::class::*;
use crate::py::*;

pub const NONCE: usize = 12;
const TAG: usize = 16;
const KEPT: &CStr = c"cachekit._native.cipher";

/// cipher(key): what opens under these 32 bytes.
pub unsafe extern "C" fn cipher(_module: Ptr, key: Ptr) -> Ptr {
    or_null((|| {
        let key = if PyBytes_Check(key) != 0 { UnboundKey::new(&AES_256_GCM, slice(key)).ok() } else { None };
        let Some(key) = key else {
            return raise(PyExc_ValueError, c"cipher() takes 32 bytes");
        };
        let kept = Box::into_raw(Box::new(LessSafeKey::new(key)));
        let capsule = Owned::take(PyCapsule_New(kept.cast(), KEPT.as_ptr(), Some(end)));
        if capsule.is_none() {
            drop(Box::from_raw(kept));
        }
        capsule
    })())
}

unsafe extern "C" fn end(capsule: Ptr) {
    drop(Box::from_raw(PyCapsule_GetPointer(capsule, KEPT.as_ptr()).cast::<LessSafeKey>()));
}

pub unsafe fn cipher_of<'a>(capsule: Ptr) -> Option<&'a LessSafeKey> {
    PyCapsule_GetPointer(capsule, KEPT.as_ptr()).cast::<LessSafeKey>().as_ref()
}

/// unsealed(cipher, nonce, bound, rest): the payload; None if these do not belong together.
pub unsafe extern "C" fn unsealed(_module: Ptr, args: *mut Ptr, count: Py_ssize_t) -> Ptr {
    or_null((|| {
        counted("unsealed", count, 4)?;
        let (cipher, nonce, bound, rest) = (cipher_of(*args)?, *args.add(1), *args.add(2), *args.add(3));
        if [nonce, bound, rest].iter().any(|each| PyBytes_CheckExact(*each) == 0) {
            return raise(PyExc_TypeError, c"unsealed() takes bytes");
        }
        match open(cipher, slice(nonce), slice(bound), slice(rest))? {
            Some(payload) => Some(payload),
            None => Some(Owned::of(Py_None())),
        }
    })())
}

/// The payload in `sealed`, which ends with its tag; `Some(None)` if it is not that of this nonce and of what is bound.
pub unsafe fn open(cipher: &LessSafeKey, nonce: &[u8], bound: &[u8], sealed: &[u8]) -> Option<Option<Owned>> {
    let Some(size) = sealed.len().checked_sub(TAG) else {
        return Some(None);
    };
    let (Ok(nonce), Ok(tag)) = (Nonce::try_assume_unique_for_key(nonce), Tag::try_from(&sealed[size..])) else {
        return Some(None);
    };
    let payload = Owned::take(PyBytes_FromStringAndSize(null(), size as Py_ssize_t))?;
    let place = std::slice::from_raw_parts_mut(PyBytes_AS_STRING(payload.ptr()).cast::<u8>().cast_mut(), size);
    place.copy_from_slice(&sealed[..size]);
    // Empty bytes are one object for all, of which nothing is written.
    let opened = cipher.open_in_place_separate_tag(nonce, Aad::from(bound), tag, place, 0..);
    Some(opened.is_ok().then_some(payload))
}

pub unsafe fn slice<'a>(bytes: Ptr) -> &'a [u8] {
    std::slice::from_raw_parts(PyBytes_AS_STRING(bytes).cast::<u8>(), Py_SIZE(bytes) as usize)
}
