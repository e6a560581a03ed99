"""Lines to copy out of a report or a model card. As they stand they work where the run was begun: in that folder; of a
run that was given its model as an object, where that goes by the name `model`.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from ice_ray.invocation import job_words
from ice_ray.models.registry import ModelSpec

_BEGUN_IN_PYTHON = "ice_ray.search("


def loading(pruned_model: str, model: str, commands: Sequence[str]) -> str:
    """Python that loads a pruned model.

    Args:
        pruned_model: its folder or address.
        model: how its dense form is built, as records have it.
        commands: that made the run, as records have them.

    >>> print(loading("runs/a/pruned_model", "mine.nets:build", ["ice-ray prune"]))
    import ice_ray
    from mine.nets import build
    <BLANKLINE>
    model = ice_ray.load_pruned("runs/a/pruned_model", builder=build)
    >>> print(loading("runs/a/pruned_model", "__main__:Net", ["ice_ray.search(model, train, val)"]))
    import ice_ray
    <BLANKLINE>
    pruned = ice_ray.load_pruned("runs/a/pruned_model", builder=lambda: model)
    """
    name = "pruned" if _is_object(commands) else "model"
    return _python(f"{name} = ice_ray.load_pruned({_quoted(pruned_model)}", model, commands)


def exporting(pruned_model: str, model: str, commands: Sequence[str]) -> str:
    """The command that writes a pruned model as ONNX; Python where no command can name what builds it. Arguments as for
    `loading`.

    >>> exporting("runs/a/pruned_model", "mine.nets:build", ["ice-ray prune"]).partition("export ")[2]
    'runs/a/pruned_model --format onnx --builder mine.nets:build'
    """
    if _is_object(commands):
        return _python(f'ice_ray.export({_quoted(pruned_model)}, "onnx"', model, commands)
    own = [] if ModelSpec(model, 1).is_known else ["--builder", model]
    return shlex.join([*job_words("export"), pruned_model, "--format", "onnx", *own])


def replaying(run: str, commands: Sequence[str]) -> str:
    """What runs stage 2 after a search.

    Args:
        run: the search's folder or address.
        commands: that made it, as records have them.
    """
    if is_python(commands[0]):
        return pasted(f"{commands[0].removesuffix(')')}, resume=True)")
    return shlex.join([*job_words("replay"), "--config", f"{run}/best.json"])


def uploading(pruned_model: str) -> str:
    """The command that gives a pruned model to the Hugging Face hub."""
    return shlex.join(["hf", "upload", "USER/MODEL", pruned_model])


def is_python(command: str) -> bool:
    """Whether what made a run, or a replay of one, is a line of Python and no command for a shell."""
    return command.startswith((_BEGUN_IN_PYTHON, "study."))


def pasted(command: str) -> str:
    """A line of Python that made a run, so that it and the lines that follow it can be run; a command as it is.

    >>> print(pasted("ice_ray.search(model, train, val, name='a')"))
    import ice_ray
    <BLANKLINE>
    study = ice_ray.search(model, train, val, name='a')
    """
    return f"import ice_ray\n\nstudy = {command}" if command.startswith(_BEGUN_IN_PYTHON) else command


def _is_object(commands: Sequence[str]) -> bool:
    return commands[0].startswith(f"{_BEGUN_IN_PYTHON}model,")


def _quoted(path: str) -> str:
    return json.dumps(path, ensure_ascii=False)


def _python(call: str, model: str, commands: Sequence[str]) -> str:
    if _is_object(commands):
        return f"import ice_ray\n\n{call}, builder=lambda: model)"
    if ModelSpec(model, 1).is_known:
        return f"import ice_ray\n\n{call})"
    module, _, name = model.partition(":")
    return f"import ice_ray\nfrom {module} import {name}\n\n{call}, builder={name})"
