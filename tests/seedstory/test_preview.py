"""Drafts of images while they are drawn: what they show, and that only those who watch pay for them."""

import base64
import io
import time

import numpy as np
import pytest
import torch
from PIL import Image

from seedstory.detokenizers.detokenizer import to_pil
from seedstory.detokenizers.preview import SIDE, LatentPreview
from seedstory.errors import ModelError
from seedstory.server.events import EventLog
from seedstory.story import StoryFolder
from tests.seedstory.serving import serving
from tests.tiny import tiny_detokenizer

STEPS = 30


def opened(data_url: str) -> Image.Image:
    kind, _, data = data_url.partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def difference(draft: Image.Image, image: Image.Image) -> float:
    small = image.resize(draft.size, Image.Resampling.BOX)
    return float(np.abs(np.asarray(draft, float) - np.asarray(small, float)).mean())


def test_a_draft_looks_like_the_image():
    torch.manual_seed(0)
    detokenizer = tiny_detokenizer()
    latents = torch.randn(2, 4, 6, 6)
    with torch.no_grad():
        one, other = to_pil(detokenizer.autoencoder.decode(latents) / 2 + 0.5)
    drafts = LatentPreview(detokenizer)(latents)
    assert [draft.size for draft in drafts] == [(48, 48)] * 2
    assert difference(drafts[0], one) < 0.65 * difference(drafts[0], other)
    assert difference(drafts[1], other) < 0.65 * difference(drafts[1], one)


def test_a_step_says_what_its_latents_seem_to_become():
    seen = []
    drawn = tiny_detokenizer()(
        torch.randn(2, 9, 6),
        num_inference_steps=4,
        output_type="latent",
        callback_on_step_end=lambda *step: seen.append(step[3]),
    )
    assert len(seen) == 4
    assert not torch.allclose(seen[0]["latents"], seen[0]["pred_original_sample"], atol=0.1)
    torch.testing.assert_close(seen[-1]["pred_original_sample"], drawn)


def test_a_draft_of_a_large_image_is_small():
    preview = LatentPreview(tiny_detokenizer())
    preview._block = 1
    preview._weight, preview._bias = preview._weight[:3], preview._bias[:3]  # as of a finer grid
    assert preview(torch.zeros(1, 4, 128, 96))[0].size == (48, SIDE)
    with pytest.raises(ModelError, match="latents must be"):
        preview(torch.zeros(1, 3, 6, 6))
    assert preview(torch.full((1, 4, 6, 6), torch.nan))[0].getextrema()  # broken latents break no page


def test_the_fit_leaves_the_random_numbers_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    detokenizer = tiny_detokenizer()
    torch.set_rng_state(before)
    LatentPreview(detokenizer)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_log_keeps_the_newest_draft_alone_and_none_of_a_page_that_is_made():
    log = EventLog()
    assert not log.wants_preview("step 1")
    end = log.watch(lambda: None, previews=False)
    assert not log.wants_preview("step 1")
    end()
    end = log.watch(lambda: None, previews=True)
    assert log.wants_preview("step 1")
    log.add("step", {"step": 1}, topic="step 1", preview="one")
    assert not log.wants_preview("step 1")  # too soon
    assert log.wants_preview("step 2")
    time.sleep(0.06)
    assert log.wants_preview("step 1")
    log.add("step", {"step": 2}, topic="step 1", preview="two")
    log.add("step", {"step": 3}, topic="step 1")
    (event,) = log.after(0)
    assert event.values == {"step": 3}  # a draft is no part of an event
    assert log.preview_of(event, -1) == "two"
    assert log.preview_of(event, 2) is None  # it is known
    log.add("page", {})
    assert log.preview_of(event, -1) is None
    end()
    assert not log.wants_preview("step 1")


def test_only_who_asks_gets_drafts_and_they_change_no_story(pipe, tmp_path):
    with serving(pipe, tmp_path / "stories") as client:
        asked = {"pages": 3, "seed": 5, "num_inference_steps": STEPS, "max_caption_tokens": 60}
        plain = client.make(**asked)
        said = client.events(plain, "state:done")
        assert not [values for _, _, values in said if "preview" in values]

        watched = client.make(**asked)
        said = client.events(watched, "state:done", previews=1)
        drafts = [values for _, kind, values in said if kind == "step" and "preview" in values]
        assert len(drafts) >= 2
        assert not [values for _, kind, values in said if kind != "step" and "preview" in values]
        assert all(values["step"] < values["steps"] for values in drafts[:1])
        last = [values for values in drafts if values["number"] == 2][-1]
        with Image.open(io.BytesIO(client.get(client.story(watched)["pages"][1]["image"]).content)) as image:
            assert max(opened(last["preview"]).size) <= SIDE
            assert difference(opened(last["preview"]), image.convert("RGB")) < 30

        one, two = (StoryFolder.open(tmp_path / "stories" / name) for name in (plain, watched))
        for first, second in zip(one.entries, two.entries, strict=True):
            for left, right in zip(sorted(first.files), sorted(second.files), strict=True):
                assert (one.path / left).read_bytes() == (two.path / right).read_bytes()
        assert client.get(f"/api/stories/{watched}/events?previews=maybe").status_code == 422
        route = client.get("/openapi.json").json()["paths"]["/api/stories/{story_id}/events"]["get"]
        (query,) = [one for one in route["parameters"] if one["name"] == "previews"]
        assert "draft" in query["description"]
