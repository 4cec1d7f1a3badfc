"""Rebuilds the scene of every page from the captions alone.

This is the contract of the paper theatre: what a page shows is a function of the text so far. The rules:

1. Words inside double quotes count for nothing. What is left is the narration.
2. A name's first sentence introduces it: the species, outfit and hat words of that sentence are its look (no hat word,
   no hat). A sentence introduces one character at most, and looks never change. Where a cast is given, it says the
   looks, and introductions may leave them out.
3. The actors of a page are the characters that its narration mentions by name or pronoun (`language.Discourse` says who
   a pronoun means; "the two friends" and "the three friends" mean the same as "they"). They stand from left to right in
   cast order, the order of first mention in the story.
4. A place word sets the place, a time word the time of day; the last one on the page wins, and both persist to later
   pages. Page 1 names both. The time words also know "sun went down", "sun was setting" and "sun sank" as dusk.
5. A cue word (`language.CUES`) gives a pose or an expression to the subject of its clause; the last one wins. Unsaid
   means standing and happy; nothing carries over from an earlier page.
6. The subject is the last one of these in the sentence: the first mention; a mention right after a comma, a quotation
   or a conjunction; a nominative pronoun; a name right after a verb of saying that follows a quotation; the mention
   before "who". Mentions joined by "and" or a comma are one subject. Possessives and object pronouns are none.
   A cue in a sentence without a subject says nothing.
7. The props of a page are the prop words of its narration in order of mention, at most two.
8. "Meanwhile" opens the second half of a page, which shows two places then: each half is read as a page would be,
   but both have the time of day that the page ends with.
9. Words of `language.VIEW_CUES` say from where a page is seen, near or wide; the last one wins. They say nothing on a
   page of two places, and no view carries over.

The first page of an open beginning (`openings`) is in a user's words and keeps no rule, but its words of mood, pose and
props show, too. Its scene is given to `Reader.begin`; all later pages are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from data_tools.paper_theatre.language import (
    BASE_PRONOUN,
    CUES,
    MEANWHILE,
    PLACE_CUES,
    SUBJECT,
    TIME_CUES,
    VIEW,
    VIEW_CUES,
    Discourse,
    is_expression,
)
from data_tools.paper_theatre.names import PRONOUNS
from data_tools.paper_theatre.world import HATS, OUTFITS, PROPS, SPECIES, Actor, Appearance, Scene

_QUOTE = "QUOTE"
_TOKEN = re.compile(r"QUOTE|[A-Za-z]+(?:-[a-z]+)*(?:'s?\b)?|[.,;:!?]")
_CONJUNCTIONS = set("and but while when as because until so before that then if who".split())
_SAYING = set("said asked called whispered shouted answered replied added told begged".split())
# Words that may stand between a clause's beginning and its subject.
_THROUGH = _CONJUNCTIONS | set("soon suddenly now even finally at last little poor dear still both once yes".split())
_MEANWHILE = re.compile(rf"\b{MEANWHILE}\b,?")
_DUSK = re.compile(r"\bsun (went down|was setting|sank)\b")


@dataclass
class Reader:
    """Reads a story page by page; `read` must be called on the captions in order.

    Attributes:
        cast: Looks of characters that the words need not say, by name.
        names: The cast so far, in order of first mention.
        appearances: Look of each character.
    """

    cast: Mapping[str, Appearance] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    appearances: list[Appearance] = field(default_factory=list)
    place: str | None = None
    time: str | None = None
    pages: int = 0
    _discourse: Discourse = field(default_factory=Discourse)

    def begin(self, scene: Scene, spans: Iterable[tuple[int, int, int]]) -> None:
        """Takes in an open beginning, the first page of a story that need not keep the rules.

        Args:
            scene: What the page shows; its actors are the heroes, in order of first mention.
            spans: Who is meant where, as of `script.ScriptedPage`.
        """
        self.pages += 1
        for actor in scene.actors:
            self._add(actor.name, actor.appearance)
        self.place, self.time = scene.place, scene.time
        self._discourse.follow(spans)

    def meet(self, names: Iterable[str]) -> None:
        """Takes in characters of the cast whom a page that cannot be read has named."""
        for name in names:
            if name in self.cast and name in PRONOUNS and name not in self.names:
                self._add(name, self.cast[name])

    def read(self, caption: str) -> Scene:
        """Reads the next page.

        Args:
            caption: The page's whole text.

        Returns:
            What the page shows.

        Raises:
            ValueError: The text breaks a rule: nobody or too many on the page, a name without a look, no place ...
        """
        self.pages += 1
        try:
            return self._read(caption)
        except ValueError as error:
            raise ValueError(f"page {self.pages}: {error}: {caption}") from error

    def _read(self, caption: str) -> Scene:
        narration = re.sub(r'"[^"]*"', f" {_QUOTE} ", caption)
        if '"' in narration:
            raise ValueError("a quotation is not closed")
        halves = _MEANWHILE.split(narration)
        if len(halves) > 2:
            raise ValueError("a page shows two places at most")
        generated = [self._half(half) for half in halves]
        if self.time is None:
            raise ValueError("no place or no time of day is named yet")
        scenes = [Scene(place, self.time, actors, props) for place, actors, props in generated]
        scene = replace(scenes[0], meanwhile=scenes[1]) if len(scenes) > 1 else scenes[0]
        views = VIEW.findall(narration)
        return replace(scene, view=VIEW_CUES[views[-1].lower()]) if views and len(scenes) == 1 else scene

    def _half(self, narration: str) -> tuple[str, tuple[Actor, ...], tuple[str, ...]]:
        """The place, actors and props of a page, or of one half of a page of two places."""
        self._discourse.turn_page()
        said: dict[int, dict[str, str]] = {}
        props: list[str] = []
        for sentence in re.split(r"(?<=[.!?])\s+", narration):
            tokens = _TOKEN.findall(sentence)
            self._introduce(sentence, tokens)
            self._follow(tokens, said)
            for token in tokens:
                word = token.lower()
                self.place = PLACE_CUES.get(word, self.place)
                self.time = TIME_CUES.get(word, self.time)
                if word in PROPS and word not in props:
                    props.append(word)
            if _DUSK.search(sentence):
                self.time = "dusk"
        if self.place is None:
            raise ValueError("no place or no time of day is named yet")
        actors = tuple(
            Actor(
                self.appearances[i], said.get(i, {}).get("pose", "standing"), said.get(i, {}).get("mood", "happy"), name
            )
            for i, name in enumerate(self.names)
            if i in self._discourse.page
        )
        return self.place, actors, tuple(props)

    def _introduce(self, sentence: str, tokens: list[str]) -> None:
        """Takes in a name that is new in this sentence, with its look."""
        new = [name for name in dict.fromkeys(map(_bare, tokens)) if name in PRONOUNS and name not in self.names]
        for name in [name for name in new if name in self.cast]:
            self._add(name, self.cast[name])
            new.remove(name)
        if not new:
            return
        if len(new) > 1:
            raise ValueError(f"one sentence introduces {' and '.join(new)}")
        species, outfits = (
            [w for w in words if re.search(rf"\b{w}\b", sentence.lower())] for words in (SPECIES, OUTFITS)
        )
        hats = [hat for hat in HATS[1:] if re.search(rf"\b{hat}\b", sentence.lower())] or ["none"]
        if not len(species) == len(outfits) == len(hats) == 1:
            raise ValueError(f"{new[0]} is named without one clear look (found {species + outfits + hats})")
        self._add(new[0], Appearance(species[0], outfits[0], hats[0]))

    def _add(self, name: str, appearance: Appearance) -> None:
        self.names.append(name)
        self.appearances.append(appearance)
        self._discourse.pronouns.append(PRONOUNS[name])

    def _follow(self, tokens: list[str], said: dict[int, dict[str, str]]) -> None:
        """Follows who is the subject through one sentence, and gives each cue to the subject."""
        subject: tuple[int, ...] = ()
        starts = True  # a clause begins here
        previous: tuple[int, tuple[int, ...], bool] = (-9, (), False)  # last mention: token, who, was it a subject
        for at, token in enumerate(tokens):
            word = token.lower()
            who = self._mentioned(tokens, at)
            if who:
                possessive = "'" in token or word in ("her", "his", "their")
                joins = previous[0] == at - 2 and tokens[at - 1] in ("and", ",") and not possessive
                is_subject = not possessive and word not in ("him", "them")
                if joins and word not in SUBJECT and (previous[2] or tokens[at - 1] == "and"):
                    who = tuple(sorted({*previous[1], *who}))
                    is_subject = previous[2]
                elif is_subject:
                    generated = at > 1 and tokens[at - 1] in _SAYING and tokens[at - 2] == _QUOTE
                    is_subject = starts or generated or not subject or word in SUBJECT or word == "friends"
                if is_subject:
                    subject = who
                previous = (at, who, is_subject)
            elif word == "who" and previous[1]:
                subject = previous[1]
            elif word in CUES and subject:
                self._say(said, subject, CUES[word])
            elif word == "set" and tokens[at + 1 : at + 2] in (["off"], ["out"]) and subject:
                self._say(said, subject, "walking")
            elif word == "threw" and tokens[at + 1 : at + 2] == ["up"] and subject:
                self._say(said, subject, "cheering")
            starts = token in ",;:" or token == _QUOTE or word in _CONJUNCTIONS or (starts and word in _THROUGH)

    def _mentioned(self, tokens: list[str], at: int) -> tuple[int, ...]:
        """The characters that the token mentions, told to the discourse."""
        token = _bare(tokens[at])
        if token in self.names:
            index = self.names.index(token)
            self._discourse.mention(index)
            return (index,)
        word = token.lower()
        count = 0
        if word == "friends" and at > 1 and tokens[at - 2].lower() == "the" and tokens[at - 1] in ("two", "three"):
            word, count = "they", {"two": 2, "three": 3}[tokens[at - 1]]
        if word not in BASE_PRONOUN:
            return ()
        who = self._discourse.who(BASE_PRONOUN[word])
        if not who or (count and len(who) != count):
            raise ValueError(f"{tokens[at]!r} means nobody here")
        if len(who) == 1:
            self._discourse.mention(who[0])
        else:
            self._discourse.mention_all(who)
        return who

    @staticmethod
    def _say(said: dict[int, dict[str, str]], who: tuple[int, ...], what: str) -> None:
        for index in who:
            said.setdefault(index, {})["mood" if is_expression(what) else "pose"] = what


def _bare(token: str) -> str:
    return token.removesuffix("'s").removesuffix("'")
