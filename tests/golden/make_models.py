"""Writes tiny random Hugging Face folders (models/NAME/) and what transformers computes from them (models/NAME.json).

Run with transformers 5.23.0, torch 2.11.0, safetensors 0.8.0, on CPU in float32. Weights are normal(0, 0.3) so that
logits differ by several nats; norms are near 1 and biases are not 0, so that a forgotten one shows.

NAME.json: {"sequences": [[...]], "logprobs": [[n-1 values a sequence]], "last_logits": [[V values a sequence]]}, or
"scores" [N] for the classifier. NAME.gradients.safetensors: d(loss)/d(parameter) by autograd of the mean negative
log-likelihood over all predicted tokens of the sequences.

    make_models.py             all of the above
    make_models.py --exported  exported/NAME.json from exported/NAME, folders that Praetor's save_hf wrote
"""
import json
import pathlib
import shutil
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification
from transformers import MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM

here = pathlib.Path(__file__).parent
torch.set_num_threads(1)

SIZES = dict(vocab_size=48, hidden_size=32, intermediate_size=40, num_hidden_layers=1, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
             pad_token_id=0)
LLAMA3 = dict(rope_type="llama3", rope_theta=500.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
YARN = dict(rope_type="yarn", rope_theta=1000.0, factor=4.0, original_max_position_embeddings=16)

CASES = {
    "tied_mha": (LlamaForCausalLM, LlamaConfig(**SIZES | dict(num_key_value_heads=4, tie_word_embeddings=True))),
    "untied_gqa": (LlamaForCausalLM, LlamaConfig(**SIZES | dict(num_hidden_layers=2))),
    "mqa_wide_heads": (LlamaForCausalLM, LlamaConfig(**SIZES | dict(num_key_value_heads=1, head_dim=12))),
    "rope_linear": (LlamaForCausalLM, LlamaConfig(**SIZES, rope_parameters=dict(
        rope_type="linear", rope_theta=10000.0, factor=2.0))),
    "rope_dynamic": (LlamaForCausalLM, LlamaConfig(**SIZES, rope_parameters=dict(
        rope_type="dynamic", rope_theta=10000.0, factor=2.0))),
    "rope_llama3": (LlamaForCausalLM, LlamaConfig(**SIZES, rope_parameters=LLAMA3)),
    "rope_yarn": (LlamaForCausalLM, LlamaConfig(**SIZES, rope_parameters=YARN)),
    "rope_yarn_mscale": (LlamaForCausalLM, LlamaConfig(**SIZES, rope_parameters=YARN | dict(
        mscale=0.7, mscale_all_dim=1.3, beta_fast=4.0, beta_slow=0.5, truncate=False))),
    "biases": (LlamaForCausalLM, LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SIZES)),
    "mistral": (MistralForCausalLM, MistralConfig(**SIZES, sliding_window=None)),
    "classifier": (LlamaForSequenceClassification, LlamaConfig(**SIZES, num_labels=1)),
    "sharded": (LlamaForCausalLM, LlamaConfig(**SIZES)),
    "half": (LlamaForCausalLM, LlamaConfig(**SIZES)),
    "bfloat": (LlamaForCausalLM, LlamaConfig(**SIZES)),
}
# The same settings in the keys of transformers 4, made from the folder of the same name without the suffix.
OLD_KEYS = {
    "untied_gqa_old_keys": ("untied_gqa", dict(rope_theta=10000.0, torch_dtype="float32"), ["rope_parameters", "dtype", "head_dim", "mlp_bias", "attention_bias"]),
    "rope_linear_old_keys": ("rope_linear", dict(rope_theta=10000.0, rope_scaling=dict(type="linear", factor=2.0)), ["rope_parameters"]),
    "rope_llama3_old_keys": ("rope_llama3", dict(rope_theta=500.0, rope_scaling={k: v for k, v in LLAMA3.items() if k != "rope_theta"}), ["rope_parameters"]),
    "rope_yarn_old_keys": ("rope_yarn", dict(rope_theta=1000.0, rope_scaling=dict(type="yarn", factor=4.0, original_max_position_embeddings=16)), ["rope_parameters"]),
}


def sequences(vocab_size):
    stream = torch.Generator().manual_seed(11)
    return [torch.randint(0, vocab_size, (n,), generator=stream).tolist() for n in (2, 1, 13, 60)]


def logprobs(model, tokens):
    logits = model(torch.tensor([tokens])).logits[0]
    return torch.log_softmax(logits.float(), -1)[:-1].gather(1, torch.tensor(tokens[1:], dtype=torch.long)[:, None])[:, 0], logits


def golden(folder):
    config = json.loads((folder / "config.json").read_text())
    rows = sequences(config["vocab_size"])
    if "SequenceClassification" in config["architectures"][0]:
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
        with torch.no_grad():
            return dict(sequences=rows, scores=[model(torch.tensor([row])).logits[0, 0].item() for row in rows])
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    out = dict(sequences=rows, logprobs=[], last_logits=[])
    with torch.no_grad():
        for row in rows:
            values, logits = logprobs(model.eval(), row)
            out["logprobs"].append(values.tolist())
            out["last_logits"].append(logits[-1].tolist())
    return out


def gradients(folder, path):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    # torch leaves out the gradient of the padding row, but a token that is in the text counts.
    model.get_input_embeddings().padding_idx = None
    parts = [logprobs(model, row)[0] for row in sequences(model.config.vocab_size)]
    (-torch.cat(parts).mean()).backward()
    save_file({name: p.grad.contiguous() for name, p in model.named_parameters()}, path, metadata={"format": "pt"})


def write(path, value):
    path.write_text(json.dumps(value) + "\n")


def main():
    if "--exported" in sys.argv:
        for folder in sorted(p for p in (here / "exported").iterdir() if p.is_dir()):
            write(here / "exported" / (folder.name + ".json"), golden(folder))
        return
    root = here / "models"
    shutil.rmtree(root, ignore_errors=True)
    for seed, (name, (kind, config)) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        model = kind(config)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                parameter.normal_(0.0, 0.2 if "norm" in key else 0.3)
                if "norm" in key:
                    parameter.add_(1.0)
        dtype = {"half": torch.float16, "bfloat": torch.bfloat16}.get(name)
        if dtype:
            model = model.to(dtype)
        model.save_pretrained(root / name, max_shard_size="12KB" if name == "sharded" else "1GB")
    for name, (source, extra, dropped) in OLD_KEYS.items():
        shutil.copytree(root / source, root / name)
        config = json.loads((root / name / "config.json").read_text())
        for key in dropped:
            config.pop(key, None)
        write(root / name / "config.json", config | extra)
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        write(root / (folder.name + ".json"), golden(folder))
    for name in ("biases", "tied_mha"):
        gradients(root / name, root / (name + ".gradients.safetensors"))
    for name in OLD_KEYS:  # the old keys mean the same
        assert (root / (name + ".json")).read_text() == (root / (OLD_KEYS[name][0] + ".json")).read_text(), name


main()
