"""Fine-tune the demo model: `python train.py DATA OUT [--epochs N]`; DATA is a directory with the files of corpus.TRAIN.

Training uses one thread unless OMP_NUM_THREADS sets more. It computes in bf16 if the processor supports bf16, otherwise in
f32. On an AMD EPYC, a step in bf16 took 0.65 of the CPU time in f32. Two runs with different seeds, averaged by finish.py,
use two cores better than one run on both. A run that was stopped resumes if the same command is started again, because its
state is saved next to OUT.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import distillation
import torch
from corpus import TAG_ID, Sentence, training_epoch
from encoder import NOT_FIRST, CasedEmbedding, build, cut, padded
from start import load_bundle, read_weights
from tokenizers import Tokenizer

from entitymill.recognition.hardware import read_processor

BATCH_PIECES = 1024
WARM_UP_STEPS = 60
CASING_FACTOR = 8
"""How many times higher the learning rate of the few casing vectors is than the rate of all other weights."""
AVERAGE_DECAY = 0.995
REPORTED_STEPS, SAVED_SECONDS = 50, 300
TAUGHT = 0.5
"""Weight of the teachers' probabilities in the loss; the gold labels have the rest of the weight."""
MISC = [TAG_ID["O"], TAG_ID["B-MISC"], TAG_ID["I-MISC"]]
IGNORED = -100

Encoded = tuple[list[int], list[int], Sentence]
"""What `cut` returns for a sentence, and the sentence."""


def batches(encoded: list[Encoded], rng: random.Random) -> list[list[Encoded]]:
    """Return batches of sentences of similar length, with at most BATCH_PIECES padded pieces each, in random order."""
    rng.shuffle(encoded)
    planned: list[list[Encoded]] = []
    for start in range(0, len(encoded), 2000):
        batch: list[Encoded] = []
        for item in sorted(encoded[start : start + 2000], key=lambda e: len(e[0])):
            if batch and len(item[0]) * (len(batch) + 1) > BATCH_PIECES:
                planned.append(batch)
                batch = []
            batch.append(item)
        planned.append(batch)
    rng.shuffle(planned)
    return planned


def tensors(batch: list[Encoded]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the piece ids, tag ids, and numbers of the tokens that pieces begin, each of shape [batch, longest sentence].

    Only the first piece of each token has a tag; other pieces have IGNORED.
    """
    tags = [[IGNORED if at == NOT_FIRST else TAG_ID[item.tags[at]] for at in firsts] for _, firsts, item in batch]
    return padded([ids for ids, _, _ in batch], 0), padded(tags, IGNORED), padded([f for _, f, _ in batch], NOT_FIRST)


def loss_of(logits: torch.Tensor, tags: torch.Tensor, batch: list[Encoded]) -> torch.Tensor:
    """Return the weighted cross entropy; an O of a source that does not tag MISC counts as "O, B-MISC or I-MISC"."""
    log_p = logits.float().log_softmax(-1)
    own = log_p.gather(-1, tags.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    o_or_misc = log_p[..., MISC].logsumexp(-1)
    unknown = torch.tensor([s.misc_unknown for _, _, s in batch])[:, None] & (tags == TAG_ID["O"])
    weight = torch.tensor([s.weight for _, _, s in batch])[:, None] * (tags != IGNORED)
    return -(torch.where(unknown, o_or_misc, own) * weight).sum() / weight.sum().clamp(min=1)


class Average:
    """The exponential moving average of a model's weights in training; it varies less than the weights themselves."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._weights = {name: value.detach().clone() for name, value in model.named_parameters()}
        self._steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Add the current weights to the average, which covers fewer steps at the beginning."""
        self._steps += 1
        decay = min(AVERAGE_DECAY, self._steps / (self._steps + 10))
        for name, value in self._model.named_parameters():
            self._weights[name].lerp_(value, 1 - decay)

    def save(self, path: Path) -> None:
        """Write the averaged weights."""
        save_whole(self._weights, path)

    def state(self) -> dict[str, Any]:
        """Return the average and its number of steps, from which `resume` can continue."""
        return {"weights": self._weights, "steps": self._steps}

    def resume(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned in an earlier process."""
        self._weights, self._steps = state["weights"], state["steps"]


def save_whole(value: object, path: Path) -> None:
    """Write a value to a file with torch, atomically, so that readers never see a partial file."""
    fresh = path.with_name(f"{path.name}.tmp")
    torch.save(value, fresh)
    fresh.replace(path)


@dataclass
class Progress:
    """The progress of a training run.

    epoch, at: number of this epoch, and number of its finished batches.
    random: state of the random number generator when the epoch began.
    seconds: time spent so far.
    """

    epoch: int = 0
    at: int = 0
    step: int = 0
    seconds: float = 0.0
    random: Any = None


def rate(step: int, done: float) -> float:
    """Return the share of the peak learning rate: it rises in the warm-up, and falls to 0 when `done` reaches 1."""
    return min(1.0, (step + 1) / WARM_UP_STEPS) * max(0.0, 1 - done)


def train(
    model: torch.nn.Module, tok: Tokenizer, options: argparse.Namespace, teachers: distillation.Teachers | None
) -> Average:
    """Train until the epochs or the minutes are over, whichever is first; return the averaged weights."""
    rng = random.Random(options.seed)
    unlabelled = distillation.read_unlabelled(options.unlabelled)
    embedding = model.distilbert.embeddings.word_embeddings
    casings = list(embedding.case.parameters()) if isinstance(embedding, CasedEmbedding) else []
    rest = [p for p in model.parameters() if all(p is not casing for casing in casings)]
    groups = [{"params": rest, "peak": options.rate}, {"params": casings, "peak": options.rate * CASING_FACTOR}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
    average, progress, stored = Average(model), Progress(), options.out.with_suffix(".state")
    if stored.is_file():
        progress = resume(torch.load(stored, weights_only=False), model, optimizer, average)
        print(f"resumed at epoch {progress.epoch}, batch {progress.at}", flush=True)
    began = time.time() - progress.seconds
    saved, running = time.time(), 0.0
    bf16 = torch.autocast("cpu", torch.bfloat16) if read_processor().computes_in("bf16") else contextlib.nullcontext()
    model.train()
    for number in range(progress.epoch, options.epochs):
        if progress.random is not None:
            rng.setstate(progress.random)
        start, progress.epoch, progress.random = progress.at, number, rng.getstate()
        drawn = training_epoch(options.data, rng) + distillation.draw(unlabelled, rng)
        epoch = batches([(*cut(tok, s.tokens), s) for s in drawn], rng)
        for at, batch in enumerate(epoch[start:], start):
            progress.seconds = time.time() - began
            done = max((number + at / len(epoch)) / options.epochs, progress.seconds / 60 / options.minutes)
            if done >= 1:
                return average
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * rate(progress.step, done)
            ids, tags, firsts = tensors(batch)
            with bf16:
                logits = model(input_ids=ids, attention_mask=(ids != 0).long()).logits
                wanted = teachers.probabilities([sentence.tokens for _, _, sentence in batch]) if teachers else None
            loss = loss_of(logits, tags, batch)
            if wanted is not None:
                loss = (1 - TAUGHT) * loss + TAUGHT * distillation.loss_of(logits, wanted, firsts)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            average.update()
            progress.at, progress.step, running = at + 1, progress.step + 1, running + loss.item()
            if progress.step % REPORTED_STEPS == 0:
                spent = f"{progress.seconds / 60:.1f} min"
                print(f"epoch {number} {at}/{len(epoch)} loss {running / REPORTED_STEPS:.4f} {spent}", flush=True)
                running = 0.0
            if time.time() - saved > SAVED_SECONDS:
                save_state(stored, model, optimizer, average, progress)
                average.save(options.out)
                saved = time.time()
        progress.at, progress.random = 0, None
        average.save(options.out)
    return average


def save_state(
    path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, average: Average, progress: Progress
) -> None:
    """Write everything that a training run needs to resume."""
    parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average.state()}
    save_whole({**parts, "progress": asdict(progress)}, path)


def resume(state: dict[str, Any], model: torch.nn.Module, optimizer: torch.optim.Optimizer, average: Average) -> Progress:
    """Restore a saved state, and return its progress. The state is unpickled, so only load files that this script wrote."""
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    average.resume(state["average"])
    return Progress(**state["progress"])


def load_teachers(options: argparse.Namespace) -> distillation.Teachers | None:
    """Return the teachers that the options name; None without any."""
    teachers = []
    for weights, archive in options.teacher:
        path = None if archive == "minilm" else Path(archive)
        teacher, tok = build(path)
        teacher.load_state_dict(read_weights(Path(weights), path), strict=False)
        teachers.append((teacher, tok))
    return distillation.Teachers(teachers, options.answers) if teachers else None


def main() -> None:
    """Train and save the averaged weights; `finish.py` makes a model of one or more such files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path, help="file for the averaged weights, also written every few minutes")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after this time, with a learning rate of 0")
    parser.add_argument("--rate", type=float, default=1.2e-4, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="a bundle that this recipe exported, to train further")
    parser.add_argument("--archive", type=Path, help="train the encoder in this Java archive (see e5.py and bert.py)")
    parser.add_argument(
        "--teacher",
        nargs=2,
        action="append",
        default=[],
        metavar=("WEIGHTS", "ARCHIVE"),
        help="averaged weights or a bundle, and the Java archive of its encoder, or the word minilm; may be repeated",
    )
    parser.add_argument("--answers", type=Path, help="file for the teachers' probabilities, which another student can use")
    parser.add_argument("--unlabelled", type=Path, nargs="*", default=[], help="JSON lines of texts that the teachers tag")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    # In bf16 on an Intel Xeon with AMX, a step without torch's fused attention took 0.6 of the time.
    torch.backends.cuda.enable_flash_sdp(enabled=False)
    model, tok = build(options.archive)
    if options.start:
        load_bundle(model, options.start)
    teachers = load_teachers(options)
    train(model, tok, options, teachers).save(options.out)
    if teachers and options.answers:
        teachers.save(options.answers)


if __name__ == "__main__":
    main()
