"""Writes tiny random Hugging Face folders (models/NAME/) and what transformers computes from them (models/NAME.json).

Run with transformers 5.23.0, torch 2.11.0, safetensors 0.8.0, on CPU in float32. Weights are normal(0, 0.3) so that
logits differ by several nats; norms are near 1 and biases are not 0, so that a forgotten one shows.

NAME.json: {"sequences": [[...]], "logprobs": [[n-1 values a sequence]], "last_logits": [[V values a sequence]]}, or
"scores" [N] for the classifier. NAME.gradients.safetensors: d(loss)/d(parameter) by autograd of the mean negative
log-likelihood over all predicted tokens of the sequences.

families/NAME/ and families/NAME.json: one folder for each family, and for what a family can have beside; in the .json also
"prompt" and "greedy", the prompt with 32 tokens that `generate` adds to it greedily (in windowed folders past the window, in
longrope ones past the original length), and in families/NAME.norms.json the norm of each gradient.

    make_models.py             all of the above; with names of families/ these alone
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
from transformers import Gemma2Config, Gemma2ForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, GPT2Config, GPT2LMHeadModel
from transformers import MistralConfig, MistralForCausalLM, Phi3Config, Phi3ForCausalLM
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

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

FAMILY = dict(vocab_size=64, hidden_size=24, intermediate_size=36, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=2, max_position_embeddings=96, bos_token_id=1, eos_token_id=None, pad_token_id=0)
GEMMA = FAMILY | dict(head_dim=8, sliding_window=9, query_pre_attn_scalar=13)
LONGROPE = dict(rope_type="longrope", rope_theta=300.0, short_factor=[1.0, 1.1, 1.2], long_factor=[1.3, 2.0, 3.5],
                original_max_position_embeddings=24)
PHI3 = FAMILY | dict(original_max_position_embeddings=24)
FAMILIES = {
    "llama3": (LlamaForCausalLM, LlamaConfig(**FAMILY, rope_parameters=LLAMA3 | dict(original_max_position_embeddings=24))),
    "mistral_window": (MistralForCausalLM, MistralConfig(**FAMILY, sliding_window=7)),
    "qwen2_tied": (Qwen2ForCausalLM, Qwen2Config(**FAMILY, tie_word_embeddings=True)),
    "qwen2_window": (Qwen2ForCausalLM, Qwen2Config(**FAMILY, use_sliding_window=True, sliding_window=11, max_window_layers=1)),
    "gpt2": (GPT2LMHeadModel, GPT2Config(vocab_size=64, n_embd=24, n_layer=2, n_head=4, n_positions=96, n_inner=None,
                                         bos_token_id=1, eos_token_id=None, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)),
    "gpt2_odd": (GPT2LMHeadModel, GPT2Config(vocab_size=64, n_embd=21, n_layer=1, n_head=3, n_positions=96, n_inner=19,
                                             bos_token_id=1, eos_token_id=None, tie_word_embeddings=False)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**FAMILY, head_dim=10, tie_word_embeddings=True)),
    "qwen3_biases": (Qwen3ForCausalLM, Qwen3Config(**FAMILY, head_dim=10, attention_bias=True)),
    "phi3": (Phi3ForCausalLM, Phi3Config(**PHI3, rope_parameters=dict(rope_type="default", rope_theta=300.0), sliding_window=13)),
    "phi3_longrope": (Phi3ForCausalLM, Phi3Config(**PHI3, rope_parameters=dict(LONGROPE))),
    "phi3_partial": (Phi3ForCausalLM, Phi3Config(**PHI3, rope_parameters=dict(
        LONGROPE, short_factor=[1.0, 1.2], long_factor=[1.3, 3.5], partial_rotary_factor=0.75))),
    "gemma2": (Gemma2ForCausalLM, Gemma2Config(**GEMMA, attn_logit_softcapping=3.0, final_logit_softcapping=1.0)),
    "gemma2_uncapped": (Gemma2ForCausalLM, Gemma2Config(**GEMMA, attn_logit_softcapping=None, final_logit_softcapping=None,
                                                        layer_types=["full_attention", "sliding_attention"])),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig(**GEMMA | dict(num_hidden_layers=3), layer_types=[
        "sliding_attention", "full_attention", "sliding_attention"], rope_parameters=dict(
            full_attention=dict(rope_type="linear", factor=4.0, rope_theta=900.0),
            sliding_attention=dict(rope_type="default", rope_theta=40.0)))),
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


def backward(folder):
    """The model with the gradients of the mean negative log-likelihood over all predicted tokens."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    # torch leaves out the gradient of the padding row, but a token that is in the text counts.
    model.get_input_embeddings().padding_idx = None
    parts = [logprobs(model, row)[0] for row in sequences(model.config.vocab_size)]
    (-torch.cat(parts).mean()).backward()
    return model


def gradients(folder, path):
    model = backward(folder)
    save_file({name: p.grad.contiguous() for name, p in model.named_parameters()}, path, metadata={"format": "pt"})


def greedy(folder):
    """A prompt and what follows it; each next token is the best by enough that rounding cannot change it."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for seed in range(100):
        prompt = torch.randint(3, model.config.vocab_size, (1, 12), generator=torch.Generator().manual_seed(seed))
        out = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=32, eos_token_id=None,
                             pad_token_id=0, output_logits=True, return_dict_in_generate=True)
        margins = [row[0].topk(2).values.diff().abs().item() for row in out.logits]
        ids = out.sequences[0].tolist()
        if min(margins) > 1e-3 and len(set(ids[28:])) > 3:
            return dict(prompt=prompt[0].tolist(), greedy=ids)
    raise SystemExit(f"{folder}: every continuation has a token that is nearly as good, or repeats itself")


def families(names):
    root = here / "families"
    for seed, (name, (kind, config)) in enumerate(FAMILIES.items()):
        if names and name not in names:
            continue
        torch.manual_seed(100 + seed)
        model = kind(config)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                norm = "norm" in key or "ln_" in key
                # Not so wide that every next token is nearly sure: a cap and a window would not show. Gemma's embedding is
                # its head too and is scaled up: a wide one would repeat each token.
                wide = 0.25 if "gemma" not in name else 0.1 if "embed" in key else 0.5
                parameter.normal_(0.0, 0.2 if norm or key.endswith("bias") else wide)
                if norm and key.endswith("weight") and "gemma" not in name:
                    parameter.add_(1.0)
        shutil.rmtree(root / name, ignore_errors=True)
        model.save_pretrained(root / name)
        write(root / (name + ".json"), golden(root / name) | greedy(root / name))
        norms = {key: p.grad.double().norm().item() for key, p in backward(root / name).named_parameters()}
        write(root / (name + ".norms.json"), norms)


def write(path, value):
    path.write_text(json.dumps(value) + "\n")


def main():
    if "--exported" in sys.argv:
        for folder in sorted(p for p in (here / "exported").iterdir() if p.is_dir()):
            write(here / "exported" / (folder.name + ".json"), golden(folder))
        return
    families(sys.argv[1:])
    if sys.argv[1:]:
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
