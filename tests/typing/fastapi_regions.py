"""Read by type checkers, never run: what `cache_region` is to them."""

from collections.abc import Coroutine
from typing import Annotated, Any, assert_type

from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection

from cachekit import Region
from cachekit.integrations.fastapi import CacheKit, RegionDependency, cache_region, get_region

app = FastAPI(lifespan=CacheKit(config={"profiles": {}}).lifespan())
CacheKit(app, config="cachekit.toml", metrics=False)
CacheKit().init_app(app)

Users = Annotated[Region, Depends(cache_region("users"))]


@app.get("/")
async def read(users: Users, default: Annotated[Region, Depends(cache_region)]) -> str:
    assert_type(users, Region)
    return default.name


async def direct(connection: HTTPConnection) -> None:
    assert_type(cache_region("users"), RegionDependency)
    region: Coroutine[Any, Any, Region] = cache_region(connection=connection)
    assert_type(await region, Region)
    assert_type(await cache_region("users")(connection), Region)
    assert_type(get_region(connection, "users"), Region)


cache_region(name="users")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
cache_region(7)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
