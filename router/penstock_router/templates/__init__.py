"""Chat templates: programs from a model folder, which run in processes of their own.

What these processes import (all but `process` and `pool`) needs jinja2 and orjson and nothing else
of the router, so that one starts in a few hundredths of a second.
"""
