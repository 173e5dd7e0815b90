//! Types written by hand: what their definitions share.

use crate::py::*;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::{c_char, c_int, c_void, CStr};
use std::mem::MaybeUninit;

/// A type that can do nothing yet.
pub const fn blank<T>(name: &'static CStr, doc: &'static CStr) -> PyTypeObject {
    let mut class: PyTypeObject = unsafe { MaybeUninit::zeroed().assume_init() };
    class.ob_base = PyVarObject { ob_base: PyObject_HEAD_INIT, ob_size: 0 };
    class.tp_name = name.as_ptr();
    class.tp_doc = doc.as_ptr();
    class.tp_basicsize = size_of::<T>() as Py_ssize_t;
    class.tp_flags = Py_TPFLAGS_DEFAULT;
    class
}

/// Finishes a type and makes it an attribute of the module.
pub unsafe fn add(module: Ptr, class: *mut PyTypeObject, name: &CStr) -> Option<()> {
    if PyType_Ready(class) < 0 || PyModule_AddObjectRef(module, name.as_ptr(), class.cast()) < 0 {
        return None;
    }
    Some(())
}

pub type Fast = unsafe extern "C" fn(Ptr, *mut Ptr, Py_ssize_t) -> Ptr;
pub type Plain = unsafe extern "C" fn(Ptr, Ptr) -> Ptr;
pub type Keywords = unsafe extern "C" fn(Ptr, Ptr, Ptr) -> Ptr;

/// A method with positional arguments.
pub const fn fast(name: &'static CStr, method: Fast) -> PyMethodDef {
    entry(name, PyMethodDefPointer { PyCFunctionFast: method }, METH_FASTCALL)
}

/// A method with one argument.
pub const fn one(name: &'static CStr, method: Plain) -> PyMethodDef {
    entry(name, PyMethodDefPointer { PyCFunction: method }, METH_O)
}

/// A method without arguments.
pub const fn none(name: &'static CStr, method: Plain) -> PyMethodDef {
    entry(name, PyMethodDefPointer { PyCFunction: method }, METH_NOARGS)
}

/// A method with a tuple and a dictionary of arguments.
pub const fn keywords(name: &'static CStr, method: Keywords) -> PyMethodDef {
    entry(name, PyMethodDefPointer { PyCFunctionWithKeywords: method }, METH_VARARGS | METH_KEYWORDS)
}

const fn entry(name: &'static CStr, method: PyMethodDefPointer, flags: c_int) -> PyMethodDef {
    PyMethodDef { ml_name: name.as_ptr(), ml_meth: method, ml_flags: flags, ml_doc: std::ptr::null() }
}

/// The end of a list of methods.
pub const END: PyMethodDef = PyMethodDef::zeroed();

/// A field that Python may read.
pub const fn member(name: &'static CStr, kind: c_int, offset: usize) -> PyMemberDef {
    PyMemberDef {
        name: name.as_ptr(),
        type_code: kind,
        offset: offset as Py_ssize_t,
        flags: Py_READONLY,
        doc: std::ptr::null(),
    }
}

/// The end of a list of members.
pub const NO_MEMBER: PyMemberDef =
    PyMemberDef { name: std::ptr::null(), type_code: 0, offset: 0, flags: 0, doc: std::ptr::null() };

/// An attribute that is computed.
pub const fn property(name: &'static CStr, get: getter) -> PyGetSetDef {
    PyGetSetDef {
        name: name.as_ptr(),
        get: Some(get),
        set: None,
        doc: std::ptr::null(),
        closure: std::ptr::null_mut::<c_void>(),
    }
}

/// The end of a list of attributes.
pub const NO_PROPERTY: PyGetSetDef = PyGetSetDef {
    name: std::ptr::null(),
    get: None,
    set: None,
    doc: std::ptr::null(),
    closure: std::ptr::null_mut::<c_void>(),
};

/// Whether as many arguments came as are wanted; else an exception is set.
pub unsafe fn counted(name: &str, came: Py_ssize_t, wanted: Py_ssize_t) -> Option<()> {
    if came == wanted {
        return Some(());
    }
    let message = format!("{name}() takes {wanted} arguments, not {came}\0");
    PyErr_SetString(PyExc_TypeError, message.as_ptr().cast::<c_char>());
    None
}

/// What a function of C returns for `Option<Owned>`.
pub fn or_null(result: Option<Owned>) -> Ptr {
    result.map_or(std::ptr::null_mut(), Owned::give)
}

/// None, or null for an exception.
pub fn none_or_null(result: Option<()>) -> Ptr {
    or_null(result.map(|()| unsafe { Owned::of(Py_None()) }))
}

pub unsafe fn number(value: u64) -> Option<Owned> {
    Owned::take(PyLong_FromUnsignedLongLong(value))
}

pub unsafe fn truth(value: bool) -> Option<Owned> {
    Some(Owned::of(if value { Py_True() } else { Py_False() }))
}

/// An int of 64 bits, without a sign. `None`: it is none.
pub unsafe fn u64_of(object: Ptr) -> Option<u64> {
    let value = PyLong_AsUnsignedLongLong(object);
    if value == u64::MAX && !PyErr_Occurred().is_null() {
        return None;
    }
    Some(value)
}

/// The lower 64 bits of an int. `None`: it is none.
pub unsafe fn bits_of(object: Ptr) -> Option<u64> {
    let value = PyLong_AsUnsignedLongLongMask(object);
    if value == u64::MAX && !PyErr_Occurred().is_null() {
        return None;
    }
    Some(value)
}

/// An int of 64 bits. `None`: it is none.
pub unsafe fn i64_of(object: Ptr) -> Option<i64> {
    let value = PyLong_AsLongLong(object);
    if value == -1 && !PyErr_Occurred().is_null() {
        return None;
    }
    Some(value)
}

/// A time in ns. What is further away than can be counted is `i64::MAX`, and so for the past. `None`: it is none.
pub unsafe fn time_of(object: Ptr) -> Option<i64> {
    let mut overflow: c_int = 0;
    let value = PyLong_AsLongLongAndOverflow(object, &mut overflow);
    match overflow {
        0 if value == -1 && !PyErr_Occurred().is_null() => None,
        0 => Some(value),
        beyond => Some(if beyond > 0 { i64::MAX } else { i64::MIN }),
    }
}

const NESTING: usize = 32;

thread_local! {
    static NESTED: Cell<usize> = const { Cell::new(0) };
    static LATER: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
}

/// Release what an object held that is gone. In a chain of objects each of which holds the next alone, not every one
/// is released inside of the one before: the stack has an end.
pub fn release<T: 'static>(held: T) {
    let depth = NESTED.get();
    if depth == NESTING {
        LATER.with_borrow_mut(|later| later.push(Box::new(held)));
        return;
    }
    NESTED.set(depth + 1);
    drop(held);
    if depth == 0 {
        while let Some(next) = LATER.with_borrow_mut(Vec::pop) {
            drop(next);
        }
    }
    NESTED.set(depth);
}

/// Forget the exception that is set if it is of this kind. `None`: it is another one, and stays.
pub unsafe fn forget(kind: Ptr) -> Option<()> {
    if !PyErr_Occurred().is_null() && PyErr_ExceptionMatches(kind) == 0 {
        return None;
    }
    PyErr_Clear();
    Some(())
}

/// The text of a str, as long as it lives.
pub unsafe fn text<'a>(object: Ptr) -> Option<&'a str> {
    let mut size = 0;
    let data = PyUnicode_AsUTF8AndSize(object, &mut size);
    if data.is_null() {
        return None;
    }
    Some(std::str::from_utf8_unchecked(std::slice::from_raw_parts(data.cast(), size as usize)))
}

/// Whether an object is true. `None`: asking raised.
pub unsafe fn truth_of(object: Ptr) -> Option<bool> {
    match PyObject_IsTrue(object) {
        -1 => None,
        answer => Some(answer == 1),
    }
}
