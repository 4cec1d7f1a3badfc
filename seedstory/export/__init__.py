"""Exporters: a story becomes a book in one file."""
