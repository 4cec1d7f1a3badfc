"""A slow, plain reader of a story that stores un-rotated keys: what `mm_sink` must equal.

It numbers whatever it holds 0, 1, 2, ... at every pass, and decides what to forget by looking at labels that it wrote
on each token itself. Nothing here is shared with `seedstory.cache`.
"""

import torch
from torch.nn.functional import scaled_dot_product_attention

from seedstory.layout import countdown


def rotate(x: torch.Tensor, positions: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
    angles = positions.float()[:, None] * frequencies
    cosine, sine = torch.cat([angles, angles], 1).cos(), torch.cat([angles, angles], 1).sin()
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([-second, first], -1) * sine


class PlainReader:
    """Reads embeddings with a Llama-like model, keeping `(label, un-rotated key, value)` of every token."""

    def __init__(self, llm):
        self.decoder, self.config = llm.base_model, llm.config
        self.labels: list[tuple] = []
        self.keys = [None] * self.config.num_hidden_layers
        self.values = [None] * self.config.num_hidden_layers

    def read(self, embeds: torch.Tensor, labels: list[tuple]) -> torch.Tensor:
        x, new, held = embeds, embeds.shape[1], len(self.labels)
        positions = torch.arange(held + new)
        mask = torch.ones(new, held + new, dtype=torch.bool).tril(held)
        for number, layer in enumerate(self.decoder.layers):
            attention, normed = layer.self_attn, layer.input_layernorm(x)
            query, key, value = (
                part(normed).unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)
                for part in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            if held:
                key, value = torch.cat([self.keys[number], key], 2), torch.cat([self.values[number], value], 2)
            self.keys[number], self.values[number] = key, value
            frequencies = self.decoder.rotary_emb.inv_freq
            groups = query.shape[1] // key.shape[1]
            out = scaled_dot_product_attention(
                rotate(query, positions[held:], frequencies),
                rotate(key, positions, frequencies).repeat_interleave(groups, 1),
                value.repeat_interleave(groups, 1),
                attn_mask=mask,
            )
            x = x + attention.o_proj(out.transpose(1, 2).flatten(2))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        self.labels = [*self.labels, *labels]
        return self.decoder.norm(x)

    def keep(self, wanted) -> None:
        index = torch.tensor([place for place, label in enumerate(self.labels) if wanted(label)])
        self.labels = [self.labels[place] for place in index]
        self.keys = [key[:, :, index] for key in self.keys]
        self.values = [value[:, :, index] for value in self.values]


@torch.no_grad()
def plain_mm_sink(model, captions: list[str], *, window: int, first: int, head: int, tail: int, pictures: int):
    """Features of every page, and how many tokens were held after it.

    Args:
        model: The story model.
        captions: The whole story's captions.
        window: Pages that stay whole.
        first: Tokens of the story's start that stay.
        head: Visual tokens that stay at a picture's head.
        tail: The same at its tail.
        pictures: Evicted pictures of which something stays.
    """
    layout, reader = model.layout, PlainReader(model.llm)
    n, labels, results = layout.num_visual_tokens, countdown(len(captions)), []

    def embed(ids):
        return model.embed_tokens(torch.tensor([ids]))

    start = [*layout.opening_ids, *layout.page_label_ids(labels[0])]
    reader.read(embed(start), [(0, "text", place) for place in range(len(start))])
    for page, caption in enumerate(captions):
        ids = [*layout.caption_ids(caption), layout.image_start_id]
        hidden = None
        for place, token in enumerate(ids):
            kind = "edge" if token == layout.image_start_id else "text"
            hidden = reader.read(embed([token]), [(page, kind, len(start) + place)])
        states = []
        for query in layout.query_ids:
            hidden = reader.read(embed([query]), [(page, "query", 0)])
            states.append(hidden)
        reader.keep(lambda label: label[1] != "query")
        features = model.decode_features(torch.cat(states, 1))
        results.append((features[0], len(reader.labels)))
        if page + 1 == len(captions):
            return results
        reader.read(model.embed_pictures(features), [(page, "picture", place) for place in range(n)])
        label = layout.page_label_ids(labels[page + 1])
        reader.read(embed([layout.image_end_id]), [(page, "edge", n)])
        reader.read(embed(label), [(page + 1, "text", 99) for _ in label])
        left = page - window
        favoured = {0, *range(max(1, left + 1 - (pictures - 1)), left + 1)} if left >= 0 and pictures else set()

        def wanted(label, left=left, favoured=favoured):
            page, kind, place = label
            if page > left or (page == 0 and kind == "text" and place < first):
                return True
            inside = kind == "picture" and (place < head or place >= n - tail)
            return page in favoured and (kind == "edge" or inside)

        reader.keep(wanted)
    return results
