"""The verbs of the `seedstory` command, by subject."""
