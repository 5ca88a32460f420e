#include "core/tokenizer/tokenizer.h"

#include "core/base/error.h"
#include "core/tokenizer/model_chat.h"
#include "core/tokenizer/pipeline.h"

namespace praetor {

namespace {

class WholeDecoding final : public Tokenizer::Decoding {
 public:
  WholeDecoding(const Tokenizer& tokenizer, bool skip_special)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}
  std::string push(int64_t token) override {
    tokens_.push_back(token);
    return {};
  }
  std::string finish() override { return tokenizer_.decode(tokens_, skip_special_); }

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_;
  std::vector<int64_t> tokens_;
};

}  // namespace

std::unique_ptr<Tokenizer::Decoding> Tokenizer::start_decode(bool skip_special) const {
  return std::make_unique<WholeDecoding>(*this, skip_special);
}

std::string Tokenizer::token_bytes(int64_t id, bool) const {
  return decode({&id, 1}, true);
}

std::unique_ptr<Tokenizer> Tokenizer::load(const std::filesystem::path& folder) {
  if (!std::filesystem::is_directory(folder))
    throw MissingInput(folder.string(), ": no such folder");
  const bool json = std::filesystem::exists(folder / "tokenizer.json");
  if (!json && !std::filesystem::exists(folder / "tokenizer.model")) {
    throw MissingInput(folder.string(), ": neither tokenizer.json nor tokenizer.model is there");
  }
  const SpecialTokens special = read_special_tokens(folder);
  TokenizerParts parts = json ? load_tokenizer_json(folder / "tokenizer.json")
                              : load_sentencepiece(folder / "tokenizer.model", special);
  return std::make_unique<PipelineTokenizer>(
      std::move(parts), special, ModelChat::load(folder, special));
}

}  // namespace praetor
