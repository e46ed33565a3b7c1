"""What the switches cost or give on this machine: `python -m lib.bench` -> results/bench/switches.csv.

A step is a MoCo v2 step of the `textures` recipe on a constant batch (query forward and backward, key forward, optimiser, queue).
On a CPU, images a second of processor time on one thread, so that other work on the machine hardly moves the table; on a GPU, of
wall time. Settings are measured in turns and the median of the rounds is kept.
"""
import argparse
import os
import statistics
import sys
import time
from dataclasses import replace

import pandas as pd
import torch

from lib import runs, studies, train

SWITCHES = {"fp32": {}, "fp32, no channels_last": {"channels_last": False}, "bf16": {"precision": "bf16"},
            "fp32, four shuffled BN groups": {"bn_splits": 4}, "fp32, compile": {"compile": True}}


def stepper(config, data, device):
    """A function that takes one training step on a constant batch."""
    method = train.build(config, data).to(device).train()
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    method = method.to(memory_format=layout)
    forward = torch.compile(method) if config.compile else method
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=config.lr)
    view0, view1 = (torch.randn(config.batch_size, 3, data.size, data.size, device=device).contiguous(memory_format=layout)
                    for _ in range(2))

    def step(number):
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=config.precision == "bf16"):
            loss, _ = forward(view0, view1, None)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        method.after_step(number)
    return step


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m lib.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--archs", nargs="+", default=["mobilenet_v3_small", "resnet18"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="per round and switch")
    parser.add_argument("--output", default=runs.ROOT / "results" / "bench" / "switches.csv")
    args = parser.parse_args(argv)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        torch.set_num_threads(1)
    clock = time.perf_counter if device == "cuda" else time.process_time
    data, rows = runs.load_data("textures", 512), []
    for arch in args.archs:
        base = replace(studies.base("textures", arch), precision="fp32", queue=256)
        steps = {name: stepper(replace(base, **switch), data, device) for name, switch in SWITCHES.items()}
        for step in steps.values():
            for number in range(2):
                step(number)                                               # warm up, compile
        rates = {name: [] for name in steps}
        for _ in range(args.rounds):
            for name, step in steps.items():
                started = clock()
                for number in range(args.steps):
                    step(number)
                if device == "cuda":
                    torch.cuda.synchronize()
                rates[name].append(args.steps * base.batch_size / (clock() - started))
        rows += [{"arch": arch, "switch": name, "images_per_second": round(statistics.median(rate)),
                  "relative": round(statistics.median(rate) / statistics.median(rates["fp32"]), 2)} for name, rate in rates.items()]
    made = runs.provenance(device)
    table = pd.DataFrame(rows).assign(batch_size=base.batch_size, device=made["device"], torch=made["torch"], commit=made["commit"],
                                      command=" ".join(["python -m lib.bench", *(sys.argv[1:] if argv is None else argv)]))
    os.makedirs(os.path.dirname(args.output), exist_ok=True)
    table.to_csv(args.output, index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
