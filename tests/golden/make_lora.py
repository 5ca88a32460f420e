"""Writes adapters of Hugging Face's peft on folders of families/ (lora/NAME/) and what peft computes with them.

Run with peft 0.21.2, transformers 5.23.0, torch 2.11.0, safetensors 0.8.0, on CPU in float32. A and B are normal(0, 0.1), so that an
adapter changes every log-probability.

lora/NAME.json: {"base": the folder in families/, "sequences": [[...]], "logprobs": [[n-1 values a sequence]]}.
lora/NAME.gradients.safetensors: d(loss)/d(A) and d(loss)/d(B), under the names of adapter_model.safetensors, by autograd of the mean
negative log-likelihood over all predicted tokens of the sequences.

    make_lora.py             all of the above
    make_lora.py --exported  lora/exported/NAME.json from lora/exported/NAME, folders that Praetor's save_peft wrote
"""
import json
import pathlib
import shutil
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

here = pathlib.Path(__file__).parent
torch.set_num_threads(1)

CASES = {
    "llama3": ("llama3", dict(r=3, lora_alpha=7, target_modules=["q_proj", "v_proj", "down_proj"])),
    "qwen2": ("qwen2_tied", dict(r=4, lora_alpha=8, use_rslora=True, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])),
    "gpt2": ("gpt2", dict(r=4, lora_alpha=6, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True)),
    "phi3": ("phi3", dict(r=2, lora_alpha=5, target_modules=["qkv_proj", "gate_up_proj", "o_proj"])),
    "gemma3": ("gemma3", dict(r=4, lora_alpha=4, target_modules=["o_proj", "gate_proj", "up_proj"])),
}


def base(name):
    model = AutoModelForCausalLM.from_pretrained(here / "families" / name, dtype=torch.float32, attn_implementation="eager")
    model.get_input_embeddings().padding_idx = None
    return model.eval()


def sequences(vocab_size):
    stream = torch.Generator().manual_seed(13)
    return [torch.randint(0, vocab_size, (n,), generator=stream).tolist() for n in (2, 11, 40)]


def logprobs(model, tokens):
    logits = model(torch.tensor([tokens])).logits[0]
    return torch.log_softmax(logits, -1)[:-1].gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]


def write(path, value):
    path.write_text(json.dumps(value) + "\n")


def make(root):
    for seed, (name, (folder, settings)) in enumerate(CASES.items()):
        torch.manual_seed(300 + seed)
        model = get_peft_model(base(folder), LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **settings)).eval()
        adapters = [(key, p) for key, p in model.named_parameters() if "lora_" in key]
        with torch.no_grad():
            for _, p in adapters:
                p.normal_(0.0, 0.1)
        shutil.rmtree(root / name, ignore_errors=True)
        model.save_pretrained(root / name)
        (root / name / "README.md").unlink()
        config = json.loads((root / name / "adapter_config.json").read_text())
        config |= dict(base_model_name_or_path="families/" + folder, target_modules=sorted(config["target_modules"]))
        (root / name / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
        rows = sequences(model.config.vocab_size)
        values = [logprobs(model, row) for row in rows]
        (-torch.cat(values).mean()).backward()
        assert all(p.grad is None for key, p in model.named_parameters() if "lora_" not in key)
        save_file({key.replace(".default", ""): p.grad.contiguous() for key, p in adapters}, root / (name + ".gradients.safetensors"),
                  metadata={"format": "pt"})
        write(root / (name + ".json"), dict(base=folder, sequences=rows, logprobs=[v.tolist() for v in values]))


def exported(root):
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        config = json.loads((folder / "adapter_config.json").read_text())
        source = here.parent.parent / config["base_model_name_or_path"]
        if config["task_type"] == "SEQ_CLS":
            model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1, dtype=torch.float32)
            model = PeftModel.from_pretrained(model, folder).eval()
            rows = sequences(model.config.vocab_size)
            with torch.no_grad():
                write(root / (folder.name + ".json"), dict(sequences=rows, scores=[model(torch.tensor([r])).logits[0, 0].item() for r in rows]))
            continue
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, attn_implementation="eager").eval()
        rows = sequences(model.config.vocab_size)
        with torch.no_grad():
            before = [logprobs(model, row) for row in rows]
            model = PeftModel.from_pretrained(model, folder).eval()
            after = [logprobs(model, row) for row in rows]
        shift = max((a - b).abs().max().item() for a, b in zip(after, before))
        assert shift > 0.1, (folder, shift)
        write(root / (folder.name + ".json"), dict(sequences=rows, logprobs=[v.tolist() for v in after]))


if "--exported" in sys.argv:
    exported(here / "lora" / "exported")
else:
    make(here / "lora")
