"""Token embeddings that stay in main memory while the language model is on a GPU: a token needs one row of them."""

import torch
from torch import nn
from torch.nn import functional


class HostEmbedding(nn.Module):
    """An embedding whose weight no `.to(device)` moves; what is looked up goes to the device of the ids.

    Args:
        embedding: The embedding that is taken over.

    Attributes:
        weight: In main memory, `[V, D]`; no parameter.
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self._held = [embedding.weight.detach().cpu()]

    @property
    def weight(self) -> torch.Tensor:
        return self._held[0]

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return functional.embedding(input_ids.cpu(), self.weight).to(input_ids.device)
