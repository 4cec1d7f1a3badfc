"""The Hugging Face Hub: fetching models, and pushing one with a model card."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seedstory.errors import ModelError

logger = logging.getLogger(__name__)

PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.md")
_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")


def is_repo_id(name: str | Path) -> bool:
    """Whether a name looks like `owner/model` on the Hub."""
    return isinstance(name, str) and _REPO_ID.fullmatch(name) is not None and not name.startswith(".")


def download(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    allow_patterns: Sequence[str] = PATTERNS,
) -> Path:
    """Fetches a model from the Hub, or finds it in the Hub's local cache.

    Args:
        repo_id: `owner/model`.
        revision: A branch, a tag or a commit; by default `main`.
        token: An access token; by default the one that `hf auth login` stored.
        cache_dir: Where downloads are kept; by default the Hub's own cache folder.
        local_files_only: Only look into the cache.
        allow_patterns: Files to fetch. Weights are safetensors only; pickles are never fetched.

    Returns:
        The local folder.

    Raises:
        ModelError: There is no such model, it may not be read, or the Hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    logger.info("fetching %s from the Hub", repo_id)
    try:
        folder = snapshot_download(
            repo_id,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            allow_patterns=list(allow_patterns),
        )
    except GatedRepoError:
        reason = "it is gated: ask for access on its page and pass a token"
    except RepositoryNotFoundError:
        reason = "there is no such model, or it is private: check the name, or pass a token"
    except RevisionNotFoundError:
        reason = f"it has no revision {revision}: check its branches and tags"
    except LocalEntryNotFoundError:
        where = "and only the cache was to be searched" if local_files_only else "and the Hub cannot be reached"
        reason = f"it is not in the local cache, {where}"
    except Exception as error:  # noqa: BLE001 - the Hub's library raises many kinds, and all mean the same here
        reason = f"the Hub answered with {type(error).__name__}: check the name and the network"
    else:
        return Path(folder)
    raise ModelError(f"{repo_id} cannot be fetched from the Hugging Face Hub: {reason}")


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    commit_message: str,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> str:
    """Uploads a folder to a model repository on the Hub, which is made where it is missing.

    Returns:
        The address of the commit.

    Raises:
        ModelError: The Hub refused it or cannot be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    try:
        repo = api.create_repo(repo_id, private=private, exist_ok=True, repo_type="model")
        commit = api.upload_folder(
            repo_id=repo.repo_id,
            folder_path=str(folder),
            commit_message=commit_message,
            revision=revision,
            create_pr=create_pr,
        )
    except Exception as error:
        raise ModelError(
            f"{repo_id} cannot be pushed to the Hugging Face Hub ({type(error).__name__}): log in with `hf auth login` "
            "or pass a token, and check the name"
        ) from error
    return str(commit.commit_url)


def model_card(
    name: str, base_lm: str, facts: dict[str, str], files: dict[str, str], credits: Mapping[str, Any] | None = None
) -> str:
    """The README.md of a model on the Hub.

    Args:
        name: The model's name.
        base_lm: Its base language model, by name or Hub id; "" if it lies in the same repository.
        facts: Rows of the table of facts.
        files: SHA-256 of each weight file by its path.
        credits: What `seedstory.model_credits` read of its folder.
    """
    license = [f"license: {credits['license']}"] if credits else []
    base = [f"base_model: {base_lm}"] if is_repo_id(base_lm) else []
    head = [
        "---",
        "library_name: seedstory",
        *license,
        "pipeline_tag: text-to-image",
        *base,
        "tags:",
        "- story-generation",
    ]
    head += ["- story-visualization", "- multimodal", "---"]
    table = ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts.items())]
    sums = ["| file | SHA-256 |", "|---|---|", *(f"| `{path}` | `{digest}` |" for path, digest in files.items())]
    where = "is not part of this repository; it is fetched by its name" if base_lm else "is in `story_model/base_lm`"
    terms = "\n".join(f"- {line}" for line in (credits or {}).get("credits", ()))
    about = "Say here which data the model was trained on, under which license you share it,"
    if terms:
        about = f"{terms}\n\nSay here what else it was trained on,"
    body = f"""
# {name}

A model for seedstory: it writes an illustrated story page by page from a text, an image or both.

```python
from seedstory import StoryPipeline

pipeline = StoryPipeline.from_pretrained("{name}")
output = pipeline("Once upon a time there was a small fox.", pages=10, seed=7, out="stories/fox")
```

## What it is
{chr(10).join(table)}

## Weights
The base language model {where}.

{chr(10).join(sums)}

## Data, license and limits
{about} what it is good for and where it fails.
"""
    return "\n".join(head) + "\n" + body
