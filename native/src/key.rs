//! Arguments as keys: hashed and compared where they lie, types first, without building an object.
//!
//! *Plain* are exact `int`, `str`, `bytes`, `bool`, `None`, `float` (by its bits), classes derived from `bytes` that
//! hash and compare as it does, and tuples of these: looking at them runs no Python code. Everything else goes by its
//! own `__hash__` and `__eq__`, which may do anything.

use crate::py::*;
use std::os::raw::c_void;

pub const DEPTH: u32 = 8; // of tuples in tuples that are looked into
const HEAD: usize = std::mem::size_of::<PyObject>();
const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;

static mut SEED: u64 = 0;

/// Keys come from users: which of them fall together must not be known outside of this process. Once: the module may be
/// loaded again, while there are tables.
pub fn seed(random: u64) {
    unsafe {
        if SEED == 0 {
            SEED = random | 1;
        }
    }
}

#[inline(always)]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

/// What a look at an object found out.
pub enum Hashed {
    Plain(u64),
    Object,
}

/// Where the hashes of a slot begin, by its number.
#[inline(always)]
pub fn start(slot: u64) -> u64 {
    unsafe { SEED ^ (slot << 32) }
}

/// The 32 bits that the table goes by.
#[inline(always)]
pub fn end(state: u64) -> u32 {
    (state >> 32) as u32 ^ state as u32
}

/// Adds one argument to a hash, if it is plain.
#[inline(always)]
pub unsafe fn add(state: u64, arg: Ptr) -> Hashed {
    add_at(state, arg, DEPTH)
}

#[inline(always)]
unsafe fn add_at(state: u64, arg: Ptr, depth: u32) -> Hashed {
    let class = Py_TYPE(arg);
    let (kind, value) = if class == &raw mut PyLong_Type {
        match small(arg) {
            Some(value) => (1, value as u64),
            None => (1, PyObject_Hash(arg) as u64),
        }
    } else if class == &raw mut PyUnicode_Type {
        (2, text_hash(arg) as u64)
    } else if class == &raw mut PyBytes_Type {
        (3, PyObject_Hash(arg) as u64)
    } else {
        return add_other(state, arg, class, depth);
    };
    Hashed::Plain(mix(state ^ kind, value ^ PRIME))
}

#[inline(never)]
unsafe fn add_other(state: u64, arg: Ptr, class: *mut PyTypeObject, depth: u32) -> Hashed {
    if class == &raw mut PyBool_Type || arg == Py_None() {
        return Hashed::Plain(mix(state ^ 4, arg as u64 ^ PRIME));
    }
    if class == &raw mut PyFloat_Type {
        return Hashed::Plain(mix(state ^ 5, PyFloat_AS_DOUBLE(arg).to_bits() ^ PRIME));
    }
    if class == &raw mut PyTuple_Type && depth > 0 {
        let count = PyTuple_GET_SIZE(arg);
        let mut state = mix(state ^ 6, count as u64 ^ PRIME);
        for position in 0..count {
            match add_at(state, PyTuple_GET_ITEM(arg, position), depth - 1) {
                Hashed::Plain(more) => state = more,
                Hashed::Object => return Hashed::Object,
            }
        }
        return Hashed::Plain(state);
    }
    if is_bytes_alike(class) {
        return Hashed::Plain(mix(state ^ 7 ^ class as u64, PyObject_Hash(arg) as u64 ^ PRIME));
    }
    Hashed::Object
}

/// Adds one argument of any kind. `None`: its `__hash__` raised, or it has none. May run Python code.
pub unsafe fn add_any(state: u64, arg: Ptr, depth: u32) -> Option<u64> {
    match add_at(state, arg, depth) {
        Hashed::Plain(state) => return Some(state),
        Hashed::Object => {}
    }
    if Py_TYPE(arg) == &raw mut PyTuple_Type && depth > 0 {
        let arg = Owned::of(arg);
        let count = PyTuple_GET_SIZE(arg.ptr());
        let mut state = mix(state ^ 6, count as u64 ^ PRIME);
        for position in 0..count {
            state = add_any(state, PyTuple_GET_ITEM(arg.ptr(), position), depth - 1)?;
        }
        return Some(state);
    }
    let hash = PyObject_Hash(arg);
    if hash == -1 && !PyErr_Occurred().is_null() {
        return None;
    }
    Some(mix(state ^ 8 ^ Py_TYPE(arg) as u64, hash as u64 ^ PRIME))
}

/// The hash of an argument array; nothing if not all of it is plain.
pub unsafe fn hash_plain(start: u64, args: &[Ptr]) -> Option<u64> {
    let mut state = start;
    for &arg in args {
        match add(state, arg) {
            Hashed::Plain(more) => state = more,
            Hashed::Object => return None,
        }
    }
    Some(state)
}

/// The hash of an argument array, and whether all of it is plain. `None`: an exception is set.
pub unsafe fn hash(start: u64, args: &[Ptr]) -> Option<(u64, bool)> {
    let mut state = start;
    for (position, &arg) in args.iter().enumerate() {
        match add(state, arg) {
            Hashed::Plain(more) => state = more,
            Hashed::Object => {
                for &arg in &args[position..] {
                    state = add_any(state, arg, DEPTH)?;
                }
                return Some((state, false));
            }
        }
    }
    Some((state, true))
}

unsafe fn is_plain(arg: Ptr) -> bool {
    matches!(add(0, arg), Hashed::Plain(_))
}

/// Whether an entry may be found by an argument of a user's as it is: plain, and of no derived class.
pub unsafe fn is_exact(arg: Ptr, depth: u32) -> bool {
    let class = Py_TYPE(arg);
    if class == &raw mut PyTuple_Type {
        return depth > 0
            && (0..PyTuple_GET_SIZE(arg)).all(|position| is_exact(PyTuple_GET_ITEM(arg, position), depth - 1));
    }
    let exact = [
        &raw mut PyLong_Type,
        &raw mut PyUnicode_Type,
        &raw mut PyBytes_Type,
        &raw mut PyBool_Type,
        &raw mut PyFloat_Type,
    ];
    exact.contains(&class) || arg == Py_None()
}

/// Whether two arguments, the second of which is plain, are the same. Runs no Python code.
#[inline(always)]
pub unsafe fn same(a: Ptr, b: Ptr) -> bool {
    a == b || (Py_TYPE(a) == Py_TYPE(b) && same_value(a, b))
}

#[inline(never)]
unsafe fn same_value(a: Ptr, b: Ptr) -> bool {
    let class = Py_TYPE(a);
    if class == &raw mut PyLong_Type {
        match (small(a), small(b)) {
            (Some(a), Some(b)) => a == b,
            (None, None) => equal(a, b),
            _ => false,
        }
    } else if class == &raw mut PyUnicode_Type {
        same_text(a, b)
    } else if class == &raw mut PyFloat_Type {
        PyFloat_AS_DOUBLE(a).to_bits() == PyFloat_AS_DOUBLE(b).to_bits()
    } else if class == &raw mut PyTuple_Type {
        let count = PyTuple_GET_SIZE(a);
        count == PyTuple_GET_SIZE(b)
            && (0..count).all(|position| same(PyTuple_GET_ITEM(a, position), PyTuple_GET_ITEM(b, position)))
    } else if PyBytes_Check(a) != 0 && is_bytes_alike(class) {
        let count = PyBytes_Size(a);
        count == PyBytes_Size(b)
            && libc::memcmp(PyBytes_AS_STRING(a).cast(), PyBytes_AS_STRING(b).cast(), count as usize) == 0
    } else {
        false // bool and None are the same only if they are one object; anything else is not plain
    }
}

/// `same` for arguments of any kind. `None`: `__eq__` raised. May run Python code; the caller holds both.
pub unsafe fn same_any(a: Ptr, b: Ptr, kinds_of: Ptr, depth: u32) -> Option<bool> {
    if a == b {
        return Some(true);
    }
    let class = Py_TYPE(a);
    if class != Py_TYPE(b) {
        return Some(false);
    }
    if is_plain(a) {
        return Some(is_plain(b) && same_value(a, b));
    }
    if class == &raw mut PyTuple_Type && depth > 0 {
        if PyTuple_GET_SIZE(a) != PyTuple_GET_SIZE(b) {
            return Some(false);
        }
        for position in 0..PyTuple_GET_SIZE(a) {
            if !same_any(PyTuple_GET_ITEM(a, position), PyTuple_GET_ITEM(b, position), kinds_of, depth - 1)? {
                return Some(false);
            }
        }
        return Some(true);
    }
    match PyObject_RichCompareBool(a, b, Py_EQ) {
        -1 => return None,
        0 => return Some(false),
        _ => {}
    }
    if class != &raw mut PyTuple_Type && class != &raw mut PyFrozenSet_Type {
        return Some(true);
    }
    // `==` is blind to types inside of it.
    let (a, b) = (kinds(kinds_of, a)?, kinds(kinds_of, b)?);
    match PyObject_RichCompareBool(a.ptr(), b.ptr(), Py_EQ) {
        -1 => None,
        equal => Some(equal == 1),
    }
}

/// `same_any` for whole arrays.
pub unsafe fn same_arrays(stored: &[Ptr], args: &[Ptr], kinds_of: Ptr) -> Option<bool> {
    for (&a, &b) in stored.iter().zip(args) {
        if !same_any(a, b, kinds_of, DEPTH)? {
            return Some(false);
        }
    }
    Some(true)
}

unsafe fn kinds(kinds_of: Ptr, arg: Ptr) -> Option<Owned> {
    let array = Owned::take(PyTuple_Pack(1, arg))?;
    Owned::take(PyObject_CallOneArg(kinds_of, array.ptr()))
}

unsafe fn equal(a: Ptr, b: Ptr) -> bool {
    let result = PyObject_RichCompare(a, b, Py_EQ); // of exact ints: cannot fail, runs no Python code
    Py_XDECREF(result);
    result == Py_True()
}

/// An int of at most two digits, read where it lies: calling for it costs as much as the whole look-up.
#[inline(always)]
pub unsafe fn small(arg: Ptr) -> Option<i64> {
    let head = *arg.cast::<u8>().add(HEAD).cast::<isize>();
    #[cfg(Py_3_12)]
    let (count, negative) = (head as usize >> 3, head & 3 == 2);
    #[cfg(not(Py_3_12))]
    let (count, negative) = (head.unsigned_abs(), head < 0);
    let digits = arg.cast::<u8>().add(HEAD + std::mem::size_of::<isize>()).cast::<u32>();
    let value = match count {
        0 => 0,
        1 => i64::from(*digits),
        2 => i64::from(*digits) | i64::from(*digits.add(1)) << 30,
        _ => return None,
    };
    Some(if negative { -value } else { value })
}

/// The hash that every exact str keeps once it was asked for.
#[inline(always)]
unsafe fn text_hash(arg: Ptr) -> isize {
    let kept = (*arg.cast::<PyASCIIObject>()).hash;
    if kept == -1 {
        PyObject_Hash(arg)
    } else {
        kept
    }
}

#[inline(always)]
unsafe fn same_text(a: Ptr, b: Ptr) -> bool {
    let (left, right) = (a.cast::<PyASCIIObject>(), b.cast::<PyASCIIObject>());
    if (*left).length != (*right).length {
        return false;
    }
    if PyUnicode_IS_COMPACT_ASCII(a) != 0 && PyUnicode_IS_COMPACT_ASCII(b) != 0 {
        let (left, right): (*const c_void, *const c_void) = (left.add(1).cast(), right.add(1).cast());
        return libc::memcmp(left, right, (*a.cast::<PyASCIIObject>()).length as usize) == 0;
    }
    PyUnicode_Compare(a, b) == 0
}

unsafe fn is_bytes_alike(class: *mut PyTypeObject) -> bool {
    let bytes = &raw mut PyBytes_Type;
    // As addresses: the interpreter inherits these slots by copying them.
    PyType_FastSubclass(class, Py_TPFLAGS_BYTES_SUBCLASS) != 0
        && (*class).tp_hash.map(|hash| hash as usize) == (*bytes).tp_hash.map(|hash| hash as usize)
        && (*class).tp_richcompare.map(|same| same as usize) == (*bytes).tp_richcompare.map(|same| same as usize)
}
