"""What the keeper keeps, within its budget, and what a new one finds again. Without Ray's processes."""

import torch

from ice_ray.engine.actions import Measure, Outcome, Prune, Recover, next_id
from ice_ray.engine.cost import Cost
from ice_ray.engine.memory import Deed
from ice_ray.engine.network_files import NetworkFiles
from ice_ray.engine.snapshots import Snapshot
from ice_ray.search.shared_memory import Budget, Keeper, excess
from ice_ray.training.lessons import Lesson

PLENTY = Budget(1e9, 1e9)


def recovery(before: str, rate: float, seconds: float) -> tuple[Deed, Snapshot]:
    action = Recover(("step", 1), rate, 1, "constant", ())
    after = next_id(before, action)
    return Deed(before, action, Outcome(after, None, Cost(seconds))), Snapshot(after, {}, {"w": torch.zeros(25)})


def told(keeper: Keeper, folder, *fine_tunes) -> list[str]:
    """As workers do it: the file, then the deed."""
    for deed, content in fine_tunes:
        NetworkFiles(folder / "networks").save(content)
        keeper.tell(deed)
        keeper.keep(content.id, 100, [content])
    return [content.id for _, content in fine_tunes]


def on_disk(folder) -> set[str]:
    return set(NetworkFiles(folder / "networks").sizes())


def test_a_new_keeper_knows_what_the_old_one_was_told(tmp_path):
    old = Keeper(tmp_path, PLENTY)
    (fine_tuned,) = told(old, tmp_path, recovery("root", 0.1, 5))
    assert old.ask("root", Measure(), "a") == "granted"
    new = Keeper(tmp_path, PLENTY)
    assert new.news(0) == old.news(0)
    assert new.origin(fine_tuned) == old.news(0)[0]
    assert new.ask("root", Measure(), "b") == "granted"  # claims are gone, deeds are not
    assert new.held(fine_tuned) is None
    assert NetworkFiles(tmp_path / "networks").load(fine_tuned) is not None


def test_told_twice_is_written_once(tmp_path):
    keeper = Keeper(tmp_path, PLENTY)
    told(keeper, tmp_path, recovery("root", 0.1, 5), recovery("root", 0.1, 6))
    assert len(keeper.news(0)) == len(Keeper(tmp_path, PLENTY).news(0)) == 1


def test_memory_lets_go_of_the_oldest_and_storage_has_it(tmp_path):
    keeper = Keeper(tmp_path, Budget(250, 1e9))
    first, second, third = told(keeper, tmp_path, *(recovery("root", rate, 5) for rate in (0.1, 0.2, 0.3)))
    assert keeper.held(first) is None
    assert keeper.held(second).id == second
    assert keeper.held(third).id == third
    assert on_disk(tmp_path) == {first, second, third}
    keeper.hold("lesson", 100, [Lesson([torch.zeros(25)], [0.0])])
    assert keeper.held(second) is None
    assert keeper.held("lesson") is not None


def test_what_is_larger_than_the_memory_is_not_held_and_throws_nothing_out(tmp_path):
    keeper = Keeper(tmp_path, Budget(150, 1e9))
    (small,) = told(keeper, tmp_path, recovery("root", 0.1, 5))
    keeper.hold("lesson", 200, [Lesson([torch.zeros(50)], [0.0])])
    assert keeper.held("lesson") is None
    assert keeper.held(small) is not None


def test_storage_lets_go_of_what_is_made_again_soonest(tmp_path):
    keeper = Keeper(tmp_path, Budget(1e9, 250))
    slow, quick, middle = told(keeper, tmp_path, *(recovery("root", s / 100, s) for s in (9, 1, 5)))
    assert on_disk(tmp_path) == {slow, middle}
    assert keeper.held(quick) is None


def test_what_nobody_needs_goes_but_not_what_came_after_the_asking(tmp_path):
    keeper = Keeper(tmp_path, PLENTY)
    first, _, third = told(keeper, tmp_path, *(recovery("root", rate, 5) for rate in (0.1, 0.2, 0.3)))
    keeper.keep_only({first}, known=2)
    assert on_disk(tmp_path) == {first, third}
    keeper.keep_only(set(), known=3)
    assert on_disk(tmp_path) == set()


def test_the_network_that_a_snapshot_is_made_from_is_the_last_one_kept(tmp_path):
    keeper = Keeper(tmp_path, PLENTY)
    (fine_tuned,) = told(keeper, tmp_path, recovery("root", 0.1, 5))
    removal = Prune((("a", (0,)),))
    pruned = next_id(fine_tuned, removal)
    keeper.tell(Deed(fine_tuned, removal, Outcome(pruned, None, Cost(0.1))))
    again = Prune((("b", (0,)),))
    keeper.tell(Deed(pruned, again, Outcome(next_id(pruned, again), None, Cost(0.1))))
    index = keeper._index
    assert index.nearest_kept(next_id(pruned, again)) == index.nearest_kept(fine_tuned) == fine_tuned
    assert index.nearest_kept("root") is None


def test_excess_is_nothing_where_all_fits():
    sizes, seconds = {"a": 5, "b": 5}, {"a": 1.0, "b": 2.0}
    assert excess(sizes, seconds, (), 10) == []
    assert excess(sizes, seconds, (), 9) == ["a"]
    assert excess(sizes, seconds, (), 0) == ["a", "b"]
    assert excess(sizes, seconds, {"a"}, 9) == ["b"]
