"""The words of the paper theatre: what says a pose, a mood, a place or a time, and how they are phrased.

`CUES` and the `*_CUES` are what `reader.Reader` looks for. The phrases are what `script.ScriptedPage` writes; each holds
a cue of what it says. `Discourse` is the one rule for pronouns, used by both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby

from data_tools.paper_theatre.world import EXPRESSIONS, HATS, OUTFITS, PLACES, SPECIES, Appearance

# One word each, in the narration, lower case. A cue tells the subject of its clause.
_CUE_WORDS = {
    "happy": "smiled smiling laughed laughing grinned grinning giggled giggling chuckled chuckling beamed beaming "
    "glad happy happily delighted proud proudly merrily cheerfully",
    "sad": "sighed sighing wept weeping sobbed sobbing sad sadly tears unhappy unhappily lonely gloomily sniffled "
    "sniffling miserable",
    "surprised": "gasped gasping amazed surprised astonished startled blinked blinking stared staring amazement gaped gaping",
    "angry": "grumbled grumbling frowned frowning scowled scowling cross crossly angry angrily growled growling "
    "huffed huffing stamped stamping grumpy grumpily furious",
    "sleepy": "yawned yawning tired dozed dozing sleepy sleepily drowsy drowsily weary wearily",
    "standing": "stood standing stopped waited waiting",
    "waving": "waved waving",
    "sitting": "sat sitting perched seated",
    "walking": "walked walking ran running hurried hurrying strolled strolling marched marching skipped skipping "
    "tiptoed tiptoeing wandered wandering climbed climbing raced racing trotted trotting rushed dashed crept",
    "cheering": "cheered cheering jumped jumping danced dancing leapt",
}
CUES: dict[str, str] = {word: what for what, words in _CUE_WORDS.items() for word in words.split()}
PLACE_CUES: dict[str, str] = {place: place for place in PLACES}
TIME_CUES: dict[str, str] = (
    dict.fromkeys(("day", "morning", "afternoon", "noon", "sunshine"), "day")
    | dict.fromkeys(("dusk", "sunset", "evening", "twilight"), "dusk")
    | dict.fromkeys(("night", "midnight", "moon", "moonlight", "stars", "starlight"), "night")
)

# Words that say from where the page is seen; a page has the last view it names, and no view lasts longer than its page.
VIEW_CUES: dict[str, str] = dict.fromkeys(
    ("so close", "closely", "nose to nose", "cheek to cheek", "face to face"), "near"
) | dict.fromkeys(
    (
        "as far as the eye could see",
        "no bigger than a dot",
        "no bigger than ants",
        "far, far below",
        "under the wide sky",
        "all across the land",
    ),
    "wide",
)
VIEW = re.compile("|".join(rf"\b{cue}\b" for cue in VIEW_CUES), re.IGNORECASE)
# Opens the second half of a page that shows two places.
MEANWHILE = "Meanwhile"

# Verb phrases that follow a subject; HIS becomes the subject's possessive pronoun.
PHRASES: dict[str, tuple[str, ...]] = {
    "happy": (
        "smiled",
        "laughed",
        "grinned",
        "giggled",
        "was happy",
        "felt glad",
        "beamed",
        "smiled a big smile",
        "chuckled",
        "smiled from ear to ear",
    ),
    "sad": (
        "sighed",
        "felt sad",
        "wept a little",
        "had tears in HIS eyes",
        "was unhappy",
        "sniffled",
        "looked sad",
        "lowered HIS head sadly",
        "wept",
    ),
    "surprised": (
        "gasped",
        "was amazed",
        "stared",
        "blinked in surprise",
        "was surprised",
        "was astonished",
        "gaped",
        "stared with round eyes",
        "gasped out loud",
    ),
    "angry": (
        "frowned",
        "grumbled",
        "felt cross",
        "was angry",
        "stamped HIS foot",
        "scowled",
        "huffed and puffed",
        "made a cross face",
        "growled a little",
    ),
    "sleepy": (
        "yawned",
        "felt sleepy",
        "was tired",
        "yawned a big yawn",
        "felt drowsy",
        "was very sleepy",
        "rubbed HIS tired eyes",
        "nodded sleepily",
    ),
    "standing": ("stood still", "stopped", "stood quietly", "waited"),
    "waving": ("waved", "waved and waved", "waved hello", "waved with one arm", "waved HIS arm"),
    "sitting": ("sat down", "sat quite still", "sat down for a while", "sat down to rest"),
    "walking": ("walked on", "hurried along", "set off running", "trotted along", "walked up and down"),
    "cheering": (
        "cheered",
        "jumped for joy",
        "cheered out loud",
        "danced with joy",
        "jumped up and down",
        "leapt into the air",
    ),
}
# The same as participles, to hang after a comma.
PARTICIPLES: dict[str, tuple[str, ...]] = {
    "happy": ("smiling", "laughing", "grinning", "beaming", "giggling"),
    "sad": ("sighing", "sniffling", "weeping a little", "with tears in HIS eyes"),
    "surprised": ("staring", "blinking", "gasping", "full of amazement"),
    "angry": ("frowning", "grumbling", "scowling", "stamping HIS foot"),
    "sleepy": ("yawning", "very sleepy", "yawning and yawning", "quite tired"),
    "standing": ("standing still",),
    "waving": ("waving", "waving one arm"),
    "sitting": ("sitting down",),
    "walking": ("walking up and down", "hurrying along"),
    "cheering": ("jumping up and down", "dancing with joy"),
}
ADVERBS: dict[str, tuple[str, ...]] = {
    "happy": ("happily", "cheerfully", "proudly"),
    "sad": ("sadly", "unhappily", "gloomily"),
    "surprised": ("in amazement", "quite astonished"),
    "angry": ("crossly", "angrily", "grumpily"),
    "sleepy": ("sleepily", "wearily", "drowsily"),
}
FORMS = {"": PHRASES, "ing": PARTICIPLES, "ly": ADVERBS}

AT = dict.fromkeys(PLACES, "in") | {"beach": "on", "mountain": "on", "pond": "by", "snowfield": "on"}
TO = dict.fromkeys(PLACES, ("to",)) | {
    "meadow": ("to", "out to"),
    "forest": ("into", "to"),
    "beach": ("to", "down to"),
    "mountain": ("up", "to"),
    "pond": ("to", "down to"),
    "snowfield": ("to", "out to"),
    "garden": ("to", "into"),
    "kitchen": ("into",),
    "bedroom": ("into",),
}
TIMES_SAID: dict[str, tuple[str, tuple[str, ...]]] = {
    # opening a story
    "oneday": ("day", ("one sunny day", "one bright morning", "one fine day", "one warm afternoon", "one morning")),
    "oneevening": ("dusk", ("one quiet evening", "one golden evening", "one evening at sunset", "one mild evening")),
    "onenight": ("night", ("one clear night", "one quiet night", "one dark night", "one night under the stars")),
    # going on
    "day": ("day", ("that afternoon", "later that day", "in the afternoon")),
    "nextday": ("day", ("the next morning", "the next day", "early the next morning")),
    "dusk": ("dusk", ("that evening", "at sunset", "at dusk", "when evening came", "in the evening")),
    "night": ("night", ("that night", "late that night", "when night came", "when the moon came up")),
}

ADJECTIVES = tuple(
    "small little young kind curious brave clever gentle jolly shy bold friendly busy lively careful dreamy cheerful "
    "polite quick merry".split()
)
# Nobody says "a little grandfather".
GROWN_UP = frozenset(("grandmother", "grandfather"))
ADJECTIVES_OF_GROWN_UPS = tuple(word for word in ADJECTIVES if word not in ("small", "little", "young"))
# A whole clause that opens a story or a page: NAME first.
INTRODUCE = (
    "NAME was a ADJ SPECIES in WEAR",
    "NAME was a ADJ SPECIES who wore WEAR",
    "NAME, a ADJ SPECIES, always wore WEAR",
    "NAME was a ADJ SPECIES, dressed in WEAR",
)
# A clause with the name late, to follow a place or a time.
THERE = (
    "there was a ADJ SPECIES named NAME, who wore WEAR",
    "there was a ADJ SPECIES called NAME in WEAR",
    "there was a ADJ SPECIES whose name was NAME, dressed in WEAR",
    "there was NAME, a ADJ SPECIES in WEAR",
    "there was NAME, a ADJ SPECIES who wore WEAR",
)
# A noun phrase.
NEWCOMER = (
    "a ADJ SPECIES named NAME in WEAR",
    "NAME, a ADJ SPECIES in WEAR",
    "NAME, a ADJ SPECIES dressed in WEAR",
    "a ADJ SPECIES by the name of NAME, in WEAR",
    "a ADJ SPECIES called NAME, who wore WEAR",
)
# What the words say of a newcomer's look; the picture shows the rest, and the cast lines of the record say all of it.
# An open beginning that calls a character what the theatre cannot draw says clothes alone ("clothes", "outfit").
SAID: dict[str, tuple[str, ...]] = {
    "look": ("species", "outfit", "hat"),
    "wear": ("species", "outfit"),
    "species": ("species",),
    "name": (),
    "clothes": ("outfit", "hat"),
    "outfit": ("outfit",),
}
# Introductions by how much they say; `{a.is}`, `{a.there}` and `{a.new}` choose among them.
NEWCOMER_PATTERNS: dict[str, dict[str, tuple[str, ...]]] = {
    "look": {"is": INTRODUCE, "there": THERE, "new": NEWCOMER},
    "wear": {"is": INTRODUCE, "there": THERE, "new": NEWCOMER},
    "species": {
        "is": (
            "NAME was a ADJ SPECIES",
            "NAME was a SPECIES, and a ADJ one",
            "NAME, a ADJ SPECIES, was known to everybody",
            "NAME the SPECIES was ADJ and full of ideas",
        ),
        "there": (
            "there was a ADJ SPECIES named NAME",
            "there was a ADJ SPECIES called NAME",
            "there was NAME, a ADJ SPECIES",
            "there lived a ADJ SPECIES whose name was NAME",
        ),
        "new": (
            "a ADJ SPECIES named NAME",
            "NAME, a ADJ SPECIES",
            "NAME the SPECIES",
            "a ADJ SPECIES by the name of NAME",
            "a SPECIES called NAME",
        ),
    },
    "name": {
        "is": ("here comes NAME", "NAME was up early", "NAME had a plan", "NAME was in a good mood"),
        "there": ("there was somebody called NAME", "there was NAME", "there lived NAME"),
        "new": ("NAME", "somebody called NAME", "a friend named NAME", "NAME from next door"),
    },
}
# The same for a character that the story has introduced in an earlier chapter: no look, only the name.
KNOWN = {
    "is": ("here is NAME again", "NAME had a new plan", "NAME was up early"),
    "there": ("there was NAME", "there was NAME again", "there was NAME once more"),
    "new": ("NAME",),
}
# The same for a hero of an open beginning, which the page before named; KIND is the user's word for it.
NAMED = {
    "is": ("NAME had a plan", "NAME was up early", "NAME the KIND was up early"),
    "there": ("there was NAME", "there was NAME the KIND"),
    "new": ("NAME", "NAME", "NAME the KIND"),
}
# And for one that the page before did not name; KIND is what it was called there, such as "the old dragon".
NAMELESS = {
    "is": ("KIND was called NAME", "NAME was what everybody called KIND", "the name of KIND was NAME"),
    "there": ("there was NAME, KIND,", "there was KIND, who was called NAME,", "there was KIND, whose name was NAME,"),
    "new": ("NAME, KIND,", "KIND, whose name was NAME,", "KIND, who was called NAME,", "KIND, NAME by name,"),
}

SUBJECT, OBJECT, POSSESSIVE = {"she", "he", "they"}, {"her", "him", "them"}, {"her", "his", "their"}
FORMS_OF = {
    "she": {"he": "she", "him": "her", "his": "her", "self": "herself"},
    "he": {"he": "he", "him": "him", "his": "his", "self": "himself"},
    "they": {"he": "they", "him": "them", "his": "their", "self": "themselves"},
}
BASE_PRONOUN = {"she": "she", "her": "she", "he": "he", "him": "he", "his": "he"} | dict.fromkeys(
    ("they", "them", "their"), "they"
)
FRIENDS = {2: "the two friends", 3: "the three friends"}


def with_article(noun: str) -> str:
    """`apple` → `an apple`; plural clothes stay bare."""
    if noun.endswith("overalls"):
        return noun
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def wear(appearance: Appearance, hat: bool = True) -> str:
    """What a character wears, as a noun phrase: `a red coat and a straw hat`; without the hat if that is not said."""
    on_top = " and " + with_article(appearance.hat) if hat and appearance.hat != "none" else ""
    return with_article(appearance.outfit) + on_top


def describe_appearance(appearance: Appearance, kind: str = "") -> str:
    """A look as a line of a cast says it: `fox, red coat, straw hat`; `dragon (frog), green vest` for a dragon."""
    species = appearance.species if kind in ("", appearance.species) else f"{kind} ({appearance.species})"
    parts = (species, appearance.outfit, appearance.hat)
    return ", ".join(part for part in parts if part != "none")


def parse_appearance(text: str) -> Appearance | None:
    """The appearance that a line of a cast names, as `describe_appearance` writes it; None if it names none."""
    words = [part.strip() for part in text.split(",")]
    drawn = re.search(r"\(([a-z]+)\)", words[0])
    species = drawn[1] if drawn else words[0]
    outfits = [word for word in words[1:] if word in OUTFITS]
    hats = [word for word in words[1:] if word in HATS[1:]]
    if species not in SPECIES or len(outfits) != 1 or len(hats) > 1 or len(words) != 1 + len(outfits) + len(hats):
        return None
    return Appearance(species, outfits[0], *hats)


def adjectives(species: str) -> tuple[str, ...]:
    """The adjectives that may introduce a character."""
    return ADJECTIVES_OF_GROWN_UPS if species in GROWN_UP else ADJECTIVES


def fix_articles(text: str) -> str:
    """Makes `a` and `an` fit the next word."""
    text = re.sub(r"\b([Aa]) (?=[aeiouAEIOU])(?!(?:use|uni|one|once|eu))", r"\1n ", text)
    return re.sub(r"\b([Aa])n (?=[^aeiouAEIOU\W]|use|uni|one\b|once\b|eu)(?!hour|honest)", r"\1 ", text)


def is_expression(what: str) -> bool:
    """Whether a cue's meaning is an expression; otherwise it is a pose."""
    return what in EXPRESSIONS


@dataclass
class Discourse:
    """Who a pronoun means, sentence after sentence and page after page.

    `she` and `he` mean the character of that pronoun who was last mentioned by name or by that pronoun. `they` means
    everyone mentioned on the page so far, or, while fewer than two have been, these and everyone of the page before.
    """

    pronouns: list[str] = field(default_factory=list)
    last: dict[str, int] = field(default_factory=dict)
    page: set[int] = field(default_factory=set)
    before: set[int] = field(default_factory=set)

    def turn_page(self) -> None:
        self.before, self.page = self.page, set()

    def follow(self, spans: Iterable[tuple[int, int, int]]) -> None:
        """Takes in a whole page whose mentions are known, as `script.ScriptedPage.spans` gives them."""
        self.turn_page()
        for _, group in groupby(spans, key=lambda span: span[:2]):
            indices = tuple(index for *_, index in group)
            if len(indices) == 1:
                self.mention(indices[0])
            else:
                self.mention_all(indices)

    def mention(self, index: int) -> None:
        self.last[self.pronouns[index]] = index
        self.page.add(index)

    def mention_all(self, indices: tuple[int, ...]) -> None:
        self.page.update(indices)

    def who(self, pronoun: str) -> tuple[int, ...]:
        """The cast indices that `she`, `he` or `they` mean now; empty when it means nobody."""
        if pronoun == "they":
            group = self.page if len(self.page) > 1 else self.page | self.before
            return tuple(sorted(group)) if len(group) > 1 else ()
        return (self.last[pronoun],) if pronoun in self.last else ()
