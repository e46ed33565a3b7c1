import dataclasses
import errno
import json
import math
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest
import soak
import torch
from conftest import tiny
from jupyter_client.manager import start_new_kernel

from lib import checkpoint, probe, runs, train
from lib.checkpoint import BrokenCheckpoint

TENSORS = {"float": torch.tensor([[1.5, -0.0], [math.inf, 1e-40]]), "half": torch.ones(3, dtype=torch.bfloat16), "step": torch.tensor(7.0),
           "count": torch.arange(4), "none": torch.empty(0, 8), "layout": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)}
STATE = {"step": 3, "history": [{"epoch": 0, "loss": 0.1 + 0.2, "worst": math.inf}], "config": {"jitter": [0.4, 0.1]}, "text": "grün"}


def test_a_checkpoint_gives_back_what_it_was_given_to_the_bit(tmp_path):
    checkpoint.save(tmp_path / "c", TENSORS, STATE)
    tensors, state = checkpoint.load(tmp_path / "c")
    assert state == STATE and set(tensors) == set(TENSORS)
    for name, t in TENSORS.items():
        assert tensors[name].dtype == t.dtype and tensors[name].shape == t.shape
        assert tensors[name].contiguous().reshape(-1).view(torch.uint8).equal(t.contiguous().reshape(-1).view(torch.uint8))
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_checkpoint_that_was_altered_anywhere_is_refused_by_name(tmp_path):
    path = tmp_path / "c"
    checkpoint.save(path, TENSORS, STATE)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])
        if whole[at:at + 1] != b" ":                                       # the header is padded with blanks, which mean nothing
            with pytest.raises(BrokenCheckpoint, match="c was edited|c is no checkpoint"):
                checkpoint.load(path)
    for size in (0, 5, 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(BrokenCheckpoint, match="c is no checkpoint"):
            checkpoint.load(path)
    path.write_bytes(whole)
    assert checkpoint.load(path)[1] == STATE


def test_what_is_half_written_never_takes_the_place_of_what_stands(tmp_path, monkeypatch):
    path = tmp_path / "c"
    checkpoint.save(path, TENSORS, STATE)

    def killed(*args):
        (tmp_path / "c.aside").write_bytes(b"half a fi")
        raise KeyboardInterrupt
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "packed", killed)
        checkpoint.save(path, TENSORS, STATE | {"step": 4})
    assert checkpoint.load(path)[1] == STATE
    checkpoint.save(path, TENSORS, STATE | {"step": 5})                     # over what the kill left
    assert [p.name for p in tmp_path.iterdir()] == ["c"] and checkpoint.load(path)[1]["step"] == 5


# --- going on ---------------------------------------------------------------------------------------------------------

TEACHER = tiny(seed=9)
ARMS = {"moco": {}, "bf16": {"precision": "bf16"}, "sgd": {"optimizer": "sgd", "lr": 0.03}, "symmetric": {"symmetric": True},
        "split BatchNorm": {"bn_splits": 4}, "dropout": {"projector": "dropout"},
        "stochastic depth": {"arch": "efficientnet_b0", "width": 1.0}, "simclr": {"method": "simclr"},
        "seed": {"method": "seed", "teacher": TEACHER}, "supervised": {"method": "supervised"}}


def trained(data, config, **more):
    if config.teacher:
        method = train.build(TEACHER, data)
        more["teacher"] = torch.nn.Sequential(*method.query)
    method, history, _ = train.pretrain(data, config, probe.monitor(data, config), device=os.environ.get("STUDY_DEVICE", "cpu"), **more)
    return {name: t.clone() for name, t in method.state_dict().items()}, history


def power_cut(patch, steps, error=OSError):
    """Fail in the step after that many."""
    schedule, calls = train.cosine_lr, []

    def rate(*args):
        calls.append(1)
        if len(calls) > steps:
            raise error("power cut")
        return schedule(*args)
    patch.setattr(train, "cosine_lr", rate)


def stopped_at(steps, monkeypatch, *args, **kwargs):
    with monkeypatch.context() as patch, pytest.raises(OSError, match="power cut"):
        power_cut(patch, steps)
        trained(*args, **kwargs)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_in_deterministic_mode_too(tmp_path):
    code = ("import pytest; raise SystemExit(pytest.main(['-q', '-k', 'stopped_twice', 'tests/test_checkpoint.py', "
            f"'-p', 'no:cacheprovider', '--basetemp', {str(tmp_path / 'there')!r}]))")
    environment = os.environ | {"DETERMINISTIC": "1", "STUDY_DEVICE": "cuda"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, cwd=runs.ROOT, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout


@pytest.mark.parametrize("arm", ARMS)
def test_a_training_that_was_stopped_twice_ends_in_the_same_bytes(arm, tmp_path, monkeypatch, textures):
    config, resume = tiny(**ARMS[arm]), tmp_path / "c"
    alone, history = trained(textures, config)
    stopped_at(2, monkeypatch, textures, config, resume=resume, every=0)       # within the first epoch
    assert checkpoint.load(resume)[1]["step"] == 2
    stopped_at(2, monkeypatch, textures, config, resume=resume, every=0)       # within the second
    assert checkpoint.load(resume)[1]["step"] == 4
    weights, found = trained(textures, config, resume=resume)
    assert found == history
    assert all(t.equal(weights[name]) for name, t in alone.items())
    assert [s["from_step"] for s in checkpoint.load(resume)[1]["sessions"]] == [0, 2, 4]
    again, found = trained(textures, config, resume=resume)                    # nothing is left to train
    assert found == history and all(t.equal(again[name]) for name, t in alone.items())
    assert [s["from_step"] for s in checkpoint.load(resume)[1]["sessions"]] == [0, 2, 4, 6]    # who only evaluates had a part


def test_going_on_says_where_and_whether_to_the_same_bytes_and_each_minute_how_it_goes(tmp_path, monkeypatch, textures, capsys):
    here, resume = {"device": "a", "threads": 1, "torch": "2"}, tmp_path / "c"
    stopped_at(2, monkeypatch, textures, tiny(), resume=resume, every=0, session=here)
    trained(textures, tiny(), resume=resume, every=0, session=here, label="toy", bar=False)
    said = capsys.readouterr().out
    assert "toy: goes on in epoch 1/2, after step 2 of 6\n" in said and re.search(r"toy: epoch 2/2, step 1/3, loss \d\.\d{3}\n", said)
    trained(textures, tiny(), resume=resume, session=here | {"threads": 2}, label="toy", bar=False)
    assert "after step 6 of 6; not to the same bytes, since threads changed" in capsys.readouterr().out


@pytest.mark.parametrize("lost", ["method.queue", "optimizer.0.exp_avg", "epoch.0", "method.key.0.conv1.weight",
                                  "method.query.0.bn1.running_mean"])
def test_nothing_that_a_checkpoint_holds_can_be_spared(lost, tmp_path, monkeypatch, textures):
    """Each of these, changed, shows in the history or the weights: so the comparison of bytes sees what it should."""
    config, resume = tiny(), tmp_path / "c"
    alone, history = trained(textures, config)
    stopped_at(2, monkeypatch, textures, config, resume=resume, every=0)
    tensors, state = checkpoint.load(resume)
    checkpoint.save(resume, tensors | {lost: tensors[lost] + 0.01}, state)
    weights, found = trained(textures, config, resume=resume)
    assert found != history or any(not t.equal(weights[name]) for name, t in alone.items())


def test_a_checkpoint_of_another_configuration_or_of_other_code_is_refused(tmp_path, monkeypatch, textures):
    resume = tmp_path / "c"
    stopped_at(2, monkeypatch, textures, tiny(), resume=resume, every=0)
    with pytest.raises(BrokenCheckpoint, match="c is of another configuration"):
        trained(textures, tiny(tau=0.1), resume=resume)
    monkeypatch.setattr(train, "CODE", "another")
    with pytest.raises(BrokenCheckpoint, match="c is of other code than today's"):
        trained(textures, tiny(), resume=resume)
    monkeypatch.undo()
    with pytest.raises(BrokenCheckpoint, match="c is of other data than today's"):
        trained(dataclasses.replace(textures, checksum="another"), tiny(), resume=resume)
    tensors, state = checkpoint.load(resume)
    checkpoint.save(resume, {name.replace("queue", "memory"): t for name, t in tensors.items()}, state)
    with pytest.raises(BrokenCheckpoint, match="c does not fit this code"):
        trained(textures, tiny(), resume=resume)


# --- asked to stop ----------------------------------------------------------------------------------------------------

@pytest.fixture
def heard():
    """Ctrl-C as a terminal's process has it: a script's background jobs ignore it, and so would their tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_ctrl_c_that_a_background_job_ignores_stays_ignored(heard):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with checkpoint.requests() as asked:
        os.kill(os.getpid(), signal.SIGINT)
    assert asked == []


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("epoch", [0, 1])
def test_a_request_to_stop_ends_the_training_after_its_state_is_stored(number, epoch, tmp_path, monkeypatch, textures):
    config, resume, before = tiny(), tmp_path / "c", [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    alone, history = trained(textures, config)
    schedule = train.cosine_lr

    def rate(step, *rest):
        if step == 3 * epoch:
            os.kill(os.getpid(), number)
        return schedule(step, *rest)
    with monkeypatch.context() as patch:
        patch.setattr(train, "cosine_lr", rate)
        with pytest.raises(checkpoint.Interrupted, match=f"stopped by {number.name} in epoch {epoch + 1} of 2; .* goes on from there"):
            trained(textures, config, resume=resume)
    assert checkpoint.load(resume)[1]["step"] == 3 * epoch + 1
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    weights, found = trained(textures, config, resume=resume)
    assert found == history and all(t.equal(weights[name]) for name, t in alone.items())


def test_a_second_ctrl_c_acts_at_once_and_other_threads_do_not_listen(heard):
    with pytest.raises(KeyboardInterrupt), checkpoint.requests() as asked:
        os.kill(os.getpid(), signal.SIGINT)
        assert asked == ["SIGINT"]
        os.kill(os.getpid(), signal.SIGINT)
    lists = []

    def elsewhere():
        with checkpoint.requests() as asked:
            lists.append(asked)
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert lists == [[]]


# --- the store --------------------------------------------------------------------------------------------------------

@pytest.fixture
def store(tmp_path, monkeypatch, textures):
    monkeypatch.setattr(runs, "STORE", tmp_path / "store")
    monkeypatch.setattr(runs, "load_data", lambda name, limit=None, device="cpu": textures)
    monkeypatch.setattr(runs, "CHECKPOINT_SECONDS", 0)
    return tmp_path / "store"


CHOOSING = tiny(evaluation="val")


def hidden(store, ending="checkpoint.safetensors"):
    return sorted(p for p in (store / "toy").glob(f".*{ending}"))


def begun(store, monkeypatch):
    """A run of CHOOSING that was stopped after two steps; returns its checkpoint."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        power_cut(patch, 2, KeyboardInterrupt)
        runs.run_or_load(CHOOSING, "toy", progress=None)
    return hidden(store)[0]


def test_a_stopped_run_goes_on_and_says_so_and_leaves_no_checkpoint(store, monkeypatch, capsys):
    begun(store, monkeypatch)
    assert runs.paths("toy") == [] and hidden(store, "partial") == []
    run = runs.run_or_load(CHOOSING, "toy", progress="lines")
    assert re.search(r"goes on in epoch \d/2, after step 2 of \d+", capsys.readouterr().out)
    assert (run.path / "encoder.safetensors").stat().st_mode == (run.path / "history.csv").stat().st_mode
    assert [s["from_step"] for s in run.provenance["sessions"]] == [0, 2] and run.provenance["sessions"][0]["commit"] == runs.COMMIT
    assert hidden(store, "") == [] and len(run.history) == 3
    alone = runs.run_or_load(CHOOSING, "toy", store=store.parent / "alone", progress=None)
    assert soak.contents(run.path) == soak.contents(alone.path) and "sessions" not in alone.provenance


def test_a_broken_checkpoint_is_named_and_set_aside_and_the_run_begins_anew(store, monkeypatch, capfd):
    path = begun(store, monkeypatch)
    path.write_bytes(damaged := path.read_bytes()[:-9])
    run = runs.run_or_load(CHOOSING, "toy", progress=None)
    said = capfd.readouterr().err
    assert re.search(rf"{path.name} is no checkpoint.*kept as .*broken0, which nothing needs, and the run begins anew", said)
    assert [p.read_bytes() for p in hidden(store, "broken0")] == [damaged]
    assert "sessions" not in run.provenance


@pytest.mark.parametrize("error", [FloatingPointError, train.Collapsed])
def test_a_training_that_is_lost_leaves_no_checkpoint(store, monkeypatch, error):
    def lost(*args):
        raise error("lost")
    begun(store, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(train, "summary", lost)
        with pytest.raises(error):
            runs.run_or_load(CHOOSING, "toy", progress=None)
    assert hidden(store, "") == []


def test_a_full_disk_is_one_sentence_and_nothing_is_half_stored(store):
    def ask(limit, answers):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            runs.run_or_load(CHOOSING, "toy", progress=None)
        except OSError as error:
            answers.put(str(error))
    context = multiprocessing.get_context("fork")
    for limit in (1000, 100_000):                                          # within the checkpoint's header, and its tensors
        answers = context.Queue()
        process = context.Process(target=ask, args=(limit, answers))
        process.start()
        assert runs.folder(CHOOSING, "toy").name + " cannot be stored (File too large); what was stored before is whole" in answers.get(
            timeout=60)
        process.join()
    assert runs.paths("toy") == [] and hidden(store, "") == []             # nor does half a file fill it
    assert runs.run_or_load(CHOOSING, "toy", progress=None).config == CHOOSING


def test_a_store_that_cannot_be_written_is_named(tmp_path, store):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match=r"cannot be stored \(Not a directory\)"):
        runs.run_or_load(CHOOSING, "toy", store=tmp_path / "file")


@pytest.mark.parametrize("call", ["packed", "os.replace"])
def test_a_store_that_becomes_read_only_is_one_sentence_and_the_run_goes_on_later(call, store, monkeypatch):
    path = begun(store, monkeypatch)

    def refused(*args):
        raise OSError(errno.EROFS, "Read-only file system")
    with monkeypatch.context() as patch, pytest.raises(OSError, match=r"cannot be stored \(Read-only file system\); .* is gone on from"):
        patch.setattr(checkpoint, "packed", refused) if call == "packed" else patch.setattr(runs.os, "replace", refused)
        runs.run_or_load(CHOOSING, "toy", progress=None)
    assert hidden(store, "") == [path] and checkpoint.load(path)[1]["step"] >= 2
    assert len(runs.run_or_load(CHOOSING, "toy", progress=None).provenance["sessions"]) == 2


def test_a_file_system_without_locks_is_named(store, monkeypatch):
    def refused(*args):
        raise OSError(errno.ENOSYS, "Function not implemented")
    monkeypatch.setattr("fcntl.flock", refused)
    with pytest.raises(OSError, match=r"lies on a file system without locks .* keep this clone on another"):
        runs.run_or_load(CHOOSING, "toy", progress=None)


def test_an_evaluation_that_is_interrupted_leaves_the_training(store, monkeypatch, capsys):
    config = tiny()

    def pressed(*args):
        raise KeyboardInterrupt
    with monkeypatch.context() as patch, pytest.raises(checkpoint.Interrupted, match="while evaluating; the training is stored"):
        patch.setattr(runs.probe, "evaluate", pressed)
        runs.run_or_load(config, "toy", progress="lines")
    assert "resnet18-w0.25-tau0.2-K64-lr0.002-2ep-seed0: evaluating" in capsys.readouterr().out
    (path,) = hidden(store)
    assert checkpoint.load(path)[1]["step"] == 6
    assert [part["from_step"] for part in runs.run_or_load(config, "toy", progress=None).provenance["sessions"]] == [0, 6]


def test_who_waits_for_another_process_says_so(store, capfd):
    (store / ".locks").mkdir(parents=True)
    with runs.FileLock(store / ".locks" / f"toy-{runs.run_id(CHOOSING)}.lock"):
        process = multiprocessing.get_context("fork").Process(target=runs.run_or_load, args=(CHOOSING, "toy"), kwargs={"progress": "lines"})
        process.start()
        said, began = "", time.time()
        while "waiting" not in said and time.time() < began + 60:
            said += capfd.readouterr().out
    process.join(60)
    assert "toy/resnet18-w0.25-tau0.2-K64-lr0.002-2ep-seed0: another process trains it; waiting for that" in said
    assert runs.load(runs.folder(CHOOSING, "toy")).config == CHOOSING


@pytest.mark.parametrize("small", [False, True])                            # of small parts: what lib keeps of freed memory
def test_peak_memory_is_the_runs_own(small, store, tmp_path):
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("this system does not let a process forget its peak")
    large = [np.ones(2 ** 20, dtype=np.uint8) for _ in range(256)] if small else np.ones(2 ** 28, dtype=np.uint8)
    peak = runs.provenance("cpu")["peak_memory_mb"]
    del large
    assert runs.run_or_load(CHOOSING, "toy", progress=None).provenance["peak_memory_mb"] < peak - 100


def test_a_checkpoint_that_outlived_its_run_is_no_start_for_another(store, monkeypatch):
    path = begun(store, monkeypatch)
    kept = path.read_bytes()
    run = runs.run_or_load(CHOOSING, "toy", progress=None)
    path.write_bytes(kept)                                                 # its owner died before it was deleted
    runs.set_aside(run.path)
    assert "sessions" not in runs.run_or_load(CHOOSING, "toy", progress=None).provenance


def test_who_does_not_wait_for_a_run_that_another_trains_gets_none(store):
    (store / ".locks").mkdir(parents=True)
    with runs.FileLock(store / ".locks" / f"toy-{runs.run_id(CHOOSING)}.lock"):
        process = multiprocessing.get_context("fork").Process(
            target=lambda: os._exit(0 if runs.run_or_load(CHOOSING, "toy", wait=False) is None else 1))
        process.start()
        process.join(60)
    assert process.exitcode == 0
    assert runs.run_or_load(CHOOSING, "toy", progress=None, wait=False).config == CHOOSING


def test_nor_does_who_wants_a_run_whose_teacher_or_start_another_trains(store):
    teacher = dataclasses.replace(CHOOSING, seed=7)
    student = dataclasses.replace(CHOOSING, method="seed", teacher=teacher, batch_keys=False)
    waits = [student, dataclasses.replace(CHOOSING, start=teacher), dataclasses.replace(CHOOSING, start=student)]
    (store / ".locks").mkdir(parents=True)
    with runs.FileLock(store / ".locks" / f"toy-{runs.run_id(teacher)}.lock"):
        process = multiprocessing.get_context("fork").Process(
            target=lambda: os._exit(sum(runs.run_or_load(c, "toy", progress=None, wait=False) is None for c in waits)))
        process.start()
        process.join(60)
    assert process.exitcode == len(waits)
    assert not list((store / "toy").iterdir())                              # nor is anything half made left


# --- real processes (more of them: make soak) -------------------------------------------------------------------------

def test_a_killed_training_ends_in_the_bytes_of_one_that_was_left_alone(tmp_path, monkeypatch):
    undisturbed = soak.begin("one", tmp_path / "alone" / "store", 1e9)
    assert undisturbed.wait() == 0, undisturbed.communicate()[0]
    (tmp_path / "kills").mkdir()
    table, finished = soak.kills(tmp_path / "kills", wanted=2, midway=1, writing=0, evaluating=0)
    assert len(table) >= 2 and table[soak.MIDWAY].any()
    alone = soak.contents(runs.folder(soak.KILLED, "soak", tmp_path / "alone" / "store"))
    assert {"encoder.safetensors", "projector.safetensors", "history.csv", "metrics.json", "embeddings.npz"} <= set(alone)
    for found in finished:
        assert found == alone
    assert soak.left(tmp_path / "kills" / "store") == []


def test_processes_share_a_grid_and_take_over_what_a_dead_one_had_claimed(tmp_path):
    begun_in = soak.processes(tmp_path, 3)
    assert isinstance(begun_in, pd.DataFrame) and begun_in.killed.any()
    ended = begun_in[~begun_in.killed]
    assert sorted(ended.run) == sorted(set(ended.run))
    (half,) = begun_in[begun_in["goes on after step"] > 0].run                # what the dead one had half trained
    parts = runs.load(tmp_path / "store" / "soak" / half).provenance["sessions"]
    assert half in set(begun_in[begun_in.killed].run) and [part["from_step"] > 0 for part in parts] == [False, True]
    assert soak.left(tmp_path / "store") == []
    assert set(begun_in[begun_in.killed].run) <= set(ended.run) | {path.name for path in runs.paths("soak", tmp_path / "store")}
    assert ended.process.nunique() == 2
    assert {path.name for path in runs.paths("soak", tmp_path / "store")} == set(begun_in.run)


def test_sigterm_to_a_study_side_by_side_stores_and_ends_its_workers_too(tmp_path):
    process = soak.begin("grid", tmp_path / "store", 2, 40)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "epoch 1/40" in line:
            break
    process.send_signal(signal.SIGTERM)
    rest = process.communicate(timeout=300)[0]                             # ends when no worker holds the pipe any more
    assert process.returncode == 130, "".join(lines) + rest
    assert "stopping: what runs is being stored" in rest and "stopped: " in rest
    assert "the same command goes on where the others were" in rest
    told = rest[rest.index("stopping: "):]
    assert len(re.findall("epoch 40/40", told)) == 0                       # no run begins or ends after that
    checkpoints = list((tmp_path / "store" / "soak").glob(".*checkpoint.safetensors"))
    assert checkpoints and all(checkpoint.load(path)[1]["step"] > 0 for path in checkpoints)


def test_the_interrupt_button_of_a_notebook_stores_too(tmp_path):
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        client.execute(f"import sys; sys.path[:0] = [{str(soak.ROOT)!r}, {str(soak.ROOT / 'tests')!r}]; import soak; "
                       f"soak.one({str(tmp_path / 'store')!r}, 0.5, 500)")
        began, place = time.time(), tmp_path / "store" / "soak"
        while not list(place.glob(".*checkpoint.safetensors")) and time.time() < began + 120:
            time.sleep(0.05)                                               # until it is within its epochs
        manager.interrupt_kernel()
        reply = client.get_shell_msg(timeout=60)["content"]
        while "ename" not in reply and reply.get("status") == "ok":        # what the client asked before
            reply = client.get_shell_msg(timeout=60)["content"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert reply["ename"] == "Interrupted" and "or the cell once more, goes on from there" in reply["evalue"]
    assert checkpoint.load(next(place.glob(".*checkpoint.safetensors")))[1]["step"] > 0


def test_a_request_raises_a_flag_and_takes_it_down_at_the_end(tmp_path, heard):
    flag = tmp_path / "locks" / "stop-1"
    with checkpoint.requests(flag) as asked:
        assert asked == [] and not flag.exists()
        os.kill(os.getpid(), signal.SIGINT)
        assert flag.exists()                                               # for workers between two runs
    assert not flag.exists()


def test_nothing_is_unpickled():
    for name in ("checkpoint", "runs", "train", "data"):
        text = open(sys.modules[f"lib.{name}"].__file__ if f"lib.{name}" in sys.modules else f"lib/{name}.py").read()
        assert "torch.load(" not in text and "pickle.load" not in text and "allow_pickle=True" not in text


def test_the_table_of_the_soak_is_what_it_says():
    summary = json.loads((soak.ROOT / "results" / "soak" / "summary.json").read_text())
    kills, shared = (pd.read_csv(soak.ROOT / "results" / "soak" / f"{name}.csv") for name in ("kills", "processes"))
    assert summary["kills"] == len(kills) >= 20 and summary[soak.MIDWAY] == kills[soak.MIDWAY].sum() >= 10
    assert summary[soak.WRITING] == kills[soak.WRITING].sum() >= 3
    assert summary["identical to the undisturbed run"] and summary["each trained to its end once"] and summary["left over"] == []
    assert summary[soak.EVALUATING] == kills[soak.EVALUATING].sum() > 0 and (shared["goes on after step"] > 0).any()
    assert summary["machine"]["dirty"] is False
    assert shared.process.nunique() == summary["processes"] == 4 and summary["machine"]["commit"]
