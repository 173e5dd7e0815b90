"""What counts as the same call is decided by a function of the arguments."""

from cachetools import LRUCache, cached
from cachetools.keys import hashkey, typedkey

runs = []


@cached(LRUCache(maxsize=32), key=lambda connection, number: hashkey(number))
def row(connection, number):
    runs.append(number)
    return (connection, number)


@cached(cache={}, key=typedkey)
def kind(value):
    return type(value).__name__


@cached(LRUCache(maxsize=2), info=True)
def square(number):
    return number * number


print(row("first", 1), row("second", 1), row("second", 2), runs)
print(kind(1), kind(1.0), kind(True))
print([square(number) for number in (1, 2, 1, 3, 1, 2)], square.cache_info()[:4])
square.cache_clear()
print(square.cache_info()[:2])
