"""What a story folder's files say: `story.json`, the features of a page, and the text chunks of its picture.

Reading checks every value, since a folder may come from anyone.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, PngImagePlugin

from seedstory.errors import RequestError, StoryFolderError
from seedstory.identity import ModelIdentity
from seedstory.io import read_regular
from seedstory.page_facts import check_facts
from seedstory.settings import MAX_PAGES, PAGE_SETTINGS, StorySettings
from seedstory.story_state import StoryState

if TYPE_CHECKING:
    import torch

FORMAT = "seedstory-story"
FORMAT_VERSION = 2  # 1 had neither ids of pages nor revisions
STATES = ("opening", "written", "illustrated")
MAX_FEATURES = 64 * 2**20  # bytes of a page's features
MAX_JSON = 256 * 2**20  # bytes of story.json
MAX_ID = 10**9
PAGE_FILE = re.compile(r"pages/page-\d{3,10}(\.r\d{1,6})?\.(png|safetensors)")

_FILES_ON_DISK = {"image_file": "picture", "features_file": "features"}
# What story.json says of every page; the rest is left out where there is nothing to say.
_ALWAYS = ("id", "caption", "picture", "features", "seed", "state", "alt")
# What story.json and the pictures call settings that have other names here.
_NAMES_ON_DISK = {
    "image_name": "picture",
    "no_repeat_ngram_size": "no_repeat_ngram",
    "text_guidance_scale": "text_guidance",
}


@dataclass(frozen=True, kw_only=True)
class Pending:
    """How a page is to be made anew, by whoever goes on with the story. Until then its old content stays.

    Attributes:
        caption: The words to draw; None lets the model write them.
        story_seed: As of the page.
        settings: As of the page.
    """

    caption: str | None = None
    story_seed: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        good = self.caption is None or isinstance(self.caption, str)
        if not good or not _is_seed(self.story_seed) or not _are_page_settings(self.settings):
            raise StoryFolderError("pending is not well formed")


@dataclass(frozen=True, kw_only=True)
class PageEntry:
    """What `story.json` says of a page; `seedstory.story.Page` says what the values mean.

    Attributes:
        image_file: File of the picture, relative to the folder, or None.
        features_file: File of the features, or None.
    """

    id: int
    caption: str
    image_file: str | None = None
    features_file: str | None = None
    seed: int = 0
    state: str = "written"
    alt: str = ""
    next_state: StoryState | None = None
    caption_given: bool = False
    story_seed: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    locked: bool = False
    pending: Pending | None = None
    facts: dict[str, str] = field(default_factory=dict)
    prompt: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether the page has features and is not to be made anew."""
        return self.features_file is not None and self.pending is None

    @property
    def is_drawn(self) -> bool:
        """Whether the page has its picture and is not to be made anew."""
        return self.image_file is not None and self.pending is None

    @property
    def is_empty(self) -> bool:
        """Whether this is the place of a page of which nothing is made yet."""
        return self.pending is not None and not self.files

    @property
    def files(self) -> set[str]:
        """Its files, relative to the folder."""
        return {name for name in (self.image_file, self.features_file) if name}

    def to_dict(self) -> dict[str, Any]:
        """As `story.json` writes it: what always stands there, and the rest where there is something to say."""
        values = {_FILES_ON_DISK.get(key, key): value for key, value in asdict(self).items()}
        values["next_state"] = self.next_state.to_dict() if self.next_state else None
        pending = values.pop("pending")
        said = {key: value for key, value in values.items() if key in _ALWAYS or _says_something(value)}
        if pending is not None:  # also where it says no more than that the page is to be made anew
            said["pending"] = {key: value for key, value in pending.items() if value not in (None, {})}
        return said

    @classmethod
    def from_dict(cls, values: Any, number: int) -> PageEntry:
        """The entry of page `number` of a record of any version.

        Raises:
            StoryFolderError, KeyError: It is not well formed.
        """
        if not isinstance(values, dict):
            raise StoryFolderError(f"page {number} is not well formed")
        known = {_FILES_ON_DISK.get(f.name, f.name): f.name for f in fields(cls)}
        given = {known[key]: values[key] for key in ("caption", "picture", "features", "seed", "state")}
        given |= {known[key]: value for key, value in values.items() if key in known}
        given.setdefault("id", number)
        state = given.get("next_state")
        if state is not None:
            try:
                given["next_state"] = StoryState.from_dict(state)
            except RequestError as error:
                raise StoryFolderError(f"next_state of page {number} is not well formed: {error}") from None
        with _naming(f"facts of page {number}"):
            given["facts"] = check_facts(given.get("facts", {}))
        pending = given.get("pending")
        if pending is not None:
            if not isinstance(pending, dict) or not pending.keys() <= {f.name for f in fields(Pending)}:
                raise StoryFolderError(f"pending of page {number} is not well formed")
            given["pending"] = Pending(**pending)
        entry = cls(**given)
        good = (
            all(isinstance(text, str) for text in (entry.caption, entry.alt, entry.model, entry.prompt))
            and entry.state in STATES
        )
        good = (
            good
            and _is_int(entry.seed)
            and _is_seed(entry.story_seed)
            and isinstance(entry.locked, bool)
            and isinstance(entry.caption_given, bool)
        )
        good = good and _is_int(entry.id) and 0 < entry.id <= MAX_ID and _are_page_settings(entry.settings)
        for name, ending in ((entry.image_file, ".png"), (entry.features_file, ".safetensors")):
            good = good and (name is None or _is_page_file(name, ending))
        if not good:
            raise StoryFolderError(f"page {number} is not well formed")
        return entry


def _says_something(value: Any) -> bool:
    """Whether a value differs from what its absence means; the seed 0 does."""
    return value is not False and value not in (None, "", {})


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_seed(value: Any) -> bool:
    return value is None or (_is_int(value) and 0 <= value < 2**63)


def _are_page_settings(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() <= set(PAGE_SETTINGS)


def read_features(path: Path) -> torch.Tensor:
    """The features `[F, Df]` of a page, finite floats.

    Raises:
        StoryFolderError: The file is missing, too large, damaged, or holds something else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensor = load(read_regular(path, limit=MAX_FEATURES))["features"]
    except (SafetensorError, KeyError) as error:
        raise StoryFolderError(f"{path} holds no features ({error})") from None
    if not tensor.is_floating_point() or tensor.ndim != 2:
        raise StoryFolderError(f"{path} holds {tensor.dtype} of shape {list(tensor.shape)}, not features [F, Df]")
    if not bool(tensor.isfinite().all()):
        raise StoryFolderError(f"{path} holds NaN or infinity")
    return tensor


def png_bytes(
    image: Image.Image,
    *,
    title: str,
    caption: str,
    number: int,
    seed: int,
    settings: StorySettings,
    model: str = "",
    version: str = "",
) -> bytes:
    """PNG bytes of a page's picture, with the making of it in text chunks.

    Args:
        image: The picture.
        title: Of the story.
        caption: Of the page.
        number: Of the page in the story as it was when the page was made, from 1.
        seed: Of the page.
        settings: With which the page was made.
        model: Fingerprint of the weights.
        version: Of seedstory.
    """
    chunks = PngImagePlugin.PngInfo()
    made = {k: v for k, v in settings_to_dict(settings).items() if k not in ("captions", "facts")}
    for key, value in {
        "Software": "seedstory",
        "Title": title,
        "Description": caption,
        "seedstory.page": str(number),
        "seedstory.seed": str(seed),
        "seedstory.version": version,
        "seedstory.model": model,
        "seedstory.prompt": settings.text or "",
        "seedstory.settings": json.dumps(made, ensure_ascii=False),
    }.items():
        chunks.add_itxt(key, value)
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG", pnginfo=chunks)
    return buffer.getvalue()


def settings_to_dict(settings: StorySettings) -> dict[str, Any]:
    """Settings as `story.json` and the pictures write them."""
    return {_NAMES_ON_DISK.get(key, key): value for key, value in asdict(settings).items()}


@contextlib.contextmanager
def _naming(part: str) -> Iterator[None]:
    try:
        yield
    except RequestError as error:
        raise StoryFolderError(f"{part}: {error}") from None


def _is_page_file(name: Any, ending: str) -> bool:
    return isinstance(name, str) and bool(PAGE_FILE.fullmatch(name)) and name.endswith(ending)


def check_record(record: Any) -> dict[str, Any]:
    """The parts of a parsed story.json, each checked, as keyword arguments of `StoryFolder`.

    Raises:
        StoryFolderError, KeyError: It is not such a record, or a part is missing.
    """
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise StoryFolderError("it was not written by seedstory")
    version = record["format_version"]
    if isinstance(version, bool) or not isinstance(version, int):
        raise StoryFolderError(f"format_version must be a whole number, not {version!r:.40}")
    if not 1 <= version <= FORMAT_VERSION:
        raise StoryFolderError(f"its format is {version}, this seedstory reads 1 to {FORMAT_VERSION}: update it")
    if not isinstance(record["settings"], dict) or not isinstance(record["pages"], list):
        raise StoryFolderError("settings must be an object, and pages a list")
    known = {_NAMES_ON_DISK.get(f.name, f.name): f.name for f in fields(StorySettings)}
    unknown = set(record["settings"]) - set(known)
    if unknown:
        raise StoryFolderError(f"unknown settings {', '.join(sorted(unknown))}")
    if len(record["pages"]) > MAX_PAGES:
        raise StoryFolderError(f"it lists {len(record['pages']):,} pages: a story has at most {MAX_PAGES:,}")
    entries = [PageEntry.from_dict(page, number) for number, page in enumerate(record["pages"], 1)]
    if len({entry.id for entry in entries}) < len(entries):
        raise StoryFolderError("two pages have one id")
    revision = record.get("revision", 0)
    if not _is_int(revision) or not 0 <= revision <= MAX_ID:
        raise StoryFolderError("revision must be a whole number from 0")
    for key in ("title", "language"):
        if not isinstance(record[key], str):
            raise StoryFolderError(f"{key} is not text")
    versions, earlier = record["versions"], record.get("earlier_models", [])
    if not isinstance(versions, dict) or not all(isinstance(value, str) for value in versions.values()):
        raise StoryFolderError("versions must be an object of texts")
    if not isinstance(earlier, list):
        raise StoryFolderError("earlier_models must be a list")
    try:
        model, *earlier = (ModelIdentity.from_dict(one) for one in [record["model"], *earlier])
    except ValueError as error:
        raise StoryFolderError(f"model is not well formed: {error}") from None
    settings = StorySettings(**{known[key]: value for key, value in record["settings"].items()})
    for number, entry in enumerate(entries, 1):
        for own in (entry, entry.pending):
            if own is not None and own.settings:
                with _naming(f"settings of page {number}"):
                    StorySettings(text="any", **own.settings)
    if len(entries) > settings.pages:
        count = len(entries)
        raise StoryFolderError(f"it has {count} pages, but settings.pages is {settings.pages}: set that to {count}")
    return {
        "title": record["title"],
        "settings": settings,
        "model": model,
        "earlier_models": earlier,
        "versions": dict(versions),
        "language": record["language"],
        "entries": entries,
        "revision": revision,
    }


def cast_and_plan(entries: Sequence[PageEntry]) -> tuple[dict[str, str], list[tuple[int, str]]]:
    """Who is in a story, and its plan: the number of each page of which a line is written, and the line."""
    cast: dict[str, str] = {}
    plan: list[tuple[int, str]] = []
    for number, entry in enumerate(entries, 1):
        if entry.next_state is not None:
            cast |= dict(entry.next_state.cast)
            plan += enumerate(entry.next_state.plan, number + 1)
    return cast, plan
