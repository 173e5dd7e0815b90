"""`cachekit demo`: a small city service over real GeoNames data, two worker processes, one cache, and a load.

cachekit.toml   the configuration of the service
cities.py       the questions that it answers, in honest and slow pure Python, and their caches
app.py          the FastAPI application, with index.html as its first page
worker.py       one server process
processes.py    the server and the two workers, started together and gone together
load.py         a seeded load over HTTP, every answer compared with one that no cache has touched
summary.py      what the load showed, as plain figures
"""
