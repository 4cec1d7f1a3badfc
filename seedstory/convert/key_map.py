"""Names of weights in another layout and in ours, as data that is read both ways."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property


class KeyMap:
    """Pairs of names: the one in a released checkpoint, and ours.

    A name is whole, or ends in a dot and stands for all that begin so: whatever follows is the same in both. The empty
    name stands for all. `{}` stands for a number, again the same in both, in the same order.

    Args:
        *pairs: (released, ours).
    """

    def __init__(self, *pairs: tuple[str, str]) -> None:
        self.pairs = pairs

    @cached_property
    def _forward(self) -> list[tuple[re.Pattern[str], str]]:
        return _patterns(self.pairs)

    @cached_property
    def _backward(self) -> list[tuple[re.Pattern[str], str]]:
        return _patterns([(ours, released) for released, ours in self.pairs])

    def ours(self, released: str) -> str | None:
        """Our name of a released weight; None if there is none."""
        return _translate(released, self._forward)

    def released(self, ours: str) -> str | None:
        """The released name of one of our weights; None if there is none."""
        return _translate(ours, self._backward)


def _patterns(pairs: Sequence[tuple[str, str]]) -> list[tuple[re.Pattern[str], str]]:
    found = []
    for source, target in pairs:
        pattern = re.escape(source).replace(r"\{\}", r"(\d+)")
        found.append((re.compile(pattern + ("" if source and not source.endswith(".") else r"(.+)")), target))
    return found


def _translate(name: str, patterns: Sequence[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, target in patterns:
        if match := pattern.fullmatch(name):
            rest = list(match.groups())
            while "{}" in target:
                target = target.replace("{}", rest.pop(0), 1)
            return target + "".join(rest)
    return None
