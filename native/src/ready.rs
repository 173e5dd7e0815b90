//! `Ready`: the coroutine of an async function whose result lay in the cache. It ends with its first step.
//!
//! It has every method of a coroutine, so that `collections.abc.Coroutine`, `inspect.isawaitable` and asyncio take it for
//! one. Those that are done are kept for the next hits.

use crate::class::*;
use crate::py::*;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr::null_mut;

#[repr(C)]
struct Ready {
    base: PyObject,
    value: Ptr, // null: it was awaited
    tracked: bool,
}

static mut CLASS: PyTypeObject =
    blank::<Ready>(c"cachekit._native.Ready", c"The coroutine of an async function whose result lay in the cache.");

static mut ASYNC: PyAsyncMethods = unsafe { MaybeUninit::zeroed().assume_init() };

static mut METHODS: [PyMethodDef; 4] = [one(c"send", send), fast(c"throw", throw), none(c"close", close), END];

static mut PROPERTIES: [PyGetSetDef; 7] = [
    property(c"cr_running", running),
    property(c"cr_suspended", running),
    property(c"cr_origin", nothing),
    property(c"cr_await", nothing),
    property(c"cr_frame", nothing),
    property(c"cr_code", nothing),
    NO_PROPERTY,
];

extern "C" {
    fn _Py_NewReference(object: Ptr); // how every free list brings an object back to life
}

const KEPT: usize = 64;
static mut FREE: [Ptr; KEPT] = [null_mut(); KEPT];
static mut FREE_COUNT: usize = 0;

pub unsafe fn init(module: Ptr) -> Option<()> {
    let class = &raw mut CLASS;
    ASYNC.am_await = Some(itself);
    ASYNC.am_send = Some(step);
    (*class).tp_flags |= Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION;
    (*class).tp_dealloc = Some(dealloc);
    (*class).tp_traverse = Some(traverse);
    (*class).tp_clear = Some(clear);
    (*class).tp_iter = Some(itself);
    (*class).tp_iternext = Some(next);
    (*class).tp_as_async = &raw mut ASYNC;
    (*class).tp_methods = (&raw mut METHODS).cast();
    (*class).tp_getset = (&raw mut PROPERTIES).cast();
    add(module, class, c"Ready")
}

/// Takes over the value.
#[inline(always)]
pub unsafe fn make(value: Ptr) -> Ptr {
    let object = if FREE_COUNT > 0 {
        FREE_COUNT -= 1;
        let object = FREE[FREE_COUNT];
        _Py_NewReference(object);
        object
    } else {
        let object = allocate();
        if object.is_null() {
            Py_DECREF(value);
            return null_mut();
        }
        object
    };
    let this = object.cast::<Ready>();
    (*this).value = value;
    // What holds nothing makes no circle, so that the collector need not know of this one either.
    (*this).tracked = (*Py_TYPE(value)).tp_flags & Py_TPFLAGS_HAVE_GC != 0;
    if (*this).tracked {
        PyObject_GC_Track(object.cast());
    }
    object
}

#[cold]
unsafe fn allocate() -> Ptr {
    PyObject_GC_New::<Ready>(&raw mut CLASS).cast()
}

unsafe extern "C" fn dealloc(object: Ptr) {
    if (*object.cast::<Ready>()).tracked {
        PyObject_GC_UnTrack(object.cast());
    }
    clear(object);
    #[cfg(Py_3_12)]
    forget_end(); // what was awaited is in the caller's hands by now
    if FREE_COUNT < KEPT {
        FREE[FREE_COUNT] = object;
        FREE_COUNT += 1;
    } else {
        PyObject_GC_Del(object.cast());
    }
}

unsafe extern "C" fn traverse(object: Ptr, visit: visitproc, arg: *mut c_void) -> c_int {
    let value = (*object.cast::<Ready>()).value;
    if value.is_null() {
        0
    } else {
        visit(value, arg)
    }
}

unsafe extern "C" fn clear(object: Ptr) -> c_int {
    drop(take(object));
    0
}

unsafe fn take(object: Ptr) -> Option<Owned> {
    Owned::take(std::mem::replace(&mut (*object.cast::<Ready>()).value, null_mut()))
}

unsafe extern "C" fn itself(object: Ptr) -> Ptr {
    Owned::of(object).give()
}

/// The value; or, awaited again, the error of a coroutine.
unsafe fn value(object: Ptr) -> Option<Owned> {
    match take(object) {
        None => raise(PyExc_RuntimeError, c"cannot reuse already awaited coroutine"),
        value => value,
    }
}

unsafe extern "C" fn step(object: Ptr, _sent: Ptr, result: *mut Ptr) -> PySendResult {
    match value(object) {
        Some(value) => {
            *result = value.give();
            PySendResult::PYGEN_RETURN
        }
        None => {
            *result = null_mut();
            PySendResult::PYGEN_ERROR
        }
    }
}

unsafe extern "C" fn next(object: Ptr) -> Ptr {
    if let Some(value) = value(object) {
        #[cfg(Py_3_12)]
        end(value);
        #[cfg(not(Py_3_12))]
        stop(value);
    }
    null_mut()
}

/// The exception that `await` takes the value from and throws away, kept for the next time: to make one costs more than
/// all the rest of a hit. (Before Python 3.12 the interpreter makes none where nobody looks at it.)
#[cfg(Py_3_12)]
static mut STOP: Ptr = null_mut();

/// `stop` for callers that only want the value.
#[cfg(Py_3_12)]
unsafe fn end(value: Owned) {
    if STOP.is_null() {
        STOP = PyObject_CallNoArgs(PyExc_StopIteration);
        if STOP.is_null() {
            return;
        }
    }
    let kept = STOP.cast::<PyStopIterationObject>();
    if !(*kept).value.is_null() {
        forget_end();
    }
    let used = !(*kept).traceback.is_null() || !(*kept).context.is_null() || !(*kept).value.is_null();
    if Py_REFCNT(STOP) != 1 || used {
        return stop(value); // somebody looks at it, or did
    }
    (*kept).value = value.give();
    PyErr_SetRaisedException(Owned::of(STOP).give());
}

/// Let go of the last value, unless somebody looks at it.
#[cfg(Py_3_12)]
unsafe fn forget_end() {
    if !STOP.is_null() && Py_REFCNT(STOP) == 1 {
        let kept = STOP.cast::<PyStopIterationObject>();
        drop(Owned::take(std::mem::replace(&mut (*kept).value, null_mut())));
    }
}

/// The end of a coroutine. The instance is made here: a tuple or an exception as the value would be taken apart.
unsafe fn stop(value: Owned) {
    if let Some(end) = Owned::take(PyObject_CallOneArg(PyExc_StopIteration, value.ptr())) {
        PyErr_SetObject(PyExc_StopIteration, end.ptr());
    }
}

unsafe extern "C" fn send(object: Ptr, sent: Ptr) -> Ptr {
    if sent != Py_None() && !(*object.cast::<Ready>()).value.is_null() {
        return or_null(raise(PyExc_TypeError, c"can't send non-None value to a just-started coroutine"));
    }
    next(object)
}

unsafe extern "C" fn throw(object: Ptr, args: *mut Ptr, count: Py_ssize_t) -> Ptr {
    if !(1..=3).contains(&count) {
        return or_null(raise(PyExc_TypeError, c"throw() takes an exception"));
    }
    if value(object).is_none() {
        return null_mut();
    }
    let given = *args;
    if PyType_Check(given) != 0 && PyObject_IsSubclass(given, PyExc_BaseException) == 1 {
        let detail = if count > 1 { *args.add(1) } else { Py_None() };
        if PyObject_IsInstance(detail, PyExc_BaseException) == 1 {
            PyErr_SetObject(given, detail);
        } else if detail == Py_None() {
            PyErr_SetNone(given);
        } else {
            PyErr_SetObject(given, detail);
        }
    } else if PyObject_IsInstance(given, PyExc_BaseException) == 1 {
        PyErr_SetObject(Py_TYPE(given).cast(), given);
    } else if PyErr_Occurred().is_null() {
        return or_null(raise(PyExc_TypeError, c"exceptions must be classes or instances deriving from BaseException"));
    }
    null_mut()
}

unsafe extern "C" fn close(object: Ptr, _: Ptr) -> Ptr {
    drop(take(object));
    none_or_null(Some(()))
}

unsafe extern "C" fn running(_: Ptr, _: *mut c_void) -> Ptr {
    or_null(truth(false))
}

unsafe extern "C" fn nothing(_: Ptr, _: *mut c_void) -> Ptr {
    none_or_null(Some(()))
}
