"""Moving cached keys to other positions: rotary embeddings (RoFormer, arXiv 2104.09864) add up as angles."""

from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedModel

from seedstory.errors import ModelError
from seedstory.modeling.configuration import check_base_lm

_CHECKED: WeakKeyDictionary[PreTrainedModel, "list[KeyRotation]"] = WeakKeyDictionary()


class KeyRotation:
    """Turns keys that were rotated for one position into keys for another.

    Args:
        inverse_frequencies: Angle per position of each rotated pair of channels, `[R / 2]`; channel `i` is paired with
            `i + R / 2`, channels from `R` on are not rotated. Empty for a layer without positions.
    """

    def __init__(self, inverse_frequencies: torch.Tensor) -> None:
        self.inverse_frequencies = inverse_frequencies.double().cpu()

    @classmethod
    def of_layers(cls, llm: PreTrainedModel) -> "list[KeyRotation]":
        """The rotation of each layer of a language model, tried out on its own keys; equal ones are one object.

        Layers may differ: Gemma 3 has frequencies of its own for sliding layers, some layers of SmolLM3 have none.

        Raises:
            ModelError: If the model's keys do not move as rotations of fixed frequencies.
        """
        if llm not in _CHECKED:
            check_base_lm(llm.config)
            _CHECKED[llm] = _verified(_declared(llm), llm)
        return list(_CHECKED[llm])

    def table(self, distance: torch.Tensor, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines that move keys on by `distance` positions, `[S]`, for `apply`: float32, `[S, R / 2]` each.

        The angles are computed in float64.
        """
        angles = distance.double().cpu().outer(self.inverse_frequencies)
        return angles.cos().float().to(device), angles.sin().float().to(device)

    def apply(self, keys: torch.Tensor, table: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Keys `[..., S, Dh]` moved as a table says, computed in float32, in the type they have."""
        cosine, sine = table
        half = self.inverse_frequencies.shape[0]
        first, second, rest = keys.float().split([half, half, keys.shape[-1] - 2 * half], dim=-1)
        shifted = [first * cosine - second * sine, second * cosine + first * sine, rest]
        return torch.cat(shifted, dim=-1).to(keys.dtype)

    def shift(self, keys: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        """Rotate keys `[..., S, Dh]`, as the model rotated them, on by `distance` positions, `[S]`."""
        return self.apply(keys, self.table(distance, keys.device))


_UNMOVED = KeyRotation(torch.empty(0))


def _declared(llm: PreTrainedModel) -> list[KeyRotation]:
    """The rotation of each layer by the frequencies that the model holds, for each type of layer or for all."""
    rotary, found = getattr(llm.base_model, "rotary_emb", None), dict[str, KeyRotation]()
    kinds = getattr(llm.config, "layer_types", None) or [""] * llm.config.num_hidden_layers
    for kind in kinds:
        frequencies = getattr(rotary, f"{kind}_inv_freq", getattr(rotary, "inv_freq", None))
        if frequencies is None:
            raise ModelError(f"Base LM {llm.config.model_type!r} has no rotary embedding of its own to read.")
        found.setdefault(kind, KeyRotation(frequencies))
    return [found[kind] for kind in kinds]


@torch.no_grad()
def _verified(rotations: list[KeyRotation], llm: PreTrainedModel) -> list[KeyRotation]:
    """Each layer's rotation as its keys show it: the declared one, or none where a layer has no positions."""
    # A token that sees itself alone has the same hidden states at any position: its keys differ by rotation only.
    # It is of no vocabulary, whose rows may be zeros (such as that of padding).
    from transformers import DynamicCache

    cache, device = DynamicCache(), llm.device
    token = torch.randn(1, 1, llm.config.hidden_size, generator=torch.Generator().manual_seed(0))
    llm.base_model(
        inputs_embeds=token.to(device, llm.dtype).expand(2, -1, -1),
        position_ids=torch.tensor([[0], [37]], device=device),
        attention_mask=torch.ones(2, 1, 1, 1, dtype=torch.bool, device=device),
        past_key_values=cache,
        use_cache=True,
    )
    tolerance = 1e-4 if llm.dtype == torch.float32 else 0.05
    verified = []
    for declared, layer in zip(rotations, cache.layers, strict=True):
        here, there = layer.keys.split(1)
        errors = [
            float((rotation.shift(here, torch.tensor([37])) - there).float().norm() / there.float().norm())
            for rotation in (declared, _UNMOVED)
        ]
        if not min(errors) < tolerance:
            raise ModelError(
                f"The keys of base LM {llm.config.model_type!r} do not move like plain rotary embeddings, "
                "so cached pages could not be moved. Use the cache policy 'dense' or 'recompute'."
            )
        verified.append(declared if errors[0] <= errors[1] else _UNMOVED)
    return verified
