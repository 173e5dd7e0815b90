import work
from fastapi import FastAPI

from cachekit.integrations.fastapi import CacheKit

app = FastAPI()
CacheKit(app)


@app.get("/work/{n}")
def blocking(n: int) -> dict[str, int]:
    return work.answer(n)


@app.get("/awork/{n}")
async def in_the_loop(n: int) -> dict[str, int]:
    return await work.answer_async(n)


@app.get("/many/{start}/{count}")
def many(start: int, count: int) -> int:
    return work.many(start, count)
