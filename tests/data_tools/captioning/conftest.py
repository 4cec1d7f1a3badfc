"""What the captioning tests share: a server that talks, and small data sets."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from seedstory.storystream import StoryRecord, write_jsonl
from tests.data_tools.captioning.talking_server import TalkingServer

LINES = (
    "A fox finds a lantern near the mill.",
    "The bear laughs and holds a kite.",
    "An owl sits upon the roof of the barn.",
    "Two mice row a boat across the pond.",
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[TalkingServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with TalkingServer().running() as talking:
        yield talking


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three stories of four plain pages, whose captions say what the pictures show."""
    folder = tmp_path / "data"
    records = []
    for story in range(3):
        paths = [f"images/{story}/{page}.png" for page in range(4)]
        for page, path in enumerate(paths):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 24), ("red", "blue")[(story + page) % 2]).save(folder / path)
        captions = [line.replace("near", f"{story} miles from") for line in LINES]
        record = StoryRecord(
            id=f"story-{story}", images=paths, captions=captions, orders=[*range(4)], title=f"Tale {story}"
        )
        records.append(record)
    write_jsonl(folder / "train.jsonl", records)
    return folder
