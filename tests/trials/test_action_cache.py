"""What the server keeps, within its budget, and what a new one finds again. Without Ray's processes."""

import torch

from ice_ray.cache.actions import ActionRecord
from ice_ray.cache.storage import NetworkFiles
from ice_ray.cache.teacher import TeacherAnswers
from ice_ray.engine.actions import FineTune, Measure, Outcome, Prune, next_id
from ice_ray.engine.cost import Cost
from ice_ray.engine.snapshots import Snapshot
from ice_ray.trials.action_cache import ActionCacheServer, Budget, excess

PLENTY = Budget(1e9, 1e9)


def fine_tune(before: str, rate: float, seconds: float) -> tuple[ActionRecord, Snapshot]:
    action = FineTune(("step", 1), rate, 1, "constant", ())
    after = next_id(before, action)
    return ActionRecord(before, action, Outcome(after, None, Cost(seconds))), Snapshot(
        after, {}, {"w": torch.zeros(25)}
    )


def told(server: ActionCacheServer, folder, *fine_tunes) -> list[str]:
    """As workers do it: the file, then the action record."""
    for record, content in fine_tunes:
        NetworkFiles(folder / "networks").save(content)
        server.tell(record)
        server.keep(content.id, 100, [content])
    return [content.id for _, content in fine_tunes]


def on_disk(folder) -> set[str]:
    return set(NetworkFiles(folder / "networks").sizes())


def test_a_new_server_knows_what_the_old_one_was_told(tmp_path):
    old = ActionCacheServer(tmp_path, PLENTY)
    (fine_tuned,) = told(old, tmp_path, fine_tune("root", 0.1, 5))
    assert old.ask("root", Measure(), "a") == "granted"
    new = ActionCacheServer(tmp_path, PLENTY)
    assert new.records(0) == old.records(0)
    assert new.origin(fine_tuned) == old.records(0)[0]
    assert new.ask("root", Measure(), "b") == "granted"  # claims are gone, action records are not
    assert new.held(fine_tuned) is None
    assert NetworkFiles(tmp_path / "networks").load(fine_tuned) is not None


def test_told_twice_is_written_once(tmp_path):
    server = ActionCacheServer(tmp_path, PLENTY)
    told(server, tmp_path, fine_tune("root", 0.1, 5), fine_tune("root", 0.1, 6))
    assert len(server.records(0)) == len(ActionCacheServer(tmp_path, PLENTY).records(0)) == 1


def test_memory_lets_go_of_the_oldest_and_storage_has_it(tmp_path):
    server = ActionCacheServer(tmp_path, Budget(250, 1e9))
    first, second, third = told(server, tmp_path, *(fine_tune("root", rate, 5) for rate in (0.1, 0.2, 0.3)))
    assert server.held(first) is None
    assert server.held(second).id == second
    assert server.held(third).id == third
    assert on_disk(tmp_path) == {first, second, third}
    server.hold("answers", 100, [TeacherAnswers([torch.zeros(25)], [0.0])])
    assert server.held(second) is None
    assert server.held("answers") is not None


def test_what_is_larger_than_the_memory_is_not_held_and_throws_nothing_out(tmp_path):
    server = ActionCacheServer(tmp_path, Budget(150, 1e9))
    (small,) = told(server, tmp_path, fine_tune("root", 0.1, 5))
    server.hold("answers", 200, [TeacherAnswers([torch.zeros(50)], [0.0])])
    assert server.held("answers") is None
    assert server.held(small) is not None


def test_storage_lets_go_of_what_is_made_again_soonest(tmp_path):
    server = ActionCacheServer(tmp_path, Budget(1e9, 250))
    slow, quick, middle = told(server, tmp_path, *(fine_tune("root", s / 100, s) for s in (9, 1, 5)))
    assert on_disk(tmp_path) == {slow, middle}
    assert server.held(quick) is None


def test_what_nobody_needs_goes_but_not_what_came_after_the_asking(tmp_path):
    server = ActionCacheServer(tmp_path, PLENTY)
    first, _, third = told(server, tmp_path, *(fine_tune("root", rate, 5) for rate in (0.1, 0.2, 0.3)))
    server.keep_only({first}, known=2)
    assert on_disk(tmp_path) == {first, third}
    server.keep_only(set(), known=3)
    assert on_disk(tmp_path) == set()


def test_the_network_that_a_snapshot_is_made_from_is_the_last_one_kept(tmp_path):
    server = ActionCacheServer(tmp_path, PLENTY)
    (fine_tuned,) = told(server, tmp_path, fine_tune("root", 0.1, 5))
    removal = Prune((("a", (0,)),))
    pruned = next_id(fine_tuned, removal)
    server.tell(ActionRecord(fine_tuned, removal, Outcome(pruned, None, Cost(0.1))))
    again = Prune((("b", (0,)),))
    server.tell(ActionRecord(pruned, again, Outcome(next_id(pruned, again), None, Cost(0.1))))
    index = server
    assert index.nearest_kept(next_id(pruned, again)) == index.nearest_kept(fine_tuned) == fine_tuned
    assert index.nearest_kept("root") is None


def test_excess_is_nothing_where_all_fits():
    sizes, seconds = {"a": 5, "b": 5}, {"a": 1.0, "b": 2.0}
    assert excess(sizes, seconds, (), 10) == []
    assert excess(sizes, seconds, (), 9) == ["a"]
    assert excess(sizes, seconds, (), 0) == ["a", "b"]
    assert excess(sizes, seconds, {"a"}, 9) == ["b"]
