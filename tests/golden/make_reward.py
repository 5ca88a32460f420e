"""Writes reward/llama, a tiny random reward model as a Hugging Face sequence-classification folder, and
reward/llama.jsonl, what transformers gives for it: {"prompt", "response", "ids", "score"} a line.

    make_reward.py FOLDER_OF_STORIES260K

Run with transformers 5.23.0, torch 2.11.0, on CPU in float32. The tokenizer is that of stories260K (MIT). The ids are
those of a trained pair: prompt with BOS, response without, EOS. Llama's tokenizer writes a space before every text it
encodes, so that a response that begins with one is encoded without it.
"""
import json
import pathlib
import shutil
import sys

import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForSequenceClassification

here = pathlib.Path(__file__).parent / "reward"
folder = here / "llama"
source = pathlib.Path(sys.argv[1])
torch.set_num_threads(1)

TEXTS = [
    ("Once upon a time", " there was a little girl named Lily."),
    ("Once upon a time", "there was a little girl named Lily."),
    ("Tom had a dog.", " The dog liked to run and play in the park all day."),
    ("Tom had a dog.", ""),
    ("", "A response to nothing."),
    ("Say something in French:", " Le café est très bon, n'est-ce pas ?"),
    ("Smile", " \U0001f600 and wave\n\nTwice."),
    ("Once upon a time, there was a big tree. " * 3, " The end. " * 6),
]


def main():
    shutil.rmtree(here, ignore_errors=True)
    torch.manual_seed(5)
    config = LlamaConfig(vocab_size=512, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=160, rms_norm_eps=1e-5,
                         bos_token_id=1, eos_token_id=2, pad_token_id=0, num_labels=1)
    model = LlamaForSequenceClassification(config).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in key else 0.0, 0.3)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(source / name, folder / name)
    # Not AutoTokenizer: transformers 5 builds Llama's anew and leaves out this file's normaliser.
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    with open(here / "llama.jsonl", "w") as out, torch.no_grad():
        for prompt, response in TEXTS:
            ids = tokenizer.encode(prompt).ids
            ids += tokenizer.encode(response.removeprefix(" "), add_special_tokens=False).ids + [2]
            score = model(torch.tensor([ids])).logits[0, 0].item()
            out.write(json.dumps(dict(prompt=prompt, response=response, ids=ids, score=score)) + "\n")


main()
