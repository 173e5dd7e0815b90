"""A region on a server, with methods of several classes."""

import os

from dogpile.cache import make_region
from dogpile.cache.util import kwarg_function_key_generator

users = make_region(name="users", function_key_generator=kwarg_function_key_generator).configure(
    "dogpile.cache.redis",
    expiration_time=60 * 60,
    arguments={"url": os.environ["REDIS_URL"], "distributed_lock": True},
)
runs = []


@users.cache_on_arguments()
def user(number, full=False):
    runs.append(number)
    return (number, full)


class Names:
    @users.cache_on_arguments(namespace="names")
    def of(self, number):
        runs.append(f"name {number}")
        return f"name {number}"


print(user(1), user(1), user(1, full=True), user(1, full=True), runs)
print(Names().of(1), Names().of(1), runs)
user.invalidate(1)
print(user(1), runs)
