"""Small self-supervised contrastive models without distillation signals: a reproducible study.

To read it in this order: data, textures (the images); augment, kernels (their views); models, losses, methods, train, checkpoint
(pretraining); metrics, probe (evaluation); runs, studies, schedule, reproduce (which runs there are, and how they are trained); claims,
caveats, changes, summary (what they say, and how sure that is); plots, explore, pages, readme, report (how it is shown); bench, gpu (how
fast it is).
"""
import ctypes
import os
import platform
from argparse import ArgumentTypeError
from difflib import get_close_matches

import torch

# Denormal gradients slow a MobileNetV3 step on the CPU from 73 ms to 2,026 ms. The flag is per thread and inherited by the
# threads that torch starts, so it is set here, before any of them exists.
torch.set_flush_denormal(True)
# glibc gives freed memory back to the system, which hands it out again zeroed, page by page: some 6,000 pages a step of ResNet-18.
GLIBC = platform.libc_ver()[0] == "glibc"
if GLIBC:
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3              # of malloc.h; bytes, the second at most 32 MiB
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2 ** 25)
    ctypes.CDLL(None).mallopt(M_TRIM_THRESHOLD, 2 ** 31 - 1)
if os.environ.get("DETERMINISTIC", "0") not in ("", "0"):    # a GPU's kernels repeat themselves too, at some speed; a CPU's do so anyway
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)


def check_name(parameter, given, allowed):
    """Raise ValueError, with the nearest allowed name, unless `given` is one of `allowed`."""
    if not isinstance(given, str) or given not in allowed:
        close = get_close_matches(str(given), allowed, n=1, cutoff=0.4)
        raise ValueError(f"{parameter} = {given!r} is unknown{f'; did you mean {close[0]!r}?' if close else ''} "
                         f"(allowed: {', '.join(allowed)})")


def positive(text):
    """A whole number from 1, as the type of an argument of the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r}; allowed: a whole number from 1")
    return int(text)
