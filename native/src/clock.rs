//! What time it is, in ns: the kernel's coarse monotonic clock on the way of a hit, the precise one where it matters.
//!
//! `CLOCK_MONOTONIC` costs as much as a whole look-up in `functools.lru_cache`; the coarse clock, which moves with the
//! ticks of the kernel, a fifth of that. It lags, so hits go by a time that is `MARGIN` ahead of it: whatever that time
//! has not reached is certain not to be over, and the last moments of an entry are judged by the precise clock.

use crate::py::*;
#[cfg(target_os = "linux")]
use std::mem::MaybeUninit;

/// More than two ticks of the slowest kernels.
const MARGIN: i64 = 25_000_000;

pub struct Clock {
    /// Asked instead of the kernel; null if there is none.
    pub python: Ptr,
}

impl Clock {
    /// A time that is not before now, where no clock of Python's has to be asked.
    #[inline(always)]
    pub fn at_most(&self) -> i64 {
        debug_assert!(self.python.is_null());
        #[cfg(target_os = "linux")]
        return read(libc::CLOCK_MONOTONIC_COARSE) + MARGIN;
        #[cfg(not(target_os = "linux"))]
        unreachable!("there every clock is Python's");
    }

    /// Now. `None`: the caller's clock raised. May run Python code if there is one.
    pub unsafe fn exact(&self) -> Option<i64> {
        #[cfg(target_os = "linux")]
        if self.python.is_null() {
            return Some(read(libc::CLOCK_MONOTONIC));
        }
        let now = Owned::take(PyObject_CallNoArgs(self.python))?;
        let ns = PyLong_AsLongLong(now.ptr());
        if ns == -1 && !PyErr_Occurred().is_null() {
            return None;
        }
        Some(ns)
    }
}

/// Elsewhere every clock is Python's own.
pub const NEEDS_PYTHON: bool = cfg!(not(target_os = "linux"));

#[cfg(target_os = "linux")]
type Read = unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> libc::c_int;

/// What the kernel lends to every process; the C library's function of this name does no more than call it.
#[cfg(target_os = "linux")]
static mut READ: Read = libc::clock_gettime;

/// Once, before anything is read.
pub fn init() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        let kernel = libc::dlopen(c"linux-vdso.so.1".as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
        if !kernel.is_null() {
            for name in [c"__vdso_clock_gettime", c"__kernel_clock_gettime"] {
                let found = libc::dlsym(kernel, name.as_ptr());
                if !found.is_null() {
                    READ = std::mem::transmute::<*mut libc::c_void, Read>(found);
                }
            }
        }
    }
}

#[cfg(target_os = "linux")]
#[inline(always)]
fn read(clock: libc::clockid_t) -> i64 {
    let mut now = MaybeUninit::<libc::timespec>::uninit();
    let now = unsafe {
        READ(clock, now.as_mut_ptr()); // cannot fail: both clocks are there, and so is the room
        now.assume_init()
    };
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}
