"""The benchmark's figures as tables, ratios first.

What `inference.benchmark --json` writes, schema 1 (a *spread* is `{median, min, max, count}`; null: not measured)

    options, machine                     what was asked, where it ran, load average before and after
    models.NAME
      shape                              of the language model, and its weights
      memory_bandwidth_gb_per_s          spread, measured between the stories
      lm_phase_speedup_vs_reference      decoding → spread over repeats of the ratio of page times
      lm_phase_speedup_vs_hf             the same against plain Hugging Face
      decode_bandwidth_share             system → bytes that a step must read / its time / median bandwidth
      systems.NAME                       "reference", "hf" and decodings; null if refused
        page_ms, caption_ms, picture_ms, context_ms, decode_tokens_per_s, decode_gb_per_s      spreads over pages
        weights_gb_per_step, keys_values_gb_per_step      what a decoding step must read
        first_page_s                     until the first page of the first story: its opening is read, and what is
                                         compiled at first use
        peak_memory_mb                   weights + what the first story added to the program at rest, at its peak
        caption_tokens                   spread; tokens of the caption as the pages after it see it
      refused                            decoding → why it does not run here
      page200_over_page20                policy → spread of the ratio over ten pairs of pages, near_ms, far_ms, decoding
      rss_growth_page20_to_1000          growth (0.01 is one percent), near_mb, far_mb
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

TITLES = {"reference": "reference", "hf": "Hugging Face"}


def print_report(report: dict[str, Any], console: Console) -> None:
    where = report["machine"]
    console.print(
        f"{where['device']}, {where['threads']} threads, torch {where['torch']}, transformers {where['transformers']}, "
        f"load {_loads(where['load_average'])} → {_loads(where['load_average_after'])}",
        highlight=False,
    )
    for name, model in report["models"].items():
        shape, speed = model["shape"], model["memory_bandwidth_gb_per_s"]
        console.print(
            f"\n[bold]{name}[/bold]: {shape['layers']} layers, {shape['width']} wide, {shape['weights_mb']:.0f} MB "
            f"{shape['dtype']}, {shape['visual_tokens']} visual tokens; captions of "
            f"{report['options']['caption_tokens']} tokens; memory {_spread(speed, '.1f')} GB/s",
            highlight=False,
        )
        console.print(_ratios(model), _times(model), _reading(model))
        for decoding, reason in model["refused"].items():
            console.print(f"{decoding}: not here. {reason}", highlight=False)
        console.print(*_long_stories(model))


def _ratios(model: dict[str, Any]) -> Table:
    table = Table(title="times faster, language model's part of a page (least–greatest)")
    table.add_column("ours")
    for column in ("than the reference", "than Hugging Face", "memory bandwidth"):
        table.add_column(column, justify="right")
    for name, ratio in model["lm_phase_speedup_vs_reference"].items():
        share = model["decode_bandwidth_share"][name]
        other = model["lm_phase_speedup_vs_hf"][name]
        table.add_row(name, _spread(ratio, ".2f"), _spread(other, ".2f"), "-" if share is None else f"{share:.0%}")
    return table


def _times(model: dict[str, Any]) -> Table:
    table = Table(title="ms a page")
    table.add_column("system")
    for column in ("page (least–greatest)", "caption", "picture", "context", "peak MB"):
        table.add_column(column, justify="right")
    for name, system in model["systems"].items():
        if system is not None:
            parts = (f"{system[f'{part}_ms']['median']:.0f}" for part in ("caption", "picture", "context"))
            peak = system["peak_memory_mb"]
            table.add_row(
                TITLES.get(name, name),
                _spread(system["page_ms"], ".0f"),
                *parts,
                "-" if peak is None else f"{peak:.0f}",
            )
    return table


def _reading(model: dict[str, Any]) -> Table:
    table = Table(title="decoding, and what a step must read (share: of the memory bandwidth)")
    table.add_column("system")
    for column in ("tokens a second", "weights", "K/V", "read", "share"):
        table.add_column(column, justify="right")
    for name, system in model["systems"].items():
        if system is not None:
            table.add_row(
                TITLES.get(name, name),
                _spread(system["decode_tokens_per_s"], ".1f"),
                f"{system['weights_gb_per_step'] * 1e3:.0f} MB",
                f"{system['keys_values_gb_per_step'] * 1e3:.0f} MB",
                f"{system['decode_gb_per_s']['median']:.1f} GB/s",
                f"{system['decode_bandwidth_share']:.0%}",
            )
    return table


def _long_stories(model: dict[str, Any]) -> list[Table | str]:
    ratios, growth = model["page200_over_page20"], model["rss_growth_page20_to_1000"]
    if ratios is None:
        return ["long stories: not measured"]
    table = Table(title=f"page 200 over page 20 ({next(iter(ratios.values()))['decoding']})")
    for column in ("policy", "ratio", "ms at 20", "ms at 200"):
        table.add_column(column, justify="left" if column == "policy" else "right")
    for policy, ratio in ratios.items():
        table.add_row(policy, _spread(ratio, ".2f"), _spread(ratio["near_ms"], ".0f"), _spread(ratio["far_ms"], ".0f"))
    if growth is None:
        return [table, "memory of a thousand pages: not measured"]
    return [
        table,
        f"memory from page 20 to page 1000 (mm_sink): {growth['near_mb']:.0f} → {growth['far_mb']:.0f} MB, "
        f"{growth['growth']:+.2%}",
    ]


def _spread(values: dict[str, Any] | None, form: str) -> str:
    return "-" if values is None else f"{values['median']:{form}} ({values['min']:{form}}–{values['max']:{form}})"


def _loads(loads: list[float] | None) -> str:
    return "unknown" if loads is None else " ".join(map(str, loads))
