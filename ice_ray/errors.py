"""What can go wrong in words a user can act on."""

from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_LONGEST_LINE = 1000
_WRAPPED = ("cause", "controller_failure", "_base_exc", "__cause__")  # where Ray's kinds keep what they carry


class UserError(Exception):
    """Input that is wrong: one line that names the fault and the mend. Jobs end with exit code 2."""


class FieldError(UserError):
    """A field of a settings object with a value that it does not take.

    Where settings come from a command line, `ice_ray.config` says it of the option.

    Attributes:
        owner: the class of the settings object.
        field: its field.
        said: the value and what is wrong with it.
    """

    def __init__(self, owner: type, field: str, said: str) -> None:
        super().__init__(owner, field, said)
        self.owner, self.field, self.said = owner, field, said

    def __str__(self) -> str:
        return f"{self.field} {self.said}"


def require(settings: object, field: str, holds: bool, bound: str) -> None:
    """Refuse settings of which a field is out of bounds.

    Raises:
        FieldError: unless `holds`; it says the value of the field and `bound`.
    """
    if not holds:
        raise FieldError(type(settings), field, f"{getattr(settings, field)} {bound}")


def require_kinds(settings: object) -> None:
    """Refuse settings, a dataclass, of which a field is of another kind than its type says.

    That is text for a number, a number for yes or no, or a word that is none of those it takes. NumPy's numbers are
    some; fields of other types than these pass.

    Raises:
        FieldError: says the value of the field and what it must be.
    """
    for name, hint in get_type_hints(type(settings)).items():
        wanted = [hint]
        while any(get_origin(each) in (Union, UnionType, Literal) for each in wanted):
            wanted = [inner for each in wanted for inner in (get_args(each) or (each,))]
        words = [each for each in wanted if isinstance(each, str)]
        said = [_KINDS[each] for each in _KINDS if each in wanted] + [f"one of {', '.join(words)}"] * bool(words)
        value = getattr(settings, name)
        if said and not any(_is_of(value, each) for each in wanted):
            raise FieldError(type(settings), name, f"{value!r:.80} must be {' or '.join(said)}")


_KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a word"}


def _is_of(value: object, wanted: Any) -> bool:
    if isinstance(value, bool) or wanted is bool:
        return isinstance(value, bool) and wanted is bool
    kinds: dict[object, type] = {int: Integral, float: Real, str: str, NoneType: NoneType}
    return isinstance(value, kinds[wanted]) if wanted in kinds else value == wanted


class DataError(UserError):
    """An image or a label that cannot be used, named by file and row."""


class OwnCodeError(UserError):
    """Code of the user's own that raised, or that gives what cannot be used.

    Attributes:
        details: its traceback, where it raised; for whoever asks for more than a line.
    """

    def __init__(self, said: str, details: str = "") -> None:
        super().__init__(said, details)
        self.details = details

    def __str__(self) -> str:
        return str(self.args[0])


class RunError(Exception):
    """A run that cannot go on through no fault of its input. Jobs end with exit code 1 and stay resumable."""


class StorageError(RunError):
    """The run's storage refuses what has to be written, and did so for as long as was worth waiting."""


class ForgottenError(RunError):
    """What a run stands on is neither kept nor can be made again: its history is lost."""


class TrialFailure(Exception):
    """A fault that belongs to one set of hyperparameters and would come again: the trial ends, the search goes on."""


class DivergedError(TrialFailure):
    """The training loss stopped being a finite number."""


class OutOfMemoryError(TrialFailure):
    """The device's memory, or this trial's share of it, did not suffice."""


def told(error: BaseException) -> Exception | None:
    """The fault in our own words that an error of a library carries, however that has wrapped it; None if it has none.

    Ray hands on an exception of another process as the cause of one of its own, or in a list of what each worker
    raised.
    """
    waiting, seen = [error], set[int]()
    while waiting:
        each = waiting.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        # Ray makes kinds that are ours and its own at once; their text is a traceback.
        if isinstance(each, (UserError, RunError, TrialFailure)) and type(each).__module__ == __name__:
            return each
        wrapped = [getattr(each, name, None) for name in _WRAPPED]
        wrapped += (getattr(each, "worker_failures", None) or {}).values()
        waiting += [inner for inner in wrapped if isinstance(inner, BaseException)]
    return None


def in_one_line(text: str) -> str:
    """Text that may quote anything, on one line, what cannot be printed written out, its middle left out if long.

    >>> print(in_one_line("no such file: a" + chr(10) + "b" + chr(27) + "[2J"))
    no such file: a b\\x1b[2J
    """
    line = "".join(each if each.isprintable() else repr(each)[1:-1] for each in " ".join(text.split()))
    return line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE // 2]} ... {line[-_LONGEST_LINE // 2 :]}"


def nearest(name: str, valid: list[str]) -> str:
    """The valid names, those most like `name` first, as one phrase for an error message.

    >>> nearest("cifar1O", ["digits", "cifar10"])
    'nearest: cifar10; valid: cifar10, digits'
    """
    import difflib

    close = difflib.get_close_matches(name, valid, n=3, cutoff=0.5)
    listed = f"valid: {', '.join(sorted(valid))}"
    return f"nearest: {', '.join(close)}; {listed}" if close else listed
