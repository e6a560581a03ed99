"""The teacher answers once; what it said before is as good as what it would say again."""

import pytest
import torch

from ice_ray.cache.teacher import LocalTeacherCache, Teacher, TeacherAnswers
from ice_ray.engine.actions import FineTune, Prune, Score
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.training.fine_tune import Recipe

CPU = torch.device("cpu")
TAUGHT = FineTune(("step", 1), 0.05, 2, "constant", ())


def fine_tuned(network, data, book=None):
    executor = TorchExecutor(network, data, Recipe(batch_size=64), 0, CPU)
    executor.fine_tuner.teacher_cache = book
    scores = executor.run(executor.root, Score(1, "l1")).value
    removed = tuple((layer, tuple(range(len(each) // 2))) for layer, each in scores.items())
    outcome = executor.run(executor.run(executor.root, Prune(removed)).snapshot, TAUGHT)
    return outcome, executor.module(outcome.snapshot).state_dict()


class Counting(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return 2 * batch


def test_known_answers_are_repeated_and_the_others_given():
    batches = torch.arange(6.0).view(3, 2)
    first = Teacher(Counting(), None, CPU)
    assert [first(batch).tolist() for batch in batches[:2]] == (2 * batches[:2]).tolist()
    model = Counting()
    second = Teacher(model, first.answers(), CPU)
    assert [second(batch).tolist() for batch in batches] == (2 * batches).tolist()
    assert model.calls == 1
    whole = second.answers()
    assert whole is not None
    assert len(whole.logits) == len(whole.seconds) == 3
    assert second.inherited_seconds == pytest.approx(sum(whole.seconds[:2]))
    assert whole.seconds[:2] == first.answers().seconds


def test_no_more_is_remembered_than_there_is_room_for():
    batches = torch.arange(6.0).view(3, 2)
    teacher = Teacher(Counting(), None, CPU, limit=20)
    assert [teacher(batch).tolist() for batch in batches] == (2 * batches).tolist()
    answers = teacher.answers()
    assert answers is not None
    assert len(answers.logits) == len(answers.seconds) == 2


def test_where_nothing_new_was_said_there_is_nothing_to_keep():
    teacher = Teacher(Counting(), TeacherAnswers([torch.zeros(2)] * 3, [1.0, 2.0, 4.0]), CPU)
    teacher(torch.zeros(2))
    teacher(torch.zeros(2))
    assert teacher.answers() is None
    assert teacher.inherited_seconds == 3.0  # of the answers that were used


def test_a_student_of_remembered_answers_learns_the_same_bits(network, data):
    book = LocalTeacherCache()
    (outcome, live), (given, first), (taken, second) = (fine_tuned(network, data, each) for each in (None, book, book))
    assert outcome.snapshot == given.snapshot == taken.snapshot
    assert outcome.cost.flops == given.cost.flops == taken.cost.flops
    for key, tensor in live.items():
        assert torch.equal(tensor, first[key])
        assert torch.equal(tensor, second[key])


def test_what_it_was_spared_is_part_of_its_cost(network, data):
    """A teacher that took an hour in the past makes a fine-tune that takes an hour."""

    class Slow(LocalTeacherCache):
        def get(self, key):
            answers = super().get(key)
            return answers and TeacherAnswers(answers.logits, [3600.0, *answers.seconds[1:]])

    book = Slow()
    (first, _), (second, _) = (fine_tuned(network, data, book) for _ in range(2))
    assert first.cost.wall_seconds < 3600 < second.cost.wall_seconds


def test_a_book_forgets_what_was_not_used_for_longest():
    book = LocalTeacherCache(limit=100)
    for key in "ab":
        book.put(key, TeacherAnswers([torch.zeros(10)], [0.0]))
    book.get("a")
    book.put("c", TeacherAnswers([torch.zeros(10)], [0.0]))
    assert [book.get(key) is not None for key in "abc"] == [True, False, True]
