"""Chat templates: programs from a model folder, which run in processes of their own.

What these import needs jinja2 and orjson and nothing else of the router, so that they start in a
tenth of a second. `pool`, `process` and `fork_server` are the router's side of them.
"""
