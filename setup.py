"""The extension is declared here: whether it is optional, and how the wheel is tagged, depend on the environment."""

import glob
import os
import shutil
import sys
from typing import Any

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel

PURE, MUST = (os.environ.get(name) == "1" for name in ("CACHEKIT_PURE", "CACHEKIT_NATIVE"))
CRATE = "native/Cargo.toml"


class HonestWheel(bdist_wheel):
    """Tags the wheel by what lies in it: a failed optional build must not be called a platform wheel."""

    def get_tag(self) -> tuple[str, str, str]:
        built = glob.glob(os.path.join(self.get_finalized_command("build").build_lib, "cachekit", "_native*.so"))
        return super().get_tag() if built else ("py3", "none", "any")


# setuptools keeps build/ and would pack an old binary after a failed build.
stale = glob.glob("build/lib*/cachekit/_native*.so")
if "editable_wheel" in sys.argv:
    stale += glob.glob("cachekit/_native*.so")
for path in stale:
    os.remove(path)

extension: dict[str, Any] = {}
if os.path.exists(CRATE) and not PURE and (MUST or shutil.which("cargo")):
    from setuptools_rust import Binding, RustExtension

    extension["rust_extensions"] = [
        RustExtension("cachekit._native", path=CRATE, binding=Binding.NoBinding, optional=not MUST, debug=False)
    ]
setup(cmdclass={"bdist_wheel": HonestWheel}, **extension)
