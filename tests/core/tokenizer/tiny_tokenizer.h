#pragma once

#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/base/fs.h"
#include "core/tokenizer/byte_level.h"
#include "core/tokenizer/tokenizer.h"
#include "tests/support/shared_data.h"

namespace praetor::testing {

/// A byte-level tokenizer.json: ids 0 to 255 are the bytes, then "he" 256, "ll" 257, "hell" 258,
/// "hello" 259, then `special` from 260 on.
inline nlohmann::json tiny_byte_level(const std::vector<std::string>& special = {}) {
  nlohmann::json vocab = nlohmann::json::object();
  for (int byte = 0; byte < 256; ++byte)
    vocab[byte_level::encode(std::string(1, static_cast<char>(byte)))] = byte;
  nlohmann::json merges = {"h e", "l l", "he ll", "hell o"};
  for (const char* word : {"he", "ll", "hell", "hello"}) vocab[word] = vocab.size();
  nlohmann::json added = nlohmann::json::array();
  for (const std::string& token : special) {
    added.push_back(
        {{"id", 260 + added.size()}, {"content", token}, {"special", true}, {"normalized", false}});
  }
  const nlohmann::json byte_level = {{"type", "ByteLevel"},
                                     {"add_prefix_space", false},
                                     {"trim_offsets", true},
                                     {"use_regex", true}};
  return {{"version", "1.0"},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}}};
}

/// A Llama-style tokenizer.json: <unk> 0, <s> 1, </s> 2, the bytes 3 to 258, then U+2581 259, a
/// 260, b 261, c 262 and "U+2581 a" 263. BOS stands before a text; every text gets a dummy prefix.
inline nlohmann::json tiny_llama() {
  nlohmann::json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof(name), "<0x%02X>", byte);
    vocab[name] = 3 + byte;
  }
  for (const char* token : {"\u2581", "a", "b", "c", "\u2581a"}) vocab[token] = vocab.size();
  nlohmann::json added = nlohmann::json::array();
  for (const char* token : {"<unk>", "<s>", "</s>"}) {
    added.push_back(
        {{"id", added.size()}, {"content", token}, {"special", true}, {"normalized", false}});
  }
  const nlohmann::json mark = {{"String", "\u2581"}};
  return nlohmann::json{
      {"added_tokens", added},
      {"normalizer",
       {{"type", "Sequence"},
        {"normalizers",
         {{{"type", "Prepend"}, {"prepend", "\u2581"}},
          {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}}}}}},
      {"post_processor",
       {{"type", "TemplateProcessing"},
        {"single",
         {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}},
          {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
        {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {1}}, {"tokens", {"<s>"}}}}}}}},
      {"decoder",
       {{"type", "Sequence"},
        {"decoders",
         {{{"type", "Replace"}, {"pattern", mark}, {"content", " "}},
          {{"type", "ByteFallback"}},
          {{"type", "Fuse"}},
          {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}}},
      {"model",
       {{"type", "BPE"},
        {"unk_token", "<unk>"},
        {"fuse_unk", true},
        {"byte_fallback", true},
        {"vocab", vocab},
        {"merges", {"\u2581 a"}}}}};
}

/// Writes the documents into a temporary folder and loads it; a null config is not written.
inline std::unique_ptr<Tokenizer> load_tokenizer(const nlohmann::json& document,
                                                 const nlohmann::json& config = nullptr) {
  const TempDir dir;
  write_file_atomic(dir / "tokenizer.json", document.dump());
  if (!config.is_null()) write_file_atomic(dir / "tokenizer_config.json", config.dump());
  return Tokenizer::load(dir.path());
}

}  // namespace praetor::testing
