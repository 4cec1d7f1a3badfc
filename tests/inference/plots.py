"""Stories of the paper theatre in words alone: records of known plots, without pictures."""

from data_tools.paper_theatre.chapters import generate_long_story
from data_tools.paper_theatre.language import describe_appearance
from data_tools.paper_theatre.stories import generate_story
from seedstory.storystream import StoryRecord


def written_record(seed: int, split: str, plot: str | None = None) -> StoryRecord:
    """The record of a story, of any plot or of this one, from the first page on: an open beginning is of no plot."""
    story = generate_story(seed, split, plot, opening=False)
    return _record(f"{split}-{seed}-{story.plot}", story, {"plot": story.plot})


def written_long_record(seed: int, split: str, lengths: list[int]) -> StoryRecord:
    """The record of a story of several chapters."""
    story = generate_long_story(seed, split, lengths, opening=False)
    return _record(f"long-{split}-{seed}", story, {"plots": list(story.plots), "chapters": lengths})


def _record(name, story, extra) -> StoryRecord:
    count = len(story.pages)
    cast = {member.name: describe_appearance(member.appearance) for member in story.cast}
    return StoryRecord(
        id=name,
        images=[f"{page}.png" for page in range(count)],
        captions=[page.caption for page in story.pages],
        orders=list(range(count)),
        title=story.title,
        extra={**extra, "beats": list(story.beats), "plan": list(story.plan), "cast": cast},
    )
