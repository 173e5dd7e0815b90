//! What callers may have of a value: itself or a copy of their own. The native twin of `cachekit/l1/values.py`.

use std::cell::UnsafeCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::admission::Weights;
pub use crate::admission::{admit, examine};
use crate::class::one;
use crate::copies::{holds_leaves, leaves_of, Copier};
use crate::plans::{forget, Addresses, Plan, Twin};
use crate::py::*;

/// Whether callers may share a value; see the pure twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    Share,
    Copy,
    Opaque,
}

/// The quickest way to copy a value that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Renew {
    /// Callers get the value itself.
    Itself,
    /// A shallow copy will do, since all parts are leaves.
    Dict,
    List,
    Set,
    /// No changeable object occurs twice.
    Tree,
    Graph,
}

impl Renew {
    const ALL: [Renew; 6] = [Renew::Itself, Renew::Dict, Renew::List, Renew::Set, Renew::Tree, Renew::Graph];
}

/// A value as L1 keeps it.
pub struct Adopted {
    pub value: Owned,
    pub mode: Mode,
    pub renew: Renew,
}

/// Makes the copy that is kept, and learns from it what the bounded walk of `examine` may have missed. Never raises.
pub unsafe fn adopt(value: Ptr, mode: Mode) -> Adopted {
    let shared = |mode| Adopted { value: Owned::of(value), mode, renew: Renew::Itself };
    if mode != Mode::Copy {
        return shared(mode);
    }
    let mut copier = Copier::of_graph(state().twin.max_depth);
    match first_copy(value, &mut copier) {
        None => {
            forget_error();
            shared(Mode::Opaque)
        }
        Some((mine, _)) if mine.ptr() == value => shared(Mode::Share),
        Some((mine, how)) => {
            let deep = if copier.met_again() { Renew::Graph } else { Renew::Tree };
            let renew = how.or_else(|| flat(mine.ptr())).unwrap_or(deep); // all classes of leaves are known by now
            Adopted { value: mine, mode, renew }
        }
    }
}

/// What a caller may have of a value: in mode `Copy` a copy of its own. A value that turns out not to be copyable is
/// shared. Never raises.
pub unsafe fn isolate(value: Ptr, mode: Mode) -> Owned {
    if mode != Mode::Copy {
        return Owned::of(value);
    }
    match first_copy(value, &mut Copier::of_graph(state().twin.max_depth)) {
        Some((mine, _)) => mine,
        None => {
            forget_error();
            Owned::of(value)
        }
    }
}

/// A copy, and how it was made if that was simple. What is looked at is the copy, which nobody else can change.
unsafe fn first_copy(value: Ptr, copier: &mut Copier) -> Option<(Owned, Option<Renew>)> {
    let how = if PyDict_CheckExact(value) != 0 {
        Renew::Dict
    } else if PyList_CheckExact(value) != 0 {
        Renew::List
    } else {
        return Some((copier.copy(value)?, None));
    };
    let mine = renew(value, how)?;
    if flat(mine.ptr()).is_some() {
        return Some((mine, Some(how)));
    }
    Some((copier.copy(value)?, None))
}

/// The copy for a caller, of a value as it was adopted.
#[inline]
pub unsafe fn renew(value: Ptr, how: Renew) -> Option<Owned> {
    // Immutable objects are walked through again where they occur again, hence deeper than when they were adopted.
    let levels = || 2 * state().twin.max_depth;
    match how {
        Renew::Itself => Some(Owned::of(value)),
        Renew::Dict => Owned::take(PyDict_Copy(value)),
        Renew::List => Owned::take(PyList_GetSlice(value, 0, isize::MAX)),
        Renew::Set => Owned::take(PySet_New(value)),
        Renew::Tree => Copier::of_tree(levels()).copy(value),
        Renew::Graph => Copier::of_graph(levels()).copy(value),
    }
}

/// How to copy a dictionary, list or set of leaves.
unsafe fn flat(value: Ptr) -> Option<Renew> {
    if PyDict_CheckExact(value) != 0 {
        (leaves_of(value) == (true, true)).then_some(Renew::Dict)
    } else if PyList_CheckExact(value) != 0 {
        holds_leaves(value).then_some(Renew::List)
    } else if PySet_CheckExact(value) != 0 {
        let Some(items) = Owned::take(PySequence_List(value)) else {
            PyErr_Clear();
            return None;
        };
        holds_leaves(items.ptr()).then_some(Renew::Set)
    } else {
        None
    }
}

// ------------------------------------------------------------------------------------------------------------- helpers

/// A new instance of tuple or of a class derived from it that is not given `__new__` a say.
pub unsafe fn new_tuple(class: *mut PyTypeObject, items: &[Ptr]) -> Option<Owned> {
    let Some(alloc) = (*class).tp_alloc else {
        return raise(PyExc_TypeError, c"a class without instances");
    };
    let new = Owned::take(alloc(class, items.len() as isize))?;
    for (index, &item) in items.iter().enumerate() {
        Py_INCREF(item);
        PyTuple_SET_ITEM(new.ptr(), index as isize, item);
    }
    Some(new)
}

/// Clears the exception that is set. A Ctrl-C is not lost: it strikes again when Python code runs.
pub unsafe fn forget_error() {
    let interrupted = PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) != 0;
    PyErr_Clear();
    if interrupted {
        PyErr_SetInterrupt();
    }
}

/// The name of a mode, borrowed and interned.
pub unsafe fn mode_str(mode: Mode) -> Ptr {
    state().modes[mode as usize].ptr()
}

/// The mode of a name, which may be the null of a call that failed.
pub unsafe fn mode_of(name: Ptr) -> Option<Mode> {
    if name.is_null() {
        return None;
    }
    named(name).or_else(|| raise(PyExc_ValueError, c"not a mode of a value"))
}

unsafe fn named(name: Ptr) -> Option<Mode> {
    let modes = [Mode::Share, Mode::Copy, Mode::Opaque];
    if let Some(mode) = modes.into_iter().find(|&mode| mode_str(mode) == name) {
        return Some(mode);
    }
    if PyUnicode_CheckExact(name) == 0 {
        return None;
    }
    modes.into_iter().find(|&mode| PyUnicode_Compare(mode_str(mode), name) == 0)
}

// --------------------------------------------------------------------------------------------------------------- state

/// What is found once and used by every call.
pub struct State {
    modes: [Owned; 3],
    pub dict_name: Owned, // __dict__
    pub twin: Twin,
    pub weights: Weights,
    pub plans: UnsafeCell<Addresses<Rc<Plan>>>, // in short steps that run no code, under the GIL
}

static STATE: AtomicPtr<State> = AtomicPtr::new(std::ptr::null_mut());

#[inline]
pub fn state() -> &'static State {
    let state = STATE.load(Ordering::Relaxed);
    debug_assert!(!state.is_null(), "init comes first");
    unsafe { &*state }
}

/// Comes before everything else. Imports the pure twin.
pub unsafe fn init(_module: Ptr) -> Option<()> {
    if STATE.load(Ordering::Relaxed).is_null() {
        let interned = |name: &std::ffi::CStr| Owned::take(PyUnicode_InternFromString(name.as_ptr()));
        let state = State {
            modes: [interned(c"share")?, interned(c"copy")?, interned(c"opaque")?],
            dict_name: interned(c"__dict__")?,
            twin: Twin::new()?,
            weights: Weights::new()?,
            plans: UnsafeCell::default(),
        };
        STATE.store(Box::into_raw(Box::new(state)), Ordering::Relaxed);
    }
    Some(())
}

// --------------------------------------------------------------------------------------------------------- for Python

/// `admit(value)`, `isolate(value, mode)`, `adopt(value, mode) -> (value, mode, how)`, `renew(value, how)`,
/// `forget(class)`.
pub fn methods() -> [PyMethodDef; 5] {
    let method = |name: &'static std::ffi::CStr, function| PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: PyMethodDefPointer { PyCFunctionFast: function },
        ml_flags: METH_FASTCALL,
        ml_doc: std::ptr::null(),
    };
    [
        one(c"admit", py_admit),
        one(c"forget", py_forget),
        method(c"isolate", py_isolate),
        method(c"adopt", py_adopt),
        method(c"renew", py_renew),
    ]
}

fn give(result: Option<Owned>) -> Ptr {
    result.map_or(std::ptr::null_mut(), Owned::give)
}

unsafe fn two(args: *mut Ptr, count: isize) -> Option<(Ptr, Ptr)> {
    if count != 2 {
        return raise(PyExc_TypeError, c"two arguments are needed");
    }
    Some((*args, *args.add(1)))
}

unsafe extern "C" fn py_admit(_: Ptr, value: Ptr) -> Ptr {
    give(admit(value))
}

unsafe extern "C" fn py_forget(_: Ptr, class: Ptr) -> Ptr {
    forget(class);
    Owned::of(Py_None()).give()
}

unsafe extern "C" fn py_isolate(_: Ptr, args: *mut Ptr, count: isize) -> Ptr {
    give(two(args, count).map(|(value, mode)| isolate(value, named(mode).unwrap_or(Mode::Share))))
}

unsafe extern "C" fn py_adopt(_: Ptr, args: *mut Ptr, count: isize) -> Ptr {
    let Some((value, mode)) = two(args, count) else {
        return std::ptr::null_mut();
    };
    let adopted = adopt(value, named(mode).unwrap_or(Mode::Share));
    let mode = if named(mode).is_some() { mode_str(adopted.mode) } else { mode };
    match Owned::take(PyLong_FromLong(adopted.renew as _)) {
        Some(how) => PyTuple_Pack(3, adopted.value.ptr(), mode, how.ptr()),
        None => std::ptr::null_mut(),
    }
}

unsafe extern "C" fn py_renew(_: Ptr, args: *mut Ptr, count: isize) -> Ptr {
    let Some((value, how)) = two(args, count) else {
        return std::ptr::null_mut();
    };
    let how = PyLong_AsLong(how);
    match usize::try_from(how).ok().and_then(|how| Renew::ALL.get(how)) {
        Some(&how) => give(renew(value, how)),
        None if PyErr_Occurred().is_null() => give(raise(PyExc_ValueError, c"no way to copy")),
        None => std::ptr::null_mut(),
    }
}
