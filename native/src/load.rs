//! Loads that need nothing but the function: no L2, no tags, nobody who listens. A miss then costs little more than the
//! function itself.
//!
//! The Python side keeps the rules of `cachekit.engine.flow` for whatever else happens meanwhile, and finds the loads that
//! run here (`RUNNING`) when it needs them: another caller of the same key gets a flight to wait for, `current_entry()`
//! an entry, and whoever waits knows what this thread is inside of. Nothing of that is made before somebody asks.
//!
//! Threads are told apart by the address of a thread's own variable; a thread runs its loads last in, first out. That is
//! not so where greenlets switch stacks, so there every miss takes the way through Python.

use crate::class::*;
use crate::core::{tuple_items, NEVER};
use crate::key;
use crate::memo::{Absent, Memo};
use crate::py::*;
use crate::table::{self, Key, Table, Wish};
use crate::values::{self, Mode};
use std::ptr::null_mut;

/// How the misses of one memo are loaded.
pub struct Plan {
    func: Owned,
    flights: Owned,   // the dictionary of those that run in Python
    observers: Owned, // a list
    hooks: Owned,     // `cachekit.engine.quick.Hooks`
    times: Times,
}

/// How long its values live, in ns.
#[derive(Clone, Copy)]
struct Times {
    ttl: i64,
    spread: i64, // added to it at most, by lot
    cap: i64,    // what L1 allows
    early: bool, // values that took time are refreshed before their end; when is decided in Python
}

/// What is loaded in less time, in ns, is not worth refreshing early.
const SHORT: i64 = 1_000_000;

struct Running {
    handle: u64, // no other load ever has it; another one may well come to lie at its address
    table: Owned,
    key: Owned, // the only argument, or a tuple of all
    single: bool,
    hooks: Owned,
    slot: u32,
    khash: u64,
    absent: Option<Absent>,
    thread: usize,
    ticket: u64,
    began: i64,
    flight: Option<Owned>,
    entry: Option<Owned>,
}

/// All loads of the process, in the order in which they began. Each lies in the frame that runs it.
static mut RUNNING: Vec<*mut Running> = Vec::new();

static mut LAST: u64 = 0; // handle

static mut RANDOM: u64 = 0x2545_f491_4f6c_dd1d;

thread_local!(static HERE: u8 = const { 0 });

fn this_thread() -> usize {
    HERE.with(|here| here as *const u8 as usize)
}

#[allow(static_mut_refs)] // under the GIL, and never while Python code runs
fn loads<'a>() -> &'a mut Vec<*mut Running> {
    unsafe { &mut RUNNING }
}

unsafe fn here() -> Vec<*mut Running> {
    let thread = this_thread();
    loads().iter().copied().filter(|&load| (*load).thread == thread).collect()
}

impl Plan {
    /// func, flights, observers, hooks, ttl, spread, cap, early
    pub unsafe fn of(given: &[Ptr]) -> Option<Plan> {
        if PyDict_Check(given[1]) == 0 || PyList_Check(given[2]) == 0 {
            return raise(PyExc_TypeError, c"flights are a dict, observers a list");
        }
        let held = |at: usize| Owned::of(given[at]);
        let (ttl, spread, cap) = (i64_of(given[4])?, i64_of(given[5])?, i64_of(given[6])?);
        let times = Times { ttl, spread, cap, early: truth_of(given[7])? };
        Some(Plan { func: held(0), flights: held(1), observers: held(2), hooks: held(3), times })
    }

    pub fn held(&self) -> impl Iterator<Item = Ptr> {
        [self.func.ptr(), self.flights.ptr(), self.observers.ptr(), self.hooks.ptr()].into_iter()
    }
}

impl Times {
    fn fresh_until(&self, now: i64) -> i64 {
        let life = if self.ttl == NEVER { NEVER } else { self.ttl.saturating_add(draw(self.spread)) };
        now.saturating_add(life.min(self.cap))
    }

    /// Whether Python has to say when a value is refreshed that took so long, in ns.
    fn left_to_python(&self, ns: i64) -> bool {
        self.early && ns >= SHORT
    }
}

/// A lot between 0 and `most` (xorshift64, Marsaglia 2003): it spreads expiries, nothing hangs on it.
fn draw(most: i64) -> i64 {
    if most <= 0 {
        return 0;
    }
    unsafe {
        RANDOM ^= RANDOM << 13;
        RANDOM ^= RANDOM >> 7;
        RANDOM ^= RANDOM << 17;
        ((u128::from(RANDOM) * most as u128) >> 64) as i64
    }
}

pub fn seed(random: u64) {
    unsafe { RANDOM = random | 1 }
}

/// Load and keep the value of a call. `None`: not in here, nothing was done. Null: the function raised.
pub unsafe fn run(
    this: *mut Memo,
    args: *const Ptr,
    nargsf: usize,
    kwnames: Ptr,
    array: &[Ptr],
    absent: Option<Absent>,
) -> Option<Ptr> {
    let start = (*this).start;
    let plan = (*this).plan.as_deref()?;
    if size_of_dict(plan.flights.ptr()) != 0 || PyList_GET_SIZE(plan.observers.ptr()) != 0 || stacks_are_switched() {
        return None;
    }
    let khash = match absent {
        Some(absent) => absent.khash,
        None => key::hash_plain((*this).start, array)?,
    };
    let table = (*this).table;
    if table.is_null() || (*this).start != start {
        return None; // unbound from inside of this call, or bound to another slot
    }
    if (*table).watched {
        return None; // this caller may be without the cache, which is known in Python
    }
    if loads().iter().any(|&load| (*load).khash == khash && (*load).table.ptr() == table.cast()) {
        return None; // whether to wait for that one is decided in Python
    }
    // What is run from here on may bind the memo to another table, or drop it: take along what is needed.
    let (func, hooks, times, slot) = (plan.func.clone(), plan.hooks.clone(), plan.times, (*this).slot);
    let (kept, counts) = (Owned::of(table.cast()), (*this).counts); // the table has the counts
    let single = array.len() == 1;
    let Some(key) = (if single { Some(Owned::of(array[0])) } else { tuple_of(array) }) else { return Some(null_mut()) };
    let Some(began) = (*table).time.exact() else { return Some(null_mut()) };
    let object = key.ptr();
    let compared = if single { std::slice::from_ref(&object) } else { tuple_items(object) };
    if table::core_of(table).keeps(slot, key::end(khash), compared, began) {
        return None; // whether the old value is used, or refreshed, is decided in Python
    }
    (*counts).misses += 1;
    LAST += 1;
    let mut running = Running {
        handle: LAST,
        table: kept,
        key,
        single,
        hooks,
        slot,
        khash,
        absent,
        thread: this_thread(),
        ticket: table::events_of(table).last,
        began,
        flight: None,
        entry: None,
    };
    let load = &raw mut running;
    loads().push(load);
    let _ends = Ends(load); // on whatever way this is left
    let value = Owned::take(PyObject_Vectorcall(func.ptr(), args, nargsf, kwnames));
    Some(or_null(match value {
        Some(value) => keep(load, value, times),
        None => failed(load),
    }))
}

impl Running {
    /// The arguments, as a tuple.
    unsafe fn array(&self) -> Option<Owned> {
        if self.single {
            tuple_of(&[self.key.ptr()])
        } else {
            Some(self.key.clone())
        }
    }
}

unsafe fn tuple_of(array: &[Ptr]) -> Option<Owned> {
    let tuple = Owned::take(PyTuple_New(array.len() as Py_ssize_t))?;
    for (position, &arg) in array.iter().enumerate() {
        PyTuple_SET_ITEM(tuple.ptr(), position as Py_ssize_t, Owned::of(arg).give());
    }
    Some(tuple)
}

/// Whether there may be greenlets, whose loads do not end in the order in which they began.
unsafe fn stacks_are_switched() -> bool {
    static mut WITHOUT: Py_ssize_t = -1; // there were none when so many modules were loaded
    let modules = PyImport_GetModuleDict();
    let count = size_of_dict(modules);
    if WITHOUT != count {
        let found = !PyDict_GetItemString(modules, c"greenlet".as_ptr()).is_null();
        WITHOUT = if found { -1 } else { count };
    }
    WITHOUT < 0
}

/// Where it lies: to ask for it costs as much as a whole look-up in the table.
unsafe fn size_of_dict(dict: Ptr) -> Py_ssize_t {
    (*dict.cast::<PyDictObject>()).ma_used
}

struct Ends(*mut Running);

impl Drop for Ends {
    fn drop(&mut self) {
        unsafe { end(self.0) }
    }
}

unsafe fn end(load: *mut Running) {
    if loads().last() == Some(&load) {
        loads().pop(); // nearly always
    } else {
        loads().retain(|&other| other != load);
    }
}

/// The function brought a value.
unsafe fn keep(load: *mut Running, value: Owned, times: Times) -> Option<Owned> {
    let table = (*load).table.ptr().cast::<Table>();
    let Some(now) = (*table).time.exact() else { return failed(load) };
    let admitted = values::examine(value.ptr());
    let usable = admitted.mode != Mode::Opaque || ((*table).share && !serves_once(value.ptr()));
    let ns = now - (*load).began;
    if (*load).entry.is_some() || !usable || times.left_to_python(ns) {
        return finish(load, value, ns);
    }
    table::core_of(table).slots[(*load).slot as usize].loaded(ns);
    let fresh_until = times.fresh_until(now);
    let wish = Wish {
        slot: (*load).slot,
        fresh_until,
        keep_until: fresh_until,
        ticket: (*load).ticket,
        khash: (*load).khash,
        weight: admitted.weight,
        load_ms: (ns / 1_000_000).max(0) as u64,
        flags: if value.ptr() == Py_None() { crate::core::NEGATIVE } else { 0 },
        mode: admitted.mode,
    };
    let object = (*load).key.ptr();
    let args = if (*load).single { std::slice::from_ref(&object) } else { tuple_items(object) };
    let absent = (*load).absent.map(|absent| absent.generation);
    let key = Key { object, hash: key::end((*load).khash), plain: true, absent };
    let stored = table::store(table, key, args, value.ptr(), null_mut(), wish, now);
    end(load);
    stored?;
    if let Some(flight) = (*load).flight.take() {
        let args = [(*load).array()?, flight, value.clone(), Owned::of(values::mode_str(admitted.mode))];
        drop(ask(load, c"landed", &args)?);
    }
    Some(value)
}

/// Whether only one caller could use a value; `flow` has the words for it.
unsafe fn serves_once(value: Ptr) -> bool {
    PyGen_Check(value) != 0 || PyCoro_CheckExact(value) != 0 || PyAsyncGen_CheckExact(value) != 0
}

/// Something that Python has to see to: what the function asked of its entry, or a value that cannot be copied.
unsafe fn finish(load: *mut Running, value: Owned, ns: i64) -> Option<Owned> {
    if (*load).flight.is_none() {
        let flight = ask(load, c"flight", &[(*load).array()?, number((*load).ticket)?, seconds((*load).began)?]);
        (*load).flight = Some(flight?); // so that nobody loads the same while Python stores it
    }
    end(load);
    let entry = (*load).entry.take().unwrap_or_else(|| Owned::of(Py_None()));
    let flight = (*load).flight.take()?;
    let args = [(*load).array()?, flight, value, entry, number((*load).ticket)?, seconds((*load).began)?, seconds(ns)?];
    ask(load, c"finish", &args)
}

/// The function raised; its exception is set, and stays so.
#[allow(deprecated)] // since 3.12; what stands for it is not there before
unsafe fn failed(load: *mut Running) -> Option<Owned> {
    end(load);
    let (mut kind, mut error, mut trace) = (null_mut(), null_mut(), null_mut());
    PyErr_Fetch(&mut kind, &mut error, &mut trace);
    PyErr_NormalizeException(&mut kind, &mut error, &mut trace);
    let flight = (*load).flight.take().unwrap_or_else(|| Owned::of(Py_None()));
    if ask(load, c"failed", &[(*load).array()?, flight, Owned::of(error)]).is_none() {
        PyErr_Clear();
    }
    PyErr_Restore(kind, error, trace);
    None
}

unsafe fn ask(load: *mut Running, method: &std::ffi::CStr, args: &[Owned]) -> Option<Owned> {
    let method = attribute((*load).hooks.ptr(), method)?;
    Owned::take(PyObject_Vectorcall(method.ptr(), args.as_ptr().cast(), args.len(), null_mut()))
}

unsafe fn seconds(ns: i64) -> Option<Owned> {
    Owned::take(PyFloat_FromDouble(ns as f64 / 1e9))
}

// ------------------------------------------------------------------------------------------------- what Python asks for

/// running(): how many loads run in here, in all threads
pub unsafe extern "C" fn running(_module: Ptr, _: Ptr) -> Ptr {
    or_null(number(loads().len() as u64))
}

/// depth(): inside of how many of them this thread is
pub unsafe extern "C" fn depth(_module: Ptr, _: Ptr) -> Ptr {
    or_null(number(here().len() as u64))
}

/// unseen(): (handle, hooks, args, ticket, began) of those without a flight
pub unsafe extern "C" fn unseen(_module: Ptr, _: Ptr) -> Ptr {
    or_null((|| {
        // All that is needed of them first: a garbage collection may end some.
        let without = loads().iter().copied().filter(|&load| (*load).flight.is_none());
        let rows: Vec<_> = without
            .map(|load| {
                (
                    (*load).handle,
                    (*load).hooks.clone(),
                    (*load).key.clone(),
                    (*load).single,
                    (*load).ticket,
                    (*load).began,
                )
            })
            .collect();
        let list = Owned::take(PyList_New(0))?;
        for (handle, hooks, key, single, ticket, began) in rows {
            let array = if single { tuple_of(&[key.ptr()])? } else { key };
            let (handle, ticket, began) = (number(handle)?, number(ticket)?, seconds(began)?);
            let row = PyTuple_Pack(5, handle.ptr(), hooks.ptr(), array.ptr(), ticket.ptr(), began.ptr());
            if PyList_Append(list.ptr(), Owned::take(row)?.ptr()) < 0 {
                return None;
            }
        }
        Some(list)
    })())
}

/// attach(handle, flight): others may wait for it from now on; False if it has ended, or has one
pub unsafe extern "C" fn attach(_module: Ptr, args: *mut Ptr, count: Py_ssize_t) -> Ptr {
    or_null((|| {
        counted("attach", count, 2)?;
        let handle = u64_of(*args)?;
        let found = loads().iter().copied().find(|&load| (*load).handle == handle && (*load).flight.is_none());
        if let Some(load) = found {
            (*load).flight = Some(Owned::of(*args.add(1)));
        }
        truth(found.is_some())
    })())
}

/// flights_here(): the flights of the loads that this thread is inside of, outermost first
pub unsafe extern "C" fn flights_here(_module: Ptr, _: Ptr) -> Ptr {
    or_null((|| {
        let flights: Vec<_> = here().iter().filter_map(|&load| (*load).flight.clone()).collect();
        let list = Owned::take(PyList_New(0))?;
        for flight in flights {
            if PyList_Append(list.ptr(), flight.ptr()) < 0 {
                return None;
            }
        }
        Some(list)
    })())
}

/// entry_here(): the entry that the innermost load of this thread fills, which is made now if need be
pub unsafe extern "C" fn entry_here(_module: Ptr, _: Ptr) -> Ptr {
    or_null((|| {
        let Some(&load) = here().last() else { return Some(Owned::of(Py_None())) };
        if (*load).entry.is_none() {
            let entry = ask(load, c"entry", &[])?;
            (*load).entry = Some(entry);
        }
        (*load).entry.clone()
    })())
}

/// after_fork(): in a forked child only this thread goes on
pub unsafe extern "C" fn after_fork(_module: Ptr, _: Ptr) -> Ptr {
    let thread = this_thread();
    loads().retain(|&load| (*load).thread == thread);
    none_or_null(Some(()))
}
