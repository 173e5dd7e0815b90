//! The value of an unpacked tree with markers: the native twin of `_restore` in `cachekit/codec/serializers.py`.
//!
//! A tree consists of lists, dictionaries, markers (the heads of arrays that stand for other containers) and scalars. It
//! is used up. Hashing a key may run code of a class, which could get hold of a list through the garbage collector: so
//! every item is held while it is dealt with, and sizes are asked again.

use std::collections::HashMap;
use std::ptr::null_mut;

use crate::class::or_null;
use crate::codes::*;
use crate::py::*;
use crate::values::new_tuple;

/// restore(tree): its value; RecursionError if it is too deep, anything else if it cannot be one
pub unsafe extern "C" fn restore(_module: Ptr, tree: Ptr) -> Ptr {
    or_null((|| {
        let mut restorer = Restorer { known: known()?, plans: HashMap::new() };
        if restorer.is_nested(tree) {
            restorer.nested(tree, 0)
        } else {
            Some(Owned::of(tree))
        }
    })())
}

struct Restorer {
    known: &'static Known,
    plans: HashMap<(u8, Vec<u8>), (Owned, Owned)>, // by marker: plan and layout, found once per tree
}

impl Restorer {
    unsafe fn is_marker(&self, value: Ptr) -> bool {
        Py_TYPE(value).cast() == self.known.marker
    }

    unsafe fn is_nested(&self, value: Ptr) -> bool {
        PyList_CheckExact(value) != 0 || PyDict_CheckExact(value) != 0 || self.is_marker(value)
    }

    unsafe fn nested(&mut self, tree: Ptr, depth: usize) -> Option<Owned> {
        if depth >= self.known.max_depth {
            return raise(PyExc_RecursionError, c"a value that is too deep");
        }
        if PyDict_CheckExact(tree) != 0 {
            self.dict(tree, depth)?;
        } else if PyList_CheckExact(tree) == 0 {
            return raise(PyExc_ValueError, c"a marker out of place");
        } else if PyList_GET_SIZE(tree) > 0 && self.is_marker(PyList_GET_ITEM(tree, 0)) {
            return self.marked(tree, depth);
        } else {
            self.items(tree, 0, 0, depth)?;
        }
        Some(Owned::of(tree))
    }

    unsafe fn dict(&mut self, dict: Ptr, depth: usize) -> Option<()> {
        let (mut place, mut key, mut item) = (0, null_mut(), null_mut());
        while PyDict_Next(dict, &mut place, &mut key, &mut item) != 0 {
            if self.is_nested(item) {
                let (key, item) = (Owned::of(key), Owned::of(item));
                let value = self.nested(item.ptr(), depth + 1)?;
                if PyDict_SetItem(dict, key.ptr(), value.ptr()) < 0 {
                    return None;
                }
            }
        }
        Some(())
    }

    /// The items of a list from ``first`` on. Before ``unset_before`` there may be the marker of a field without value.
    unsafe fn items(&mut self, list: Ptr, first: isize, unset_before: isize, depth: usize) -> Option<()> {
        let mut at = first;
        while at < PyList_GET_SIZE(list) {
            let item = PyList_GET_ITEM(list, at);
            if self.is_nested(item) {
                let item = Owned::of(item);
                let value = if at < unset_before && self.is_unset(item.ptr()) {
                    Owned::of(self.known.unset)
                } else {
                    self.nested(item.ptr(), depth + 1)?
                };
                if PyList_SetItem(list, at, value.give()) < 0 {
                    return None;
                }
            }
            at += 1;
        }
        Some(())
    }

    unsafe fn is_unset(&self, item: Ptr) -> bool {
        self.is_marker(item) && PyLong_AsLong(PyTuple_GET_ITEM(item, 0)) == UNSET.into()
    }

    unsafe fn marked(&mut self, list: Ptr, depth: usize) -> Option<Owned> {
        let marker = Owned::of(PyList_GET_ITEM(list, 0));
        let (code, data) = (PyTuple_GET_ITEM(marker.ptr(), 0), PyTuple_GET_ITEM(marker.ptr(), 1));
        let number = PyLong_AsLong(code) as u8;
        if (NAMEDTUPLE..=MODEL).contains(&number) {
            return self.instance(number, code, data, list, depth);
        }
        if Py_SIZE(data) != 0 {
            return raise(PyExc_ValueError, c"a marker with data");
        }
        self.items(list, 1, 0, depth)?;
        let items = Owned::take(PyList_GetSlice(list, 1, isize::MAX))?;
        if number == TUPLE {
            return Owned::take(PyList_AsTuple(items.ptr()));
        }
        Owned::take(PyObject_CallFunctionObjArgs(self.known.build, code, items.ptr(), null_mut::<PyObject>()))
    }

    unsafe fn instance(&mut self, number: u8, code: Ptr, data: Ptr, list: Ptr, depth: usize) -> Option<Owned> {
        let (plan, layout) = self.plan(number, code, data)?;
        if layout.ptr() == Py_None() {
            return self.instance_of(&plan, list, depth);
        }
        let shape = Layout::of(layout.ptr());
        if PyList_GET_SIZE(list) != 1 + shape.count {
            return self.instance_of(&plan, list, depth);
        }
        let class = Owned::take(PyObject_GetAttr(plan.ptr(), self.known.cls))?;
        if shape.kind == NAMEDTUPLE {
            self.items(list, 1, 0, depth)?;
            let items = Owned::take(PyList_GetSlice(list, 1, isize::MAX))?;
            let items = Owned::take(PyList_AsTuple(items.ptr()))?;
            let parts: Vec<Ptr> =
                (0..PyTuple_GET_SIZE(items.ptr())).map(|at| PyTuple_GET_ITEM(items.ptr(), at)).collect();
            return new_tuple(class.ptr().cast(), &parts);
        }
        self.items(list, 1, 1 + shape.count, depth)?;
        self.filled(class.ptr().cast(), &shape, list)
    }

    /// An instance with these fields. No code of its class runs.
    unsafe fn filled(&self, class: *mut PyTypeObject, shape: &Layout, list: Ptr) -> Option<Owned> {
        let new = PyBaseObject_Type.tp_new?;
        let instance = Owned::take(new(class, self.known.nothing, null_mut()))?;
        let mut attributes = None;
        for at in 0..shape.count {
            if at + 1 >= PyList_GET_SIZE(list) {
                return raise(PyExc_ValueError, c"the fields change");
            }
            let value = Owned::of(PyList_GET_ITEM(list, at + 1));
            if value.ptr() == self.known.unset {
                continue;
            }
            let (name, slot) = shape.field(at);
            if slot != Py_None() {
                let set = (*Py_TYPE(slot)).tp_descr_set?;
                if set(slot, instance.ptr(), value.ptr()) < 0 {
                    return None;
                }
                continue;
            }
            if attributes.is_none() {
                attributes = Some(Owned::take(PyObject_GenericGetDict(instance.ptr(), null_mut()))?);
            }
            if PyDict_SetItem(attributes.as_ref()?.ptr(), name, value.ptr()) < 0 {
                return None;
            }
        }
        Some(instance)
    }

    /// The same for all that is not as simple, in the twin.
    unsafe fn instance_of(&mut self, plan: &Owned, list: Ptr, depth: usize) -> Option<Owned> {
        let names = Owned::take(PyObject_GetAttr(plan.ptr(), self.known.names))?;
        let kind = Owned::take(PyObject_GetAttr(plan.ptr(), self.known.kind))?;
        let unset = if PyLong_AsLong(kind.ptr()) == NAMEDTUPLE.into() { 0 } else { PyTuple_GET_SIZE(names.ptr()) };
        self.items(list, 1, 1 + unset, depth)?;
        let items = Owned::take(PyList_GetSlice(list, 1, isize::MAX))?;
        Owned::take(PyObject_CallFunctionObjArgs(self.known.instance, plan.ptr(), items.ptr(), null_mut::<PyObject>()))
    }

    unsafe fn plan(&mut self, number: u8, code: Ptr, data: Ptr) -> Option<(Owned, Owned)> {
        let marker = std::slice::from_raw_parts(PyBytes_AS_STRING(data).cast::<u8>(), Py_SIZE(data) as usize);
        let key = (number, marker.to_vec());
        if let Some((plan, layout)) = self.plans.get(&key) {
            return Some((plan.clone(), layout.clone()));
        }
        let plan = PyObject_CallFunctionObjArgs(self.known.plan_of, code, data, null_mut::<PyObject>());
        let plan = Owned::take(plan)?;
        let layout = Owned::take(PyObject_GetAttr(plan.ptr(), self.known.layout))?;
        self.plans.insert(key, (plan.clone(), layout.clone()));
        Some((plan, layout))
    }
}
