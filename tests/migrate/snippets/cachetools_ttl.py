"""A cache with a time to live, and a lock beside it."""

import time
from threading import Lock

from cachetools import TTLCache, cached

LIFE = 0.5
weather_cache = TTLCache(maxsize=1024, ttl=LIFE)
runs = []


@cached(cache=weather_cache, lock=Lock())
def weather(place, days=1):
    runs.append(place)
    return [place, days, len(runs)]


print(weather("Oslo"), weather("Oslo"), weather("Rome", days=2), weather("Rome", days=2))
print(weather("Oslo") is weather("Oslo"), runs)
time.sleep(0.7)
print(weather("Oslo"), runs)
