"""Recursion that remembers, and what it counts."""

from functools import lru_cache


@lru_cache(maxsize=None)
def fibonacci(number):
    return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)


print([fibonacci(number) for number in range(16)])
print(fibonacci.cache_info()[:2], fibonacci.cache_info().currsize)
fibonacci.cache_clear()
print(fibonacci.cache_info()[:2], fibonacci(90))
