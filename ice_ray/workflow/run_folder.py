"""A run's folder: what lies where in it, and going on with one only where it is the same run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ice_ray.address import StoragePath, storage_path
from ice_ray.claims.claim import is_of_claim
from ice_ray.config.run import RunConfig, config_from_dict
from ice_ray.engine.config import Found
from ice_ray.environment import environment
from ice_ray.errors import UserError
from ice_ray.files import damage_named, sha256, write_json, write_text
from ice_ray.local_path import LocalPath
from ice_ray.trials.trial_store import trial_name
from ice_ray.workflow.given import NAMED, Given

_IGNORES = ".rayignore"
"""Names what `ray job submit --working-dir` leaves out, of the folder that it lies in."""
_ANOTHER = "take another --name"


class _Within:
    """A path of a run's folder, by its name there."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: RunFolder, kind: type[RunFolder]) -> StoragePath:
        return folder.path / self._name


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run."""

    path: StoragePath

    description = _Within("run.json")
    """run.json: every option, and the versions that ran."""
    dense_weights = _Within("dense.safetensors")
    """The dense model, where the job trained it itself, or was given it as an object."""
    target = _Within("target.json")
    """What --target led to."""
    best = _Within("best.json")
    """The winner."""
    preparation = _Within("preparation.json")
    """What all trials of the search start from."""
    replay = _Within("replay")
    """Stage 2's checkpoints."""
    replay_description = _Within("replay.json")
    """replay.json: what decides the result of the replay that was begun here."""
    replay_target = _Within("replay_target.json")
    """What the replay's own target led to, where it is not the search's."""
    trials = _Within("trials.parquet")
    """Every trial's steps."""
    report = _Within("report.html")
    """What came out, as a page for people."""
    summary = _Within("summary.json")
    """What came out, with the time of each part."""
    log = _Within("log.txt")
    """The lines that the jobs have printed."""
    tensorboard = _Within("tensorboard")
    """Event files of all trials and of stage 2."""
    pruned_model = _Within("pruned_model")
    """The result."""
    ladder = _Within("ladder.png")
    """Of a ladder, all rungs: accuracy over multiply-adds and over latency."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", storage_path(self.path))

    def found(self) -> Found | None:
        """What an earlier part of this run found for its target: a measured one may differ the next time."""
        return _found(self.target)

    def replay_found(self) -> Found | None:
        """The same of a replay that has a target, or options, of its own."""
        return _found(self.replay_target)

    def replay_of(self, trial: int) -> RunFolder:
        """Where one trial of the search is replayed, apart from the winner and from other trials."""
        return self.replay_named(trial_name(trial))

    def replay_named(self, name: str) -> RunFolder:
        """Where a replay of that name lies."""
        return RunFolder(self.path / "replays" / name)

    def rung(self, name: str) -> RunFolder:
        """Where a rung of a ladder lies that others go on from; the last rung's results are the run's own."""
        return RunFolder(self.path / "rungs" / name)

    @property
    def rungs_above(self) -> tuple[RunFolder, ...]:
        """Of a ladder, the finished rungs that the results here went on from, from the top."""
        place = self.path / "rungs"
        found = [each for each in map(RunFolder, place.iterdir()) if each.is_finished] if place.is_dir() else []
        return tuple(sorted(found, key=lambda rung: -rung.outcome()["pruned"]["multiply_adds"]))

    def outcome(self) -> dict[str, Any]:
        """What the summary holds; it is there when the results are finished."""
        with damage_named(self.summary):
            return dict(json.loads(self.summary.read_text()))

    @property
    def search(self) -> RunFolder:
        """Where the search lies that the results here are of: here, or for a replay of one trial above."""
        above = self
        for _ in range(2):  # a rung may be one of a replay's
            if above.best.is_file():
                return above
            above = RunFolder(above.path.parent.parent)
        return above if above.best.is_file() else self

    @property
    def is_there(self) -> bool:
        """Whether anything is, but for a claim: a job that was killed before it began leaves no more than that."""
        if not self.path.is_dir():
            return self.path.is_file()
        with suppress(FileNotFoundError):  # it has just been removed
            return not all(is_of_claim(each) for each in self.path.iterdir())
        return False

    @property
    def is_finished(self) -> bool:
        """Whether the pruned model has been written and summed up."""
        return self.summary.is_file()

    def create(self, config: RunConfig[Any], labels: str, given: Given = NAMED) -> None:
        """Make the folder and describe the run in it; harmless where that has been done.

        Args:
            labels: digest of the data's labels.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--storage: cannot make '{self.path}' ({error.strerror})") from error
        _keep_at_home(self.path.parent)
        if not self.description.is_file():
            inputs = {"files": _files(config), "labels": labels, "given": given.record()}
            write_json(self.description, {"config": config.as_dict(), **inputs, **environment()})

    def check_files(self, config: RunConfig[Any]) -> None:
        """Raises UserError: a file that decides the result is not what it was when the run began."""
        recorded = _recorded(self.description)["files"] if self.description.is_file() else _files(config)
        for path, digest in _files(config).items():
            if recorded.get(path) != digest:
                raise UserError(f"the content of '{path}' has changed since run '{self.path.name}' began; {_ANOTHER}")

    def check_given(self, given: Given) -> None:
        """Whether what was given as an object when the run began is given so now, and is the same.

        Raises:
            UserError: it is not.
        """
        if not self.description.is_file():
            return
        before, now = _recorded(self.description)["given"], json.loads(json.dumps(given.record()))
        name = self.path.name
        for what in ("model", "data"):
            if before[what] and not now[what]:
                raise UserError(
                    f"run '{name}' was given its {what} as objects, which its folder does not hold: go on in Python "
                    f"with the same {what}, ice_ray.search(..., name='{name}', resume=True)"
                )
            if now[what] and not before[what]:
                raise UserError(f"run '{name}' was given its {what} by name: go on with that name, or {_ANOTHER}")
        if before["model"] != now["model"]:
            raise UserError(f"model is not the one that run '{name}' began with (other layers or weights); {_ANOTHER}")
        if before["data"] != now["data"]:
            raise UserError(f"train, val or test are not the images that run '{name}' began with; {_ANOTHER}")
        if before["preprocessing"] != now["preprocessing"]:
            raise UserError(
                f"preprocessing was {before['preprocessing']} when run '{name}' began and is {now['preprocessing']}; "
                f"{_ANOTHER}, or give the same"
            )

    def check_labels(self, labels: str) -> None:
        """Raises UserError: the data's labels, or their order, are not what they were when the run began."""
        if self.description.is_file() and _recorded(self.description)["labels"] != labels:
            raise UserError(
                f"the data are not those that run '{self.path.name}' began with (other labels, or another order, as "
                f"without a fixed seed); {_ANOTHER}"
            )


def _keep_at_home(storage: StoragePath) -> None:
    """Runs that lie below the working directory are not uploaded with a job that is submitted from there."""
    if isinstance(storage, LocalPath) and Path.cwd() in storage.parents and not (storage / _IGNORES).exists():
        write_text(storage / _IGNORES, "*\n")


def _found(path: StoragePath) -> Found | None:
    if not path.is_file():
        return None
    with damage_named(path):
        return _as_found(json.loads(path.read_text()), path)


def _as_found(content: Mapping[str, Any], path: StoragePath) -> Found:
    """As it was written, with the rungs above."""
    found, by_name = dict(content), ("shares", "widths", "losses")
    if not {"ratio", *by_name} <= found.keys() <= {each.name for each in dataclasses.fields(Found)}:
        raise UserError(f"'{path}' was written by another version of ice_ray, which alone goes on here; {_ANOTHER}")
    pairs = {key: tuple((str(name), value) for name, value in found[key]) for key in by_name}
    above = found.get("above")
    return Found(**{**found, **pairs, "above": None if above is None else _as_found(above, path)})


def run_folder(config: RunConfig[Any], name: str) -> RunFolder:
    """The folder of the run of that name.

    Raises:
        UserError: the address it would lie at cannot be used.
    """
    folder = RunFolder((storage_path(config.storage) / name).resolve())
    folder.path.parent.check("--storage")
    return folder


def check_run(folder: RunFolder, config: RunConfig[Any], given: Given) -> None:
    """Whether a run can begin there, or with `--resume` go on.

    Raises:
        UserError: the name is taken; or there is nothing to resume, or a result-determining option, or an object that
            was given, differs.
    """
    if not config.resume:
        if folder.is_there:
            raise UserError(f"run '{folder.path}' exists: go on with it (--resume) or take another --name")
        folder.path.parent.check_writable("--storage")
        return
    if not folder.description.is_file():
        raise UserError(f"there is no run to resume in '{folder.path}'")
    folder.check_given(given)
    recorded = config_from_dict(_recorded(folder.description)["config"], str(folder.description))
    before, now = recorded.deciding(), config.deciding()
    changed = [
        f"--{option} was {before[option]} and is {now[option]}" for option in now if now[option] != before[option]
    ]
    if changed:
        name = folder.path.name
        raise UserError(f"cannot resume '{name}' as another run: {', '.join(changed)}; {_ANOTHER}, or the same options")
    folder.check_files(config)


def _recorded(path: StoragePath) -> dict[str, Any]:
    """What `create` wrote: options, and digests of what they name."""
    with damage_named(path):
        content = json.loads(path.read_text())
        files = {str(file): str.lower(digest) for file, digest in content["files"].items()}
        given = {name: content["given"][name] for name in ("model", "data", "preprocessing")}
        return {"config": content["config"], "files": files, "labels": str.lower(content["labels"]), "given": given}


def _files(config: RunConfig[Any]) -> dict[str, str]:
    """The digests of the files that decide the result, by path."""
    path = config.weights
    return {} if path is None or not path.is_file() else {str(path): sha256(path)}
