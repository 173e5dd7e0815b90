"""A bounded cache: the one used longest ago is computed again. What it gives out is one object for all."""

import functools

SIZE = 2 * 2
runs = []


@functools.lru_cache(maxsize=SIZE)
def page(number, *, language="en"):
    runs.append(number)
    return {"number": number, "language": language}


for number in (1, 2, 3, 4, 1, 5, 2, 1, 4):
    page(number)
print(runs, page.cache_info()[:2], page.cache_info().currsize)
print(page(1) is page(1), page(1, language="de"))
page(1)["seen"] = True
print(page(1), page.__wrapped__(9), page.cache_parameters()["maxsize"])
