"""A region in memory, decorated functions, and the attributes that they get."""

from dogpile.cache import make_region

region = make_region().configure("dogpile.cache.memory", expiration_time=3600)
runs = []


@region.cache_on_arguments()
def load(number):
    runs.append(number)
    return {"number": number}


@region.cache_on_arguments(expiration_time=60, should_cache_fn=lambda value: value is not None)
def find(name):
    runs.append(name)
    return None if name == "nobody" else name.title()


print(load(1), load(1), load(1) is load(1), runs)
load.set({"number": "other"}, 1)
print(load(1))
load.invalidate(1)
print(load(1), load.refresh(1), load.original(5), runs)
print(find("nobody"), find("nobody"), find("ann"), find("ann"), runs)
