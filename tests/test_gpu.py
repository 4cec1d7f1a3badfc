"""What only a GPU can show; `make gpu` runs these, and a machine without one skips them."""

import pytest
import torch

from seedstory.cache import CachePolicy
from seedstory.generation import SamplingConfig, StoryEngine
from seedstory.layout import attention_mask, collate, find_places
from seedstory.modeling.flash_attention import find_runs
from tests.seedstory.tiny_language import SENTENCES, tiny_model
from training.optimizers import MuonAdamW

pytestmark = pytest.mark.cuda


def on_gpu(value):
    if isinstance(value, tuple):
        return type(value)(*map(on_gpu, value))
    return value.to("cuda", non_blocking=True) if isinstance(value, torch.Tensor) else value


def test_a_step_of_stage_2_never_waits_for_the_gpu():
    model = tiny_model(lora_rank=8).to("cuda").train()
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    optimizer = MuonAdamW(named, adam_names=("lora_",))
    batch = collate([model.layout.pack_story(SENTENCES)] * 2, mask=False)
    places = find_places(*(batch[name] for name in ("labels", "context_mask", "query_mask", "target_mask")))
    branch, order, spans = (batch.pop(name) for name in ("branch", "order", "spans"))
    runs = find_runs(spans, batch["input_ids"].shape[1])
    features = torch.randn(2, 6, 9, 6)
    batch |= {"context_features": features[0], "target_features": features[1], "places": places, "spans": runs}
    batch = {name: on_gpu(value) for name, value in (batch | {"branch": branch, "order": order}).items()}
    batch["context_length"] = int(batch["context_length"])
    branch, order = batch.pop("branch"), batch.pop("order")

    def step():
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(**batch, attention_mask=attention_mask(branch, order)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(loss)


def test_all_decodings_write_the_same_story():
    model = tiny_model().to("cuda")
    sampling = SamplingConfig(temperature=0, max_caption_tokens=8)
    stories = []
    for decoding in ("eager", "static", "compiled"):
        engine = StoryEngine(model, CachePolicy(), sampling, decoding=decoding)
        engine.start([SENTENCES[0]], pages=3, seed=0)
        stories.append(list(engine.pages()))
    for other in stories[1:]:
        assert [page.caption for page in other] == [page.caption for page in stories[0]]
        for one, another in zip(stories[0], other, strict=True):
            torch.testing.assert_close(one.features, another.features, rtol=1e-3, atol=1e-3)
