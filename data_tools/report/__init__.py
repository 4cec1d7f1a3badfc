"""One self-contained HTML page on a data set: `python -m data_tools.report --help`.

`facts.py` counts, `page.py` writes the page.
"""
