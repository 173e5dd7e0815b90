//! The interpreter's C interface, and the few things that make it bearable.
//!
//! All functions of this crate run with the GIL held. A function that may fail gives `None` (or a null pointer) with a
//! Python exception set. Pointers in arguments are borrowed; what is returned is `Owned`, or said to be borrowed.

pub use pyo3_ffi::*;

use std::ffi::CStr;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

pub type Ptr = *mut PyObject;

/// A strong reference.
#[repr(transparent)]
pub struct Owned(NonNull<PyObject>);

impl Owned {
    /// Takes over a new reference; null is `None`, and an exception is set then.
    #[inline]
    pub unsafe fn take(ptr: Ptr) -> Option<Owned> {
        NonNull::new(ptr).map(Owned)
    }

    /// A reference of its own to what somebody else holds.
    #[inline]
    pub unsafe fn of(ptr: Ptr) -> Owned {
        Py_INCREF(ptr);
        Owned(NonNull::new_unchecked(ptr))
    }

    #[inline]
    pub fn ptr(&self) -> Ptr {
        self.0.as_ptr()
    }

    /// Gives the reference away.
    #[inline]
    pub fn give(self) -> Ptr {
        ManuallyDrop::new(self).0.as_ptr()
    }
}

impl Clone for Owned {
    fn clone(&self) -> Owned {
        unsafe { Owned::of(self.ptr()) }
    }
}

impl Drop for Owned {
    #[inline]
    fn drop(&mut self) {
        unsafe { Py_DECREF(self.ptr()) }
    }
}

/// An attribute.
pub unsafe fn attribute(owner: Ptr, name: &CStr) -> Option<Owned> {
    Owned::take(PyObject_GetAttrString(owner, name.as_ptr()))
}

/// An attribute of a module, which is imported if it has to be.
pub unsafe fn from_module(module: &CStr, name: &CStr) -> Option<Owned> {
    let module = Owned::take(PyImport_ImportModule(module.as_ptr()))?;
    attribute(module.ptr(), name)
}

/// Raises; so that it can end a function: `return raise(...)`.
pub unsafe fn raise<T>(kind: Ptr, message: &CStr) -> Option<T> {
    PyErr_SetString(kind, message.as_ptr());
    None
}

/// The int of bytes without a sign, the highest first.
pub unsafe fn unsigned(bytes: &[u8]) -> Option<Owned> {
    #[cfg(not(Py_3_13))]
    let number = _PyLong_FromByteArray(bytes.as_ptr(), bytes.len(), 0, 0);
    #[cfg(Py_3_13)]
    let number = PyLong_FromUnsignedNativeBytes(bytes.as_ptr().cast(), bytes.len(), Py_ASNATIVEBYTES_BIG_ENDIAN as _);
    Owned::take(number)
}
