"""What a stopped training goes on from: one file that is whole or not there, checked before it is believed, never unpickled."""
import hashlib
import json
import os
import signal
import threading
from contextlib import contextmanager, suppress

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as packed


class BrokenCheckpoint(RuntimeError):
    """A checkpoint that cannot be trusted: cut short, edited, or of another configuration."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or a notebook's interrupt button ended a training, after its state was stored."""


def save(path, tensors, state):
    """Store {name: tensor} and `state` (whatever JSON can hold) in the file `path`: written aside, synced, renamed."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    text = json.dumps(state)
    aside = path.with_name(f"{path.name}.aside")                           # always the same, so kills leave no more than one
    try:
        aside.write_bytes(packed(tensors, {"state": text, "sha256": _digest(tensors, text)}))
        synced(aside)
        os.replace(aside, path)
    except OSError:                                                        # a full disk must not stay full of half a file
        with suppress(OSError):
            aside.unlink()
        raise


def synced(path):
    """Have the system write a file, or the names in a folder, to the disk before anything is renamed or deleted that relies on it."""
    number = os.open(path, os.O_RDONLY)
    os.fsync(number)
    os.close(number)


def state(path):
    """The state alone of a checkpoint that this process has written."""
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["state"])


def load(path):
    """(tensors on the CPU, state) as `save` was given them. Raises BrokenCheckpoint, naming the file, where they are not."""
    try:
        with safe_open(path, "pt") as file:
            stored = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise BrokenCheckpoint(f"{path} is no checkpoint or was cut short ({error})") from None
    if stored.get("sha256") != _digest(tensors, stored.get("state", "")):
        raise BrokenCheckpoint(f"{path} was edited (its checksum is another)")
    return tensors, json.loads(stored["state"])


def _digest(tensors, text):
    digest = hashlib.sha256(text.encode())
    for name, t in sorted(tensors.items()):
        digest.update(f"{name} {t.dtype} {tuple(t.shape)}".encode())
        digest.update(t.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


@contextmanager
def requests(flag=None):
    """Within, Ctrl-C and SIGTERM do not end the process but add their names to the list that is yielded; a second Ctrl-C acts as ever.

    flag: path of a file that is there from then on, for the processes that this one started. Only Python's main thread can listen;
    elsewhere the list stays empty.
    """
    asked = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}    # a background job's

    def ask(number, frame):
        asked.append(signal.Signals(number).name)                          # before a child ends and its place is given away
        if signal.SIGINT in before:
            signal.signal(signal.SIGINT, before[signal.SIGINT])
        if flag and len(asked) == 1:
            flag.parent.mkdir(parents=True, exist_ok=True)
            flag.touch()
            os.write(2, b"\nstopping: what runs is being stored; Ctrl-C once more ends at once\n")
    try:
        for number in before:
            signal.signal(number, ask)
        yield asked
    finally:
        if flag and asked:
            flag.unlink(missing_ok=True)
        for number, handler in before.items():
            signal.signal(number, handler)
