"""Write hf_probabilities.json: the tags and probabilities of Hugging Face's DistilBERT with the weights of the demo bundle.

Run this by hand after a change of the model, in the bench environment:
`.venv-bench/bin/python tests/golden/make_hf_probabilities.py TRAINED`. TRAINED is the Hugging Face directory from which the
bundle was exported. The script replaces its matrices by the bundle's 8-bit ones, expanded to floats. transformers tokenizes
and tags each sentence alone, without padding. No code of this project is used.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import openvino as ov
import torch
from transformers import DistilBertForTokenClassification, PreTrainedTokenizerFast

HERE = Path(__file__).parent
BUNDLE = HERE.parents[1] / "models" / "demo"


def matrices(model: ov.Model) -> dict[str, np.ndarray]:
    """Return parameter name -> float32 array, the values times the scales, for every int8 constant."""
    constants = {op.get_friendly_name(): op.data for op in model.get_ops() if op.get_type_name() == "Constant"}
    found = {}
    for name, data in constants.items():
        match = re.search(r"(distilbert\..*|classifier\.)weight$", name)
        if match and data.dtype == np.int8:
            found[match.group(0)] = data.astype(np.float32) * constants[f"{name}/scale"].astype(np.float32)
    return found


def main(trained: Path) -> None:
    labels = json.loads((BUNDLE / "labels.json").read_text())
    model = DistilBertForTokenClassification.from_pretrained(trained).eval()
    parameters = dict(model.named_parameters())
    found = matrices(ov.Core().read_model(BUNDLE / "openvino_model.xml"))
    if {name for name, value in parameters.items() if value.ndim == 2 and "position" not in name} - set(found):
        raise SystemExit("the network's constants do not name every matrix")
    with torch.no_grad():
        for name, value in found.items():
            if (parameters[name] - torch.tensor(value)).abs().max() > 0.05:
                raise SystemExit(f"{name}: the bundle was not exported from {trained}")
            parameters[name].copy_(torch.tensor(value))
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(BUNDLE / "tokenizer.json"), cls_token="[CLS]", sep_token="[SEP]")
    result = []
    for line in (HERE / "sentences.txt").read_text(encoding="utf8").splitlines():
        tokens = line.split()
        encoded = tokenizer(tokens, is_split_into_words=True, add_special_tokens=False)
        ids = [tokenizer.cls_token_id, *encoded["input_ids"], tokenizer.sep_token_id]
        with torch.no_grad():
            probabilities = model(input_ids=torch.tensor([ids])).logits[0].softmax(-1).numpy()
        words = encoded.word_ids()
        first = [words.index(word) for word in range(len(tokens))]
        best = [probabilities[1 + at] for at in first]
        result.append(
            {
                "tokens": tokens,
                "tags": [labels[int(p.argmax())] for p in best],
                "probabilities": [round(float(p.max()), 6) for p in best],
            }
        )
    (HERE / "hf_probabilities.json").write_text(json.dumps(result, ensure_ascii=False, indent=0) + "\n", encoding="utf8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
