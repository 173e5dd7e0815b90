"""The decorators of cachetools.func, which look like that of functools."""

import cachetools.func

runs = []


@cachetools.func.ttl_cache(maxsize=3, ttl=10 * 60)
def price(article):
    runs.append(article)
    return None if article == "z" else article.upper()


@cachetools.func.lru_cache(maxsize=None)
def length(text):
    return len(text)


print([price(article) for article in "abczzabca"], runs)
print(price.cache_info()[:2], length("abc"), length("abc"), length.cache_info()[:2])
