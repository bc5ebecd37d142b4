"""One step (loss and backward) of TRL's trainers and of Prospect's, on the CPU: seconds, those of all threads together
(which say more on a busy machine), and memory beyond what was there before the first step. Each in a process of its
own, since a peak is one of a process.

    python trl_example/measure.py [--words 32000] [--width 256] [--layers 2] [--batch 8] [--steps 3]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import threading
import time

import setting
import torch
import trainers
import trl


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


class Peak:
    """The most memory that was resident, looked at every 2 ms."""

    def __enter__(self):
        self.before = self.most = resident()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self):
        while not self.done.wait(0.002):
            self.most = max(self.most, resident())

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


def one(kind: str, of: str, options) -> dict:
    classes = {("kto", "trl"): trl.KTOTrainer, ("dpo", "trl"): trl.DPOTrainer,
               ("kto", "prospect"): trainers.ProspectKTOTrainer, ("dpo", "prospect"): trainers.ProspectDPOTrainer}
    policy, reference = setting.language_models(options.words, options.width, options.layers)
    data = setting.texts(kind, options.batch, options.words, options.prompt, options.completion)
    made = setting.trainer(classes[kind, of], kind, policy, reference, options.words, data,
                           options.batch)
    del policy, reference
    made.model.train()
    batch = next(iter(made.get_train_dataloader()))
    for parameter in made.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    times, work = [], []
    with Peak() as peak:
        for _ in range(options.steps):
            start, busy = time.perf_counter(), time.process_time()
            loss = made._compute_loss(made.model, batch, False)
            loss.backward()
            times.append(time.perf_counter() - start)
            work.append(time.process_time() - busy)
    return {"seconds": statistics.median(times), "work": statistics.median(work), "bytes": peak.most - peak.before,
            "loss": loss.item()}


def apart(job) -> dict:
    """What job() says in a process of its own, which begins with what is imported here."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, json.dumps(job()).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as said:
        text = said.read()
    if os.waitpid(child, 0)[1] != 0:
        sys.exit("a trainer failed: see above")
    return json.loads(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in dict(words=32000, width=256, layers=2, batch=8, steps=3, prompt=128, completion=128).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    print("| trainer | loss | seconds a step | of all threads | memory of a step, MB |\n|---|---|---|---|---|")
    for kind in ("kto", "dpo"):
        for of in ("trl", "prospect"):
            said = apart(lambda kind=kind, of=of: one(kind, of, options))
            print(f"| {of} | {kind} {said['loss']:.6f} | {said['seconds']:.2f} | {said['work']:.2f} | {said['bytes'] / 1e6:.0f} |", flush=True)


if __name__ == "__main__":
    main()
