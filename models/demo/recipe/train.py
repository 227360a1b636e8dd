"""Fine-tune the demo model: `python train.py DATA OUT [--epochs N]`, DATA a directory laid out as corpus.TRAIN names it.

Writes a Hugging Face directory (safetensors, vocab.txt, tokenizer.json) and scores it on the sets no epoch contains.
Seeds are fixed; bf16 kernels differ between processors, so a second run gives nearly, not exactly, the same weights.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import torch
from corpus import LABELS, TAG_ID, Sentence, evaluation_sets, training_epoch
from encoder import build, fold, tokenizer
from tokenizers import Tokenizer

MAX_PIECES = 128
BATCH_PIECES = 2048
WARM_UP_STEPS = 200
LEARNING_RATE, CASING_RATE = 1.2e-4, 1e-3
MISC = [TAG_ID["O"], TAG_ID["B-MISC"], TAG_ID["I-MISC"]]
IGNORED = -100

Encoded = tuple[list[int], list[int], Sentence]


def encode(tok: Tokenizer, sentence: Sentence) -> Encoded:
    """Piece ids with [CLS] and [SEP], and a tag id at each token's first piece."""
    encoding = tok.encode(sentence.tokens, is_pretokenized=True, add_special_tokens=False)
    ids, words = encoding.ids[: MAX_PIECES - 2], encoding.word_ids[: MAX_PIECES - 2]
    tags = [IGNORED if i and words[i - 1] == word else TAG_ID[sentence.tags[word]] for i, word in enumerate(words)]
    cls, sep = tok.token_to_id("[CLS]"), tok.token_to_id("[SEP]")
    return [cls, *ids, sep], [IGNORED, *tags, IGNORED], sentence


def batches(encoded: list[Encoded], rng: random.Random) -> list[list[Encoded]]:
    """Batches of like length, at most BATCH_PIECES padded pieces each, in random order."""
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
    """ids, attention mask, tag ids, each [batch, longest]."""
    longest = max(len(ids) for ids, _, _ in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    tags = torch.full((len(batch), longest), IGNORED)
    for row, (item_ids, item_tags, _) in enumerate(batch):
        ids[row, : len(item_ids)] = torch.tensor(item_ids)
        tags[row, : len(item_tags)] = torch.tensor(item_tags)
    return ids, (ids != 0).long(), tags


def loss_of(logits: torch.Tensor, tags: torch.Tensor, batch: list[Encoded]) -> torch.Tensor:
    """Weighted cross entropy; an O of a source that leaves MISC untagged counts as "O, B-MISC or I-MISC"."""
    log_p = logits.float().log_softmax(-1)
    own = log_p.gather(-1, tags.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    o_or_misc = log_p[..., MISC].logsumexp(-1)
    unknown = torch.tensor([s.misc_unknown for _, _, s in batch])[:, None] & (tags == TAG_ID["O"])
    weight = torch.tensor([s.weight for _, _, s in batch])[:, None] * (tags != IGNORED)
    return -(torch.where(unknown, o_or_misc, own) * weight).sum() / weight.sum()


def spans(tags: list[str]) -> set[tuple[int, int, str]]:
    """IOB2 spans; one starts at a B-, or at an I- after an O or after another label."""
    found, start, label = set(), None, ""
    for i, tag in enumerate([*tags, "O"]):
        if start is not None and (tag[0] in "OB" or tag[2:] != label):
            found.add((start, i, label))
            start = None
        if tag != "O" and start is None:
            start, label = i, tag[2:]
    return found


@torch.no_grad()
def score(model: torch.nn.Module, tok: Tokenizer, data: Path) -> dict[str, dict[str, float]]:
    """Span precision, recall and F1 per evaluation set."""
    model.eval()
    scores = {}
    for name, (sentences, with_misc) in evaluation_sets(data).items():
        hit = predicted = gold = 0
        for tokens, tags in sentences:
            ids, marks, _ = encode(tok, Sentence(tokens, ["O"] * len(tokens)))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                best = model(input_ids=torch.tensor([ids])).logits[0].argmax(-1).tolist()
            mine = [LABELS[b] for b, mark in zip(best, marks, strict=True) if mark != IGNORED]
            mine += ["O"] * (len(tags) - len(mine))
            found, wanted = ({s for s in spans(t) if with_misc or s[2] != "MISC"} for t in (mine, tags))
            hit += len(found & wanted)
            predicted += len(found)
            gold += len(wanted)
        scores[name] = {
            "precision": round(hit / max(1, predicted), 4),
            "recall": round(hit / max(1, gold), 4),
            "f1": round(2 * hit / max(1, predicted + gold), 4),
        }
    model.train()
    return scores


def main() -> None:
    """Train, score after each epoch, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    rng = random.Random(0)

    model, pieces = build()
    tok = tokenizer(pieces)
    case = model.distilbert.embeddings.word_embeddings.case
    rest = [p for p in model.parameters() if p is not case.weight]
    optimizer = torch.optim.AdamW(
        [{"params": rest, "lr": LEARNING_RATE}, {"params": [case.weight], "lr": CASING_RATE}], weight_decay=0.01
    )
    epochs = [batches([encode(tok, s) for s in training_epoch(options.data, rng)], rng) for _ in range(options.epochs)]
    total = sum(len(e) for e in epochs)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / WARM_UP_STEPS) * max(0.02, 1 - step / total)
    )
    began, step, running = time.time(), 0, 0.0
    model.train()
    for number, epoch in enumerate(epochs):
        for batch in epoch:
            ids, mask, tags = tensors(batch)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(input_ids=ids, attention_mask=mask).logits
            loss = loss_of(logits, tags, batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step, running = step + 1, running + loss.item()
            if step % 100 == 0:
                print(
                    f"epoch {number} step {step}/{total} loss {running / 100:.4f} {time.time() - began:.0f} s",
                    flush=True,
                )
                running = 0.0
        print(json.dumps(score(model, tok, options.data)), flush=True)
        torch.save(model.state_dict(), options.out.with_suffix(f".epoch{number}.pt"))

    fold(model)
    options.out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(options.out)
    tok.save(str(options.out / "tokenizer.json"))
    (options.out / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf8")
    (options.out / "scores.json").write_text(json.dumps(score(model, tok, options.data), indent=1))


if __name__ == "__main__":
    main()
