"""What a packed story supervises, who sees whom, and that it equals one sample for every page."""

import pytest
import torch

from seedstory.layout import IGNORE, StoryLayout, chapters, collate, countdown, pack_story
from tests.seedstory.tiny_language import tiny_model, tiny_tokenizer


def features(pages: int, seed: int = 0) -> torch.Tensor:
    noise = torch.randn(pages, 9, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.layer_norm(noise, (6,))


@pytest.mark.parametrize("pages", [1, 5, 12, 13, 25, 40, 100])
def test_chapters_are_about_equal_and_count_down_to_one(pages):
    lengths = chapters(pages)
    assert sum(lengths) == pages and max(lengths) <= 12 and max(lengths) - min(lengths) <= 1
    numbers = countdown(pages)
    assert len(numbers) == pages and numbers[-1] == 1 and numbers[0] == lengths[0]


def test_a_story_without_pages_is_refused(layout):
    with pytest.raises(ValueError, match="at least one page"):
        chapters(0)
    with pytest.raises(ValueError, match="at least one page"):
        pack_story([], layout)
    with pytest.raises(ValueError, match="at least one story"):
        collate([])


def test_the_packed_ids_read_as_the_story(layout, captions):
    story = layout.pack_story(captions)
    stream = story.input_ids[story.branch == -1].tolist()
    image = "<img>" + "".join(f"<img_{index:05d}>" for index in range(4)) + "</img>"
    expected = "<s>" + "".join(f"\n{left}: {text}{image}" for left, text in zip([4, 3, 2, 1], captions))
    assert layout.tokenizer.decode(stream) == expected
    assert story.position_ids[story.branch == -1].tolist() == list(range(len(stream)))


def test_supervised_are_captions_their_ends_and_the_storys_end_alone(layout, captions):
    story = layout.pack_story(captions)
    targets = story.labels[story.labels != IGNORE].tolist()
    expected = [id for text in captions for id in [*layout.caption_ids(text), layout.image_start_id]]
    assert targets == [*expected, layout.eos_id]
    # A label is the id of the token that follows in the context stream.
    stream = (story.branch == -1).nonzero().flatten()
    followers = torch.cat([story.input_ids[stream[1:]], torch.tensor([layout.eos_id])])
    labels = story.labels[stream]
    assert torch.equal(labels[labels != IGNORE], followers[labels != IGNORE])
    assert (story.labels[story.branch >= 0] == IGNORE).all() and (story.labels[story.context_mask] == IGNORE).all()


def test_branches_stand_at_the_positions_of_the_context_slots(layout, captions):
    story = layout.pack_story(captions)
    assert torch.equal(story.position_ids[story.query_mask], story.position_ids[story.context_mask])
    assert torch.equal(story.input_ids[story.query_mask], torch.tensor(layout.query_ids * 4))
    before = story.query_mask.nonzero().flatten()[::4] - 1
    assert (story.input_ids[before] == layout.image_start_id).all()


def test_who_sees_whom(layout, captions):
    short = layout.pack_story(captions[:2])
    batch = collate([layout.pack_story(captions), short])
    # The batch holds the context stream first, then the branches; both are padded on their right.
    text, rest = (short.branch == -1).nonzero().flatten(), (short.branch >= 0).nonzero().flatten()
    start = int(batch["context_length"])
    place = {index: at for at, index in enumerate(text.tolist())}
    place |= {index: start + at for at, index in enumerate(rest.tolist())}
    mask = batch["attention_mask"][1, 0]
    expected = torch.eye(len(mask), dtype=torch.bool)
    for row in range(len(short)):
        assert batch["input_ids"][1, place[row]] == short.input_ids[row]
        for column in range(row):
            expected[place[row], place[column]] = short.branch[column] in (-1, short.branch[row])
    assert torch.equal(mask, expected)
    assert not batch["query_mask"][:, :start].any() and not batch["context_mask"][:, start:].any()


def test_options_drop_what_they_say(layout, captions):
    story = layout.pack_story(
        captions,
        keep_caption=[False, True, True, True],
        supervise_caption=[True, False, True, True],
        supervise_image=[False, True, True, True],
        ends=False,
    )
    targets = story.labels[story.labels != IGNORE].tolist()
    assert targets == [id for text in captions[2:] for id in [*layout.caption_ids(text), layout.image_start_id]]
    assert story.target_mask.tolist() == [False, True, True, True]
    assert set(story.branch.tolist()) == {-1, 1, 2, 3} and int(story.context_mask.sum()) == 16
    with pytest.raises(ValueError, match="keep_caption has 1 entries"):
        layout.pack_story(captions, keep_caption=[True])


def test_captions_survive_and_special_tokens_in_them_are_refused(layout):
    text = "Bruno said: \"It's 10 o'clock, Zoë!\""
    assert layout.caption_text(layout.caption_ids(f"  {text}\n ")) == text
    assert layout.caption_ids("  ") == [] and layout.caption_text([]) == ""
    with pytest.raises(ValueError, match="special tokens <img>"):
        layout.caption_ids("A <img> here")


def test_a_tokenizer_without_bos_or_without_image_tokens():
    tokenizer = tiny_tokenizer(bos=None)
    with pytest.raises(ValueError, match="lacks 6 image tokens"):
        StoryLayout(tokenizer, 4)
    layout = StoryLayout.extend(tokenizer, 4)
    assert layout.opening_ids == [] and StoryLayout.extend(tokenizer, 4).query_ids == layout.query_ids
    story = layout.pack_story(["The fox."])
    assert story.input_ids[0] == layout.page_label_ids(1)[0] and story.labels[-1] == layout.eos_id


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("stock_attention", [True, False])
def test_a_packed_story_equals_one_sample_for_every_page(captions, family, stock_attention, monkeypatch):
    monkeypatch.setattr("seedstory.modeling.packed_attention._ROWS", 16)
    model = tiny_model(family=family)
    layout, images, targets = model.layout, features(4), features(4, seed=1)
    batch = collate([layout.pack_story(captions)])
    if stock_attention:
        del batch["context_length"]
    with torch.no_grad():
        packed = model(**batch, context_features=images, target_features=targets)
        losses, predicted, stream = [], [], layout.opening_ids
        for page, text in enumerate(captions):
            stream = stream + layout.page_label_ids(4 - page)
            ids = torch.tensor([stream + layout.caption_ids(text) + [layout.image_start_id, *layout.query_ids]])
            labels = torch.full_like(ids, IGNORE)
            labels[0, len(stream) - 1 : -5] = ids[0, len(stream) : -4]
            slots = torch.zeros_like(ids, dtype=torch.bool)
            starts = (ids[0] == layout.image_start_id).nonzero().flatten()[:-1]
            for start in starts:
                slots[0, start + 1 : start + 5] = True
            queries = torch.zeros_like(slots)
            queries[0, -4:] = True
            single = model(
                ids,
                labels=labels,
                context_features=images[:page],
                context_mask=slots,
                query_mask=queries,
                target_features=targets[page : page + 1],
            )
            count = int((labels != IGNORE).sum())
            losses.append((single.lm_loss * count, count))
            predicted.append(single.features)
            stream = ids[0].tolist() + [layout.image_end_id]
        # The last page's packed sample also supervises eos.
        ids = torch.tensor([stream])
        slots = (ids >= layout.query_ids[0]) & (ids <= layout.query_ids[-1])
        labels = torch.full_like(ids, IGNORE)
        labels[0, -1] = layout.eos_id
        end = model(ids, labels=labels, context_features=images, context_mask=slots)
        losses.append((end.lm_loss, 1))
    assert torch.allclose(packed.features, torch.cat(predicted), atol=1e-5)
    expected = sum(loss for loss, _ in losses) / sum(count for _, count in losses)
    assert abs(packed.lm_loss - expected) <= 1e-5


def test_a_batch_equals_its_stories_alone(model, captions):
    layout, images, targets = model.layout, features(6), features(6, seed=1)
    stories = [layout.pack_story(captions), layout.pack_story(captions[:2], supervise_image=[False, True])]
    with torch.no_grad():
        batched = model(**collate(stories, 16), context_features=images, target_features=targets)
        alone = [
            model(**collate([story]), context_features=images[part], target_features=targets[part])
            for story, part in zip(stories, [slice(0, 4), slice(4, 6)])
        ]
    assert torch.allclose(batched.features, torch.cat([one.features for one in alone]), atol=1e-5)
    counts = [int((story.labels != IGNORE).sum()) for story in stories]
    mean = sum(one.lm_loss * count for one, count in zip(alone, counts)) / sum(counts)
    assert abs(batched.lm_loss - mean) <= 1e-5
    mean = (alone[0].visual_loss * 4 + alone[1].visual_loss) / 5
    assert abs(batched.visual_loss - mean) <= 1e-5


def test_attention_in_blocks_has_the_gradients_of_the_stock_attention(captions, monkeypatch):
    monkeypatch.setattr("seedstory.modeling.packed_attention._ROWS", 16)
    model = tiny_model(family="qwen3")
    stories = [model.layout.pack_story(captions), model.layout.pack_story(captions[1:3])]
    batch = collate(stories, pad_to_multiple_of=8) | {
        "context_features": features(6),
        "target_features": features(6, 1),
    }
    gradients = []
    for length in (batch.pop("context_length"), None):
        model.zero_grad()
        model(**batch, context_length=length).loss.backward()
        gradients.append(
            {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.requires_grad}
        )
    for name, gradient in gradients[0].items():
        assert (gradient - gradients[1][name]).abs().max() <= 1e-5 * max(1.0, gradient.abs().max().item()), name
