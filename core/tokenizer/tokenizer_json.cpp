#include <utility>

#include "core/base/text.h"
#include "core/tokenizer/bpe.h"
#include "core/tokenizer/pipeline.h"
#include "core/tokenizer/pre_tokenizer.h"
#include "core/tokenizer/unigram.h"

namespace praetor {

namespace {

/// Words by the pre-tokenizer, ids by the model.
class WordsText final : public TextModel {
 public:
  WordsText(std::unique_ptr<PreTokenizer> pre_tokenizer, std::unique_ptr<WordModel> model)
      : pre_tokenizer_(std::move(pre_tokenizer)), model_(std::move(model)) {}
  void encode(std::string_view text, bool first, std::vector<int64_t>& out) const override {
    if (!pre_tokenizer_) {
      model_->encode_word(text, out);
      return;
    }
    std::vector<Piece> words;
    pre_tokenizer_->cut({std::string(text), first}, words);
    for (const Piece& word : words) model_->encode_word(word.text, out);
  }

 private:
  std::unique_ptr<PreTokenizer> pre_tokenizer_;
  std::unique_ptr<WordModel> model_;
};

std::unique_ptr<WordModel> make_word_model(const JsonView& json, Vocabulary& vocabulary) {
  const std::string type = json.string_or("type", "BPE");
  if (type == "BPE") return std::make_unique<Bpe>(json, vocabulary);
  if (type == "Unigram") return std::make_unique<Unigram>(json, vocabulary);
  json.at("type").fail(
      "model type \"", printable(type), "\" is not supported; BPE and Unigram are");
}

void read_added_tokens(const JsonView& list, TokenizerParts& parts) {
  for (size_t i = 0; i < list.array().size(); ++i) {
    const JsonView entry = list.element(i);
    AddedToken token = AddedToken::from_json(entry, entry.at("id").integer(0, kMaxTokenId));
    parts.vocabulary->add(token.content, token.id, entry.place());
    parts.added.push_back(std::move(token));
  }
}

/// Ids of a template's special token, and each of them a token.
std::vector<int64_t> template_ids(const JsonView& json,
                                  const std::string& name,
                                  const Vocabulary& vocabulary) {
  const JsonView ids = json.at("special_tokens").at(name).at("ids").array();
  std::vector<int64_t> out;
  for (size_t i = 0; i < ids.size(); ++i) {
    out.push_back(ids.element(i).integer(0, kMaxTokenId));
    if (!vocabulary.token(out.back())) ids.element(i).fail(out.back(), " is not the id of a token");
  }
  return out;
}

/// What stands before and behind the text, around what earlier processors put there.
void read_template(const JsonView& json, TokenizerParts& parts) {
  const JsonView single = json.at("single").array();
  std::vector<int64_t> prefix, suffix;
  bool seen = false;
  for (size_t i = 0; i < single.size(); ++i) {
    const JsonView item = single.element(i);
    if (item.has("Sequence")) {
      if (seen || item.at("Sequence").at("id").string() != "A")
        item.fail("one sequence, A, is wanted");
      seen = true;
    } else {
      const auto ids =
          template_ids(json, item.at("SpecialToken").at("id").string(), *parts.vocabulary);
      auto& side = seen ? suffix : prefix;
      side.insert(side.end(), ids.begin(), ids.end());
    }
  }
  if (!seen) single.fail("the sequence A is missing");
  parts.prefix.insert(parts.prefix.begin(), prefix.begin(), prefix.end());
  parts.suffix.insert(parts.suffix.end(), suffix.begin(), suffix.end());
}

void read_post_processor(const JsonView& json, TokenizerParts& parts) {
  if (json.is_null()) return;
  const std::string type = json.type();
  if (type == "ByteLevel") return;  // it changes offsets alone
  if (type == "TemplateProcessing") return read_template(json, parts);
  if (type == "Sequence") {
    const JsonView list = json.at("processors").array();
    for (size_t i = 0; i < list.size(); ++i) read_post_processor(list.element(i), parts);
    return;
  }
  json.at("type").fail("post-processor \"",
                       printable(type),
                       "\" is not supported; ByteLevel, TemplateProcessing and Sequence are");
}

}  // namespace

TokenizerParts load_tokenizer_json(const std::filesystem::path& file) {
  const nlohmann::json document = read_json_file(file);
  const JsonView json(document, file.string());
  json.object();
  const nlohmann::json null;
  const auto section = [&](const std::string& key) {
    return json.has(key) ? json.at(key) : json.child(key, null);
  };
  TokenizerParts parts;
  parts.file = file.string();
  parts.vocabulary = std::make_unique<Vocabulary>();
  auto model = make_word_model(json.at("model").object(), *parts.vocabulary);
  if (json.has("added_tokens")) read_added_tokens(json.at("added_tokens"), parts);
  parts.normalizer = make_normalizer(section("normalizer"));
  parts.model =
      std::make_unique<WordsText>(make_pre_tokenizer(section("pre_tokenizer")), std::move(model));
  parts.decoder = make_decoder(section("decoder"));
  read_post_processor(section("post_processor"), parts);
  return parts;
}

}  // namespace praetor
