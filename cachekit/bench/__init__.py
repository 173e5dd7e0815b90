"""What a hit in the process costs, beside other caches: ``cachekit bench``.

`worker` measures, in a process of its own and in any interpreter; `measure` runs the workers in turns and makes one
result of theirs; `draw` draws it.
"""
