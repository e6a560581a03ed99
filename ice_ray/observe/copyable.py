"""Lines to copy out of a report or a model card. As they stand they work in the folder that the job was started in."""

from __future__ import annotations

import json
import shlex

from ice_ray.invocation import job_words
from ice_ray.models.registry import ModelSpec

_NOTEBOOK = "__main__"


def loading(pruned_model: str, model: str) -> str:
    """Python that loads a pruned model.

    Args:
        pruned_model: its folder or address.
        model: how its dense form is built, as records have it.

    >>> print(loading("runs/a/pruned_model", "mine.nets:build"))
    import ice_ray
    from mine.nets import build
    <BLANKLINE>
    model = ice_ray.load_pruned("runs/a/pruned_model", builder=build)
    """
    return _python(f"model = ice_ray.load_pruned({_quoted(pruned_model)}", model)


def exporting(pruned_model: str, model: str) -> str:
    """The command that writes a pruned model as ONNX; in Python where no command can name what builds it.

    >>> exporting("runs/a/pruned_model", "mine.nets:build").partition("export ")[2]
    'runs/a/pruned_model --format onnx --builder mine.nets:build'
    """
    if model.startswith(f"{_NOTEBOOK}:"):
        return _python(f'ice_ray.export({_quoted(pruned_model)}, "onnx"', model)
    own = [] if ModelSpec(model, 1).is_known else ["--builder", model]
    return shlex.join([*job_words("export"), pruned_model, "--format", "onnx", *own])


def replaying(run: str) -> str:
    """The command of stage 2.

    Args:
        run: the search's folder or address.
    """
    return shlex.join([*job_words("replay"), "--config", f"{run}/best.json"])


def uploading(pruned_model: str) -> str:
    """The command that gives a pruned model to the Hugging Face hub."""
    return shlex.join(["hf", "upload", "USER/MODEL", pruned_model])


def is_python(line: str) -> bool:
    """Whether a line that begins a run is Python, of a run that was begun there, and no command for a shell."""
    return line.startswith("ice_ray.")


def _quoted(path: str) -> str:
    return json.dumps(path, ensure_ascii=False)


def _python(call: str, model: str) -> str:
    if ModelSpec(model, 1).is_known:
        return f"import ice_ray\n\n{call})"
    module, _, name = model.partition(":")
    imported = "" if module == _NOTEBOOK else f"from {module} import {name}\n"
    return f"import ice_ray\n{imported}\n{call}, builder={name})"
