#include "core/tokenizer/pipeline.h"

#include <algorithm>
#include <utility>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/tokenizer/unicode.h"

namespace praetor {

class PipelineTokenizer::StepDecoding final : public Tokenizer::Decoding {
 public:
  StepDecoding(const PipelineTokenizer& owner, bool skip_special)
      : owner_(owner), skip_special_(skip_special), step_(owner.parts_.decoder->start()) {}

  std::string push(int64_t token) override {
    const std::string* text = owner_.parts_.vocabulary->token(token);
    if (!text) return {};
    if (const auto other = owner_.respelled_.find(token); other != owner_.respelled_.end()) {
      text = &other->second;
    } else if (skip_special_ && owner_.is_special(token)) {
      return {};
    }
    step_->push(*text, pieces_);
    return take();
  }

  std::string finish() override {
    step_->finish(pieces_);
    return take();
  }

 private:
  std::string take() {
    std::string out;
    for (const std::string& piece : pieces_) out += piece;
    pieces_.clear();
    return out;
  }
  const PipelineTokenizer& owner_;
  bool skip_special_;
  std::unique_ptr<DecodeStep> step_;
  std::vector<std::string> pieces_;
};

PipelineTokenizer::PipelineTokenizer(TokenizerParts parts,
                                     const SpecialTokens& special,
                                     std::shared_ptr<const ModelChat> chat)
    : parts_(std::move(parts)) {
  chat_ = std::move(chat);
  add_tokens(special);
  bos_ = find_role(special, "bos_token", special.bos);
  eos_ = find_role(special, "eos_token", special.eos);
  pad_ = find_role(special, "pad_token", special.pad);
  const auto fill = [](std::optional<int64_t>& role, int64_t id) {
    if (!role && id >= 0) role = id;
  };
  fill(bos_, parts_.bos);
  fill(eos_, parts_.eos);
  fill(pad_, parts_.pad);
  for (const AddedToken& token : parts_.added) {
    if (token.special) special_.insert(token.id);
    if (token.normalized) {
      const std::string spelled =
          parts_.normalizer ? parts_.normalizer->apply(token.content) : token.content;
      normalized_.add(token, spelled);
      if (spelled != token.content) respelled_.emplace(token.id, spelled);
    } else {
      raw_.add(token, token.content);
    }
  }
  if (special.class_frames_text() && special.add_bos) {
    if (*special.add_bos && !bos_)
      throw DataError(parts_.file, ": add_bos_token is set, but there is no bos_token");
    parts_.prefix = *special.add_bos ? std::vector<int64_t>{*bos_} : std::vector<int64_t>{};
  }
  if (special.class_frames_text() && special.add_eos) {
    if (*special.add_eos && !eos_)
      throw DataError(parts_.file, ": add_eos_token is set, but there is no eos_token");
    parts_.suffix = *special.add_eos ? std::vector<int64_t>{*eos_} : std::vector<int64_t>{};
  }
}

void PipelineTokenizer::add_tokens(const SpecialTokens& special) {
  for (const AddedToken& token : special.added) {
    parts_.vocabulary->add(
        token.content, token.id, parts_.file + ": added_tokens_decoder of tokenizer_config.json");
    const bool known = std::any_of(parts_.added.begin(),
                                   parts_.added.end(),
                                   [&](const AddedToken& each) { return each.id == token.id; });
    if (!known) parts_.added.push_back(token);
  }
}

std::optional<int64_t> PipelineTokenizer::find_role(const SpecialTokens& special,
                                                    const char* key,
                                                    const std::optional<std::string>& token) {
  if (!token) return std::nullopt;
  const auto id = parts_.vocabulary->id(*token);
  if (!id) {
    throw DataError(special.source.string(),
                    ": ",
                    key,
                    " \"",
                    printable(*token),
                    "\" is not a token of ",
                    parts_.file);
  }
  const auto known = std::find_if(parts_.added.begin(),
                                  parts_.added.end(),
                                  [&](const AddedToken& each) { return each.id == *id; });
  if (known == parts_.added.end()) {
    AddedToken added;
    added.id = *id;
    added.content = *token;
    added.special = true;
    parts_.added.push_back(added);
  } else {
    known->special = true;
  }
  return id;
}

std::vector<int64_t> PipelineTokenizer::encode(std::string_view text, bool add_special) const {
  if (const size_t broken = unicode::find_broken(text); broken != std::string_view::npos) {
    throw DataError("text of ",
                    text.size(),
                    " bytes is not UTF-8: byte ",
                    broken,
                    " is wrong, near \"",
                    printable(text.substr(broken - std::min<size_t>(broken, 16), 32)),
                    "\"");
  }
  std::vector<int64_t> out;
  if (add_special) out = parts_.prefix;
  for (const Stretch& stretch : raw_.split(text)) {
    if (stretch.id >= 0) {
      out.push_back(stretch.id);
    } else {
      encode_stretch(
          text.substr(stretch.begin, stretch.end - stretch.begin), stretch.begin == 0, out);
    }
  }
  if (add_special) out.insert(out.end(), parts_.suffix.begin(), parts_.suffix.end());
  return out;
}

void PipelineTokenizer::encode_stretch(std::string_view text,
                                       bool first,
                                       std::vector<int64_t>& out) const {
  std::string made;
  if (parts_.normalizer) {
    made = parts_.normalizer->apply(text);
    text = made;
  }
  for (const Stretch& stretch : normalized_.split(text)) {
    if (stretch.id >= 0) {
      out.push_back(stretch.id);
    } else {
      parts_.model->encode(text.substr(stretch.begin, stretch.end - stretch.begin),
                           first && stretch.begin == 0,
                           out);
    }
  }
}

std::string PipelineTokenizer::decode(std::span<const int64_t> tokens, bool skip_special) const {
  StepDecoding decoding(*this, skip_special);
  std::string out;
  for (const int64_t token : tokens) out += decoding.push(token);
  return out + decoding.finish();
}

std::optional<std::string> PipelineTokenizer::id_to_token(int64_t id) const {
  const std::string* token = parts_.vocabulary->token(id);
  return token ? std::optional(*token) : std::nullopt;
}

std::string PipelineTokenizer::token_bytes(int64_t id, bool first) const {
  const std::string* token = parts_.vocabulary->token(id);
  if (!token) return {};
  if (const auto other = respelled_.find(id); other != respelled_.end())
    return parts_.decoder->bytes(other->second, first);
  return is_special(id) ? std::string() : parts_.decoder->bytes(*token, first);
}

std::unique_ptr<Tokenizer::Decoding> PipelineTokenizer::start_decode(bool skip_special) const {
  return std::make_unique<StepDecoding>(*this, skip_special);
}

}  // namespace praetor
