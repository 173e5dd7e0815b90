//! What the instances of a class consist of: found out once per class, by asking the pure twin, and kept.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use crate::py::*;
use crate::values::state;

/// Hashes addresses, which differ in their middle bits.
#[derive(Default)]
pub struct ByAddress(u64);

impl Hasher for ByAddress {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only addresses are hashed")
    }

    fn write_usize(&mut self, address: usize) {
        let mixed = (address as u64 >> 4).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

pub type Addresses<T> = HashMap<usize, T, BuildHasherDefault<ByAddress>>;

/// How to look into the instances of one class, and how to copy one.
pub struct Plan {
    class: Owned, // alive as long as its plan: no other class can come to lie at its address
    pub kind: Kind,
    pub weigh: Weigh,
    pub mutable: bool,
    pub parts: Owned, // the functions of the twin's plan
    pub copy: Owned,
    pub size: Owned,
}

pub enum Kind {
    Leaf,
    Opaque,
    /// A named tuple; instances with attributes beside their fields are opaque.
    Named,
    /// Fields in slots, in a dictionary or in both.
    Data {
        slots: Vec<isize>,
        frozen: bool,
    },
    /// Whatever the functions of the twin make of it.
    Twin,
}

/// How the weight of an instance is found.
#[derive(Clone, Copy, PartialEq)]
pub enum Weigh {
    /// It has this size and no dictionary.
    Bare(u64),
    /// It has this size and the dictionary that the interpreter gives to instances.
    WithDict(u64),
    /// `sys.getsizeof` knows.
    Whole,
    /// The class may compute its `__dict__`, or has buffers elsewhere, so that the twin has to ask.
    Twin,
}

impl Plan {
    pub fn has_dict(&self) -> bool {
        matches!(self.weigh, Weigh::WithDict(_))
    }

    pub fn class(&self) -> *mut PyTypeObject {
        self.class.ptr().cast()
    }

    /// An instance of a data class in which nothing is set yet.
    pub unsafe fn bare(&self) -> Option<Owned> {
        let arguments = Owned::take(PyTuple_New(0))?;
        match PyBaseObject_Type.tp_new {
            Some(new) => Owned::take(new(self.class(), arguments.ptr(), std::ptr::null_mut())),
            None => None,
        }
    }
}

/// The classes that are dealt with here by name, and all others.
pub enum Shape {
    List,
    Dict,
    Tuple,
    Set,
    Frozenset,
    Bytearray,
    Class(Rc<Plan>),
}

impl Shape {
    /// May run code of the class when it is seen for the first time.
    pub unsafe fn of(class: *mut PyTypeObject) -> Option<Shape> {
        Some(if class == &raw mut PyDict_Type {
            Shape::Dict
        } else if class == &raw mut PyList_Type {
            Shape::List
        } else if class == &raw mut PyTuple_Type {
            Shape::Tuple
        } else if class == &raw mut PySet_Type {
            Shape::Set
        } else if class == &raw mut PyFrozenSet_Type {
            Shape::Frozenset
        } else if class == &raw mut PyByteArray_Type {
            Shape::Bytearray
        } else {
            Shape::Class(plan_of(class)?)
        })
    }

    pub fn is_leaf(&self) -> bool {
        matches!(self, Shape::Class(plan) if matches!(plan.kind, Kind::Leaf))
    }

    pub fn is_mutable(&self) -> bool {
        match self {
            Shape::List | Shape::Dict | Shape::Set | Shape::Bytearray => true,
            Shape::Tuple | Shape::Frozenset => false,
            Shape::Class(plan) => plan.mutable,
        }
    }
}

/// Of one of the classes that every simple encoder knows: None, bool, int, float, str, bytes.
#[inline]
pub unsafe fn is_simple(value: Ptr) -> bool {
    let class = Py_TYPE(value);
    class == &raw mut PyUnicode_Type
        || class == &raw mut PyLong_Type
        || value == Py_None()
        || class == &raw mut PyBool_Type
        || class == &raw mut PyFloat_Type
        || class == &raw mut PyBytes_Type
}

/// Of a class that is known to have immutable instances. Runs no code.
#[inline]
pub unsafe fn is_leaf(value: Ptr) -> bool {
    is_simple(value) || matches!(known(Py_TYPE(value)), Some(plan) if matches!(plan.kind, Kind::Leaf))
}

/// The plan of a class if it is there already. Runs no code; the plan is there until code runs.
pub unsafe fn known<'a>(class: *mut PyTypeObject) -> Option<&'a Rc<Plan>> {
    (*state().plans.get()).get(&(class as usize))
}

/// Finds out anew about a class when it is seen again.
pub unsafe fn forget(class: Ptr) {
    let _old = (*state().plans.get()).remove(&(class as usize));
}

unsafe fn plan_of(class: *mut PyTypeObject) -> Option<Rc<Plan>> {
    if let Some(plan) = known(class) {
        return Some(plan.clone());
    }
    let plan = Rc::new(compile(class)?);
    let plans = state().plans.get();
    // What goes is dropped last, when the map is whole again: destructors of classes run code.
    let _all =
        if (*plans).len() >= state().twin.max_plans { std::mem::take(&mut *plans) } else { Addresses::default() };
    let _same = (*plans).insert(class as usize, plan.clone());
    Some(plan)
}

// ------------------------------------------------------------------------------------------------------ the pure twin

/// What is taken from `cachekit.l1.values`.
pub struct Twin {
    pub max_depth: usize,
    pub max_nodes: usize,
    max_plans: usize,
    pub admission: Owned,
    pub opaque_error: Owned,
    size: Owned,
    plan_for: Owned,
    foreign_for: Owned,
    plans: Owned,
    exact: Owned,
    leaf: Owned,
    opaque: Owned,
}

impl Twin {
    pub unsafe fn new() -> Option<Twin> {
        let module = Owned::take(PyImport_ImportModule(c"cachekit.l1.values".as_ptr()))?;
        let module = module.ptr();
        Some(Twin {
            max_depth: number(module, c"MAX_DEPTH")?,
            max_nodes: number(module, c"MAX_NODES")?,
            max_plans: number(module, c"MAX_PLANS")?,
            admission: attribute(module, c"Admission")?,
            opaque_error: attribute(module, c"Opaque")?,
            size: attribute(module, c"_size")?,
            plan_for: attribute(module, c"plan_for")?,
            foreign_for: attribute(module, c"foreign_for")?,
            plans: attribute(module, c"PLANS")?,
            exact: attribute(module, c"EXACT")?,
            leaf: attribute(module, c"LEAF")?,
            opaque: attribute(module, c"OPAQUE")?,
        })
    }

    /// The twin's plan of a class.
    unsafe fn plan(&self, class: Ptr) -> Option<Owned> {
        let plan = PyDict_GetItemWithError(self.plans.ptr(), class);
        if !plan.is_null() {
            return Some(Owned::of(plan));
        }
        if !PyErr_Occurred().is_null() {
            return None;
        }
        Owned::take(PyObject_CallOneArg(self.plan_for.ptr(), class))
    }
}

unsafe fn number(owner: Ptr, name: &std::ffi::CStr) -> Option<usize> {
    let number = PyLong_AsSize_t(attribute(owner, name)?.ptr());
    (PyErr_Occurred().is_null()).then_some(number)
}

// ---------------------------------------------------------------------------------------------------------- compiling

unsafe fn compile(class: *mut PyTypeObject) -> Option<Plan> {
    let twin = &state().twin;
    let plan = twin.plan(class.cast())?;
    let mutable = attribute(plan.ptr(), c"mutable")?.ptr() == Py_True();
    let size = attribute(plan.ptr(), c"size")?;
    let weigh = if size.ptr() == twin.size.ptr() { weighing(class)? } else { Weigh::Twin };
    let kind = if plan.ptr() == twin.leaf.ptr() {
        Kind::Leaf
    } else if plan.ptr() == twin.opaque.ptr() {
        Kind::Opaque
    } else if matches!(weigh, Weigh::Whole | Weigh::Twin) {
        Kind::Twin
    } else if PyType_IsSubtype(class, &raw mut PyTuple_Type) != 0 {
        if same((*class).tp_iter, PyTuple_Type.tp_iter) {
            Kind::Named
        } else {
            Kind::Twin
        }
    } else if Owned::take(PyObject_CallOneArg(twin.foreign_for.ptr(), class.cast()))?.ptr() != Py_None() {
        Kind::Twin
    } else {
        match slots(class)? {
            Some(slots) => Kind::Data { slots, frozen: !mutable },
            None => Kind::Twin,
        }
    };
    Some(Plan {
        class: Owned::of(class.cast()),
        kind,
        weigh,
        mutable,
        parts: attribute(plan.ptr(), c"parts")?,
        copy: attribute(plan.ptr(), c"copy")?,
        size,
    })
}

/// Whether two functions of types are one.
fn same<T: Copy>(one: Option<T>, other: Option<T>) -> bool {
    let address = |function: &Option<T>| unsafe { std::mem::transmute_copy::<Option<T>, usize>(function) };
    address(&one) == address(&other)
}

unsafe fn weighing(class: *mut PyTypeObject) -> Option<Weigh> {
    if PyDict_Contains(state().twin.exact.ptr(), class.cast()) == 1 {
        return Some(Weigh::Whole);
    }
    let size = (*class).tp_basicsize as u64;
    let descriptor = dict_descriptor(class)?;
    let ordinary = same((*class).tp_getattro, PyBaseObject_Type.tp_getattro);
    if (*class).tp_dictoffset == 0 {
        return Some(if descriptor.is_none() && ordinary { Weigh::Bare(size) } else { Weigh::Twin });
    }
    let given = matches!(descriptor, Some(found) if Py_TYPE(found.ptr()) == &raw mut PyGetSetDescr_Type);
    // A `__getattr__`, as pydantic's models have, is not asked for what there is.
    let ordinary = ordinary || {
        let getter = attribute(class.cast(), c"__getattribute__")?;
        getter.ptr() == attribute((&raw mut PyBaseObject_Type).cast(), c"__getattribute__")?.ptr()
    };
    Some(if given && ordinary { Weigh::WithDict(size) } else { Weigh::Twin })
}

/// Where the slots of a class lie in its instances; `Some(None)` if one is not what `__slots__` makes.
unsafe fn slots(class: *mut PyTypeObject) -> Option<Option<Vec<isize>>> {
    let mut found = Vec::new();
    for names in namespaces(class)? {
        let members = Owned::take(PyMapping_Values(names.ptr()))?; // a list of our own
        for index in 0..PyList_GET_SIZE(members.ptr()) {
            let member = PyList_GET_ITEM(members.ptr(), index);
            if Py_TYPE(member) != &raw mut PyMemberDescr_Type {
                continue;
            }
            let descriptor = member.cast::<PyMemberDescrObject>();
            let place = (*descriptor).d_member;
            if PyType_IsSubtype(class, (*descriptor).d_common.d_type) == 0
                || (*place).type_code != Py_T_OBJECT_EX
                || (*place).flags != 0
            {
                return Some(None);
            }
            found.push((*place).offset);
        }
    }
    Some(Some(found))
}

/// What a class answers with when an instance is asked for its `__dict__`.
unsafe fn dict_descriptor(class: *mut PyTypeObject) -> Option<Option<Owned>> {
    for names in namespaces(class)? {
        match Owned::take(PyMapping_GetItemString(names.ptr(), c"__dict__".as_ptr())) {
            None if PyErr_ExceptionMatches(PyExc_KeyError) != 0 => PyErr_Clear(),
            None => return None,
            found => return Some(found),
        }
    }
    Some(None)
}

/// The `__dict__` of a class and of its bases, in the order in which they are searched.
unsafe fn namespaces(class: *mut PyTypeObject) -> Option<Vec<Owned>> {
    let mro = Owned::of((*class).tp_mro);
    (0..PyTuple_GET_SIZE(mro.ptr())).map(|index| attribute(PyTuple_GET_ITEM(mro.ptr(), index), c"__dict__")).collect()
}
