#include "reward/models/fit.h"

#include "core/base/error.h"

namespace praetor {

std::unique_ptr<Tokenizer> fitting_tokenizer(const std::filesystem::path& folder,
                                             const ModelConfig& model,
                                             int64_t max_length) {
  auto tokenizer = Tokenizer::load(folder);
  if (tokenizer->vocab_size() > model.vocab_size) {
    throw DataError(folder.string(),
                    ": the tokenizer has ",
                    tokenizer->vocab_size(),
                    " tokens, the model's embedding ",
                    model.vocab_size);
  }
  if (max_length > model.max_positions) {
    throw DataError(folder.string(),
                    ": max_length ",
                    max_length,
                    " is more than the model's ",
                    model.max_positions,
                    " positions");
  }
  return tokenizer;
}

std::string length_error(size_t tokens, int64_t max_length, const std::string& when_none) {
  if (tokens == 0) return when_none;
  if (static_cast<int64_t>(tokens) <= max_length) return "";
  return str(tokens, " tokens, more than max_length ", max_length);
}

}  // namespace praetor
