//! `Table`: `core` as a Python type, with the interface that `cachekit.l1.table` describes.
//!
//! Between two steps that may run Python code nothing of the table is borrowed: any such code may come back into it,
//! and other threads may. What a step needs afterwards it takes along; `generation` tells whether entries came or went.

use crate::class::*;
use crate::clock::{Clock, NEEDS_PYTHON};
use crate::core::*;
use crate::events::Events;
use crate::key;
use crate::py::*;
use crate::state::{installed, state};
use crate::values::{self, Mode};
use crate::versions;
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::mem::{offset_of, ManuallyDrop};
use std::ptr::null_mut;

#[repr(C)]
pub struct Table {
    base: PyObject,
    weak: Ptr,
    region: Ptr,
    versions: Ptr,
    clock: Ptr, // as Python sees it
    skip: Ptr,
    max_entries: i64,
    max_bytes: i64,
    pub time: Clock,
    /// What hits go by: 0 while `watch` is on.
    pub alive_until: i64,
    alive: i64,
    pub watched: bool,
    pub share: bool,
    core: ManuallyDrop<Core>,
    numbers: ManuallyDrop<HashMap<u64, u32>>, // of a slot to its place in the core
    names: ManuallyDrop<HashMap<Box<str>, u64>>,
}

pub static mut CLASS: PyTypeObject = blank::<Table>(c"cachekit._native.Table", c"See `cachekit.l1.table`.");

static mut METHODS: [PyMethodDef; 17] = [
    one(c"slot", slot),
    fast(c"get", get),
    fast(c"entry", entry),
    keywords(c"put", put),
    fast(c"refreshed", refreshed),
    one(c"mark_stale", mark_stale),
    fast(c"drop", drop_one),
    one(c"drop_key", drop_key),
    one(c"drop_slot", drop_slot),
    none(c"clear", clear_all),
    one(c"alive", alive),
    one(c"watch", watch),
    one(c"sweep", sweep),
    none(c"reset", reset),
    keywords(c"stats", stats),
    one(c"take_loads", take_loads),
    END,
];

static mut MEMBERS: [PyMemberDef; 7] = [
    member(c"region", Py_T_OBJECT_EX, offset_of!(Table, region)),
    member(c"versions", Py_T_OBJECT_EX, offset_of!(Table, versions)),
    member(c"clock", Py_T_OBJECT_EX, offset_of!(Table, clock)),
    member(c"max_entries", Py_T_LONGLONG, offset_of!(Table, max_entries)),
    member(c"max_bytes", Py_T_LONGLONG, offset_of!(Table, max_bytes)),
    member(c"alive_until", Py_T_LONGLONG, offset_of!(Table, alive_until)),
    NO_MEMBER,
];

static mut PROPERTIES: [PyGetSetDef; 2] = [property(c"weight", weight), NO_PROPERTY];

static mut SEQUENCE: PySequenceMethods = unsafe { std::mem::MaybeUninit::zeroed().assume_init() };

pub unsafe fn init(module: Ptr) -> Option<()> {
    let class = &raw mut CLASS;
    SEQUENCE.sq_length = Some(length);
    (*class).tp_flags |= Py_TPFLAGS_HAVE_GC;
    (*class).tp_new = Some(new);
    (*class).tp_dealloc = Some(dealloc);
    (*class).tp_traverse = Some(traverse);
    (*class).tp_clear = Some(clear);
    (*class).tp_methods = (&raw mut METHODS).cast();
    (*class).tp_members = (&raw mut MEMBERS).cast();
    (*class).tp_getset = (&raw mut PROPERTIES).cast();
    (*class).tp_as_sequence = &raw mut SEQUENCE;
    (*class).tp_weaklistoffset = offset_of!(Table, weak) as Py_ssize_t;
    add(module, class, c"Table")
}

/// The entries. Whoever borrows them lets go before any Python code may run.
#[inline(always)]
pub unsafe fn core_of<'a>(this: *mut Table) -> &'a mut Core {
    &mut *(&raw mut (*this).core).cast()
}

unsafe fn numbers_of<'a>(this: *mut Table) -> &'a mut HashMap<u64, u32> {
    &mut *(&raw mut (*this).numbers).cast()
}

unsafe fn names_of<'a>(this: *mut Table) -> &'a mut HashMap<Box<str>, u64> {
    &mut *(&raw mut (*this).names).cast()
}

// ------------------------------------------------------------------------------------------------------ life and death

unsafe extern "C" fn new(class: *mut PyTypeObject, args: Ptr, kwargs: Ptr) -> Ptr {
    or_null(create(class, args, kwargs))
}

unsafe fn create(class: *mut PyTypeObject, args: Ptr, kwargs: Ptr) -> Option<Owned> {
    let mut names = [c"region", c"max_entries", c"max_bytes", c"policy", c"versions", c"clock", c"isolation", c"skip"]
        .map(std::ffi::CStr::as_ptr)
        .to_vec();
    names.push(std::ptr::null());
    let (mut region, mut policy, mut shared, mut skip) =
        (null_mut::<PyObject>(), null_mut::<PyObject>(), null_mut::<PyObject>(), null_mut::<PyObject>());
    let (mut clock, mut isolation) = (null_mut::<PyObject>(), null_mut::<PyObject>());
    let (mut max_entries, mut max_bytes) = (-1_i64, -1_i64);
    if PyArg_ParseTupleAndKeywords(
        args,
        kwargs,
        c"|$ULLUOOUO:Table".as_ptr(),
        names.as_mut_ptr().cast(),
        &mut region as *mut Ptr,
        &mut max_entries as *mut i64,
        &mut max_bytes as *mut i64,
        &mut policy as *mut Ptr,
        &mut shared as *mut Ptr,
        &mut clock as *mut Ptr,
        &mut isolation as *mut Ptr,
        &mut skip as *mut Ptr,
    ) == 0
    {
        return None;
    }
    if region.is_null() || policy.is_null() || shared.is_null() {
        return raise(PyExc_TypeError, c"Table() needs region, max_entries, max_bytes, policy and versions");
    }
    installed()?;
    let refuse = state().config_error;
    let lru = match text(policy)? {
        "s3fifo" => false,
        "lru" => true,
        _ => return raise(refuse, c"l1.policy is 's3fifo' or 'lru'"),
    };
    let share = match if isolation.is_null() { "auto" } else { text(isolation)? } {
        "auto" | "copy" => false,
        "share" => true,
        _ => return raise(refuse, c"isolation is 'auto', 'copy' or 'share'"),
    };
    if max_entries < 1 || max_bytes < 1 {
        let why = c"l1.max_entries and l1.max_bytes are at least 1; l1.mode = 'off' switches L1 off";
        return raise(refuse, why);
    }
    versions::check(shared)?;
    let own_clock = clock.is_null() || clock == Py_None();
    let seen = if own_clock { from_module(c"time", c"monotonic_ns")? } else { Owned::of(clock) };
    let event = versions::events_of(shared).region(text(region)?);

    let object = Owned::take(PyType_GenericAlloc(class, 0))?;
    let this = object.ptr().cast::<Table>();
    (&raw mut (*this).core).write(ManuallyDrop::new(Core::new(max_entries as u64, max_bytes as u64, lru, event)));
    (&raw mut (*this).numbers).write(ManuallyDrop::new(HashMap::from([(0, 0)])));
    (&raw mut (*this).names).write(ManuallyDrop::new(HashMap::new()));
    (*this).region = Owned::of(region).give();
    (*this).versions = Owned::of(shared).give();
    (*this).skip = if skip.is_null() { null_mut() } else { Owned::of(skip).give() };
    (*this).clock = seen.give();
    (*this).time = Clock { python: if own_clock && !NEEDS_PYTHON { null_mut() } else { (*this).clock } };
    (*this).max_entries = max_entries;
    (*this).max_bytes = max_bytes;
    (*this).alive = NEVER;
    (*this).alive_until = NEVER;
    (*this).share = share;
    Some(object)
}

unsafe extern "C" fn dealloc(object: Ptr) {
    let this = object.cast::<Table>();
    PyObject_GC_UnTrack(object.cast());
    if !(*this).weak.is_null() {
        PyObject_ClearWeakRefs(object);
    }
    clear(object);
    for held in [&raw mut (*this).region, &raw mut (*this).versions, &raw mut (*this).clock] {
        drop(Owned::take(std::mem::replace(&mut *held, null_mut())));
    }
    ManuallyDrop::drop(&mut (*this).core);
    ManuallyDrop::drop(&mut (*this).numbers);
    ManuallyDrop::drop(&mut (*this).names);
    PyObject_GC_Del(object.cast());
}

unsafe extern "C" fn traverse(object: Ptr, visit: visitproc, arg: *mut c_void) -> c_int {
    let this = object.cast::<Table>();
    let own = [(*this).region, (*this).versions, (*this).clock, (*this).skip];
    for held in own.into_iter().chain(core_of(this).held()) {
        if !held.is_null() {
            let result = visit(held, arg);
            if result != 0 {
                return result;
            }
        }
    }
    0
}

/// The entries, and what may hold on to the table; not what the methods need, which may still be called.
unsafe extern "C" fn clear(object: Ptr) -> c_int {
    let this = object.cast::<Table>();
    let mut dead = Dead::default();
    core_of(this).drop_slot(None, &mut dead);
    let skip = Owned::take(std::mem::replace(&mut (*this).skip, null_mut()));
    release((dead, skip));
    0
}

// ------------------------------------------------------------------------------------------------------------- looking

/// Where a slot is in the core, by its number.
unsafe fn place_of(this: *mut Table, number: Ptr) -> Option<u32> {
    let place = u64_of(number).map(|number| numbers_of(this).get(&number).copied())?;
    if place.is_none() {
        PyErr_SetObject(PyExc_KeyError, number);
    }
    place
}

pub unsafe fn check(object: Ptr) -> Option<*mut Table> {
    if Py_TYPE(object) == &raw mut CLASS {
        return Some(object.cast());
    }
    raise(PyExc_TypeError, c"not a cachekit._native.Table")
}

/// For those that look into a slot again and again.
pub unsafe fn place(table: *mut Table, number: Ptr) -> Option<u32> {
    place_of(table, number)
}

/// The entry of these arguments. `None`: comparing them raised. May run Python code if they are not plain.
///
/// No entry came or went since it was found to be the one.
pub unsafe fn find(this: *mut Table, slot: u32, hash: u32, plain: bool, args: &[Ptr]) -> Option<Option<u32>> {
    if plain {
        let core = core_of(this);
        return Some(core.find(slot, hash, args).map(|entry| core.number_of(entry)));
    }
    loop {
        let mut others: Vec<(Owned, u16)> = Vec::new(); // keys that were compared, and are not this one
        let found = loop {
            if core_of(this).slots[slot as usize].objects == 0 {
                break None;
            }
            let new = |entry: &Entry| !others.iter().any(|(key, single)| is_of(entry, key, *single));
            let Some(number) = core_of(this).candidate(slot, hash, new) else { break None };
            let entry = core_of(this).at(number);
            let (key, single) = (Owned::of(entry.key), entry.flags & SINGLE);
            let stored = if single != 0 { vec![key.ptr()] } else { tuple_items(key.ptr()).to_vec() };
            if stored.len() != args.len() || !key::same_arrays(&stored, args, state().kinds_of)? {
                others.push((key, single));
            } else if core_of(this).candidate(slot, hash, |entry| is_of(entry, &key, single)) == Some(number) {
                break Some(number);
            }
        };
        let generation = core_of(this).generation;
        drop(others); // destructors of keys whose entries left meanwhile
        if core_of(this).generation == generation {
            return Some(found);
        }
    }
}

/// Whether this is the key of an entry; as the only argument, or as all of them.
fn is_of(entry: &Entry, key: &Owned, single: u16) -> bool {
    entry.key == key.ptr() && entry.flags & SINGLE == single
}

/// The value of an entry for a caller, counted; or nothing, if it may not be used. ``now`` was read before it was found.
pub unsafe fn hit(this: *mut Table, number: u32, now: i64) -> Option<Option<Owned>> {
    let core = core_of(this);
    let entry = core.at(number);
    let (slot, flags, renew, generation) = (core.slot_of(number), entry.flags, entry.renew, core.generation);
    let late = now >= entry.fresh_until || (now >= (*this).alive && flags & DETACHED == 0);
    if late || core.outdated(number) {
        return Some(None);
    }
    let mut value = Owned::of(entry.value);
    if (*this).watched && skips(this)? {
        return Some(None);
    }
    if flags & COPY != 0 {
        match values::renew(value.ptr(), renew) {
            Some(copy) => value = copy,
            None => {
                forget(PyExc_Exception)?; // RecursionError on a stack that is deep already: better compute than fail
                return Some(None);
            }
        }
    }
    core_of(this).slots[slot as usize].hits += 1;
    if core_of(this).generation == generation {
        core_of(this).touch(number);
    }
    Some(Some(value))
}

/// As `hit`, for a memo, which leaves some entries to the table.
pub unsafe fn answer(this: *mut Table, number: u32, now: i64) -> Option<Option<Owned>> {
    if core_of(this).at(number).flags & ASIDE != 0 {
        return Some(None);
    }
    hit(this, number, now)
}

unsafe fn skips(this: *mut Table) -> Option<bool> {
    if (*this).skip.is_null() {
        return Some(false);
    }
    let skip = Owned::of((*this).skip);
    let answer = Owned::take(PyObject_CallNoArgs(skip.ptr()))?;
    truth_of(answer.ptr())
}

unsafe extern "C" fn get(object: Ptr, args: *mut Ptr, count: Py_ssize_t) -> Ptr {
    or_null(get_value(object.cast(), args, count))
}

unsafe fn get_value(this: *mut Table, args: *const Ptr, count: Py_ssize_t) -> Option<Owned> {
    counted("get", count, 2)?;
    let slot = place_of(this, *args)?;
    let now = (*this).time.exact()?;
    if let Some(number) = look_up(this, slot, *args.add(1))? {
        if let Some(value) = hit(this, number, now)? {
            return Some(value);
        }
    }
    core_of(this).slots[slot as usize].misses += 1;
    Some(Owned::of(state().miss))
}

/// Where the hashes of a slot begin.
pub unsafe fn start_of(this: *mut Table, slot: u32) -> u64 {
    key::start(core_of(this).slots[slot as usize].number)
}

/// The entry of an array.
unsafe fn look_up(this: *mut Table, slot: u32, array: Ptr) -> Option<Option<u32>> {
    if Py_TYPE(array) != &raw mut PyTuple_Type {
        return raise(PyExc_TypeError, c"the arguments that an entry is found by are a tuple");
    }
    let args = tuple_items(array);
    let (state, plain) = key::hash(start_of(this, slot), args)?;
    find(this, slot, key::end(state), plain, args)
}

unsafe extern "C" fn entry(object: Ptr, args: *mut Ptr, count: Py_ssize_t) -> Ptr {
    or_null(view(object.cast(), args, count))
}

unsafe fn view(this: *mut Table, args: *const Ptr, count: Py_ssize_t) -> Option<Owned> {
    counted("entry", count, 2)?;
    let slot = place_of(this, *args)?;
    let now = (*this).time.exact()?;
    let nothing = Owned::of(Py_None());
    let Some(found) = look_up(this, slot, *args.add(1))? else {
        return Some(nothing);
    };
    let core = core_of(this);
    if now >= core.keep_until(found).max(core.at(found).fresh_until) || core.outdated(found) {
        return Some(nothing);
    }
    let entry = core.at(found);
    let (flags, renew, ticket, khash, mode) = (entry.flags, entry.renew, entry.ticket(), entry.khash, entry.mode());
    let alive = if flags & DETACHED != 0 { NEVER } else { (*this).alive };
    let (fresh_until, keep_until, load_ms) =
        (entry.fresh_until.min(alive), core.keep_until(found), core.load_ms(found));
    let names = core.names(found);
    let mut value = Owned::of(entry.value);
    if flags & COPY != 0 {
        let Some(copy) = values::renew(value.ptr(), renew) else {
            forget(PyExc_Exception)?;
            return Some(nothing);
        };
        value = copy;
    }
    let names = match names {
        Some(names) => names,
        None => Owned::take(PyTuple_New(0))?,
    };
    let fields = [
        value,
        Owned::take(PyLong_FromLongLong(fresh_until))?,
        Owned::take(PyLong_FromLongLong(keep_until))?,
        number(ticket)?,
        names,
        number(load_ms)?,
        number(khash)?,
        Owned::of(values::mode_str(mode)),
        truth(flags & NEGATIVE != 0)?,
        Owned::take(PyLong_FromLongLong(now))?,
        truth(flags & EARLY != 0)?,
        truth(flags & DETACHED != 0)?,
    ];
    call(state().view, &fields)
}

unsafe fn call(callable: Ptr, args: &[Owned]) -> Option<Owned> {
    Owned::take(PyObject_Vectorcall(callable, args.as_ptr().cast(), args.len(), null_mut()))
}

// ----------------------------------------------------------------------------------------------------------- inserting

unsafe extern "C" fn put(object: Ptr, args: Ptr, kwargs: Ptr) -> Ptr {
    or_null(put_value(object.cast(), args, kwargs))
}

unsafe fn put_value(this: *mut Table, args: Ptr, kwargs: Ptr) -> Option<Owned> {
    let mut names = [
        c"slot",
        c"args",
        c"value",
        c"khash",
        c"fresh_until",
        c"keep_until",
        c"ticket",
        c"admission",
        c"tags",
        c"load_ms",
        c"negative",
        c"detached",
        c"early",
        c"aside",
    ]
    .map(std::ffi::CStr::as_ptr)
    .to_vec();
    names.push(std::ptr::null());
    let (mut slot, mut array, mut value) = (null_mut::<PyObject>(), null_mut::<PyObject>(), null_mut::<PyObject>());
    let (mut khash, mut ticket, mut admission) =
        (null_mut::<PyObject>(), null_mut::<PyObject>(), null_mut::<PyObject>());
    let mut tags = null_mut::<PyObject>();
    let (mut fresh_until, mut keep_until, mut load_ms) = (null_mut::<PyObject>(), null_mut::<PyObject>(), 0_i64);
    let (mut negative, mut detached, mut early, mut aside): (c_int, c_int, c_int, c_int) = (0, 0, 0, 0);
    if PyArg_ParseTupleAndKeywords(
        args,
        kwargs,
        c"OOO|$OOOOOOLpppp:put".as_ptr(),
        names.as_mut_ptr().cast(),
        &mut slot as *mut Ptr,
        &mut array as *mut Ptr,
        &mut value as *mut Ptr,
        &mut khash as *mut Ptr,
        &mut fresh_until as *mut Ptr,
        &mut keep_until as *mut Ptr,
        &mut ticket as *mut Ptr,
        &mut admission as *mut Ptr,
        &mut tags as *mut Ptr,
        &mut load_ms as *mut i64,
        &mut negative as *mut c_int,
        &mut detached as *mut c_int,
        &mut early as *mut c_int,
        &mut aside as *mut c_int,
    ) == 0
    {
        return None;
    }
    let needed = [khash, fresh_until, keep_until, ticket, admission];
    if needed.into_iter().any(Ptr::is_null) || PyTuple_Check(admission) == 0 {
        return raise(PyExc_TypeError, c"put() needs khash, fresh_until, keep_until, ticket and admission");
    }
    let asked = [(negative, NEGATIVE), (detached, DETACHED), (early, EARLY), (aside, ASIDE)];
    let flags = asked.into_iter().filter(|&(on, _)| on != 0).fold(0, |flags, (_, flag)| flags | flag);
    let fresh_until = time_of(fresh_until)?;
    let wish = Wish {
        slot: place_of(this, slot)?,
        fresh_until,
        keep_until: time_of(keep_until)?.max(fresh_until),
        ticket: u64_of(ticket)?,
        khash: bits_of(khash)?,
        weight: u64_of(item(admission, 1)?)?,
        load_ms: load_ms.max(0) as u64,
        flags,
        mode: values::mode_of(item(admission, 0)?)?,
    };
    let now = (*this).time.exact()?;
    if PyTuple_Check(array) == 0 {
        return raise(PyExc_TypeError, c"the arguments that an entry is found by are a tuple");
    }
    let args = tuple_items(array);
    let (state, plain) = key::hash(start_of(this, wish.slot), args)?;
    let key = Key { object: if args.len() == 1 { args[0] } else { array }, hash: key::end(state), plain, absent: None };
    truth(store(this, key, args, value, tags, wish, now)?)
}

unsafe fn item(tuple: Ptr, at: Py_ssize_t) -> Option<Ptr> {
    let item = PyTuple_GetItem(tuple, at);
    (!item.is_null()).then_some(item)
}

/// What is asked of `store`.
pub struct Wish {
    pub slot: u32,
    pub fresh_until: i64,
    pub keep_until: i64,
    pub ticket: u64,
    pub khash: u64,
    pub weight: u64,
    pub load_ms: u64,
    pub flags: u16,
    pub mode: Mode,
}

/// What an entry is found by: the only argument, or a tuple of all.
pub struct Key {
    pub object: Ptr,
    pub hash: u32,
    pub plain: bool,
    /// A generation of the table in which it held no such entry, if one is known.
    pub absent: Option<u64>,
}

/// Keep a value. Some(false): refused. ``tags`` may be null.
pub unsafe fn store(
    this: *mut Table,
    key: Key,
    args: &[Ptr],
    value: Ptr,
    tags: Ptr,
    wish: Wish,
    now: i64,
) -> Option<bool> {
    let mode = if (*this).share && wish.mode == Mode::Copy { Mode::Share } else { wish.mode };
    let adopted = values::adopt(value, mode);
    let names = if tags.is_null() { None } else { Some(Owned::take(PySequence_Tuple(tags))?) };
    let names = names.filter(|names| PyTuple_GET_SIZE(names.ptr()) > 0);
    let tags = match &names {
        Some(names) => versions::with_texts(names.ptr(), |tags| {
            let events = events_of(this);
            tags.iter().map(|tag| events.tag(tag)).collect::<Box<[_]>>()
        })?,
        None => Box::default(),
    };
    let absent = key.absent == Some(core_of(this).generation);
    let old = if absent { None } else { find(this, wish.slot, key.hash, key.plain, args)? };
    // From here on no Python code runs: the old entry, the events and the table stay what they are.
    let flags = wish.flags | if args.len() == 1 { SINGLE } else { 0 } | if key.plain { 0 } else { OBJECTS };
    let new = New {
        slot: wish.slot,
        hash: key.hash,
        key: Owned::of(key.object),
        value: adopted.value,
        fresh_until: wish.fresh_until,
        keep_until: wish.keep_until,
        ticket: wish.ticket,
        khash: wish.khash,
        weight: wish.weight,
        load_ms: wish.load_ms,
        flags,
        mode: adopted.mode,
        renew: adopted.renew,
        tags,
        names,
    };
    let mut dead = Dead::default();
    let stored = core_of(this).put(events_of(this), new, old, now, &mut dead);
    drop(dead);
    Some(stored)
}

pub unsafe fn events_of<'a>(this: *mut Table) -> &'a mut Events {
    versions::events_of((*this).versions)
}

// ----------------------------------------------------------------------------------------------------------- freshness

/// refreshed(slot, args, fresh_until): whether the caller is the one who refreshes an early entry
unsafe extern "C" fn refreshed(object: Ptr, args: *mut Ptr, count: Py_ssize_t) -> Ptr {
    let this = object.cast::<Table>();
    or_null((|| {
        counted("refreshed", count, 3)?;
        let slot = place_of(this, *args)?;
        let fresh_until = time_of(*args.add(2))?;
        let now = (*this).time.exact()?; // before the look, after which no Python code may run
        let found = look_up(this, slot, *args.add(1))?;
        truth(found.is_some_and(|found| core_of(this).refreshed(found, fresh_until, now)))
    })())
}

unsafe extern "C" fn mark_stale(object: Ptr, khash: Ptr) -> Ptr {
    let this = object.cast::<Table>();
    or_null((|| {
        let khash = bits_of(khash)?;
        let now = (*this).time.exact()?;
        number(core_of(this).mark_stale(khash, now))
    })())
}

// ------------------------------------------------------------------------------------------------------------ removing

unsafe extern "C" fn drop_one(object: Ptr, args: *mut Ptr, count: Py_ssize_t) -> Ptr {
    let this = object.cast::<Table>();
    or_null((|| {
        counted("drop", count, 2)?;
        let slot = place_of(this, *args)?;
        let found = look_up(this, slot, *args.add(1))?;
        let mut dead = Dead::default();
        if let Some(number) = found {
            core_of(this).remove(number, Reason::Invalidated, &mut dead);
        }
        drop(dead);
        truth(found.is_some())
    })())
}

unsafe extern "C" fn drop_key(object: Ptr, khash: Ptr) -> Ptr {
    or_null((|| {
        let khash = bits_of(khash)?;
        removing(object, |core, dead| core.drop_key(khash, dead))
    })())
}

unsafe extern "C" fn drop_slot(object: Ptr, slot: Ptr) -> Ptr {
    or_null((|| {
        let slot = place_of(object.cast(), slot)?;
        removing(object, |core, dead| core.drop_slot(Some(slot), dead))
    })())
}

unsafe extern "C" fn clear_all(object: Ptr, _: Ptr) -> Ptr {
    or_null(removing(object, |core, dead| core.drop_slot(None, dead)))
}

unsafe fn removing(object: Ptr, act: impl FnOnce(&mut Core, &mut Dead) -> u64) -> Option<Owned> {
    let mut dead = Dead::default();
    let removed = act(core_of(object.cast()), &mut dead);
    drop(dead);
    number(removed)
}

unsafe extern "C" fn sweep(object: Ptr, limit: Ptr) -> Ptr {
    or_null((|| {
        let limit = i64_of(limit)?.max(0) as usize;
        let now = (*object.cast::<Table>()).time.exact()?;
        removing(object, |core, dead| core.expire(limit, now, dead))
    })())
}

unsafe extern "C" fn reset(object: Ptr, _: Ptr) -> Ptr {
    let mut dead = Dead::default();
    core_of(object.cast()).reset(&mut dead);
    drop(dead);
    none_or_null(Some(()))
}

// ----------------------------------------------------------------------------------------------------- states, counting

unsafe extern "C" fn alive(object: Ptr, until: Ptr) -> Ptr {
    let this = object.cast::<Table>();
    none_or_null(time_of(until).map(|until| {
        (*this).alive = until;
        (*this).alive_until = if (*this).watched { 0 } else { until };
    }))
}

unsafe extern "C" fn watch(object: Ptr, on: Ptr) -> Ptr {
    let this = object.cast::<Table>();
    none_or_null(truth_of(on).map(|on| {
        (*this).watched = on;
        (*this).alive_until = if on { 0 } else { (*this).alive };
    }))
}

/// The number of the slot of this name; the first call makes it.
unsafe extern "C" fn slot(object: Ptr, name: Ptr) -> Ptr {
    let this = object.cast::<Table>();
    or_null(text(name).and_then(|name| {
        if let Some(&known) = names_of(this).get(name) {
            return number(known);
        }
        let new = events_of(this).new_slot();
        let core = core_of(this);
        numbers_of(this).insert(new, core.slots.len() as u32);
        names_of(this).insert(name.into(), new);
        core.slots.push(Box::new(Slot { number: new, ..Slot::default() }));
        number(new)
    }))
}

unsafe extern "C" fn stats(object: Ptr, args: Ptr, kwargs: Ptr) -> Ptr {
    or_null(count_up(object.cast(), args, kwargs))
}

unsafe fn count_up(this: *mut Table, args: Ptr, kwargs: Ptr) -> Option<Owned> {
    let mut names = [c"slot".as_ptr(), std::ptr::null()];
    let mut slot = null_mut::<PyObject>();
    if PyArg_ParseTupleAndKeywords(args, kwargs, c"|O:stats".as_ptr(), names.as_mut_ptr().cast(), &mut slot as *mut Ptr)
        == 0
    {
        return None;
    }
    let place = if slot.is_null() || slot == Py_None() { None } else { Some(place_of(this, slot)?) };
    let mut sum = Slot::default();
    for (at, slot) in core_of(this).slots.iter().enumerate() {
        if place.is_none_or(|place| place as usize == at) {
            sum.add(slot);
        }
    }
    let evictions = Owned::take(PyDict_New())?;
    for (reason, count) in [c"capacity", c"expired", c"invalidated"].into_iter().zip(sum.evictions) {
        if PyDict_SetItemString(evictions.ptr(), reason.as_ptr(), number(count)?.ptr()) < 0 {
            return None;
        }
    }
    let [hits, misses, entries, weight] = [sum.hits, sum.misses, sum.entries, sum.weight].map(|count| number(count));
    let fields = [hits?, misses?, entries?, weight?, evictions, number(sum.puts)?, number(sum.refused)?];
    call(state().stats, &fields)
}

/// How many loads of a slot ran natively since this was asked for the last time, and how many seconds each took.
unsafe extern "C" fn take_loads(object: Ptr, slot: Ptr) -> Ptr {
    or_null((|| {
        let this = object.cast::<Table>();
        let slot = &mut core_of(this).slots[place_of(this, slot)? as usize];
        let loads = std::mem::take(&mut slot.loads);
        let seconds = std::mem::take(&mut slot.seconds);
        let list = Owned::take(PyList_New(0))?;
        for second in seconds {
            let second = Owned::take(PyFloat_FromDouble(f64::from(second)))?;
            if PyList_Append(list.ptr(), second.ptr()) < 0 {
                return None;
            }
        }
        Owned::take(PyTuple_Pack(2, number(loads)?.ptr(), list.ptr()))
    })())
}

unsafe extern "C" fn length(object: Ptr) -> Py_ssize_t {
    core_of(object.cast()).len() as Py_ssize_t
}

unsafe extern "C" fn weight(object: Ptr, _: *mut c_void) -> Ptr {
    or_null(number(core_of(object.cast()).weight()))
}
