"""Cleans a data set folder: `python -m data_tools.clean --help`.

`images.py` measures a picture, `rules.py` judges a story page by page, `duplicates.py` finds what is alike and deals
it out to splits, `decide.py` judges over all stories, and `steps.py` runs the passes: look, decide, write what is kept.
"""
