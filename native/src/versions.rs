//! `Versions`: `events` as a Python type, with the interface of `cachekit.l1.versions.Versions`.
//!
//! The numbers change in one step under the GIL. ``lock`` is for callers who take several steps.

use crate::class::*;
use crate::events::Events;
use crate::py::*;
use std::ffi::{c_int, c_void};
use std::mem::{offset_of, ManuallyDrop};
use std::ptr::null_mut;

#[repr(C)]
pub struct Versions {
    base: PyObject,
    lock: Ptr,
    pub events: ManuallyDrop<Events>,
}

pub static mut CLASS: PyTypeObject = blank::<Versions>(
    c"cachekit._native.Versions",
    c"What was invalidated when: one event number, so that a value read before an invalidation is never stored after it.",
);

static mut METHODS: [PyMethodDef; 11] = [
    none(c"ticket", ticket),
    none(c"new_slot", new_slot),
    one(c"bump_key", bump_key),
    one(c"bump_tags", bump_tags),
    one(c"bump_slot", bump_slot),
    one(c"bump_region", bump_region),
    none(c"bump_all", bump_all),
    keywords(c"allows", allows),
    one(c"tag_event", tag_event),
    none(c"reset_lock", reset_lock),
    END,
];

static mut MEMBERS: [PyMemberDef; 2] = [member(c"lock", Py_T_OBJECT_EX, offset_of!(Versions, lock)), NO_MEMBER];

pub unsafe fn init(module: Ptr) -> Option<()> {
    let class = &raw mut CLASS;
    (*class).tp_flags |= Py_TPFLAGS_HAVE_GC;
    (*class).tp_new = Some(new);
    (*class).tp_dealloc = Some(dealloc);
    (*class).tp_traverse = Some(traverse);
    (*class).tp_clear = Some(clear);
    (*class).tp_methods = (&raw mut METHODS).cast();
    (*class).tp_members = (&raw mut MEMBERS).cast();
    add(module, class, c"Versions")
}

pub unsafe fn events_of<'a>(versions: Ptr) -> &'a mut Events {
    &mut *(&raw mut (*versions.cast::<Versions>()).events).cast()
}

pub unsafe fn check(object: Ptr) -> Option<()> {
    if Py_TYPE(object) == &raw mut CLASS {
        return Some(());
    }
    raise(PyExc_TypeError, c"versions must be a cachekit._native.Versions")
}

unsafe fn new_lock() -> Option<Owned> {
    let make = from_module(c"threading", c"RLock")?;
    Owned::take(PyObject_CallNoArgs(make.ptr()))
}

unsafe extern "C" fn new(class: *mut PyTypeObject, _args: Ptr, _kwargs: Ptr) -> Ptr {
    let Some(lock) = new_lock() else {
        return null_mut();
    };
    let object = PyType_GenericAlloc(class, 0);
    if !object.is_null() {
        let this = object.cast::<Versions>();
        (&raw mut (*this).events).write(ManuallyDrop::new(Events::new()));
        (*this).lock = lock.give();
    }
    object
}

unsafe extern "C" fn dealloc(object: Ptr) {
    PyObject_GC_UnTrack(object.cast());
    clear(object);
    ManuallyDrop::drop(&mut (*object.cast::<Versions>()).events);
    PyObject_GC_Del(object.cast());
}

unsafe extern "C" fn traverse(object: Ptr, visit: visitproc, arg: *mut c_void) -> c_int {
    let lock = (*object.cast::<Versions>()).lock;
    if lock.is_null() {
        0
    } else {
        visit(lock, arg)
    }
}

unsafe extern "C" fn clear(object: Ptr) -> c_int {
    drop(Owned::take(std::mem::replace(&mut (*object.cast::<Versions>()).lock, null_mut())));
    0
}

unsafe extern "C" fn ticket(this: Ptr, _: Ptr) -> Ptr {
    or_null(number(events_of(this).last))
}

unsafe extern "C" fn new_slot(this: Ptr, _: Ptr) -> Ptr {
    or_null(number(events_of(this).new_slot()))
}

unsafe extern "C" fn bump_key(this: Ptr, khash: Ptr) -> Ptr {
    none_or_null(bits_of(khash).map(|khash| events_of(this).bump_key(khash)))
}

unsafe extern "C" fn bump_slot(this: Ptr, slot: Ptr) -> Ptr {
    none_or_null(u64_of(slot).map(|slot| events_of(this).bump_slot(slot)))
}

unsafe extern "C" fn bump_region(this: Ptr, region: Ptr) -> Ptr {
    none_or_null(text(region).map(|region| events_of(this).bump_region(region)))
}

unsafe extern "C" fn bump_all(this: Ptr, _: Ptr) -> Ptr {
    events_of(this).bump_all();
    none_or_null(Some(()))
}

unsafe extern "C" fn bump_tags(this: Ptr, tags: Ptr) -> Ptr {
    none_or_null(with_texts(tags, |tags| events_of(this).bump_tags(tags)))
}

/// Calls with the texts of an iterable of str.
pub unsafe fn with_texts<T>(iterable: Ptr, act: impl FnOnce(&[&str]) -> T) -> Option<T> {
    let items = Owned::take(PySequence_Tuple(iterable))?;
    let texts = (0..PyTuple_GET_SIZE(items.ptr())).map(|position| text(PyTuple_GET_ITEM(items.ptr(), position)));
    let texts: Vec<&str> = texts.collect::<Option<_>>()?;
    Some(act(&texts))
}

unsafe extern "C" fn allows(this: Ptr, args: Ptr, kwargs: Ptr) -> Ptr {
    let names = [c"ticket", c"khash", c"tags", c"slot", c"region"].map(std::ffi::CStr::as_ptr);
    let mut names = [names[0], names[1], names[2], names[3], names[4], std::ptr::null()];
    let (mut ticket, mut khash, mut tags, mut slot, mut region) =
        (null_mut(), null_mut(), null_mut(), null_mut(), null_mut());
    let format = c"OOOOO:allows".as_ptr();
    #[allow(clippy::useless_conversion)]
    let parsed = PyArg_ParseTupleAndKeywords(
        args,
        kwargs,
        format,
        names.as_mut_ptr().cast(),
        &mut ticket as *mut Ptr,
        &mut khash as *mut Ptr,
        &mut tags as *mut Ptr,
        &mut slot as *mut Ptr,
        &mut region as *mut Ptr,
    );
    if parsed == 0 {
        return null_mut();
    }
    or_null((|| {
        let (ticket, khash, slot) = (u64_of(ticket)?, bits_of(khash)?, u64_of(slot)?);
        let region = text(region)?;
        let allowed = with_texts(tags, |tags| {
            let events = events_of(this);
            let region = events.region(region);
            tags.iter().all(|tag| ticket >= events.tag_event(tag)) && events.allow(ticket, khash, &[], slot, &region)
        })?;
        truth(allowed)
    })())
}

unsafe extern "C" fn tag_event(this: Ptr, tag: Ptr) -> Ptr {
    or_null(text(tag).and_then(|tag| number(events_of(this).tag_event(tag))))
}

unsafe extern "C" fn reset_lock(this: Ptr, _: Ptr) -> Ptr {
    none_or_null(new_lock().map(|lock| {
        let old = std::mem::replace(&mut (*this.cast::<Versions>()).lock, lock.give());
        drop(Owned::take(old));
    }))
}
