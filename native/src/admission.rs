//! Admission: mode, weight and plainness of a value, found out in one bounded walk when it enters.

use std::os::raw::c_int;

use crate::copies::read_slot;
use crate::key;
use crate::plans::{known, Addresses, Kind, Shape, Weigh};
use crate::py::*;
use crate::values::{forget_error, mode_str, new_tuple, state, Mode};

/// What `examine` found out about a value; see `Admission` of the pure twin.
#[derive(Clone, Copy)]
pub struct Admitted {
    pub mode: Mode,
    pub weight: u64,
    pub plain: bool,
}

/// Decides mode, weight and plainness in one walk of at most MAX_NODES nodes; the weight of the rest is estimated.
pub unsafe fn examine(value: Ptr) -> Admitted {
    if let Some((weight, plain)) = weigh_simple(value) {
        return Admitted { mode: Mode::Share, weight, plain };
    }
    let mut glance = Glance::new(value);
    if glance.look(value, 0) {
        return Admitted {
            mode: if glance.mutable { Mode::Copy } else { Mode::Share },
            weight: glance.weight,
            plain: glance.plain,
        };
    }
    match Walk::default().run(value) {
        Some(admitted) => admitted,
        None => {
            forget_error(); // a class whose attributes raise
            Admitted { mode: Mode::Opaque, weight: state().weights.failed, plain: false }
        }
    }
}

/// The same as an `Admission`.
pub unsafe fn admit(value: Ptr) -> Option<Owned> {
    let admitted = examine(value);
    let weight = Owned::take(PyLong_FromUnsignedLongLong(admitted.weight))?;
    let plain = if admitted.plain { Py_True() } else { Py_False() };
    new_tuple(state().twin.admission.ptr().cast(), &[mode_str(admitted.mode), weight.ptr(), plain])
}

// ------------------------------------------------------------------------------------------------------------ weights

/// How sizes of the built-in classes are found, as `sys.getsizeof` gives them.
pub struct Weights {
    int: u64, // without digits
    tuple: u64,
    text: Sizer,
    long: Sizer,
    list: Sizer,
    dict: Sizer,
    set: Sizer,
    frozenset: Sizer,
    getsizeof: Owned,
    failed: u64,
}

impl Weights {
    pub unsafe fn new() -> Option<Weights> {
        let getsizeof = from_module(c"sys", c"getsizeof")?;
        let ask = getsizeof.ptr();
        let one = Owned::take(PyLong_FromLong(1))?;
        let empty = Owned::take(PyTuple_New(0))?;
        Some(Weights {
            int: size_by(ask, one.ptr())? - DIGIT,
            tuple: size_by(ask, empty.ptr())?,
            text: Sizer::new(&raw mut PyUnicode_Type, ask)?,
            long: Sizer::new(&raw mut PyLong_Type, ask)?,
            list: Sizer::new(&raw mut PyList_Type, ask)?,
            dict: Sizer::new(&raw mut PyDict_Type, ask)?,
            set: Sizer::new(&raw mut PySet_Type, ask)?,
            frozenset: Sizer::new(&raw mut PyFrozenSet_Type, ask)?,
            failed: size_by(ask, (&raw mut PyBaseObject_Type).cast())?,
            getsizeof,
        })
    }
}

const DIGIT: u64 = 4; // bytes
const DIGIT_BITS: u32 = 30;

/// The `__sizeof__` of a built-in class, called without a detour, and what the garbage collector adds to it.
struct Sizer {
    function: PyCFunction,
    header: u64,
}

impl Sizer {
    unsafe fn new(class: *mut PyTypeObject, getsizeof: Ptr) -> Option<Sizer> {
        let method = attribute(class.cast(), c"__sizeof__")?;
        let found = method.ptr().cast::<PyMethodDescrObject>();
        if Py_TYPE(method.ptr()) != &raw mut PyMethodDescr_Type || (*(*found).d_method).ml_flags & METH_NOARGS == 0 {
            return raise(PyExc_SystemError, c"a built-in class measures its instances in an unknown way");
        }
        let function = (*(*found).d_method).ml_meth.PyCFunction;
        let sample = Owned::take(PyObject_CallNoArgs(class.cast()))?;
        let mut sizer = Sizer { function, header: 0 };
        sizer.header = size_by(getsizeof, sample.ptr())? - sizer.size(sample.ptr())?;
        Some(sizer)
    }

    /// Runs no code.
    unsafe fn size(&self, value: Ptr) -> Option<u64> {
        let size = Owned::take((self.function)(value, std::ptr::null_mut()))?;
        Some(PyLong_AsSize_t(size.ptr()) as u64 + self.header)
    }
}

unsafe fn size_by(getsizeof: Ptr, value: Ptr) -> Option<u64> {
    let size = Owned::take(PyObject_CallOneArg(getsizeof, value))?;
    let size = PyLong_AsSize_t(size.ptr());
    PyErr_Occurred().is_null().then_some(size as u64)
}

/// Weight of a None, bool, int, float, str or bytes, and whether a simple encoder takes it; None: it is none of these.
/// Runs no code.
#[inline(always)]
unsafe fn weigh_simple(value: Ptr) -> Option<(u64, bool)> {
    let class = Py_TYPE(value);
    if class == &raw mut PyUnicode_Type {
        if PyUnicode_IS_COMPACT_ASCII(value) == 0 {
            return weigh_text(value);
        }
        Some(((size_of::<PyASCIIObject>() + PyUnicode_GET_LENGTH(value) as usize + 1) as u64, true))
    } else if class == &raw mut PyLong_Type || class == &raw mut PyBool_Type {
        weigh_int(value)
    } else if value == Py_None() || class == &raw mut PyFloat_Type {
        Some(((*class).tp_basicsize as u64, true))
    } else if class == &raw mut PyBytes_Type {
        Some((((*class).tp_basicsize + Py_SIZE(value)) as u64, true))
    } else {
        None
    }
}

#[cold]
unsafe fn weigh_text(value: Ptr) -> Option<(u64, bool)> {
    weighed(state().weights.text.size(value), true)
}

#[inline]
unsafe fn weigh_int(value: Ptr) -> Option<(u64, bool)> {
    let weights = &state().weights;
    if let Some(number) = key::small(value) {
        let digits = if number.unsigned_abs() < 1 << DIGIT_BITS { 1 } else { 2 };
        return Some((weights.int + DIGIT * digits, true));
    }
    let mut overflow: c_int = 0;
    let number = PyLong_AsLongLongAndOverflow(value, &mut overflow);
    if overflow != 0 {
        return weigh_large_int(value, overflow);
    }
    let bits = 64 - number.unsigned_abs().leading_zeros();
    Some((weights.int + DIGIT * u64::from(bits.div_ceil(DIGIT_BITS).max(1)), true))
}

#[cold]
unsafe fn weigh_large_int(value: Ptr, overflow: c_int) -> Option<(u64, bool)> {
    PyLong_AsUnsignedLongLong(value);
    let fits = overflow > 0 && PyErr_Occurred().is_null();
    PyErr_Clear();
    weighed(state().weights.long.size(value), fits)
}

unsafe fn weighed(size: Option<u64>, plain: bool) -> Option<(u64, bool)> {
    if size.is_none() {
        PyErr_Clear(); // out of memory
    }
    size.map(|size| (size, plain))
}

unsafe fn weigh_tuple(value: Ptr) -> u64 {
    state().weights.tuple + (size_of::<Ptr>() * PyTuple_GET_SIZE(value) as usize) as u64
}

/// The weight of any other value.
unsafe fn weigh(value: Ptr, shape: &Shape) -> Option<u64> {
    let weights = &state().weights;
    match shape {
        Shape::List => weights.list.size(value),
        Shape::Dict => weights.dict.size(value),
        Shape::Tuple => Some(weigh_tuple(value)),
        Shape::Set => weights.set.size(value),
        Shape::Frozenset => weights.frozenset.size(value),
        Shape::Bytearray => size_by(weights.getsizeof.ptr(), value),
        Shape::Class(plan) => match plan.weigh {
            Weigh::Bare(size) => Some(size),
            Weigh::WithDict(size) => {
                let attributes = Owned::take(PyObject_GenericGetDict(value, std::ptr::null_mut()))?;
                let exact = PyDict_CheckExact(attributes.ptr()) != 0;
                Some(size + if exact { weights.dict.size(attributes.ptr())? } else { 0 })
            }
            Weigh::Whole => size_by(weights.getsizeof.ptr(), value),
            Weigh::Twin => size_by(plan.size.ptr(), value),
        },
    }
}

// ----------------------------------------------------------------------------------------------------- the quick walk

/// The walk through values of lists, dictionaries, tuples and known leaves that are neither large nor deep. No code
/// runs meanwhile, so nothing can change. Whatever is different is left to `Walk`.
struct Glance {
    root: Ptr,
    seen: Addresses<()>,
    nodes: usize,
    weight: u64,
    mutable: bool,
    plain: bool,
}

impl Glance {
    fn new(root: Ptr) -> Glance {
        Glance { root, seen: Addresses::default(), nodes: 0, weight: 0, mutable: false, plain: true }
    }

    /// False: it is not for this walk.
    #[inline]
    unsafe fn look(&mut self, item: Ptr, depth: usize) -> bool {
        self.nodes += 1;
        match weigh_simple(item) {
            Some((weight, plain)) => {
                self.weight += weight;
                self.plain &= plain;
                true
            }
            None => self.look_inside(item, depth),
        }
    }

    unsafe fn look_inside(&mut self, item: Ptr, depth: usize) -> bool {
        let class = Py_TYPE(item);
        let (size, parts) = if class == &raw mut PyDict_Type {
            (state().weights.dict.size(item), 2 * PyDict_Size(item))
        } else if class == &raw mut PyList_Type {
            (state().weights.list.size(item), PyList_GET_SIZE(item))
        } else if class == &raw mut PyTuple_Type {
            (Some(weigh_tuple(item)), PyTuple_GET_SIZE(item))
        } else {
            self.plain = false;
            return self.add_leaf(class);
        };
        let Some(size) = size else {
            PyErr_Clear();
            return false;
        };
        self.weight += size;
        let tuple = class == &raw mut PyTuple_Type;
        self.plain &= !tuple;
        if depth > 0 && (item == self.root || self.seen.insert(item as usize, ()).is_some()) {
            self.plain = false; // again, or inside itself
            return true;
        }
        let twin = &state().twin;
        if depth + 1 >= twin.max_depth || self.nodes + parts as usize >= twin.max_nodes {
            return false;
        }
        self.mutable |= !tuple;
        if class == &raw mut PyDict_Type {
            return self.look_through(item, depth);
        }
        for index in 0..parts {
            let part = if tuple { PyTuple_GET_ITEM(item, index) } else { PyList_GET_ITEM(item, index) };
            if !self.look(part, depth + 1) {
                return false;
            }
        }
        self.nodes < twin.max_nodes
    }

    unsafe fn look_through(&mut self, dict: Ptr, depth: usize) -> bool {
        let (mut place, mut key, mut item) = (0, std::ptr::null_mut(), std::ptr::null_mut());
        while PyDict_Next(dict, &mut place, &mut key, &mut item) != 0 {
            self.plain &= Py_TYPE(key) == &raw mut PyUnicode_Type;
            if !self.look(key, depth + 1) || !self.look(item, depth + 1) {
                return false;
            }
        }
        self.nodes < state().twin.max_nodes
    }

    unsafe fn add_leaf(&mut self, class: *mut PyTypeObject) -> bool {
        match known(class) {
            Some(plan) => match (&plan.kind, plan.weigh) {
                (Kind::Leaf, Weigh::Bare(size)) => {
                    self.weight += size;
                    true
                }
                _ => false,
            },
            None => false,
        }
    }
}

// ------------------------------------------------------------------------------------------------------ the full walk

/// The walk through any value: depth first, with a stack of its own, step by step as in the pure twin.
struct Walk {
    frames: Vec<Frame>,
    seen: Addresses<()>,
    made: Vec<Owned>, // parts that exist for this walk alone: nothing else may come to lie at their addresses
    nodes: usize,
    weight: u64,
    mutable: bool,
    opaque: bool,
    plain: bool,
}

struct Frame {
    rest: Owned, // an iterator
    total: isize,
    before: u64, // the weight when it began
}

impl Default for Walk {
    fn default() -> Walk {
        Walk {
            frames: Vec::new(),
            seen: Addresses::default(),
            made: Vec::new(),
            nodes: 0,
            weight: 0,
            mutable: false,
            opaque: false,
            plain: true,
        }
    }
}

impl Walk {
    unsafe fn run(mut self, value: Ptr) -> Option<Admitted> {
        self.visit(value)?;
        while let Some(frame) = self.frames.last() {
            match Owned::take(PyIter_Next(frame.rest.ptr())) {
                Some(item) => {
                    self.visit(item.ptr())?;
                    if self.nodes >= state().twin.max_nodes {
                        return self.cut();
                    }
                }
                None if PyErr_Occurred().is_null() => drop(self.frames.pop()),
                None => return None,
            }
        }
        Some(Admitted {
            mode: match (self.opaque, self.mutable) {
                (true, _) => Mode::Opaque,
                (false, true) => Mode::Copy,
                (false, false) => Mode::Share,
            },
            weight: self.weight,
            plain: self.plain && !self.opaque,
        })
    }

    unsafe fn visit(&mut self, item: Ptr) -> Option<()> {
        self.nodes += 1;
        if let Some((weight, plain)) = weigh_simple(item) {
            self.weight += weight;
            self.plain &= plain;
            return Some(());
        }
        let shape = Shape::of(Py_TYPE(item))?;
        self.weight += weigh(item, &shape)?;
        self.plain &= matches!(shape, Shape::List | Shape::Dict);
        if shape.is_leaf() {
            return Some(());
        }
        if self.seen.insert(item as usize, ()).is_some() {
            self.plain = false; // again, or inside itself: an encoder may not survive that
            return Some(());
        }
        let Some(parts) = parts(item, &shape)? else {
            self.opaque = true;
            return Some(());
        };
        if self.frames.len() + 1 >= state().twin.max_depth {
            self.opaque = true;
            return Some(());
        }
        self.mutable |= shape.is_mutable();
        self.plain &= !matches!(shape, Shape::Dict) || has_text_keys(item);
        let total = PyObject_LengthHint(parts.ptr(), 0);
        if total < 0 {
            return None;
        }
        if matches!(&shape, Shape::Class(plan) if matches!(plan.kind, Kind::Twin)) {
            self.made.push(parts.clone());
        }
        self.frames.push(Frame { rest: Owned::take(PyObject_GetIter(parts.ptr()))?, total, before: self.weight });
        Some(())
    }

    /// The walk is over before the value is: what was not seen weighs what was seen beside it.
    unsafe fn cut(self) -> Option<Admitted> {
        let mut weight = u128::from(self.weight);
        for frame in self.frames.iter().rev() {
            let left = PyObject_LengthHint(frame.rest.ptr(), 0);
            if left < 0 {
                return None;
            }
            if 0 < left && left < frame.total {
                let before = u128::from(frame.before);
                let seen = (frame.total - left) as u128;
                weight = (before + (weight - before) * frame.total as u128 / seen).min(u64::MAX.into());
            }
        }
        Some(Admitted {
            mode: if self.opaque { Mode::Opaque } else { Mode::Copy },
            weight: weight as u64,
            plain: false,
        })
    }
}

/// What a value holds, as something that can be iterated over; `Some(None)`: it is opaque.
unsafe fn parts(value: Ptr, shape: &Shape) -> Option<Option<Owned>> {
    let plan = match shape {
        Shape::List | Shape::Tuple | Shape::Frozenset => return Some(Some(Owned::of(value))),
        Shape::Set => return Owned::take(PySequence_List(value)).map(Some),
        Shape::Dict => return keys_and_values(value).map(Some),
        Shape::Bytearray => return Owned::take(PyTuple_New(0)).map(Some),
        Shape::Class(plan) => plan,
    };
    let attributes = match plan.kind {
        Kind::Leaf | Kind::Opaque => return Some(None),
        Kind::Named | Kind::Data { .. } if plan.has_dict() => {
            let attributes = Owned::take(PyObject_GenericGetDict(value, std::ptr::null_mut()))?;
            (PyDict_CheckExact(attributes.ptr()) != 0).then_some(attributes)
        }
        _ => None,
    };
    match (&plan.kind, &attributes) {
        (Kind::Named, None) if !plan.has_dict() => Some(Some(Owned::of(value))),
        (Kind::Named, Some(attributes)) => Some((PyDict_Size(attributes.ptr()) == 0).then(|| Owned::of(value))),
        (Kind::Data { slots, .. }, _) if attributes.is_some() || !plan.has_dict() => {
            let held = match &attributes {
                Some(attributes) => Owned::take(PyDict_Values(attributes.ptr()))?,
                None => Owned::take(PyList_New(0))?,
            };
            for &slot in slots {
                if let Some(part) = read_slot(value, slot) {
                    if PyList_Append(held.ptr(), part.ptr()) < 0 {
                        return None;
                    }
                }
            }
            Some(Some(held))
        }
        _ => {
            let parts = Owned::take(PyObject_CallOneArg(plan.parts.ptr(), value))?;
            Some((parts.ptr() != Py_None()).then_some(parts))
        }
    }
}

unsafe fn keys_and_values(dict: Ptr) -> Option<Owned> {
    let snapshot = Owned::take(PyDict_Copy(dict))?;
    let held = Owned::take(PyList_New(0))?;
    let (mut place, mut key, mut item) = (0, std::ptr::null_mut(), std::ptr::null_mut());
    while PyDict_Next(snapshot.ptr(), &mut place, &mut key, &mut item) != 0 {
        if PyList_Append(held.ptr(), key) < 0 || PyList_Append(held.ptr(), item) < 0 {
            return None;
        }
    }
    Some(held)
}

unsafe fn has_text_keys(dict: Ptr) -> bool {
    let (mut place, mut key) = (0, std::ptr::null_mut());
    while PyDict_Next(dict, &mut place, &mut key, std::ptr::null_mut()) != 0 {
        if Py_TYPE(key) != &raw mut PyUnicode_Type {
            return false;
        }
    }
    true
}
