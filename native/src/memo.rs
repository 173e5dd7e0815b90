//! `Memo`: what stands in the place of a cached function. A hit is answered here, everything else goes to the shell.
//!
//! The arguments are hashed and compared where the interpreter put them; a call that spells them in another way is laid
//! out first, in the order of the parameters. No object is made but the caller's copy of a value that can be changed.

use crate::class::*;
use crate::core::{Entry, Slot, RARE};
use crate::key::{self, Hashed};
use crate::load::{self, Plan};
use crate::py::*;
use crate::ready;
use crate::state::{installed, state};
use crate::table::{self, Table};
use std::ffi::{c_int, c_void};
use std::mem::{offset_of, ManuallyDrop, MaybeUninit};
use std::ptr::null_mut;

extern "C" {
    fn PyMethod_New(function: Ptr, instance: Ptr) -> Ptr; // pyo3-ffi leaves it out
}

/// Functions with more parameters are always left to the shell.
const MOST: usize = 24;

/// Where the arguments of a call are laid out, if they have to be.
type Room = MaybeUninit<[Ptr; 2 * MOST]>;

#[repr(C)]
pub struct Memo {
    base: PyObject,
    vectorcall: vectorcallfunc,
    dict: Ptr,
    weak: Ptr,
    /// The generated function that knows the signature, and takes whatever is not a hit; null: a miss is `MISS`.
    shell: Ptr,
    /// What binds instances, if anybody but Python should.
    face: Ptr,
    pub table: *mut Table,
    pub slot: u32,
    is_async: bool,
    pub start: u64,        // of the hashes in this slot
    pub counts: *mut Slot, // of the table
    /// If so many arguments came, all by position, those from `skip` on are the ones that are compared.
    expected: usize,
    skip: usize,
    layout: ManuallyDrop<Layout>,
    /// How a miss may be loaded in here; null: only the shell can.
    pub plan: Option<Box<Plan>>,
}

/// The parameters of the function.
struct Layout {
    names: Vec<Owned>, // interned, in order
    defaults: Vec<Option<Owned>>,
    positional: usize,      // so many may come by position
    positional_only: usize, // so many cannot come by name
    compared: Vec<usize>,   // those that an entry is found by
}

#[inline(always)]
unsafe fn layout_of<'a>(this: *mut Memo) -> &'a Layout {
    &*(&raw const (*this).layout).cast()
}

pub static mut CLASS: PyTypeObject =
    blank::<Memo>(c"cachekit._native.Memo", c"A cached function: hits are answered without running any Python code.");

static mut METHODS: [PyMethodDef; 9] = [
    fast(c"probe", probe),
    fast(c"bind", bind),
    fast(c"loads_by", loads_by),
    none(c"stop_loading", stop_loading),
    none(c"unbind", unbind),
    one(c"binds_by", binds_by),
    none(c"__reduce__", reduce),
    none(c"__sizeof__", size),
    END,
];

static mut PROPERTIES: [PyGetSetDef; 2] = [
    PyGetSetDef {
        name: c"__dict__".as_ptr(),
        get: Some(PyObject_GenericGetDict),
        set: Some(PyObject_GenericSetDict),
        doc: std::ptr::null(),
        closure: null_mut::<c_void>(),
    },
    NO_PROPERTY,
];

pub unsafe fn init(module: Ptr) -> Option<()> {
    let class = &raw mut CLASS;
    (*class).tp_flags |= Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR;
    (*class).tp_vectorcall_offset = offset_of!(Memo, vectorcall) as Py_ssize_t;
    (*class).tp_dictoffset = offset_of!(Memo, dict) as Py_ssize_t;
    (*class).tp_weaklistoffset = offset_of!(Memo, weak) as Py_ssize_t;
    (*class).tp_new = Some(new);
    (*class).tp_dealloc = Some(dealloc);
    (*class).tp_traverse = Some(traverse);
    (*class).tp_clear = Some(clear);
    (*class).tp_call = Some(PyVectorcall_Call);
    (*class).tp_descr_get = Some(get);
    (*class).tp_repr = Some(repr);
    (*class).tp_getattro = Some(attribute_of);
    (*class).tp_methods = (&raw mut METHODS).cast();
    (*class).tp_getset = (&raw mut PROPERTIES).cast();
    add(module, class, c"Memo")
}

// ------------------------------------------------------------------------------------------------------------- calling

/// What the interpreter calls. Where nearly every call is of one kind, a way that knows of no other.
unsafe fn choose(this: *mut Memo) {
    let table = (*this).table;
    let one = (*this).expected != usize::MAX && (*this).expected == (*this).skip + 1;
    let plain = one && !table.is_null() && (*table).time.python.is_null();
    (*this).vectorcall = match (plain, (*this).is_async) {
        (true, false) => call_with_one::<false>,
        (true, true) => call_with_one::<true>,
        (false, _) => call,
    };
}

/// `call` for one argument that is compared, a table that is there, and the kernel's clock.
unsafe extern "C" fn call_with_one<const ASYNC: bool>(
    object: Ptr,
    args: *const Ptr,
    nargsf: usize,
    kwnames: Ptr,
) -> Ptr {
    let this = object.cast::<Memo>();
    if !kwnames.is_null() || PyVectorcall_NARGS(nargsf) as usize != (*this).expected {
        return call_laid_out(this, args, nargsf, kwnames);
    }
    let arg = *args.add((*this).skip);
    let Hashed::Plain(khash) = key::add((*this).start, arg) else { return call(object, args, nargsf, kwnames) };
    let entry = table::core_of((*this).table).find_one((*this).slot, key::end(khash), arg);
    if entry.is_null() {
        return miss_with_one(this, args, nargsf, khash);
    }
    let value = fresh(this, entry);
    if value.is_null() {
        return look_closely_at_one(this, args, nargsf, entry);
    }
    if ASYNC {
        return ready::make(value);
    }
    value
}

#[inline(never)]
unsafe fn look_closely_at_one(this: *mut Memo, args: *const Ptr, nargsf: usize, entry: *mut Entry) -> Ptr {
    let table = (*this).table;
    let value = look_closely(table, table::core_of(table).number_of(entry));
    if !value.is_null() {
        return answer(this, value);
    }
    let array = std::slice::from_raw_parts(args.add((*this).skip), 1);
    miss(this, args, nargsf, null_mut(), array, None)
}

#[inline(never)]
unsafe fn miss_with_one(this: *mut Memo, args: *const Ptr, nargsf: usize, khash: u64) -> Ptr {
    let absent = Absent { khash, generation: table::core_of((*this).table).generation };
    let array = std::slice::from_raw_parts(args.add((*this).skip), 1);
    miss(this, args, nargsf, null_mut(), array, Some(absent))
}

unsafe extern "C" fn call(object: Ptr, args: *const Ptr, nargsf: usize, kwnames: Ptr) -> Ptr {
    let this = object.cast::<Memo>();
    let count = PyVectorcall_NARGS(nargsf) as usize;
    if kwnames.is_null() && count == (*this).expected && !(*this).table.is_null() {
        let array = match count - (*this).skip {
            0 => &[], // of no arguments not even the address is given
            left => std::slice::from_raw_parts(args.add((*this).skip), left),
        };
        let mut absent = None;
        let value = if (*(*this).table).time.python.is_null() {
            judge(this, array, find_many(this, array), &mut absent)
        } else {
            look_by_python(this, array)
        };
        if !value.is_null() {
            return answer(this, value);
        }
        return miss(this, args, nargsf, kwnames, array, absent);
    }
    call_laid_out(this, args, nargsf, kwnames)
}

#[inline(never)]
unsafe fn call_laid_out(this: *mut Memo, args: *const Ptr, nargsf: usize, kwnames: Ptr) -> Ptr {
    let mut room = MaybeUninit::uninit();
    let count = PyVectorcall_NARGS(nargsf) as usize;
    if !(*this).table.is_null() {
        if let Some(array) = laid_out(layout_of(this), args, count, kwnames, &mut room) {
            let mut absent = None;
            let value = look(this, array, &mut absent);
            if !value.is_null() {
                return answer(this, value);
            }
            return miss(this, args, nargsf, kwnames, array, absent);
        }
    }
    shell(this, args, nargsf, kwnames)
}

#[inline(always)]
unsafe fn answer(this: *mut Memo, value: Ptr) -> Ptr {
    if (*this).is_async {
        return ready::make(value);
    }
    value
}

#[inline(never)]
unsafe fn miss(
    this: *mut Memo,
    args: *const Ptr,
    nargsf: usize,
    kwnames: Ptr,
    array: &[Ptr],
    absent: Option<Absent>,
) -> Ptr {
    if absent.is_none() && !PyErr_Occurred().is_null() {
        if !raises_again() {
            return null_mut();
        }
    } else if let Some(result) = load::run(this, args, nargsf, kwnames, array, absent) {
        return result;
    }
    shell(this, args, nargsf, kwnames)
}

unsafe fn shell(this: *mut Memo, args: *const Ptr, nargsf: usize, kwnames: Ptr) -> Ptr {
    if (*this).shell.is_null() {
        return Owned::of(state().miss).give();
    }
    let shell = Owned::of((*this).shell); // what it calls may let go of this memo
    PyObject_Vectorcall(shell.ptr(), args, nargsf, kwnames)
}

/// Whether what was raised may be forgotten, because the shell looks again and raises it where it can be seen. Not what
/// comes from outside, which comes once.
#[cold]
unsafe fn raises_again() -> bool {
    PyErr_ExceptionMatches(PyExc_MemoryError) == 0 && forget(PyExc_Exception).is_some()
}

/// What a look at the table left behind if it holds no entry of these arguments, all of which are plain.
#[derive(Clone, Copy)]
pub struct Absent {
    pub khash: u64,
    /// Of the table; while it is this one there is still none.
    pub generation: u64,
}

/// The value, a new reference, if it is a hit; or null, perhaps with an exception set, but never if it is `absent`.
///
/// What is not needed by every hit is out of line: what the compiler has to remember meanwhile costs as much as it does.
#[inline(always)]
unsafe fn look(this: *mut Memo, array: &[Ptr], absent: &mut Option<Absent>) -> Ptr {
    if !(*(*this).table).time.python.is_null() {
        return look_by_python(this, array);
    }
    let found = match array {
        [arg] => find_one(this, *arg),
        _ => find_many(this, array),
    };
    judge(this, array, found, absent)
}

/// `look`, where it is known what was found.
#[inline(always)]
unsafe fn judge(this: *mut Memo, array: &[Ptr], found: Found, absent: &mut Option<Absent>) -> Ptr {
    let table = (*this).table;
    let Found { entry, khash } = found;
    if entry == NOT_PLAIN {
        return look_for_objects(this, array);
    }
    if entry.is_null() {
        *absent = Some(Absent { khash, generation: table::core_of(table).generation });
        return null_mut();
    }
    let value = fresh(this, entry);
    if !value.is_null() {
        return value;
    }
    look_closely(table, table::core_of(table).number_of(entry))
}

/// The value of an entry, a new reference, if nothing more has to be asked; or null.
#[inline(always)]
unsafe fn fresh(this: *mut Memo, entry: *mut Entry) -> Ptr {
    let table = (*this).table;
    let now = (*table).time.at_most(); // last, since nothing has to be kept over this call any more
    if now >= (*entry).fresh_until || now >= (*table).alive_until || (*entry).flags & RARE != 0 {
        return null_mut();
    }
    let value = (*entry).value;
    Py_INCREF(value);
    if (*entry).counter < 3 {
        (*entry).counter += 1; // what is hit often is read alone
    }
    (*(*this).counts).hits += 1;
    let core = table::core_of(table);
    if core.lru {
        core.used(entry);
    }
    value
}

/// An entry, or null, or `NOT_PLAIN`; two words, which are returned in registers.
struct Found {
    entry: *mut Entry,
    khash: u64,
}

/// In the place of an entry: not all arguments are plain.
const NOT_PLAIN: *mut Entry = std::ptr::NonNull::dangling().as_ptr();

#[inline(always)]
unsafe fn find_one(this: *mut Memo, arg: Ptr) -> Found {
    match key::add((*this).start, arg) {
        Hashed::Plain(khash) => {
            let entry = table::core_of((*this).table).find_one((*this).slot, key::end(khash), arg);
            Found { entry, khash }
        }
        Hashed::Object => Found { entry: NOT_PLAIN, khash: 0 },
    }
}

#[inline(never)]
unsafe fn find_many(this: *mut Memo, array: &[Ptr]) -> Found {
    match key::hash_plain((*this).start, array) {
        Some(khash) => {
            let entry = table::core_of((*this).table).find((*this).slot, key::end(khash), array);
            Found { entry: entry.unwrap_or(null_mut()), khash }
        }
        None => Found { entry: NOT_PLAIN, khash: 0 },
    }
}

#[cold]
#[inline(never)]
unsafe fn look_closely(table: *mut Table, number: u32) -> Ptr {
    let now = (*table).time.exact(); // the kernel's clock, which runs no Python code
    let table = Owned::of(table.cast()); // what is run may let go of it
    or_null(now.and_then(|now| table::answer(table.ptr().cast(), number, now)).flatten())
}

/// `look` with a clock in Python, which may do anything to table and entries.
#[cold]
#[inline(never)]
unsafe fn look_by_python(this: *mut Memo, array: &[Ptr]) -> Ptr {
    let (table, slot) = (Owned::of((*this).table.cast()), (*this).slot);
    or_null(find_any(table.ptr().cast(), slot, array).flatten())
}

#[cold]
#[inline(never)]
unsafe fn look_for_objects(this: *mut Memo, array: &[Ptr]) -> Ptr {
    let (table, slot) = ((*this).table, (*this).slot);
    if table::core_of(table).slots[slot as usize].objects == 0 {
        return null_mut();
    }
    let table = Owned::of(table.cast());
    or_null(find_any(table.ptr().cast(), slot, array).flatten())
}

unsafe fn find_any(table: *mut Table, slot: u32, array: &[Ptr]) -> Option<Option<Owned>> {
    let now = (*table).time.exact()?;
    let (state, plain) = key::hash(table::start_of(table, slot), array)?;
    match table::find(table, slot, key::end(state), plain, array)? {
        Some(number) => table::answer(table, number, now),
        None => Some(None),
    }
}

/// The arguments that an entry is found by. `None`: not with these; the shell knows why.
unsafe fn laid_out<'a>(
    layout: &Layout,
    args: *const Ptr,
    count: usize,
    kwnames: Ptr,
    room: &'a mut Room,
) -> Option<&'a [Ptr]> {
    let total = layout.names.len();
    if count > layout.positional || total > MOST {
        return None;
    }
    let room = room.write([null_mut(); 2 * MOST]);
    let (room, given) = room.split_at_mut(MOST);
    for (at, place) in given[..count].iter_mut().enumerate() {
        *place = *args.add(at);
    }
    if !kwnames.is_null() {
        for position in 0..PyTuple_GET_SIZE(kwnames) as usize {
            let name = PyTuple_GET_ITEM(kwnames, position as Py_ssize_t);
            let at = parameter(layout, name)?;
            if !given[at].is_null() {
                return None;
            }
            given[at] = *args.add(count + position);
        }
    }
    for (value, default) in given[..total].iter_mut().zip(&layout.defaults) {
        if value.is_null() {
            *value = default.as_ref()?.ptr();
        }
    }
    for (place, &at) in room.iter_mut().zip(&layout.compared) {
        *place = given[at];
    }
    Some(&room[..layout.compared.len()])
}

/// Which parameter has this name.
#[inline(always)]
unsafe fn parameter(layout: &Layout, name: Ptr) -> Option<usize> {
    let by_name = layout.positional_only..layout.names.len();
    let same = by_name.clone().find(|&at| layout.names[at].ptr() == name);
    same.or_else(|| by_name.into_iter().find(|&at| key::same(layout.names[at].ptr(), name)))
}

// ------------------------------------------------------------------------------------------------------ life and death

/// Memo(shell, names, defaults, positional, positional_only, compared, is_async): `defaults` holds MISS where none is
unsafe extern "C" fn new(class: *mut PyTypeObject, args: Ptr, _kwargs: Ptr) -> Ptr {
    or_null(create(class, args))
}

unsafe fn create(class: *mut PyTypeObject, args: Ptr) -> Option<Owned> {
    let (mut shell, mut names, mut defaults, mut compared) =
        (null_mut::<PyObject>(), null_mut::<PyObject>(), null_mut::<PyObject>(), null_mut::<PyObject>());
    let (mut positional, mut positional_only): (Py_ssize_t, Py_ssize_t) = (0, 0);
    let mut is_async: c_int = 0;
    if PyArg_ParseTuple(
        args,
        c"OO!O!nnO!p:Memo".as_ptr(),
        &mut shell as *mut Ptr,
        &raw mut PyTuple_Type,
        &mut names as *mut Ptr,
        &raw mut PyTuple_Type,
        &mut defaults as *mut Ptr,
        &mut positional as *mut Py_ssize_t,
        &mut positional_only as *mut Py_ssize_t,
        &raw mut PyTuple_Type,
        &mut compared as *mut Ptr,
        &mut is_async as *mut c_int,
    ) == 0
    {
        return None;
    }
    installed()?;
    let layout = layout(names, defaults, positional as usize, positional_only as usize, compared)?;
    let total = layout.names.len();
    let skip = layout.compared.first().copied().unwrap_or(total);
    let direct = layout.positional == total && layout.compared.iter().copied().eq(skip..total);
    let object = Owned::take(PyType_GenericAlloc(class, 0))?;
    let this = object.ptr().cast::<Memo>();
    (&raw mut (*this).layout).write(ManuallyDrop::new(layout));
    (*this).shell = if shell == Py_None() { null_mut() } else { Owned::of(shell).give() };
    (*this).is_async = is_async != 0;
    (*this).expected = if direct { total } else { usize::MAX };
    (*this).skip = skip;
    choose(this);
    Some(object)
}

unsafe fn layout(
    names: Ptr,
    defaults: Ptr,
    positional: usize,
    positional_only: usize,
    compared: Ptr,
) -> Option<Layout> {
    let total = PyTuple_GET_SIZE(names);
    let mut layout =
        Layout { names: Vec::new(), defaults: Vec::new(), positional, positional_only, compared: Vec::new() };
    let fits = PyTuple_GET_SIZE(defaults) == total && positional <= total as usize && positional_only <= positional;
    if !fits {
        return raise(PyExc_TypeError, c"names and defaults of as many parameters");
    }
    for at in 0..total {
        let name = PyTuple_GET_ITEM(names, at);
        if Py_TYPE(name) != &raw mut PyUnicode_Type {
            return raise(PyExc_TypeError, c"names are exact str");
        }
        let mut name = Owned::of(name).give();
        PyUnicode_InternInPlace(&mut name);
        layout.names.extend(Owned::take(name));
        let default = PyTuple_GET_ITEM(defaults, at);
        layout.defaults.push((default != state().miss).then(|| Owned::of(default)));
    }
    for at in 0..PyTuple_GET_SIZE(compared) {
        let at = u64_of(PyTuple_GET_ITEM(compared, at))? as usize;
        if at >= total as usize || layout.compared.contains(&at) {
            return raise(PyExc_ValueError, c"compared are positions of parameters");
        }
        layout.compared.push(at);
    }
    Some(layout)
}

unsafe extern "C" fn dealloc(object: Ptr) {
    let this = object.cast::<Memo>();
    PyObject_GC_UnTrack(object.cast());
    if !(*this).weak.is_null() {
        PyObject_ClearWeakRefs(object);
    }
    clear(object);
    release(ManuallyDrop::take(&mut (*this).layout));
    PyObject_GC_Del(object.cast());
}

unsafe extern "C" fn traverse(object: Ptr, visit: visitproc, arg: *mut c_void) -> c_int {
    let this = object.cast::<Memo>();
    let own = [(*this).dict, (*this).shell, (*this).face, (*this).table.cast()];
    let defaults = layout_of(this).defaults.iter().flatten().map(Owned::ptr);
    let plan = (*this).plan.iter().flat_map(|plan| plan.held());
    for held in own.into_iter().chain(defaults).chain(plan) {
        if !held.is_null() {
            let result = visit(held, arg);
            if result != 0 {
                return result;
            }
        }
    }
    0
}

unsafe extern "C" fn clear(object: Ptr) -> c_int {
    let this = object.cast::<Memo>();
    let table = std::mem::replace(&mut (*this).table, null_mut());
    choose(this);
    let held = [&raw mut (*this).dict, &raw mut (*this).shell, &raw mut (*this).face];
    let plan = (*this).plan.take();
    let gone = held.map(|held| Owned::take(std::mem::replace(&mut *held, null_mut())));
    release((gone, plan, Owned::take(table.cast::<PyObject>())));
    0
}

// ------------------------------------------------------------------------------------------------------------- methods

/// probe(*args): the value of a call or MISS; `args` are all arguments, in the order of the parameters
unsafe extern "C" fn probe(object: Ptr, args: *mut Ptr, count: Py_ssize_t) -> Ptr {
    let this = object.cast::<Memo>();
    let count = count as usize;
    if !(*this).table.is_null() && count == layout_of(this).names.len() && count <= MOST {
        let mut room = MaybeUninit::uninit();
        let value = look(this, ordered(this, args, count, &mut room), &mut None);
        if !value.is_null() {
            return value;
        }
        if !PyErr_Occurred().is_null() && !raises_again() {
            return null_mut();
        }
    }
    Owned::of(state().miss).give()
}

/// Of all arguments in their order those that an entry is found by.
#[inline(always)]
unsafe fn ordered(this: *mut Memo, args: *const Ptr, count: usize, room: &mut Room) -> &[Ptr] {
    let (skip, layout) = ((*this).skip, layout_of(this));
    if layout.compared.len() == count - skip {
        return if count == skip { &[] } else { std::slice::from_raw_parts(args.add(skip), count - skip) };
    }
    let room = room.write([null_mut(); 2 * MOST]);
    for (place, &at) in room.iter_mut().zip(&layout.compared) {
        *place = *args.add(at);
    }
    &room[..layout.compared.len()]
}

/// bind(table, slot): answer hits from this slot
unsafe extern "C" fn bind(object: Ptr, args: *mut Ptr, count: Py_ssize_t) -> Ptr {
    let this = object.cast::<Memo>();
    none_or_null((|| {
        counted("bind", count, 2)?;
        let table = table::check(*args)?;
        let slot = table::place(table, *args.add(1))?;
        let new = Owned::of(*args).give().cast();
        (*this).slot = slot;
        (*this).start = table::start_of(table, slot);
        (*this).counts = &mut *table::core_of(table).slots[slot as usize]; // boxed, and kept as long as the table
        let old = std::mem::replace(&mut (*this).table, new);
        choose(this);
        drop(Owned::take(old.cast()));
        Some(())
    })())
}

/// loads_by(func, flights, observers, hooks, ttl, spread, cap, early): see `load::Plan`
unsafe extern "C" fn loads_by(object: Ptr, args: *mut Ptr, count: Py_ssize_t) -> Ptr {
    none_or_null((|| {
        counted("loads_by", count, 8)?;
        let plan = Plan::of(std::slice::from_raw_parts(args, 8))?;
        drop((*object.cast::<Memo>()).plan.replace(Box::new(plan)));
        Some(())
    })())
}

/// stop_loading(): the shell takes every miss
unsafe extern "C" fn stop_loading(object: Ptr, _: Ptr) -> Ptr {
    drop((*object.cast::<Memo>()).plan.take());
    none_or_null(Some(()))
}

unsafe extern "C" fn unbind(object: Ptr, _: Ptr) -> Ptr {
    let this = object.cast::<Memo>();
    let plan = (*this).plan.take();
    let table = std::mem::replace(&mut (*this).table, null_mut());
    choose(this);
    drop((plan, Owned::take(table.cast())));
    none_or_null(Some(()))
}

/// binds_by(face): `instance.f` is what `face.__get__` makes of the instance; `instance.f(...)` stays a call in here
unsafe extern "C" fn binds_by(object: Ptr, face: Ptr) -> Ptr {
    let new = Owned::of(face).give();
    drop(Owned::take(std::mem::replace(&mut (*object.cast::<Memo>()).face, new)));
    none_or_null(Some(()))
}

unsafe extern "C" fn get(object: Ptr, instance: Ptr, owner: Ptr) -> Ptr {
    if instance.is_null() || instance == Py_None() {
        return Owned::of(object).give();
    }
    let face = (*object.cast::<Memo>()).face;
    if face.is_null() {
        return PyMethod_New(object, instance);
    }
    match (*Py_TYPE(face)).tp_descr_get {
        Some(get) => {
            let face = Owned::of(face); // it may be replaced from inside
            get(face.ptr(), instance, owner)
        }
        None => Owned::of(face).give(),
    }
}

/// What the memo does not have the face may know of.
unsafe extern "C" fn attribute_of(object: Ptr, name: Ptr) -> Ptr {
    let found = PyObject_GenericGetAttr(object, name);
    let face = (*object.cast::<Memo>()).face;
    // The face asks here for names that begin so.
    let inner = PyUnicode_GetLength(name) == 0 || PyUnicode_ReadChar(name, 0) == u32::from(b'_');
    if !found.is_null() || face.is_null() || inner || PyErr_ExceptionMatches(PyExc_AttributeError) == 0 {
        return found;
    }
    let face = Owned::of(face);
    PyErr_Clear();
    or_null(attribute(face.ptr(), c"__getattr__").and_then(|ask| Owned::take(PyObject_CallOneArg(ask.ptr(), name))))
}

/// By its name, as functions are.
unsafe extern "C" fn reduce(object: Ptr, _: Ptr) -> Ptr {
    PyObject_GetAttrString(object, c"__qualname__".as_ptr())
}

unsafe extern "C" fn repr(object: Ptr) -> Ptr {
    let name = PyObject_GetAttrString(object, c"__qualname__".as_ptr());
    if name.is_null() {
        if forget(PyExc_AttributeError).is_none() {
            return null_mut();
        }
        return PyUnicode_FromString(c"<cached function>".as_ptr());
    }
    let name = Owned::take(name);
    or_null(name.and_then(|name| Owned::take(PyUnicode_FromFormat(c"<cached function %S>".as_ptr(), name.ptr()))))
}

unsafe extern "C" fn size(object: Ptr, _: Ptr) -> Ptr {
    let layout = layout_of(object.cast());
    let bytes =
        size_of::<Memo>() + layout.names.len() * 2 * size_of::<Ptr>() + layout.compared.len() * size_of::<usize>();
    or_null(number(bytes as u64))
}
