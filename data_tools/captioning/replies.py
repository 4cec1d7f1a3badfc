"""Turns a model's reply into the text of a page: reads the JSON, repairs it if that is safe, and judges it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import islice

from seedstory.settings import check_text
from seedstory.text import count_words, sentence_ends, split_sentences

_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\d_]+(?:['’][^\W\d_]+)*|\d+")
_MARKUP = re.compile(r"<[|/]?\w[^<>]{0,40}>|```|\[/?INST\]|\*\*|^#+ ")
_LABEL = re.compile(r"^(?:page|chapter|caption|text|description|story)\s*\d*\s*(?:of \d+)?\s*[:.\-–]\s+", re.IGNORECASE)
# Children's books are full of "I'm sorry" and "I cannot see my kite": only what a model says as a model is an excuse.
_REFUSAL = re.compile(
    r"^i(?:['’]m| am) sorry,? but i (?:can|am)|^i apologi[sz]e,? but|\bas an ai\b|\blanguage model\b"
    r"|^i(?: can(?:no|['’])t|(?:['’]m| am) unable to) (?:assist|help with|view|describe|identify|provide)\b",
    re.IGNORECASE,
)
_ABOUT_IMAGES = re.compile(
    r"\b(?:the|this|next) (?:picture|image|illustration|page) (?:shows?|showed|depicts?|features?)\b"
    r"|\bin th(?:e|is) (?:picture|image|illustration)\b|\bjson\b",
    re.IGNORECASE,
)
# The words without which no English sentence is made: two texts that share only these speak of different things.
_COMMON = frozenset(
    """about after again all also and any are around away back because been before being but came can come could day
    did does down each even every few for from get goes going had has have her here him his how into its just know
    like little look looked looking made make many more most much not now off once one only other our out over put
    said saw say see she show shows some something soon still such than that the their them then there these they
    thing things this those through time too took two under until upon very was way well went were what when where
    which while who why will with would yes you your""".split()
)
MAX_REPLY = 50_000  # characters
MAX_OBJECTS = 50  # opening braces that may begin the object
SAME = 0.8  # above this similarity two pages say the same


class BadReply(ValueError):
    """A reply that cannot be used; the message says why, to the model and to a person."""


def read_reply(reply: str, field: str) -> str:
    """The string `field` of a JSON object somewhere in a reply.

    Safe to mend, and mended: words around the object, code fences, thoughts, raw line breaks inside the string, quotes
    of direct speech left unescaped, an end cut off.

    Raises:
        BadReply: There is no such string.
    """
    if len(reply) > MAX_REPLY:
        raise BadReply(f"it is longer than {MAX_REPLY} characters")
    reply = _THOUGHT.sub("", reply).rpartition("</think>")[2]  # some begin a thought without saying so
    decoder = json.JSONDecoder(strict=False)
    for brace in islice(re.finditer(r"{", reply), MAX_OBJECTS):
        try:
            found, _ = decoder.raw_decode(reply, brace.start())
        except (json.JSONDecodeError, RecursionError):
            continue
        if isinstance(found, dict) and isinstance(found.get(field), str):
            return found[field]
    opened = re.search(rf'{{\s*"{re.escape(field)}"\s*:\s*"', reply)
    if opened is None:
        raise BadReply(f'it is not a JSON object with one string, {{"{field}": "..."}}')
    inner = reply[opened.end() :]
    closed = re.search(r'"\s*[}\]]', inner)  # the first, for what a model says after it is no part of the page
    inner = inner[: closed.start()] if closed else inner.rstrip('"}\\ \n`')
    return re.sub(r"\\(.)", lambda escape: {"n": "\n", "t": " ", "r": "\n"}.get(escape[1], escape[1]), inner)


def clean_page(text: str, *, min_words: int, max_words: int) -> str:
    """Text of a page or picture as whole sentences, on one line, without markup or a label such as "Page 3:".

    What runs over `max_words`, or was cut off, is shortened to its whole sentences.

    Raises:
        BadReply: Too little is left, or it is a refusal.
    """
    text = _MARKUP.sub(" ", text)
    try:
        text = check_text(text, "the reply")
    except ValueError:
        raise BadReply("it is empty or far too long") from None
    text = _LABEL.sub("", text).strip()
    if _REFUSAL.search(text):
        raise BadReply("it is an excuse instead of an answer")
    ends = [end for end in sentence_ends(text) if count_words(text[:end]) <= max_words]
    kept = text[: max(ends, default=0)].strip()
    if not kept and count_words(text) <= max_words:
        raise BadReply("it holds no whole sentence: end every sentence with a full stop")
    if not kept:
        raise BadReply(f"its first sentence alone is longer than {max_words} words: use short sentences")
    if count_words(kept) < min_words:
        raise BadReply(f"it has fewer than {min_words} words: write more")
    return kept


def check_narration(text: str, history: Sequence[str], description: str) -> None:
    """Judges the text of a page as a part of its story.

    Raises:
        BadReply: It speaks about pictures, repeats an earlier page, or shares no word with its own picture.
    """
    if _ABOUT_IMAGES.search(text):
        raise BadReply("it speaks about a picture: tell the story itself")
    for place, earlier in enumerate(history, start=1):
        if is_repetition(text, earlier):
            raise BadReply(f"it tells page {place} again: go on with the story")
    wanted = content_words(description)
    if wanted and not wanted & content_words(text):
        raise BadReply("it says nothing of what the picture shows: name who and what is in it")


def is_repetition(one: str, other: str) -> bool:
    """Whether two pages are nearly word for word the same, or share a sentence of six words or more."""
    first, second = ([w.lower() for w in _WORD.findall(text)] for text in (one, other))
    longer = {" ".join(_WORD.findall(s.lower())) for s in split_sentences(one) if count_words(s) >= 6}
    if longer & {" ".join(_WORD.findall(s.lower())) for s in split_sentences(other)}:
        return True
    match = SequenceMatcher(None, first, second, autojunk=False)
    return match.real_quick_ratio() > SAME and match.quick_ratio() > SAME and match.ratio() > SAME


def content_words(text: str) -> set[str]:
    """The words that say what a text is about, by their beginnings, so that "runs" and "running" are one word."""
    words = (word.lower() for word in _WORD.findall(text))
    return {word[:4] for word in words if word not in _COMMON and (len(word) > 2 or not word.isascii())}
