"""Bare decorators, methods, and settings that are read once."""

import functools
from functools import cache, lru_cache


class Settings:
    debug = False


@functools.cache
def settings():
    return Settings()


class Data:
    def __init__(self, numbers):
        self.numbers = numbers
        self.runs = 0

    @lru_cache
    def total(self, power=1):
        self.runs += 1
        return sum(number**power for number in self.numbers)

    @property
    @cache
    def size(self):
        self.runs += 1
        return len(self.numbers)

    @staticmethod
    @lru_cache(maxsize=8, typed=True)
    def kind(value):
        return type(value).__name__


settings().debug = True
first, second = Data([1, 2, 3]), Data([4])
print(settings() is settings(), settings().debug)
print(first.total(), first.total(2), first.total(2), second.total(), first.size, first.size, first.runs, second.runs)
print(Data.kind(1), Data.kind(1.0), first.kind(True))
