// Whatever a tokenizer's files and texts hold, loading says DataError or gives a tokenizer that
// keeps its promises. Input: file text, then (after a line "----") a text to encode. Files that
// begin with a byte below 0x20 other than white space are taken as tokenizer.model.
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "core/base/error.h"
#include "core/tokenizer/tokenizer.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void try_tokenizer(const std::filesystem::path& folder, std::string_view text) {
  const auto tokenizer = praetor::Tokenizer::load(folder);
  std::vector<int64_t> tokens;
  try {
    tokens = tokenizer->encode(text);
  } catch (const praetor::DataError&) {
    return;
  }
  for (const int64_t token : tokens) require(token >= 0 && token < tokenizer->vocab_size());
  for (const bool skip_special : {true, false}) {
    praetor::StreamDecoder stream(*tokenizer, skip_special);
    std::string joined;
    for (const int64_t token : tokens) joined += stream.push(token);
    require(joined + stream.finish() == tokenizer->decode(tokens, skip_special));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::filesystem::path folder = [] {
    std::filesystem::path made =
        std::filesystem::temp_directory_path() / ("praetor-fuzz-" + std::to_string(getpid()));
    std::filesystem::create_directories(made);
    return made;
  }();
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t cut = input.find("\n----\n");
  const std::string_view file = input.substr(0, cut);
  const std::string_view text =
      cut == std::string_view::npos ? std::string_view("a b") : input.substr(cut + 6);
  const bool pieces =
      !file.empty() && static_cast<uint8_t>(file[0]) < 0x20 && file[0] != '\n' && file[0] != ' ';
  std::filesystem::remove(folder / (pieces ? "tokenizer.json" : "tokenizer.model"));
  std::ofstream(folder / (pieces ? "tokenizer.model" : "tokenizer.json"), std::ios::binary) << file;
  try {
    try_tokenizer(folder, text);
  } catch (const praetor::Error&) {
  }
  return 0;
}
