"""From any source to a data set folder: `python -m data_tools.importers --help`.

An importer is two functions. One finds the sources, a file or a folder each, in what the user names. The other, a pure
function of one source, stores its images and returns its records and what was dropped. `run_import.py` does the rest.
"""
