"""Networks that are in memory one at a time: each is read from disk when its phase begins, and goes when it ends."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from seedstory.memory.machine import release_free_memory

if TYPE_CHECKING:
    import torch


class NetworkPhases:
    """Which network of a model is in memory. Those that are not are laid out without memory (on the meta device).

    So their configurations can always be read. A de-tokenizer stays the same object, since others may hold it, and
    each time it is read it draws as it was set to: with its scheduler, its LoRA and its fast path.

    Args:
        laid_out: Of each component what stands for it while it is not in memory.
        load: Reads each component.
        device: Where they work.
    """

    def __init__(
        self, laid_out: Mapping[str, Any], load: Mapping[str, Callable[[], Any]], device: torch.device
    ) -> None:
        self._laid_out = {name: (component, dict(vars(component))) for name, component in laid_out.items()}
        self._load, self.device = load, device
        self.active = ""

    def begin(self, name: str) -> dict[str, Any]:
        """The components of the phase in which one of them works; the others are freed before it is read.

        The caller drops those that it has before it calls, and takes these in their place.
        """
        if self.active != name:
            self.end()
            loaded = self._load[name]()
            release_free_memory()  # what reading took
            self.active = name
            if name == "detokenizer":
                loaded.take_over(self._laid_out[name][0])
                vars(self._laid_out[name][0]).update(vars(loaded))
            else:
                return self.resting | {name: loaded}
        return self.resting

    def end(self) -> None:
        """Frees the component that is in memory."""
        detokenizer, parts = self._laid_out["detokenizer"]
        vars(detokenizer).update({part: parts[part] for part in ("unet", "adapter", "autoencoder")})
        self.active = ""
        import torch

        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        release_free_memory()

    @property
    def resting(self) -> dict[str, Any]:
        """All components while none but the de-tokenizer may be in memory."""
        return {name: component for name, (component, _) in self._laid_out.items()}
