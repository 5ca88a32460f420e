#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "core/collective/collective.h"
#include "learners/learner.h"

namespace praetor {

constexpr const char* kTokenizerFiles[] = {"tokenizer.json",
                                           "tokenizer.model",
                                           "tokenizer_config.json",
                                           "special_tokens_map.json",
                                           "added_tokens.json",
                                           "vocab.json",
                                           "merges.txt",
                                           "chat_template.jinja"};

/// What a checkpoint of a stage is made of besides the learner's state.
struct CheckpointContext {
  std::filesystem::path run_dir;
  uint32_t stage = 0;
  std::string stage_name;
  std::filesystem::path tokenizer;  ///< folder whose tokenizer files go along
  std::map<std::string, std::string> environment;
  std::string resolved_job;         ///< text of resolved.yaml
  std::filesystem::path base = {};  ///< folder of the model under an adapter; empty: there is none
  std::filesystem::path base_adapter = {};  ///< of another adapter that was merged into it first
};

/// Puts the learner into the state of a checkpoint, made by any number of ranks, and returns its
/// step. A rank reads of the tensors what it keeps. Every rank calls it alike.
/// @throws CheckpointError for a checkpoint of another stage or model, or a damaged one
int64_t load_checkpoint(const std::filesystem::path& folder,
                        const std::string& stage_name,
                        Collective& ranks,
                        Learner& learner);

/// Facts of the environment that a checkpoint, which was loaded, was made in.
std::map<std::string, std::string> checkpoint_environment(const std::filesystem::path& folder);

/// Copies the tokenizer's files (tokenizer.json, tokenizer.model, tokenizer_config.json, ...) from
/// one folder to another.
void copy_tokenizer(const std::filesystem::path& from, const std::filesystem::path& to);

/// `given`, or when it is a run directory the checkpoint that its link `latest`, or `best`, leads
/// to. @throws MissingInput when there is none; InvalidArgument for the best of a checkpoint
std::filesystem::path chosen_checkpoint(const std::filesystem::path& given, bool best);

/// Writes the model of a checkpoint as a Hugging Face folder: a policy as a causal language model,
/// a reward model as sequence classification, with the tokenizer; one tensor is in memory at a
/// time, or those that the family's folders store as one. An adapter is merged into the model that
/// it was trained on, tensor by tensor, too: two more of the same size are made for each.
/// @throws IoError, CheckpointError; InvalidArgument when `to` is not empty; MissingInput for an
/// adapter without that model
void export_checkpoint(const std::filesystem::path& checkpoint, const std::filesystem::path& to);
/// Writes the adapter of a checkpoint by itself, as Hugging Face's peft reads it
/// (core/model/peft_folder.h), with the tokenizer. @throws the same; InvalidArgument where the
/// stage has none
void export_adapter(const std::filesystem::path& checkpoint, const std::filesystem::path& to);

}  // namespace praetor
