"""What one cache does in situations, by name; prints the answers as JSON.

python probe.py NAME URL_OF_A_SERVER SITUATION...

The process that started the server kills and starts it where a situation asks for that.
"""

import asyncio
import json
import os
import sys

import calling
import lasting
import outages
import pages
import processes
import storing
from adapters import ADAPTERS
from support import NOT_OFFERED, NotOffered, loop

MODULES = (calling, storing, lasting, pages, processes, outages)
SITUATIONS = {situation.__name__: situation for module in MODULES for situation in module.SITUATIONS}


def main() -> None:
    name, url, *wanted = sys.argv[1:]
    asyncio.set_event_loop(loop)
    adapter = ADAPTERS[name](url)
    facts = {}
    for situation in wanted:
        try:
            facts[situation] = SITUATIONS[situation](adapter)
        except NotOffered:
            facts[situation] = NOT_OFFERED
    print("\n" + json.dumps(facts), flush=True)
    os._exit(0)  # connections to a server that never answers would be waited for


if __name__ == "__main__":
    main()
