"""Keys and values without a decorator, in a region that is configured later."""

from dogpile.cache import make_region
from dogpile.cache.api import NO_VALUE

region = make_region()
runs = []


def create():
    runs.append(1)
    return len(runs)


def setup():
    region.configure("dogpile.cache.memory", expiration_time=3600)


setup()
print(region.get("a") is NO_VALUE)
region.set("a", (1, 2))
print(region.get("a"), region.get("a") is NO_VALUE)
print(region.get_or_create("b", create), region.get_or_create("b", create, 60))
print(region.get_or_create("b", creator=create))
region.delete("b")
print(region.get_or_create("b", create, expiration_time=30))
region.set_multi({"c": None, "d": 4})
region.delete_multi(["d"])
print(region.get("c"), region.get("d") is NO_VALUE)
region.invalidate()
print(region.get("a") is NO_VALUE, region.get_or_create("b", create), runs)
