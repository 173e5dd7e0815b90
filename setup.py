"""The extension is declared here: whether it is optional, and how the wheel is tagged, depend on the environment."""

import glob
import os
import shutil
import sys
import sysconfig
from typing import Any

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel

PURE, MUST = (os.environ.get(name) == "1" for name in ("CACHEKIT_PURE", "CACHEKIT_NATIVE"))
CRATE = "native/Cargo.toml"


def binaries(folder: str) -> list[str]:
    """The compiled extensions of a package; ``_native.pyi`` is none."""
    return [path for end in ("so", "pyd") for path in glob.glob(os.path.join(folder, "cachekit", f"_native*.{end}"))]


def obstacle() -> str:
    """Why there can be no extension for this Python from these sources, or nothing."""
    if sys.implementation.name != "cpython":
        return f"the native core is for CPython, not for {sys.implementation.name}"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "the native core needs the GIL, which free-threaded Python does not have"
    return "" if os.path.exists(CRATE) else f"the sources of the native core are missing: {CRATE}"


class HonestWheel(bdist_wheel):
    """Tags the wheel by what lies in it: a failed optional build must not be called a platform wheel."""

    def get_tag(self) -> tuple[str, str, str]:
        if binaries(self.get_finalized_command("build").build_lib):
            return super().get_tag()
        self.root_is_pure = True
        return ("py3", "none", "any")


# setuptools keeps build/ and would pack an old binary after a failed build.
for path in [each for folder in glob.glob("build/lib*") for each in binaries(folder)]:
    os.remove(path)
if "editable_wheel" in sys.argv:
    for path in binaries("."):
        os.remove(path)

extension: dict[str, Any] = {}
if not PURE:
    reason = obstacle() or ("" if MUST or shutil.which("cargo") else "there is no cargo to build the native core with")
    if reason and MUST:
        sys.exit(f"CACHEKIT_NATIVE=1: {reason}")
    if reason:
        print(f"cachekit is built without its native core, pure Python serves: {reason}")
    else:
        from setuptools_rust import Binding, RustExtension

        extension["rust_extensions"] = [
            RustExtension("cachekit._native", path=CRATE, binding=Binding.NoBinding, optional=not MUST, debug=False)
        ]
setup(cmdclass={"bdist_wheel": HonestWheel}, **extension)
