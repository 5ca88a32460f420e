#include "actors/toy/toy_language.h"

#include <array>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/random.h"

namespace praetor {

namespace {

using Words = std::vector<std::string_view>;

const Words kTimes = {
    "one morning", "one evening", "in spring", "in winter", "after lunch", "before dawn"};
const Words kAnimals = {"fox", "owl", "bear", "cat", "dog", "hen", "mouse", "frog", "goat", "duck"};
const Words kPlaces = {"forest", "river", "garden", "house", "hill", "barn", "lake", "market"};
const Words kKindMoods = {"happy", "kind", "calm", "warm", "glad", "brave", "gentle"};
const Words kKindDeeds = {"shared a cake",
                          "sang a song",
                          "hugged a friend",
                          "gave a gift",
                          "fixed a toy",
                          "found a flower"};
const Words kUnkindMoods = {"angry", "sad", "cold", "mean", "rude", "lost", "scared"};
const Words kUnkindDeeds = {
    "broke a cup", "stole a coat", "kicked a stone", "told a lie", "hit a friend", "burned a toy"};
constexpr std::string_view kEnd = "<|end|>";

std::string_view pick(RandomStream& stream, const Words& words) {
  return words[stream.below(words.size())];
}

struct Story {
  std::string text;
  int kind = 0;       ///< kind sentences minus unkind ones
  int sentences = 0;  ///< before the end
};

class Writer {
 public:
  explicit Writer(RandomStream stream) : stream_(stream) {}

  std::string prompt() {
    animal_ = pick(stream_, kAnimals);
    return str(
        pick(stream_, kTimes), " the ", animal_, " went to the ", pick(stream_, kPlaces), " .");
  }

  /// What follows the last prompt.
  Story story() {
    Story story;
    const uint64_t sentences = 2 + stream_.below(2);
    story.sentences = static_cast<int>(sentences);
    for (uint64_t i = 0; i < sentences; ++i) {
      const bool kind = stream_.uniform() < 0.5;
      story.kind += kind ? 1 : -1;
      if (stream_.uniform() < 0.5) {
        story.text +=
            str(" the ", animal_, " was ", pick(stream_, kind ? kKindMoods : kUnkindMoods), " .");
      } else {
        story.text +=
            str(" the ", animal_, " ", pick(stream_, kind ? kKindDeeds : kUnkindDeeds), " .");
      }
    }
    story.text += " the end .";
    return story;
  }

  RandomStream& stream() { return stream_; }

 private:
  RandomStream stream_;
  std::string animal_;
};

/// GPT-2's printable stand-in for each byte, as UTF-8.
std::array<std::string, 256> byte_symbols() {
  std::array<std::string, 256> symbols;
  int next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    const int code = printable ? byte : next++;
    if (code < 0x80) {
      symbols[static_cast<size_t>(byte)] = std::string(1, static_cast<char>(code));
    } else {
      symbols[static_cast<size_t>(byte)] = {static_cast<char>(0xC0 | code >> 6),
                                            static_cast<char>(0x80 | (code & 63))};
    }
  }
  return symbols;
}

/// Every word becomes one token through the chain of its prefixes. Chains of words with a leading
/// space all start with the space, so they cannot cut into each other; those of words that open a
/// prompt come last for the same reason.
nlohmann::ordered_json make_tokenizer() {
  const auto symbols = byte_symbols();
  std::vector<std::string> spaced, opening;
  const auto split = [](std::string_view text, std::vector<std::string>& words) {
    size_t start = 0;
    while (start < text.size()) {
      const size_t space = std::min(text.find(' ', start), text.size());
      words.emplace_back(text.substr(start, space - start));
      start = space + 1;
    }
  };
  for (const Words* list :
       {&kAnimals, &kPlaces, &kKindMoods, &kKindDeeds, &kUnkindMoods, &kUnkindDeeds}) {
    for (const std::string_view words : *list) split(words, spaced);
  }
  split("the went to was end a .", spaced);
  for (const std::string_view words : kTimes) {
    std::vector<std::string> parts;
    split(words, parts);
    opening.push_back(parts[0]);
    spaced.insert(spaced.end(), parts.begin() + 1, parts.end());
  }

  nlohmann::ordered_json vocabulary = nlohmann::ordered_json::object();
  for (const std::string& symbol : symbols) vocabulary[symbol] = vocabulary.size();
  nlohmann::ordered_json merges = nlohmann::ordered_json::array();
  const auto add_chain = [&](std::string left, const std::string& rest) {
    for (const char c : rest) {
      const std::string& right = symbols[static_cast<unsigned char>(c)];
      const std::string merged = left + right;
      if (!vocabulary.contains(merged)) {
        vocabulary[merged] = vocabulary.size();
        merges.push_back(left + " " + right);
      }
      left = merged;
    }
  };
  for (const std::string& word : spaced) add_chain(symbols[' '], word);
  for (const std::string& word : opening) add_chain(word.substr(0, 1), word.substr(1));

  const auto end_id = vocabulary.size();
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens",
           {{{"id", end_id},
             {"content", kEnd},
             {"single_word", false},
             {"lstrip", false},
             {"rstrip", false},
             {"normalized", false},
             {"special", true}}}},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "ByteLevel"},
            {"add_prefix_space", false},
            {"trim_offsets", true},
            {"use_regex", true}}},
          {"post_processor", nullptr},
          {"decoder",
           {{"type", "ByteLevel"},
            {"add_prefix_space", true},
            {"trim_offsets", true},
            {"use_regex", true}}},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", vocabulary},
            {"merges", merges}}}};
}

void write_tokenizer(const std::filesystem::path& folder) {
  write_file_atomic(folder / "tokenizer.json", make_tokenizer().dump(1));
  const nlohmann::ordered_json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                                         {"eos_token", kEnd},
                                         {"add_bos_token", false}};
  write_file_atomic(folder / "tokenizer_config.json", config.dump(1));
}

void write_rows(const std::filesystem::path& file,
                const std::vector<nlohmann::ordered_json>& rows) {
  std::string text;
  for (const auto& row : rows) text += row.dump() + "\n";
  write_file_atomic(file, text);
}

}  // namespace

int64_t toy_language_vocabulary() {
  const auto tokenizer = make_tokenizer();
  return static_cast<int64_t>(tokenizer["model"]["vocab"].size() +
                              tokenizer["added_tokens"].size());
}

void write_toy_language(const std::filesystem::path& folder,
                        uint64_t seed,
                        const ToyLanguageSize& size) {
  std::error_code failure;
  std::filesystem::create_directories(folder, failure);
  if (failure) throw IoError("cannot make ", folder.string(), ": ", failure.message());
  write_tokenizer(folder);
  const auto writer = [&](uint32_t part) {
    return Writer(
        RandomStream({.job_seed = seed, .sample_index = part, .purpose = Purpose::kInitialise}));
  };

  std::vector<nlohmann::ordered_json> rows;
  Writer sft = writer(1);
  for (int64_t i = 0; i < size.sft_rows; ++i) {
    const std::string prompt = sft.prompt();
    rows.push_back({{"prompt", prompt}, {"completion", sft.story().text}});
  }
  write_rows(folder / "sft.jsonl", rows);

  const auto write_pairs = [&](const char* file, Writer pairs, int64_t count, double noise) {
    rows.clear();
    while (static_cast<int64_t>(rows.size()) < count) {
      const std::string prompt = pairs.prompt();
      Story chosen = pairs.story();
      Story rejected = pairs.story();
      if (chosen.kind == rejected.kind) continue;
      const bool flipped = pairs.stream().uniform() < noise;
      if ((chosen.kind < rejected.kind) != flipped) std::swap(chosen, rejected);
      rows.push_back({{"prompt", prompt}, {"chosen", chosen.text}, {"rejected", rejected.text}});
    }
    write_rows(folder / file, rows);
  };
  write_pairs("pairs.jsonl", writer(2), size.pair_rows, 0.05);
  write_pairs("pairs_eval.jsonl", writer(4), size.eval_rows, 0);

  const auto write_attributes = [&](const char* file, Writer labelled, int64_t count, bool gaps) {
    rows.clear();
    std::string prompt;
    for (int64_t i = 0; i < count; ++i) {
      if (i % 2 == 0) prompt = labelled.prompt();
      const Story story = labelled.story();
      nlohmann::ordered_json row = {{"prompt", prompt},
                                    {"completion", story.text},
                                    {"kindness", story.kind},
                                    {"verbosity", story.sentences}};
      if (gaps && i % 4 == 3)
        row.erase(labelled.stream().uniform() < 0.5 ? "kindness" : "verbosity");
      rows.push_back(std::move(row));
    }
    write_rows(folder / file, rows);
  };
  write_attributes("attributes.jsonl", writer(5), size.attribute_rows, true);
  write_attributes("attributes_eval.jsonl", writer(6), 2 * size.eval_rows, false);

  // Every prompt once: those of the evaluation are never trained on.
  Writer prompts = writer(3);
  std::set<std::string> seen;
  const auto fresh_prompts = [&](int64_t count) {
    rows.clear();
    int64_t tries = 0;
    while (static_cast<int64_t>(rows.size()) < count) {
      if (++tries > 1000 * (count + 1)) {
        throw InvalidArgument("the toy language has only ",
                              kTimes.size() * kAnimals.size() * kPlaces.size(),
                              " prompts; prompt_rows + eval_rows must stay below that");
      }
      std::string prompt = prompts.prompt();
      if (seen.insert(prompt).second) rows.push_back({{"prompt", std::move(prompt)}});
    }
  };
  fresh_prompts(size.eval_rows);
  write_rows(folder / "prompts_eval.jsonl", rows);
  fresh_prompts(size.prompt_rows);
  write_rows(folder / "prompts_train.jsonl", rows);
}

}  // namespace praetor
