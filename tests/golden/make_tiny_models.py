"""Write tiny_models/: four kinds of Hugging Face token classifiers with random weights, and transformers' results for them.

Run this by hand, in the bench environment: `.venv-bench/bin/python tests/golden/make_tiny_models.py`. Each directory is what
save_pretrained writes. The types of the weights differ: BERT has float16, RoBERTa bfloat16. The vocabularies are trained on
sentences.txt. BERT is uncased, and has only a vocab.txt. expected.json has token lists and each model's results for them as
one padded batch. The results are piece ids, logits, and the tag of each token at its first piece. bert.onnx is the BERT with
float32 weights and all three inputs, as exporters commonly write it.
"""

import json
import shutil
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = Path(__file__).parent
OUT = HERE / "tiny_models"
LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
SENTENCES = [
    ["Angela", "Merkel", "met", "Emmanuel", "Macron", "in", "Paris", "."],
    ["naïve", "São", "Paulo", "😀", "e\u0301", "U.K.", "well-known", "(", "2024", ")"],
    ["unaffable", "x" * 12, "McDonald's", "東京"],
    ["No"],
]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
DISTILBERT_SIZES = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def wordpiece(*, lowercase: bool) -> Tokenizer:
    """Return a WordPiece tokenizer, the kind that BERT has."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    learn(tokenizer, trainers.WordPieceTrainer(vocab_size=150, special_tokens=BERT_SPECIAL, show_progress=False))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def byte_level() -> Tokenizer:
    """Return a byte-level BPE tokenizer, the kind that RoBERTa has; add_prefix_space is off, as in the published models."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learn(tokenizer, trainers.BpeTrainer(
        vocab_size=330, special_tokens=ROBERTA_SPECIAL, initial_alphabet=alphabet, show_progress=False))  # fmt: skip
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


def unigram() -> Tokenizer:
    """Return a Unigram tokenizer, the kind that XLM-RoBERTa has."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    learn(tokenizer, trainers.UnigramTrainer(
        vocab_size=150, special_tokens=ROBERTA_SPECIAL, unk_token="<unk>", show_progress=False))  # fmt: skip
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return tokenizer


def learn(tokenizer: Tokenizer, trainer: object) -> None:
    """Train the tokenizer's vocabulary on sentences.txt."""
    tokenizer.train_from_iterator((HERE / "sentences.txt").read_text(encoding="utf8").splitlines(), trainer)


def wrapped(tokenizer: Tokenizer, special: list[str], **more: object) -> transformers.PreTrainedTokenizerFast:
    """Return the tokenizer in transformers' class, with its special tokens."""
    bert = special is BERT_SPECIAL
    names = ("pad", "unk", "cls", "sep", "mask") if bert else ("cls", "pad", "sep", "unk", "mask")
    tokens = {f"{name}_token": piece for name, piece in zip(names, special, strict=True)}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **tokens, **more)


def randomize(model: torch.nn.Module) -> torch.nn.Module:
    """Set all parameters to random values that are large enough to matter, also biases, normalizations and padding."""
    for name, parameter in model.named_parameters():
        mean = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
        torch.nn.init.normal_(parameter, mean, 0.2)
    return model.eval()


def write(kind: str, model: torch.nn.Module, tokenizer: transformers.PreTrainedTokenizerFast, dtype: torch.dtype) -> dict:
    """Write the directory of one model, and return transformers' results for SENTENCES."""
    directory = OUT / kind
    batch = tokenizer(SENTENCES, is_split_into_words=True, padding=True, return_tensors="pt")
    randomize(model)
    with torch.no_grad():
        # Without this shift of the bias, one tag may win everywhere, and the expected tags would test nothing.
        seen = batch["attention_mask"].bool()
        model.classifier.bias -= (
            model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[seen].mean(0)
        )
    model.to(dtype).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    for extra in ("training_args.bin", "generation_config.json", "special_tokens_map.json"):
        (directory / extra).unlink(missing_ok=True)
    model.float()
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    tags = []
    for row, tokens in enumerate(SENTENCES):
        words = batch.word_ids(row)
        tags.append([LABELS[int(logits[row, words.index(word)].argmax())] for word in range(len(tokens))])
    return {
        "input_ids": batch["input_ids"].tolist(),
        "attention_mask": batch["attention_mask"].tolist(),
        "logits": [[[round(value, 7) for value in piece] for piece in row] for row in logits.tolist()],
        "tags": tags,
    }


class _Logits(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor) -> torch.Tensor:
        """Return only the logits."""
        return self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).logits


def write_onnx() -> None:
    """Write bert.onnx."""
    model = transformers.BertForTokenClassification.from_pretrained(OUT / "bert", attn_implementation="eager").float().eval()
    # The exporter's last step is skipped: it needs the onnx package, for functions that this model does not have.
    torch.onnx._internal.torchscript_exporter.onnx_proto_utils._add_onnxscript_fn = lambda model_bytes, _: model_bytes
    names = ["input_ids", "attention_mask", "token_type_ids"]
    ids = torch.ones(2, 9, dtype=torch.long)
    torch.onnx.export(
        _Logits(model), (ids, ids, ids * 0), OUT / "bert.onnx", input_names=names, output_names=["logits"],
        dynamic_axes={name: {0: "batch", 1: "length"} for name in [*names, "logits"]}, dynamo=False,
    )  # fmt: skip


def main() -> None:
    """Replace all files in tiny_models/."""
    shutil.rmtree(OUT, ignore_errors=True)
    torch.manual_seed(0)
    common = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    cased, uncased, bpe, pieces = wordpiece(lowercase=False), wordpiece(lowercase=True), byte_level(), unigram()
    expected = {
        "distilbert": write(
            "distilbert",
            transformers.DistilBertForTokenClassification(transformers.DistilBertConfig(
                vocab_size=cased.get_vocab_size(), max_position_embeddings=64, **DISTILBERT_SIZES, **common)),
            wrapped(cased, BERT_SPECIAL), torch.float32,
        ),
        "bert": write(
            "bert",
            transformers.BertForTokenClassification(transformers.BertConfig(
                vocab_size=uncased.get_vocab_size(), max_position_embeddings=64, **SIZES, **common)),
            wrapped(uncased, BERT_SPECIAL, do_lower_case=True), torch.float16,
        ),
    }  # fmt: skip
    offset = {"max_position_embeddings": 66, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "type_vocab_size": 1}
    # For tokens that are single words, add_prefix_space must be on, and transformers 5 does not turn it on. The directory
    # keeps the setting of the published models, off.
    splitting = byte_level()
    splitting.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    for kind, tokenizer, cls, config, dtype in (
        ("roberta", splitting, transformers.RobertaForTokenClassification, transformers.RobertaConfig, torch.bfloat16),
        ("xlm-roberta", pieces, transformers.XLMRobertaForTokenClassification, transformers.XLMRobertaConfig, torch.float32),
    ):
        model = cls(config(vocab_size=tokenizer.get_vocab_size(), **SIZES, **offset, **common))
        expected[kind] = write(kind, model, wrapped(tokenizer, ROBERTA_SPECIAL), dtype)
    bpe.save(str(OUT / "roberta" / "tokenizer.json"))
    vocabulary = uncased.get_vocab()
    (OUT / "bert" / "tokenizer.json").unlink()
    (OUT / "bert" / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)) + "\n", encoding="utf8")
    write_onnx()
    text = json.dumps({"sentences": SENTENCES, "models": expected}, ensure_ascii=False)
    (OUT / "expected.json").write_text(text + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
