#include <sentencepiece_processor.h>

#include <algorithm>
#include <array>
#include <utility>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/text.h"
#include "core/tokenizer/pipeline.h"

namespace praetor {

namespace {

constexpr size_t kMaxBytes = size_t{256} << 20;

class SentencePieceText final : public TextModel {
 public:
  explicit SentencePieceText(std::unique_ptr<sentencepiece::SentencePieceProcessor> processor)
      : processor_(std::move(processor)) {}
  void encode(std::string_view text, bool, std::vector<int64_t>& out) const override {
    std::vector<int> ids;
    const auto status = processor_->Encode(absl::string_view(text.data(), text.size()), &ids);
    if (!status.ok()) throw DataError("SentencePiece cannot encode a text: ", status.ToString());
    out.insert(out.end(), ids.begin(), ids.end());
  }

 private:
  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
};

/// Whether the model puts U+2581 before a text; its library has no question for it.
bool has_dummy_prefix(const sentencepiece::SentencePieceProcessor& processor) {
  std::vector<std::string> pieces;
  return processor.Encode("a", &pieces).ok() && !pieces.empty() && pieces[0].starts_with("\u2581");
}

void check_class(const std::filesystem::path& file, const SpecialTokens& special) {
  static constexpr std::array<std::string_view, 6> kKnown{"",
                                                          "PreTrainedTokenizer",
                                                          "LlamaTokenizer",
                                                          "CodeLlamaTokenizer",
                                                          "GemmaTokenizer",
                                                          "T5Tokenizer"};
  if (std::find(kKnown.begin(), kKnown.end(), special.tokenizer_class) == kKnown.end()) {
    throw DataError(file.string(),
                    ": the tokenizer_class \"",
                    printable(special.tokenizer_class),
                    "\" is not supported for a tokenizer.model; LlamaTokenizer, GemmaTokenizer and "
                    "T5Tokenizer are (a tokenizer.json beside it would be read instead)");
  }
  if (special.legacy && !*special.legacy) {
    throw DataError(file.string(),
                    ": \"legacy\": false is not supported for a tokenizer.model; put a "
                    "tokenizer.json beside it");
  }
}

}  // namespace

TokenizerParts load_sentencepiece(const std::filesystem::path& file, const SpecialTokens& special) {
  check_class(file, special);
  auto processor = std::make_unique<sentencepiece::SentencePieceProcessor>();
  const std::string bytes = read_file(file, kMaxBytes);
  if (const auto status = processor->LoadFromSerializedProto(bytes); !status.ok()) {
    throw DataError(
        file.string(), ": not a SentencePiece model: ", printable(status.ToString(), 200));
  }
  TokenizerParts parts;
  parts.file = file.string();
  parts.vocabulary = std::make_unique<Vocabulary>();
  for (int id = 0; id < processor->GetPieceSize(); ++id) {
    const std::string& piece = processor->IdToPiece(id);
    parts.vocabulary->add(piece, id, file.string());
    if (processor->IsControl(id) || processor->IsUnknown(id)) {
      AddedToken token;
      token.id = id;
      token.content = piece;
      token.special = true;
      parts.added.push_back(std::move(token));
    }
  }
  if (processor->GetPieceSize() == 0) throw DataError(file.string(), ": the model has no pieces");
  // LlamaTokenizer's defaults: BOS in front, no EOS behind. T5Tokenizer knows EOS alone.
  const bool t5 = special.tokenizer_class == "T5Tokenizer";
  if (!t5 && special.add_bos.value_or(true) && processor->bos_id() >= 0)
    parts.prefix = {processor->bos_id()};
  if ((t5 || special.add_eos.value_or(false)) && processor->eos_id() >= 0)
    parts.suffix = {processor->eos_id()};
  parts.decoder = make_sentencepiece_decoder(has_dummy_prefix(*processor));
  parts.bos = processor->bos_id();
  parts.eos = processor->eos_id();
  parts.pad = processor->pad_id();
  parts.model = std::make_unique<SentencePieceText>(std::move(processor));
  return parts;
}

}  // namespace praetor
