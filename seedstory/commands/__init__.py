"""Commands of `seedstory` that have a module of their own; `seedstory/cli.py` registers them."""
