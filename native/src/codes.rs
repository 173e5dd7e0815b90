//! What encoder and decoder share: the codes of the wire, and the classes of Python that they know.
//!
//! The codes are part of format 1; the table in `cachekit/codec/serializers.py` names them all.

use crate::class::{counted, none_or_null, u64_of};
use crate::py::*;
use std::ffi::CStr;

pub const TREE: i64 = 1;
pub const MARKED: i64 = 2;

pub const UNSET: u8 = 0;
pub const BYTEARRAY: u8 = 3;
pub const DECIMAL: u8 = 5;
pub const UUID: u8 = 6;
pub const DATE: u8 = 7;
pub const DATETIME: u8 = 8;
pub const TIMEDELTA: u8 = 10;
pub const TUPLE: u8 = 32;
pub const SET: u8 = 33;
pub const FROZENSET: u8 = 34;
pub const DICT: u8 = 35;
pub const DEQUE: u8 = 38;

pub const NAMEDTUPLE: u8 = 48;
pub const MODEL: u8 = 54; // the last of the classes

/// Objects of the Python side. All are held for ever, as the module is.
#[derive(Clone, Copy)]
pub struct Known {
    pub decimal: Ptr,
    pub uuid: Ptr,
    pub unknown: Ptr, // uuid.SafeUUID.unknown
    pub unset: Ptr,
    pub layouts: Ptr,
    pub marker: Ptr,
    pub take: Ptr,
    pub read: Ptr,        // of a code and its bytes
    pub read_marker: Ptr, // the same, or a marker
    pub plan_of: Ptr,
    pub build: Ptr,
    pub instance: Ptr,
    pub max_depth: usize,
    pub int: Ptr, // names of attributes
    pub is_safe: Ptr,
    pub layout: Ptr,
    pub cls: Ptr,
    pub kind: Ptr,
    pub names: Ptr,
    pub sixty_four: Ptr,
    pub nothing: Ptr, // no arguments
}

static mut KNOWN: Option<Known> = None;

/// Nothing of the codec is used before `install_codec`: ask for it where Python comes in.
pub fn known() -> Option<&'static Known> {
    let known = &raw const KNOWN;
    match unsafe { &*known } {
        Some(known) => Some(known),
        None => unsafe { raise(PyExc_RuntimeError, c"install_codec() comes first") },
    }
}

/// install_codec((Decimal, UUID, SafeUUID.unknown, UNSET, layouts, Marker),
/// (take, read, read_marker, plan_of, build, instance), max_depth)
pub unsafe extern "C" fn install_codec(_module: Ptr, args: *mut Ptr, count: Py_ssize_t) -> Ptr {
    none_or_null((|| {
        counted("install_codec", count, 3)?;
        let (objects, functions) = (*args, *args.add(1));
        for given in [objects, functions] {
            if PyTuple_CheckExact(given) == 0 || PyTuple_GET_SIZE(given) != 6 {
                return raise(PyExc_TypeError, c"install_codec() takes two tuples of six");
            }
        }
        PyDateTime_IMPORT();
        if PyDateTimeAPI().is_null() {
            return None;
        }
        let name = |name: &CStr| Owned::take(PyUnicode_InternFromString(name.as_ptr())).map(Owned::give);
        let object = |at| Owned::of(PyTuple_GET_ITEM(objects, at)).give();
        let function = |at| Owned::of(PyTuple_GET_ITEM(functions, at)).give();
        KNOWN = Some(Known {
            decimal: object(0),
            uuid: object(1),
            unknown: object(2),
            unset: object(3),
            layouts: object(4),
            marker: object(5),
            take: function(0),
            read: function(1),
            read_marker: function(2),
            plan_of: function(3),
            build: function(4),
            instance: function(5),
            max_depth: u64_of(*args.add(2))? as usize,
            int: name(c"int")?,
            is_safe: name(c"is_safe")?,
            layout: name(c"layout")?,
            cls: name(c"cls")?,
            kind: name(c"kind")?,
            names: name(c"names")?,
            sixty_four: Owned::take(PyLong_FromLong(64))?.give(),
            nothing: Owned::take(PyTuple_New(0))?.give(),
        });
        Some(())
    })())
}

/// How instances of a class are taken apart and rebuilt; `Layout` of `cachekit/codec/classes.py`.
pub struct Layout {
    pub kind: u8,
    pub marker: Ptr,
    pub names: Ptr,
    pub slots: Ptr,
    pub has_dict: bool,
    pub count: isize,
}

impl Layout {
    /// Borrows from the tuple.
    pub unsafe fn of(layout: Ptr) -> Layout {
        let item = |at| PyTuple_GET_ITEM(layout, at);
        Layout {
            kind: PyLong_AsLong(item(0)) as u8,
            marker: item(1),
            names: item(2),
            slots: item(3),
            has_dict: item(4) == Py_True(),
            count: PyTuple_GET_SIZE(item(2)),
        }
    }

    /// Name and slot of a field; the slot is None for one that lies in ``__dict__``.
    pub unsafe fn field(&self, at: isize) -> (Ptr, Ptr) {
        (PyTuple_GET_ITEM(self.names, at), PyTuple_GET_ITEM(self.slots, at))
    }
}
