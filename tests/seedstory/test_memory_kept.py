"""Keys and values go with their last use: no circle of references keeps them until Python's next full collection."""

import gc
import weakref

from seedstory.cache import StoryCache
from seedstory.story_batch import StoryBatch

QUICK = {"num_inference_steps": 1, "max_caption_tokens": 6, "pages": 2}


def test_caches_of_ended_stories_are_freed_without_the_garbage_collector(pipe, monkeypatch):
    caches = []
    begin = StoryCache.__init__

    def note(self, *args, **kwargs):
        begin(self, *args, **kwargs)
        caches.append(weakref.ref(self))
        caches.extend(weakref.ref(layer) for layer in self.layers)

    monkeypatch.setattr(StoryCache, "__init__", note)
    list(pipe.stream(text="The fox found a lantern.", **QUICK))  # what is made once is made now
    caches.clear()
    gc.collect()
    gc.disable()
    try:
        for decoding in ("auto", "static"):
            monkeypatch.setattr(pipe, "decoding", decoding)
            list(pipe.stream(text="The fox found a lantern.", text_guidance_scale=2.0, **QUICK))
            with StoryBatch(pipe) as batch:
                for seed in range(2):
                    batch.add(text="Was it a star?", seed=seed, **QUICK)
                while batch:
                    batch.step()
            del batch
        assert len(caches) > 4 and not [cache for cache in caches if cache() is not None]
    finally:
        gc.enable()
