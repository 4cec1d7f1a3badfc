"""Loads the model that a back end's settings name."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from data_tools.captioning.backend_settings import Backend, ServerSettings
from data_tools.captioning.chat import ChatModel


@cache
def load(backend: Backend, folder: Path) -> ChatModel:
    """The model of a back end, loaded once in a process.

    Args:
        backend: Which one.
        folder: Folder of the answers, where the processes that ask a server agree on their pace.
    """
    if isinstance(backend, ServerSettings):
        from data_tools.captioning.server import ServerChat

        return ServerChat(backend, folder)
    from data_tools.captioning.huggingface import HuggingFaceChat  # loads torch

    return HuggingFaceChat(backend)
