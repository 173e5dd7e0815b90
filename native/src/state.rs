//! What the package hands in once: objects of its Python side.

use crate::class::none_or_null;
use crate::py::*;
use std::ptr::null_mut;

/// All are held for ever, as the module is.
pub struct State {
    pub miss: Ptr,
    pub view: Ptr,
    pub stats: Ptr,
    pub kinds_of: Ptr,
    pub config_error: Ptr,
}

static mut STATE: State =
    State { miss: null_mut(), view: null_mut(), stats: null_mut(), kinds_of: null_mut(), config_error: null_mut() };

/// Nothing of this module is used before `install`.
#[inline(always)]
pub fn state() -> &'static State {
    let state = &raw const STATE;
    unsafe { &*state }
}

/// Ask before anything is made.
pub unsafe fn installed() -> Option<()> {
    if state().miss.is_null() {
        return raise(PyExc_RuntimeError, c"cachekit.l1.native, not cachekit._native, is what to import");
    }
    Some(())
}

/// install(MISS, EntryView, Stats, kinds_of, ConfigError)
pub unsafe extern "C" fn install(_module: Ptr, args: *mut Ptr, count: Py_ssize_t) -> Ptr {
    if crate::class::counted("install", count, 5).is_none() {
        return null_mut();
    }
    let given = |position| Owned::of(*args.add(position)).give();
    STATE = State { miss: given(0), view: given(1), stats: given(2), kinds_of: given(3), config_error: given(4) };
    none_or_null(Some(()))
}
