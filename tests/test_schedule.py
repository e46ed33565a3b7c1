from dataclasses import replace

import pytest

from lib import models, runs, schedule, studies


@pytest.mark.parametrize("error", [MemoryError, KeyError, TypeError, ValueError])
def test_whatever_goes_wrong_in_a_run_is_told_and_ends_no_other(error, toy, monkeypatch):
    def fails(*args, **kwargs):
        raise error("no room")
    monkeypatch.setattr(runs, "run_or_load", fails)
    found = list(schedule.outcomes(studies.plan("toy"), "toy", 1))
    assert [config for config, _ in found] == studies.plan("toy")
    assert {outcome for _, outcome in found} == {f"{error.__name__}: {error('no room')}"}


def test_of_two_that_mend_the_slower_leaves_the_new_run_alone(toy, monkeypatch):
    studies.main(["--profile", "toy"])
    path = runs.paths("toy")[0]
    whole = (path / "metrics.json").read_bytes()
    (path / "metrics.json").write_text("{}")
    claim = runs._claim

    def late(where):
        held = claim(where)
        (path / "metrics.json").write_bytes(whole)                          # what the faster one has trained meanwhile
        return held
    monkeypatch.setattr(runs, "_claim", late)
    assert schedule.damaged([path], mend=True) == {} and runs.load(path)


def test_every_run_of_a_worker_gets_its_share_of_the_cores(toy, monkeypatch):
    called = []

    class Parallel:
        def __init__(self, n_jobs, **options):
            called.append(n_jobs)

        def __call__(self, jobs):
            return (function(*args, **kwargs) for function, args, kwargs in jobs)
    monkeypatch.setattr(schedule, "Parallel", Parallel)
    monkeypatch.setattr(schedule.torch, "set_num_threads", called.append)
    threads = max(1, schedule.cpu_count() // 2)
    jobs = [runs.STORE]
    monkeypatch.setattr(runs, "run_or_load", lambda config, profile, store, progress, wait: jobs.append(store) or runs.Run(
        runs.folder(config, profile), config, {}, None, {}))
    studies.main(["--profile", "toy", "--jobs", "2"])
    assert called == [2, threads, threads, threads, 2]                      # not halved again at a worker's next run; nothing was busy
    assert jobs == [toy] * 4


def test_the_estimate_of_hours_grows_with_epochs_width_and_resolution():
    base = studies.base("textures", "resnet18")
    one = schedule.hours([base])
    assert 0 < one < 0.5 and schedule.hours([base, base]) == pytest.approx(2 * one)
    assert schedule.hours([replace(base, epochs=32)]) > 1.5 * one
    assert schedule.hours([replace(base, width=2.0)]) > 3 * one
    assert schedule.hours([replace(base, stem="stride1")]) > 2 * one
    assert schedule.hours([replace(base, data="folder:/images")]) > 1000 * one


def test_the_estimate_counts_a_second_gradient_a_second_query_a_teachers_passes_and_a_start():
    arch = "mobilenet_v3_small"
    def trained(*configs):                                                  # hours without the evaluation
        return schedule.hours(configs) - schedule.hours([replace(c, epochs=0) for c in configs])
    base = studies.base("textures", arch)
    one, large = trained(base), trained(studies.base("textures", models.LARGE, epochs=base.epochs))
    assert trained(replace(base, symmetric=True, queue=256)) == pytest.approx(2 * one)
    assert trained(replace(base, method="simclr")) == pytest.approx(1.5 * one)
    assert trained(replace(base, method="supervised")) == pytest.approx(0.75 * one)
    student = studies.distilled(base, "textures")
    assert trained(student) == pytest.approx(0.75 * one + 0.25 * large) and large > 5 * one
    assert schedule.hours([student]) == pytest.approx(schedule.hours([student, *runs.needs(student)]))
    begun = studies.begun(base, "self", "textures")
    assert schedule.hours([begun]) == pytest.approx(schedule.hours([replace(begun, start=None), begun.start]))
    assert schedule.hours([begun, begun.start]) == pytest.approx(schedule.hours([begun])) and begun.all_epochs == base.epochs
