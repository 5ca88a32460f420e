// Broken jobs and the exact message each gives.

#include <sstream>

#include "actors/job/check.h"
#include "actors/job/job_config.h"
#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/text.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

namespace {

// Lines 1 to 18; each case replaces a text of it by another in the same line.
const std::string kGood =
    "name: small\n"                                             // 1
    "seed: 1\n"                                                 // 2
    "stages:\n"                                                 // 3
    "  - kind: toy_language\n"                                  // 4
    "    name: language\n"                                      // 5
    "  - kind: sft\n"                                           // 6
    "    model: {create: {hidden_size: 32, num_heads: 4}}\n"    // 7
    "    data: {train: stage:language/sft.jsonl}\n"             // 8
    "    epochs: 2\n"                                           // 9
    "  - kind: reward_model\n"                                  // 10
    "    data: {train: stage:language/pairs.jsonl}\n"           // 11
    "  - kind: ppo\n"                                           // 12
    "    data: {train: stage:language/prompts_train.jsonl}\n"   // 13
    "    sampling: {max_new_tokens: 16}\n"                      // 14
    "    rewards:\n"                                            // 15
    "      parts:\n"                                            // 16
    "        - {kind: model, stage: reward_model}\n"            // 17
    "    ppo: {prompts_per_step: 8, samples_per_prompt: 2}\n";  // 18

struct Broken {
  std::string from;     // text of kGood
  std::string to;       // what stands there instead
  std::string message;  // without the file's name
};

const std::vector<Broken> kBroken = {
    {"name: small",
     "nmae: small",
     ":1:1: missing key \"name\"; text is wanted\n:1:1: unknown key \"nmae\", did you mean "
     "\"name\"?"},
    {"name: small",
     "name: ../small",
     ":1:7: name: \"../small\" may hold letters, digits, \"_\", \"-\" and \".\" only, and names a "
     "folder"},
    {"    epochs: 2\n",
     "    epochs: 2\n    learner: {sharding: {tensor: 2}}\n",
     ":10:34: stages[1].learner.sharding.tensor: with placement: colocated the learner is one "
     "rank, "
     "which 2 does not divide; placement: separate has roles.learner.ranks of them"},
    {"    epochs: 2\n",
     "    epochs: 2\n    learner: {sharding: {tensor: 3}}\n",
     ":10:34: stages[1].learner.sharding.tensor: a model of 4 heads and 4 key/value heads cannot "
     "be "
     "split over 3 ranks, which share query heads evenly and have a key/value head or several "
     "each, "
     "or several a head; possible are 1, 2, 4\n:10:34: stages[1].learner.sharding.tensor: with "
     "placement: colocated the learner is one rank, which 3 does not divide; placement: separate "
     "has roles.learner.ranks of them"},
    {"    epochs: 2\n",
     "    epochs: 2\n    max_staleness: 1\n",
     ":10:20: stages[1].max_staleness: sft learns from rows of a file: no sample of it can be "
     "stale"},
    {"    epochs: 2\n",
     "    epochs: 2\n    partial_rollouts: true\n",
     ":10:23: stages[1].partial_rollouts: sft learns from rows of a file: no sample of it can be "
     "stale"},
    {"    sampling: {max_new_tokens: 16}\n",
     "    sampling: {max_new_tokens: 16}\n    max_staleness: -1\n",
     ":15:20: stages[3].max_staleness: -1 is outside [0, 1000]"},
    {"    sampling: {max_new_tokens: 16}\n",
     "    sampling: {max_new_tokens: 16}\n    partial_rollouts: true\n",
     ":15:23: stages[3].partial_rollouts: no response is open when new weights come, as "
     "max_staleness is 0"},
    {"    epochs: 2\n",
     "    epochs: 2\n    learner: {lora: {}}\n",
     ":10:21: stages[1].learner.lora: a created model has random weights, which no adapter makes "
     "good; train all of them first, or start from model.path or model.stage"},
    {"    data: {train: stage:language/pairs.jsonl}\n",
     "    data: {train: stage:language/pairs.jsonl}\n    learner: {lora: {rank: 5000}}\n",
     ":12:28: stages[2].learner.lora.rank: 5000 is above 32, the smaller side of "
     "model.layers.0.self_attn.q_proj [32, 32]; no layer of these targets can use more"},
    {"    data: {train: stage:language/pairs.jsonl}\n",
     "    data: {train: stage:language/pairs.jsonl}\n    learner: {lora: {targets: [q_porj]}}\n",
     ":12:31: stages[2].learner.lora.targets: no linear layer of llama's folders is named "
     "\"q_porj\", did you mean \"q_proj\"?"},
    {"create: {hidden_size: 32, num_heads: 4}",
     "adapter: a, create: {hidden_size: 32, num_heads: 4}",
     ":7:22: stages[1].model.adapter: no adapter was trained on a new model; path or stage is "
     "wanted"},
    {"    data: {train: stage:language/pairs.jsonl}\n",
     "    data: {train: stage:language/pairs.jsonl}\n    model: {stage: sft, adapter: a}\n",
     ":12:34: stages[2].model.adapter: no such folder: DIR/a"},
    {"    data: {train: stage:language/pairs.jsonl}\n",
     "    data: {train: stage:language/pairs.jsonl}\n    learner: {lora: {rnk: 4}}\n",
     ":12:22: stages[2].learner.lora: unknown key \"rnk\", did you mean \"rank\"?"},
    {"name: small", "name:", ":1:1: name: has no value, but text is wanted"},
    {"name: small", "name: [small]", ":1:7: name: is a list, but text is wanted"},
    {"seed: 1", "seed: -1", ":2:7: seed: -1 is not >= 0"},
    {"seed: 1", "seed: 1.5", ":2:7: seed: 1.5 is a fraction, but a whole number is wanted"},
    {"seed: 1", "seed: \"1\"", ":2:7: seed: \"1\" is text, but a whole number is wanted"},
    {"seed: 1", "seed: 1\nseed: 2", ":3:1: duplicate key \"seed\", first given in line 2"},
    {"seed: 1", "threads: 5000", ":2:10: threads: 5000 is outside [0, 4096]"},
    {"seed: 1", "digest: yes", ":2:9: digest: \"yes\" is text, but true or false is wanted"},
    {"seed: 1", "output: \"\"", ":2:9: output: is empty; a folder is wanted"},
    {"seed: 1",
     "network: {certificate: a.pem, key: a.key}",
     ":2:10: network.ca: is missing: certificate, key and ca go together, or none of them"},
    {"seed: 1",
     "network: {bind: 0.0.0.0}",
     ":2:17: network.bind: \"0.0.0.0\" listens on every interface: say with advertise under which "
     "host name or address the others reach this one"},
    {"seed: 1",
     "supervision: {heartbeat: 10, lost_after: 15}",
     ":2:42: supervision.lost_after: 15 s leaves no room for two heartbeats of 10 s; at least 20 "
     "is "
     "wanted"},
    {"seed: 1",
     "roles: {learner: {ranks: 0}}",
     ":2:26: roles.learner.ranks: 0 is outside [1, 10000]"},
    {"samples_per_prompt: 2}\n",
     "samples_per_prompt: 2}\n    learner: {sharding: {stage: 3, group: 3}}\n"
     "placement: separate\nroles: {learner: {ranks: 4}}\n",
     ":19:43: stages[3].learner.sharding.group: 3 does not divide the 4 ranks of "
     "roles.learner.ranks"},
    {"seed: 1",
     "roles: {learner: {ranks: 4}}",
     ":2:26: roles.learner.ranks: with placement: colocated the learner is one rank, not 4; leave "
     "it out, or set placement: separate"},
    {"samples_per_prompt: 2}\n",
     "samples_per_prompt: 2}\n    learner: {sharding: {stage: 0, group: 2}}\n",
     ":19:33: stages[3].learner.sharding.stage: 0 is outside [1, 3]"},
    {"seed: 1",
     "placement: colocted",
     ":2:12: placement: unknown value \"colocted\", did you mean \"colocated\"? (one of colocated, "
     "separate)"},
    {"seed: 1",
     "checkpoint: {every: 1, keep: bset}",
     ":2:30: checkpoint.keep: unknown value \"bset\", did you mean \"best\"? (one of last, best)"},
    {"seed: 1", "checkpoint: 5", ":2:13: checkpoint: 5 is a number, but a mapping is wanted"},
    {"seed: 1",
     "kind: ppo",
     ":2:1: unknown key \"kind\"; known here: name, seed, output, launcher, placement, threads, "
     "digest, ledger, roles, network, supervision, publish, checkpoint, stages"},
    {"seed: 1", "seed: [1", ":3:7: not valid YAML: end of sequence flow not found"},
    {"seed: 1", "\tseed: 1", ":2:1: a tab in the indentation; YAML wants spaces"},
    {"seed: 1", "seed: *one", ":2:7: not valid YAML: the referenced anchor is not defined"},
    {"kind: toy_language",
     "kind: toy_langage",
     ":4:11: stages[0].kind: unknown value \"toy_langage\", did you mean \"toy_language\"? (one of "
     "KINDS)"},
    {"kind: toy_language",
     "knd: toy_language",
     ":4:5: stages[0]: missing key \"kind\"; one of KINDS is wanted"},
    {"name: language",
     "name: language\n    toy_language: {sft_rows: 0}",
     ":6:30: stages[0].toy_language.sft_rows: 0 is outside [1, 1000000]"},
    {"name: language",
     "name: language\n    data: {}",
     ":6:5: stages[0]: unknown key \"data\"; known here: kind, name, toy_language"},
    {"name: language",
     "name: sft",
     ":6:11: stages[1].kind: stage 0 is named \"sft\" already; give this one a name\n:8:19: "
     "stages[1].data.train: no stage is named \"language\"; earlier stages: sft\n:11:19: "
     "stages[2].data.train: no stage is named \"language\"; earlier stages: sft, sft\n:13:19: "
     "stages[3].data.train: no stage is named \"language\"; earlier stages: sft, sft, "
     "reward_model"},
    {"model: {create: {hidden_size: 32, num_heads: 4}}",
     "optimizer: {}",
     ":6:5: stages[1]: missing key \"model\"; no earlier stage makes a policy to start from, so "
     "model.path, model.stage or model.create is wanted\n:7:5: stages[1]: unknown key "
     "\"optimizer\"; known here: kind, name, sft, model, tokenizer, data, epochs, steps, "
     "eval, checkpoint, learner"},
    {"hidden_size: 32, num_heads: 4",
     "hidden_size: 30, num_heads: 4",
     ":7:50: stages[1].model.create.num_heads: 4 does not divide hidden_size, 30; give head_dim"},
    {"hidden_size: 32, num_heads: 4",
     "num_heads: 4, num_kv_heads: 3",
     ":7:50: stages[1].model.create.num_kv_heads: 3 does not divide num_heads, 4"},
    {"hidden_size: 32, num_heads: 4",
     "head_dim: 7",
     ":7:32: stages[1].model.create.head_dim: 7 is odd; rotary positions need an even one"},
    {"hidden_size: 32, num_heads: 4",
     "hidden_sizes: 32",
     ":7:22: stages[1].model.create: unknown key \"hidden_sizes\", did you mean \"hidden_size\"?"},
    {"model: {create: {hidden_size: 32, num_heads: 4}}",
     "model: {stage: language}",
     ":7:20: stages[1].model.stage: stage \"language\" makes a tokenizer and data, but a policy is "
     "wanted"},
    {"model: {create: {hidden_size: 32, num_heads: 4}}",
     "model: {stage: ppo}",
     ":7:20: stages[1].model.stage: stage \"ppo\" comes later; only earlier stages have a result"},
    {"model: {create: {hidden_size: 32, num_heads: 4}}",
     "model: {stage: sft}",
     ":7:20: stages[1].model.stage: stage \"sft\" is this stage; an earlier one is wanted"},
    {"model: {create: {hidden_size: 32, num_heads: 4}}",
     "model: {stage: langauge}",
     ":7:20: stages[1].model.stage: no stage is named \"langauge\", did you mean \"language\"?"},
    {"model: {create: {hidden_size: 32, num_heads: 4}}",
     "model: {}",
     ":7:12: stages[1].model: one of path, stage and create is wanted"},
    {"data: {train: stage:language/sft.jsonl}",
     "data: {train: stage:language/pairs.jsonl}",
     ":8:19: stages[1].data.train: stage \"language\" makes no file \"pairs.jsonl\" for sft; it "
     "makes sft.jsonl, attributes.jsonl, attributes_eval.jsonl"},
    {"data: {train: stage:language/sft.jsonl}",
     "data: {train: \"stage:language\"}",
     ":8:19: stages[1].data.train: \"stage:language\" is not of the form stage:NAME/FILE, as in "
     "stage:language/sft.jsonl"},
    {"data: {train: stage:language/sft.jsonl}",
     "data: {train: stage:language/sft.jsonl, template: llama}",
     ":8:55: stages[1].data.template: unknown value \"llama\", did you mean \"llama3\"? (one of "
     "plain, chatml, llama3, model)"},
    {"data: {train: stage:language/sft.jsonl}",
     "data: {train: stage:language/sft.jsonl, max_length: 600}",
     ":8:57: stages[1].data.max_length: 600 is more than the model's 512 positions"},
    {"data: {train: stage:language/sft.jsonl}",
     "data: {train: none.jsonl}",
     ":8:19: stages[1].data.train: no such file: DIR/none.jsonl"},
    {"data: {train: stage:language/sft.jsonl}",
     "data: {train: stage:language/sft.jsonl, eval: none.jsonl}",
     ":8:51: stages[1].data.eval: no such file: DIR/none.jsonl"},
    {"epochs: 2",
     "epochs: 2\n    steps: 3",
     ":10:12: stages[1].steps: epochs is given as well; keep one of the two"},
    {"epochs: 2",
     "eval: {every: 10}",
     ":9:19: stages[1].eval.every: there is nothing to evaluate on; data.eval is wanted"},
    {"epochs: 2",
     "eval: {require_rise: true}",
     ":9:26: stages[1].eval.require_rise: a rise is told by evaluations; data.eval is wanted"},
    {"epochs: 2",
     "checkpoint: {keep: best}",
     ":9:24: stages[1].checkpoint.keep: best is told by evaluations; data.eval is wanted"},
    {"epochs: 2",
     "checkpoint: {keep_best: {metric: eval/loss}}",
     ":9:29: stages[1].checkpoint.keep_best: best is told by evaluations; data.eval is wanted"},
    {"sft.jsonl}\n    epochs: 2",
     "sft.jsonl, eval: stage:language/sft.jsonl}\n    checkpoint: {keep_best: {metric: loss}}",
     ":9:38: stages[1].checkpoint.keep_best.metric: \"loss\" is no metric of an evaluation; these "
     "begin with eval/"},
    {"sft.jsonl}\n    epochs: 2",
     "sft.jsonl, eval: stage:language/sft.jsonl}\n    checkpoint: {keep_best: {mode: max}}",
     ":9:36: stages[1].checkpoint.keep_best.mode: the stage's own metric knows what is better; "
     "metric is not given"},
    {"sft.jsonl}\n    epochs: 2",
     "sft.jsonl, eval: stage:language/sft.jsonl}\n    checkpoint: {keep_best: {count: 0}}",
     ":9:37: stages[1].checkpoint.keep_best.count: 0 is not >= 1"},
    {"sft.jsonl}\n    epochs: 2",
     "sft.jsonl, eval: stage:language/sft.jsonl}\n    checkpoint: {keep_best: {metrics: "
     "eval/loss}}",
     ":9:30: stages[1].checkpoint.keep_best: unknown key \"metrics\", did you mean \"metric\"?"},
    {"epochs: 2",
     "checkpoint: {keep_every: -1}",
     ":9:30: stages[1].checkpoint.keep_every: -1 is not >= 0"},
    {"epochs: 2",
     "sft: {batch_size: 5000}",
     ":8:19: stages[1].data.train: has 2000 rows, 2000 in 1 epochs, but one step takes 5000"},
    {"epochs: 2",
     "learner: {optimizer: {learning_rate: 0}}",
     ":9:42: stages[1].learner.optimizer.learning_rate: 0 is not > 0"},
    {"epochs: 2",
     "tokenizer: {stage: language, path: x}",
     ":9:16: stages[1].tokenizer: one of path (a folder) and stage (an earlier stage) is wanted"},
    {"epochs: 2",
     "tokenizer: {path: none}",
     ":9:23: stages[1].tokenizer.path: no such folder: DIR/none"},
    {"sampling: {max_new_tokens: 16}",
     "sampling: {temperature: 0}",
     ":14:29: stages[3].sampling.temperature: 0 samples one response only, from which nothing can "
     "be learned; > 0 is wanted"},
    {"sampling: {max_new_tokens: 16}",
     "sampling: {max_new_tokens: 512}",
     ":13:11: stages[3].data.max_length: prompts of 1 tokens and responses of 512 "
     "(sampling.max_new_tokens) are more than the model's 512 positions"},
    {"stage: reward_model}",
     "stage: sft}",
     ":17:32: stages[3].rewards.parts[0].stage: stage \"sft\" makes a policy, but a reward model "
     "is wanted"},
    {"prompts_per_step: 8",
     "clip_low: 1.7",
     ":18:21: stages[3].ppo.clip_low: 1.7 is outside (0, 1)"},
    {"prompts_per_step: 8",
     "clip_hgih: 0.3",
     ":18:11: stages[3].ppo: unknown key \"clip_hgih\", did you mean \"clip_high\"?"},
    {"prompts_per_step: 8",
     "prompts_per_step: 8, minibatches: 17",
     ":18:45: stages[3].ppo.minibatches: 17 is more than the 16 responses of a step"},
};

}  // namespace

TEST_CASE("the job that the broken ones are made from is good", "[actors][cpu]") {
  const testing::TempDir dir;
  write_file_atomic(dir / "job.yaml", kGood);
  CHECK(load_checked_job(dir / "job.yaml").stages.size() == 4);
}

TEST_CASE("every broken job is refused with the place, the key and what would be right",
          "[actors][cpu]") {
  const testing::TempDir dir;
  const std::string file = (dir / "job.yaml").string();
  CHECK(kBroken.size() >= 50);
  for (const Broken& broken : kBroken) {
    CAPTURE(broken.from, broken.to);
    std::string text = kGood;
    const size_t at = text.find(broken.from);
    REQUIRE(at != std::string::npos);
    text.replace(at, broken.from.size(), broken.to);
    write_file_atomic(file, text);

    std::string expected;
    std::istringstream lines(broken.message);
    for (std::string line; std::getline(lines, line);) {
      const size_t folder = line.find("DIR/");
      if (folder != std::string::npos) line.replace(folder, 3, dir.path().string());
      const size_t kinds = line.find("KINDS");
      if (kinds != std::string::npos) line.replace(kinds, 5, join(stage_kind_names(), ", "));
      expected += (expected.empty() ? "" : "\n") + file + line;
    }
    try {
      load_checked_job(file);
      FAIL("was taken");
    } catch (const ConfigError& failure) {
      CHECK(failure.what() == expected);
      CHECK(failure.exit_status() == kExitBadJob);
    }
  }
}

}  // namespace praetor
