"""Runs the Python of one page: the blocks in their order, in one namespace, as a program of its own.

    python run_page.py PAGE < blocks.json

The blocks come as JSON, ``[[line, text], ...]``, so that tracebacks name the line of the page.
"""

import json
import sys
from types import ModuleType


def main() -> None:
    page = sys.argv[1]
    module = ModuleType("page")
    sys.modules["page"] = module  # data classes and models look up their module
    for line, text in json.load(sys.stdin):
        exec(compile("\n" * (line - 1) + text, page, "exec"), vars(module))


if __name__ == "__main__":
    main()
