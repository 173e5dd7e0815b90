//! Copies of values that keep their shape: what occurs twice, or contains itself, does so in the copy.
//!
//! Code of users may run in between: destructors when something is allocated, `__hash__` and `__eq__` when keys are
//! inserted. So whatever is worked on is held, and only containers made here, which nobody else has yet, are iterated
//! over. Those are never incomplete: a container is first a shallow copy, whose parts are then replaced by copies.

use crate::plans::{is_leaf, is_simple, Addresses, Kind, Plan, Shape};
use crate::py::*;
use crate::values::{new_tuple, state};

/// Makes one copy.
pub struct Copier {
    memo: Memo,
    repeated: bool,
    levels: usize, // how much deeper it may go
}

impl Copier {
    /// For a value in which no changeable object occurs twice.
    pub fn of_tree(levels: usize) -> Copier {
        Copier { memo: Memo::None, repeated: false, levels }
    }

    /// For any value.
    pub fn of_graph(levels: usize) -> Copier {
        Copier { memo: Memo::Native(Addresses::default()), repeated: false, levels }
    }

    /// Whether an object occurred again that is worth remembering: one that was copied, or that holds more than leaves.
    pub unsafe fn met_again(&self) -> bool {
        self.repeated || self.memo.is_repeated()
    }

    /// A copy of a value that the caller holds; the value itself if nothing in it can change.
    #[inline]
    pub unsafe fn copy(&mut self, value: Ptr) -> Option<Owned> {
        if is_simple(value) {
            return Some(Owned::of(value));
        }
        let shape = Shape::of(Py_TYPE(value))?;
        if shape.is_leaf() {
            return Some(Owned::of(value));
        }
        if let Some(done) = self.memo.get(value)? {
            self.repeated |= done.ptr() != value || !is_flat_tuple(value);
            return Some(done);
        }
        if self.levels == 0 {
            return raise(PyExc_RecursionError, c"a value nested too deep to be copied");
        }
        self.levels -= 1;
        let new = self.make(value, &shape);
        self.levels += 1;
        self.memo.settle(value, new?) // an immutable object inside itself was copied on the way
    }

    unsafe fn make(&mut self, value: Ptr, shape: &Shape) -> Option<Owned> {
        match shape {
            Shape::Dict => self.copy_dict(value),
            Shape::List => self.copy_list(value),
            Shape::Tuple => self.copy_tuple(value, &raw mut PyTuple_Type),
            Shape::Set => self.copy_set(value),
            Shape::Frozenset => self.copy_frozenset(value),
            Shape::Bytearray => {
                Owned::take(PyByteArray_FromStringAndSize(PyByteArray_AsString(value), PyByteArray_Size(value)))
            }
            Shape::Class(plan) => match &plan.kind {
                Kind::Leaf => Some(Owned::of(value)),
                Kind::Opaque => refuse(value),
                Kind::Named => self.copy_named(value, plan),
                Kind::Data { slots, frozen } => self.copy_data(value, plan, slots, *frozen),
                Kind::Twin => self.copy_by_twin(value, plan),
            },
        }
    }

    unsafe fn copy_list(&mut self, value: Ptr) -> Option<Owned> {
        let new = Owned::take(PyList_GetSlice(value, 0, isize::MAX))?;
        self.memo.put(value, &new)?;
        self.copy_items(&new)?;
        Some(new)
    }

    /// Replaces the items of a list of our own by copies. Whether any differs.
    unsafe fn copy_items(&mut self, items: &Owned) -> Option<bool> {
        let items = items.ptr();
        let mut changed = false;
        let mut index = 0;
        while index < PyList_GET_SIZE(items) {
            let item = PyList_GET_ITEM(items, index);
            if !is_simple(item) {
                let item = Owned::of(item);
                let mine = self.copy(item.ptr())?;
                if mine.ptr() != item.ptr() {
                    changed = true;
                    if PyList_SetItem(items, index, mine.give()) < 0 {
                        return None;
                    }
                }
            }
            index += 1;
        }
        Some(changed)
    }

    unsafe fn copy_dict(&mut self, value: Ptr) -> Option<Owned> {
        let shallow = Owned::take(PyDict_Copy(value))?;
        self.deepen(shallow, Some(value)).map(|(new, _)| new)
    }

    /// Makes a shallow copy a deep one, remembered as that of its original. Whether anything in it differs now.
    unsafe fn deepen(&mut self, shallow: Owned, original: Option<Ptr>) -> Option<(Owned, bool)> {
        let (leaf_keys, leaf_values) = leaves_of(shallow.ptr());
        let new = if leaf_keys { shallow.clone() } else { Owned::take(PyDict_New())? };
        if let Some(original) = original {
            self.memo.put(original, &new)?;
        }
        if leaf_values {
            return Some((new, false));
        }
        if leaf_keys {
            let changed = self.copy_values(&new)?;
            return Some((new, changed));
        }
        let mut changed = false;
        let (mut place, mut key, mut item) = (0, std::ptr::null_mut(), std::ptr::null_mut());
        while PyDict_Next(shallow.ptr(), &mut place, &mut key, &mut item) != 0 {
            let (key, item) = (Owned::of(key), Owned::of(item));
            let (my_key, mine) = (self.copy(key.ptr())?, self.copy(item.ptr())?);
            changed |= my_key.ptr() != key.ptr() || mine.ptr() != item.ptr();
            if PyDict_SetItem(new.ptr(), my_key.ptr(), mine.ptr()) < 0 {
                return None;
            }
        }
        Some((new, changed))
    }

    /// Replaces the values of a dictionary of our own by copies. Whether any differs.
    unsafe fn copy_values(&mut self, dict: &Owned) -> Option<bool> {
        let mut changed = false;
        let (mut place, mut key, mut item) = (0, std::ptr::null_mut(), std::ptr::null_mut());
        while PyDict_Next(dict.ptr(), &mut place, &mut key, &mut item) != 0 {
            if is_simple(item) {
                continue;
            }
            let (key, item) = (Owned::of(key), Owned::of(item));
            let mine = self.copy(item.ptr())?;
            if mine.ptr() != item.ptr() {
                changed = true;
                if PyDict_SetItem(dict.ptr(), key.ptr(), mine.ptr()) < 0 {
                    return None;
                }
            }
        }
        Some(changed)
    }

    unsafe fn copy_set(&mut self, value: Ptr) -> Option<Owned> {
        let items = Owned::take(PySequence_List(value))?;
        if holds_leaves(items.ptr()) {
            let new = Owned::take(PySet_New(items.ptr()))?;
            self.memo.put(value, &new)?;
            return Some(new);
        }
        let new = Owned::take(PySet_New(std::ptr::null_mut()))?;
        self.memo.put(value, &new)?;
        self.copy_items(&items)?;
        let mut index = 0;
        while index < PyList_GET_SIZE(items.ptr()) {
            let item = Owned::of(PyList_GET_ITEM(items.ptr(), index));
            if PySet_Add(new.ptr(), item.ptr()) < 0 {
                return None;
            }
            index += 1;
        }
        Some(new)
    }

    unsafe fn copy_frozenset(&mut self, value: Ptr) -> Option<Owned> {
        let items = Owned::take(PySequence_List(value))?;
        if holds_leaves(items.ptr()) || !self.copy_items(&items)? {
            return Some(Owned::of(value));
        }
        Owned::take(PyFrozenSet_New(items.ptr()))
    }

    unsafe fn copy_tuple(&mut self, value: Ptr, class: *mut PyTypeObject) -> Option<Owned> {
        if is_flat_tuple(value) {
            return Some(Owned::of(value));
        }
        let items = Owned::take(PySequence_List(value))?;
        if !self.copy_items(&items)? {
            return Some(Owned::of(value));
        }
        let new = Owned::take(PyList_AsTuple(items.ptr()))?;
        if class == &raw mut PyTuple_Type {
            return Some(new);
        }
        let parts: Vec<Ptr> =
            (0..PyTuple_GET_SIZE(new.ptr())).map(|index| PyTuple_GET_ITEM(new.ptr(), index)).collect();
        new_tuple(class, &parts)
    }

    unsafe fn copy_named(&mut self, value: Ptr, plan: &Plan) -> Option<Owned> {
        if plan.has_dict() {
            let attributes = Owned::take(PyObject_GenericGetDict(value, std::ptr::null_mut()))?;
            if PyDict_CheckExact(attributes.ptr()) == 0 {
                return self.copy_by_twin(value, plan);
            }
            if PyDict_Size(attributes.ptr()) > 0 {
                return refuse(value);
            }
        }
        self.copy_tuple(value, plan.class())
    }

    /// Neither `__init__` nor a validator nor a `__setattr__` that forbids changes is run.
    unsafe fn copy_data(&mut self, value: Ptr, plan: &Plan, slots: &[isize], frozen: bool) -> Option<Owned> {
        let attributes = match plan.has_dict() {
            true => Some(Owned::take(PyObject_GenericGetDict(value, std::ptr::null_mut()))?),
            false => None,
        };
        if matches!(&attributes, Some(attributes) if PyDict_CheckExact(attributes.ptr()) == 0) {
            return self.copy_by_twin(value, plan);
        }
        if frozen
            && attributes.as_ref().is_none_or(|attributes| leaves_of(attributes.ptr()) == (true, true))
            && slots.iter().all(|&slot| read_slot(value, slot).is_none_or(|held| is_leaf(held.ptr())))
        {
            return Some(Owned::of(value));
        }
        let new = plan.bare()?;
        if !frozen {
            self.memo.put(value, &new)?;
        }
        let mut changed = !frozen;
        if let Some(attributes) = &attributes {
            let (attributes, differ) = self.deepen(Owned::take(PyDict_Copy(attributes.ptr()))?, None)?;
            changed |= differ;
            // PyObject_GenericSetDict leaves values inside of the object in force (Python 3.13).
            if PyObject_GenericSetAttr(new.ptr(), state().dict_name.ptr(), attributes.ptr()) < 0 {
                return None;
            }
        }
        for &slot in slots {
            if let Some(held) = read_slot(value, slot) {
                let mine = self.copy(held.ptr())?;
                changed |= mine.ptr() != held.ptr();
                write_slot(&new, slot, mine);
            }
        }
        Some(if changed { new } else { Owned::of(value) })
    }

    unsafe fn copy_by_twin(&mut self, value: Ptr, plan: &Plan) -> Option<Owned> {
        let memo = self.memo.for_twin()?;
        Owned::take(PyObject_CallFunctionObjArgs(plan.copy.ptr(), value, memo.ptr(), std::ptr::null_mut::<PyObject>()))
    }
}

unsafe fn refuse<T>(value: Ptr) -> Option<T> {
    PyErr_SetObject(state().twin.opaque_error.ptr(), Py_TYPE(value).cast());
    None
}

/// What lies in a slot, if it was ever set. The offset is one of the object's class.
pub unsafe fn read_slot(object: Ptr, offset: isize) -> Option<Owned> {
    let held = *object.byte_offset(offset).cast::<Ptr>();
    (!held.is_null()).then(|| Owned::of(held))
}

unsafe fn write_slot(object: &Owned, offset: isize, value: Owned) {
    let place = object.ptr().byte_offset(offset).cast::<Ptr>();
    let old = std::mem::replace(&mut *place, value.give());
    Py_XDECREF(old);
}

// --------------------------------------------------------------------------------------- looking, without running code

unsafe fn is_flat_tuple(value: Ptr) -> bool {
    PyTuple_Check(value) != 0 && (0..PyTuple_GET_SIZE(value)).all(|index| is_leaf(PyTuple_GET_ITEM(value, index)))
}

/// Whether a list holds leaves only.
pub unsafe fn holds_leaves(list: Ptr) -> bool {
    (0..PyList_GET_SIZE(list)).all(|index| is_leaf(PyList_GET_ITEM(list, index)))
}

/// Whether a dictionary has nothing but leaves for keys, and for values.
pub unsafe fn leaves_of(dict: Ptr) -> (bool, bool) {
    let (mut place, mut key, mut item) = (0, std::ptr::null_mut(), std::ptr::null_mut());
    let mut values = true;
    while PyDict_Next(dict, &mut place, &mut key, &mut item) != 0 {
        if !is_leaf(key) {
            return (false, false);
        }
        values &= is_leaf(item);
    }
    (true, values)
}

// --------------------------------------------------------------------------------------------------------------- memo

/// The copies made so far, by the addresses of their originals.
enum Memo {
    /// Nothing is remembered.
    None,
    /// With their originals, so that nothing else can come to lie at these addresses meanwhile.
    Native(Addresses<(Owned, Owned)>),
    /// As the functions of the pure twin know it.
    Twin(Owned),
}

const SHARED: isize = -1; // in the twin's memo: an object that was copied once occurred again

impl Memo {
    unsafe fn get(&self, value: Ptr) -> Option<Option<Owned>> {
        match self {
            Memo::None => Some(None),
            Memo::Native(copies) => Some(copies.get(&(value as usize)).map(|(_, copy)| copy.clone())),
            Memo::Twin(copies) => {
                let key = Owned::take(PyLong_FromVoidPtr(value.cast()))?;
                let found = PyDict_GetItemWithError(copies.ptr(), key.ptr());
                if found.is_null() && !PyErr_Occurred().is_null() {
                    return None;
                }
                Some((!found.is_null()).then(|| Owned::of(found)))
            }
        }
    }

    unsafe fn put(&mut self, value: Ptr, copy: &Owned) -> Option<()> {
        match self {
            Memo::None => Some(()),
            Memo::Native(copies) => {
                let _old = copies.insert(value as usize, (Owned::of(value), copy.clone()));
                Some(())
            }
            Memo::Twin(copies) => set_copy(copies, value, copy.ptr()),
        }
    }

    /// What is there already, or else this copy from now on.
    unsafe fn settle(&mut self, value: Ptr, copy: Owned) -> Option<Owned> {
        match self {
            Memo::None => Some(copy),
            Memo::Native(copies) => {
                let (_, copy) = copies.entry(value as usize).or_insert_with(|| (Owned::of(value), copy));
                Some(copy.clone())
            }
            Memo::Twin(_) => match self.get(value)? {
                Some(done) => Some(done),
                None => self.put(value, &copy).map(|()| copy),
            },
        }
    }

    /// As an argument of the twin's functions, which is from now on the only one.
    unsafe fn for_twin(&mut self) -> Option<Owned> {
        let dict = match self {
            Memo::None => return Some(Owned::of(Py_None())),
            Memo::Twin(dict) => return Some(dict.clone()),
            Memo::Native(copies) => {
                let dict = Owned::take(PyDict_New())?;
                for (original, copy) in copies.values() {
                    set_copy(&dict, original.ptr(), copy.ptr())?;
                }
                dict
            }
        };
        *self = Memo::Twin(dict.clone());
        Some(dict)
    }

    unsafe fn is_repeated(&self) -> bool {
        let Memo::Twin(dict) = self else { return false };
        let Some(key) = Owned::take(PyLong_FromSsize_t(SHARED)) else {
            PyErr_Clear();
            return true;
        };
        PyDict_Contains(dict.ptr(), key.ptr()) == 1
    }
}

unsafe fn set_copy(dict: &Owned, value: Ptr, copy: Ptr) -> Option<()> {
    let key = Owned::take(PyLong_FromVoidPtr(value.cast()))?;
    (PyDict_SetItem(dict.ptr(), key.ptr(), copy) == 0).then_some(())
}
