//! The native core of cachekit: table, memo, versions, admission and isolation behind the interface of the pure twin.

#[cfg(Py_GIL_DISABLED)]
compile_error!("the native core needs the GIL; on free-threaded Python the pure twin serves (CACHEKIT_PURE=1)");

mod admission;
mod class;
mod clock;
mod codes;
mod copies;
mod core;
mod decode;
mod encode;
mod events;
mod ghosts;
mod header;
mod index;
mod key;
mod load;
mod memo;
mod mixed;
mod payload;
mod plans;
mod py;
mod ready;
mod restore;
mod seal;
mod state;
mod table;
mod values;
mod versions;

use class::*;
use py::*;
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

/// Changes whenever the Python side and this one would misunderstand each other; `cachekit.l1.native` compares.
const ABI: i64 = 6;

static mut METHODS: [PyMethodDef; 23] = [
    fast(c"install", state::install),
    fast(c"install_codec", codes::install_codec),
    fast(c"encode", encode::encode),
    fast(c"ordinary", header::ordinary),
    fast(c"opened", header::opened),
    one(c"cipher", seal::cipher),
    fast(c"unsealed", seal::unsealed),
    one(c"restore", restore::restore),
    fast(c"scalar", decode::scalar),
    fast(c"scalar_or_marker", decode::scalar_or_marker),
    fast(c"deep_msgpack", payload::deep_msgpack),
    fast(c"heavy_msgpack", payload::heavy_msgpack),
    fast(c"deep_json", payload::deep_json),
    one(c"is_plain", is_plain),
    fast(c"khash", khash),
    none(c"running", load::running),
    none(c"depth", load::depth),
    none(c"unseen", load::unseen),
    fast(c"attach", load::attach),
    none(c"flights_here", load::flights_here),
    none(c"entry_here", load::entry_here),
    none(c"after_fork", load::after_fork),
    END,
];

static mut SLOTS: [PyModuleDef_Slot; 3] = [
    PyModuleDef_Slot { slot: Py_mod_exec, value: exec as *mut c_void },
    #[cfg(Py_3_12)]
    PyModuleDef_Slot { slot: Py_mod_multiple_interpreters, value: Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED },
    #[cfg(not(Py_3_12))]
    PyModuleDef_Slot { slot: 0, value: null_mut() },
    PyModuleDef_Slot { slot: 0, value: null_mut() },
];

static mut MODULE: PyModuleDef = PyModuleDef {
    m_base: PyModuleDef_HEAD_INIT,
    m_name: c"cachekit._native".as_ptr(),
    m_doc: c"The native core of cachekit.".as_ptr(),
    m_size: 0,
    m_methods: (&raw mut METHODS).cast(),
    m_slots: (&raw mut SLOTS).cast(),
    m_traverse: None,
    m_clear: None,
    m_free: None,
};

#[no_mangle]
pub unsafe extern "C" fn PyInit__native() -> Ptr {
    PyModuleDef_Init(&raw mut MODULE)
}

unsafe extern "C" fn exec(module: Ptr) -> c_int {
    match fill(module) {
        Some(()) => 0,
        None => -1,
    }
}

unsafe fn fill(module: Ptr) -> Option<()> {
    // Before Python 3.12 a module cannot say so in its definition.
    if PyInterpreterState_Get() != PyInterpreterState_Main() {
        return raise(PyExc_ImportError, c"the native core of cachekit serves the main interpreter only");
    }
    key::seed(random()?);
    clock::init();
    load::seed(random()?);
    versions::init(module)?;
    table::init(module)?;
    memo::init(module)?;
    ready::init(module)?;
    values::init(module)?;
    for method in values::methods() {
        let method: &'static mut PyMethodDef = Box::leak(Box::new(method));
        let function = Owned::take(PyCFunction_NewEx(method, null_mut(), null_mut()))?;
        if PyModule_AddObjectRef(module, method.ml_name, function.ptr()) < 0 {
            return None;
        }
    }
    let build = Owned::take(PyUnicode_FromString(concat!(env!("CACHEKIT_BUILD"), "\0").as_ptr().cast()))?;
    if PyModule_AddObjectRef(module, c"BUILD".as_ptr(), build.ptr()) < 0
        || PyModule_AddIntConstant(module, c"ABI".as_ptr(), ABI) < 0
    {
        return None;
    }
    Some(())
}

unsafe fn random() -> Option<u64> {
    let draw = from_module(c"os", c"urandom")?;
    let bytes = Owned::take(PyObject_CallFunction(draw.ptr(), c"i".as_ptr(), 8 as c_int))?;
    Some(PyBytes_AS_STRING(bytes.ptr()).cast::<u64>().read_unaligned())
}

/// is_plain(args): whether the table may compare these arguments itself
unsafe extern "C" fn is_plain(_module: Ptr, args: Ptr) -> Ptr {
    or_null((|| {
        if PyTuple_Check(args) == 0 {
            return raise(PyExc_TypeError, c"is_plain() takes a tuple");
        }
        truth(core::tuple_items(args).iter().all(|&arg| key::is_exact(arg, key::DEPTH)))
    })())
}

/// khash(slot, args): what stands for a key that only this process knows
unsafe extern "C" fn khash(_module: Ptr, args: *mut Ptr, count: Py_ssize_t) -> Ptr {
    or_null((|| {
        counted("khash", count, 2)?;
        let (slot, array) = (u64_of(*args)?, *args.add(1));
        if PyTuple_Check(array) == 0 {
            return raise(PyExc_TypeError, c"khash() takes a tuple");
        }
        number(key::hash(key::start(slot), core::tuple_items(array))?.0)
    })())
}
