"""Open beginnings: first pages as people write them, about beings and places that the theatre can only come near to."""

from data_tools.paper_theatre.openings.draw import Opening, draw_opening
from data_tools.paper_theatre.openings.grammar import Grammar, Kind, load_grammar
from data_tools.paper_theatre.openings.write import FIRST_WORDS, OpeningPage, write_opening

__all__ = [
    "FIRST_WORDS",
    "Grammar",
    "Kind",
    "Opening",
    "OpeningPage",
    "draw_opening",
    "load_grammar",
    "write_opening",
]
