"""A slow, plain reader of a story that stores un-rotated keys: what `mm_sink` must equal.

It numbers whatever it holds 0, 1, 2, ... at every pass, and decides what to forget by looking at labels that it wrote
on each token itself. Nothing here is shared with `seedstory.cache`.
"""

import torch
from torch.nn.functional import scaled_dot_product_attention

from seedstory.layout import countdown
from seedstory.salience import find_capitals, find_names


def rotate(x: torch.Tensor, positions: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
    angles = positions.float()[:, None] * frequencies
    cosine, sine = torch.cat([angles, angles], 1).cos(), torch.cat([angles, angles], 1).sin()
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([-second, first], -1) * sine


class PlainReader:
    """Reads embeddings with a Llama-like model, keeping `(label, un-rotated key, value)` of every token.

    The last part of a label is the token's place in the story, which the reader counts itself.
    """

    def __init__(self, llm):
        self.decoder, self.config = llm.base_model, llm.config
        self.labels: list[tuple] = []
        self.next = 0
        self.keys = [None] * self.config.num_hidden_layers
        self.values = [None] * self.config.num_hidden_layers

    def read(self, embeds: torch.Tensor, labels: list[tuple]) -> torch.Tensor:
        x, new, held = embeds, embeds.shape[1], len(self.labels)
        positions = torch.arange(held + new)
        for number, layer in enumerate(self.decoder.layers):
            attention, normed = layer.self_attn, layer.input_layernorm(x)
            query, key, value = (
                part(normed).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
                for part in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            if hasattr(attention, "q_norm"):
                query, key = attention.q_norm(query), attention.k_norm(key)
            if held:
                key, value = torch.cat([self.keys[number], key], 2), torch.cat([self.values[number], value], 2)
            self.keys[number], self.values[number] = key, value
            frequencies, window = self.kind_of(number)
            groups = query.shape[1] // key.shape[1]
            out = scaled_dot_product_attention(
                rotate(query, positions[held:], frequencies),
                rotate(key, positions, frequencies).repeat_interleave(groups, 1),
                value.repeat_interleave(groups, 1),
                attn_mask=torch.ones(new, held + new, dtype=torch.bool).tril(held).triu(held - window + 1),
                scale=attention.scaling,
            )
            out = attention.o_proj(out.transpose(1, 2).flatten(2))
            if hasattr(layer, "pre_feedforward_layernorm"):  # Gemma 3
                x = x + layer.post_attention_layernorm(out)
                x = x + layer.post_feedforward_layernorm(layer.mlp(layer.pre_feedforward_layernorm(x)))
            else:
                x = x + out
                x = x + layer.mlp(layer.post_attention_layernorm(x))
        self.labels = [*self.labels, *((*label, self.next + place) for place, label in enumerate(labels))]
        self.next += len(labels)
        return self.decoder.norm(x)

    def kind_of(self, number: int) -> tuple[torch.Tensor, int]:
        """The frequencies of a layer, and how many tokens one sees there."""
        config, rotary = self.config, self.decoder.rotary_emb
        kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
        window = getattr(config, "sliding_window", None) if kinds[number] == "sliding_attention" else None
        frequencies = getattr(rotary, f"{kinds[number]}_inv_freq", getattr(rotary, "inv_freq", None))
        if not getattr(config, "no_rope_layers", [1] * config.num_hidden_layers)[number]:
            frequencies = torch.zeros_like(frequencies)
        return frequencies, window or 10**6

    def keep(self, wanted) -> None:
        index = torch.tensor([place for place, label in enumerate(self.labels) if wanted(label)])
        self.labels = [self.labels[place] for place in index]
        self.keys = [key[:, :, index] for key in self.keys]
        self.values = [value[:, :, index] for value in self.values]


@torch.no_grad()
def plain_mm_sink(
    model,
    captions: list[str],
    *,
    window: int,
    first: int,
    words: int,
    images: int,
    head: int,
    tail: int,
    budget: int,
    states=None,
    early=False,
):
    """Features of every page, and how many tokens were held after it.

    Args:
        model: The story model.
        captions: The whole story's captions.
        window: Pages that stay whole.
        first: Tokens of the story's start that stay.
        words: Pages whose words stay: the first one, then those where the names came in that were used again last,
            then the earliest ones that introduce somebody.
        images: Pages of whose pictures head and tail stay: the first one, and the last ones.
        head: Visual tokens that stay at a picture's head.
        tail: The same at its tail.
        budget: Most tokens that stay of pages that are not whole.
        states: Story states by the page before which they stand; the last one that was read stays.
        early: Whether that of page 1 stands in page 0.
    """
    layout, reader = model.layout, PlainReader(model.llm)
    n, labels, results = layout.num_visual_tokens, countdown(len(captions)), []

    def embed(ids):
        return model.embed_tokens(torch.tensor([ids]))

    def stays(page, place):
        return place in (-1, n) or place < head or place >= n - tail

    start = [*layout.opening_ids, *layout.page_label_ids(labels[0])]
    reader.read(embed(start), [(0, "text", 0)] * len(start))
    everything, came_in, last_used = [], {}, {}
    for page, caption in enumerate(captions):
        came_in[page] = set()
        last_used |= {name: page for name in last_used if name in find_capitals(caption)}
        for name in find_names(caption) - last_used.keys():
            whole = range(max(0, page - window), page + 1)
            earliest = next(one for one in whole if name in find_capitals(captions[one]))
            came_in[earliest].add(name)
            last_used[name] = 0 if earliest == page else page
        ids = layout.caption_ids(caption)
        for token in ids:
            reader.read(embed([token]), [(page, "text", 0)])
        if early and page == 0:
            state = layout.opening_state_ids(states[1], labels[1])
            reader.read(embed(state), [(0.5, "state", 0)] * len(state))
        hidden = [reader.read(embed([layout.image_start_id]), [(page, "picture", -1)])]
        hidden = [reader.read(embed([query]), [(page, "query", 0)]) for query in layout.query_ids]
        reader.keep(lambda label: label[1] != "query")
        reader.next -= n
        features = model.decode_features(torch.cat(hidden, 1))
        results.append((features[0], len(reader.labels)))
        if page + 1 == len(captions):
            return results
        reader.read(model.embed_images(features), [(page, "picture", place) for place in range(n)])
        reader.read(embed([layout.image_end_id]), [(page, "picture", n)])
        if states and page + 1 in states and not (early and page == 0):
            state = layout.state_ids(states[page + 1], labels[page + 1])
            reader.read(embed(state), [(page + 0.5, "state", 0)] * len(state))
        label = layout.page_label_ids(labels[page + 1])
        reader.read(embed(label), [(page + 1, "text", 0)] * len(label))
        everything = sorted({*everything, *reader.labels}, key=lambda label: label[3])
        left = page - window  # the last page that is not whole

        def places(wanted, everything=everything, left=left):
            return {label[3] for label in everything if label[0] <= left and wanted(*label)}

        kept = places(lambda page, kind, place, at: at < first)
        first_image = places(lambda page, kind, place, at: page == 0 and kind == "picture" and stays(page, place))
        groups = [first_image] if images else []
        met = {one: max(last_used[name] for name in came_in[one]) for one in range(1, left + 1) if came_in[one]}
        salient_pages = [0, *sorted(met, key=lambda one: (-met[one], one))][:words]
        groups += [places(lambda p, kind, place, at, one=one: p == one and kind == "text") for one in salient_pages]
        groups += [
            places(lambda p, kind, place, at, one=one: p == one and kind == "picture" and stays(p, place))
            for one in range(left, max(0, left - images + 1), -1)
        ]
        for tokens in groups if budget else []:
            if len(kept | tokens) <= budget:
                kept |= tokens
        current = max((label[0] for label in reader.labels if label[1] == "state"), default=None)
        reader.keep(
            lambda label, kept=kept, left=left, current=current: (
                label[0] > left + (0.5 if label[1] == "state" else 0) or label[3] in kept or label[0] == current
            )
        )
        held = {label[3] for label in reader.labels}
        for one in range(left + 1):
            if not places(lambda p, kind, place, at, one=one: p == one and kind == "text") <= held:
                for name in came_in[one]:
                    del last_used[name]  # who is introduced by words that are gone is unknown
                came_in[one] = set()
    return results
