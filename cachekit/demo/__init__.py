"""`cachekit demo`: one city service over real GeoNames data in FastAPI, Flask and Django, one cache, and a load.

cachekit.toml   the configuration of all three
cities.py       the questions that they answer, in honest and slow pure Python, and their caches
fastapi_app.py  the applications, each in its framework's own words, with index.html as first page
flask_app.py
django_app.py
queries.py      what a query asks, checked for Flask and Django, which leave that to the application
counts.py       what the cache of a process did
page.py         the first page, and what it needs of every answer
worker.py       one server process
processes.py    the server and the three workers, started together and gone together
load.py         a seeded load over HTTP, every answer compared with one that no cache has touched
summary.py      what the load showed, as plain figures
"""
