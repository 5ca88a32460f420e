"""Writes grpo.json beside it: loss and gradient norm of three optimizer steps of TRL 1.12.0's GRPOTrainer and RLOOTrainer.

Both trainers run whole, on models/tied_mha; only generation is replaced by recorded samples (full-length responses, one
micro-batch) and the reward by recorded scores. The three steps take the same batch, so that ratios leave 1 and clips act.
"""
import copy
import json
import pathlib
import tempfile

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

HERE = pathlib.Path(__file__).parent
PROMPTS, K, P, T, STEPS = 2, 4, 3, 6, 3
torch.manual_seed(3)
vocab = {f"w{i}": i for i in range(48)}
tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocab, unk_token="w3")))
tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer.pad_token, tokenizer.eos_token, tokenizer.unk_token = "w0", "w2", "w3"
prompts = torch.randint(4, 48, (PROMPTS, P)).tolist()
responses = torch.randint(4, 48, (PROMPTS * K, T)).tolist()
scores = torch.randn(PROMPTS * K).mul(2).round(decimals=2).tolist()
policy = LlamaForCausalLM.from_pretrained(HERE / "models" / "tied_mha", dtype=torch.float32)
# The reference is another model, so that the KL terms are not 0 at the first step.
reference = copy.deepcopy(policy)
with torch.no_grad():
    reference.model.norm.weight.mul_(0.8)


def run(kind, learning_rate, **options):
    config, trainer_class = (RLOOConfig, RLOOTrainer) if kind == "rloo" else (GRPOConfig, GRPOTrainer)
    with tempfile.TemporaryDirectory() as folder:
        settings = config(
            output_dir=folder, per_device_train_batch_size=PROMPTS * K, gradient_accumulation_steps=1, num_generations=K,
            max_completion_length=T, num_iterations=STEPS, max_steps=STEPS, learning_rate=learning_rate, lr_scheduler_type="constant",
            weight_decay=0.0, max_grad_norm=1e9, temperature=1.0, logging_steps=1, report_to=[], use_cpu=True, seed=1,
            shuffle_dataset=False, save_strategy="no", bf16=False, gradient_checkpointing=False, disable_dropout=True,
            **options,
        )
        trainer = trainer_class(
            model=copy.deepcopy(policy), args=settings, processing_class=tokenizer,
            reward_funcs=lambda prompts, completions, **_: scores,
            train_dataset=Dataset.from_list([{"prompt": " ".join(f"w{i}" for i in p)} for p in prompts]),
        )
        if trainer.ref_model is not None:
            trainer.ref_model.load_state_dict(reference.state_dict())
        single = responses if kind == "rloo" else (responses, None)
        trainer._generate_single_turn = lambda prompt_ids, *_, **__: (check(prompt_ids), single)[1]
        trainer.train()
        rows = [row for row in trainer.state.log_history if "loss" in row]
        return dict(
            kind=kind, learning_rate=learning_rate, loss=[row["loss"] for row in rows],
            grad_norm=[float(row["grad_norm"]) for row in rows], **options,
        )


def check(prompt_ids):
    assert [list(p) for p in prompt_ids] == [p for p in prompts for _ in range(K)], prompt_ids


grpo = dict(use_bias_correction_kl=False)
cases = [
    run("grpo", 1e-3, loss_type="grpo", beta=0.0, epsilon=0.2, **grpo),
    run("grpo", 1e-3, loss_type="grpo", beta=0.1, epsilon=0.1, **grpo),
    run("dr_grpo", 1e-3, loss_type="dr_grpo", scale_rewards="none", beta=0.0, epsilon=0.2, **grpo),
    run("dapo", 1e-3, loss_type="dapo", beta=0.0, epsilon=0.2, epsilon_high=0.28, **grpo),
    run("gspo", 1e-4, loss_type="grpo", importance_sampling_level="sequence", beta=0.0, epsilon=3e-2, epsilon_high=4e-2, **grpo),
    run("rloo", 1e-4, beta=0.05, epsilon=0.2),
]
out = dict(
    prompts=prompts, samples=K, responses=responses, scores=scores, reference_norm_factor=0.8, cases=cases
)
(HERE / "grpo.json").write_text(json.dumps(out) + "\n")
for case in cases:
    print(case)
