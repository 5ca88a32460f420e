#include "core/tokenizer/decoder.h"

#include <optional>
#include <utility>

#include "core/base/text.h"
#include "core/tokenizer/byte_level.h"
#include "core/tokenizer/pattern.h"
#include "core/tokenizer/unicode.h"

namespace praetor {

namespace {

class ReplaceStep final : public DecodeStep {
 public:
  ReplaceStep(const Regex& pattern, const std::string& content)
      : pattern_(pattern), content_(content) {}
  void push(std::string_view token, std::vector<std::string>& out) override {
    out.push_back(pattern_.replace_all(token, content_));
  }
  void finish(std::vector<std::string>&) override {}

 private:
  const Regex& pattern_;
  const std::string& content_;
};

/// Joins the bytes of <0xHH> tokens. A run is text when all of it is UTF-8; else each of its bytes
/// is U+FFFD.
class ByteFallbackStep final : public DecodeStep {
 public:
  void push(std::string_view token, std::vector<std::string>& out) override {
    if (const auto byte = byte_of(token)) {
      run_.push_back(static_cast<char>(*byte));
      return;
    }
    finish(out);
    out.emplace_back(token);
  }
  void finish(std::vector<std::string>& out) override {
    if (run_.empty()) return;
    if (is_utf8(run_)) {
      out.push_back(run_);
    } else {
      for (size_t i = 0; i < run_.size(); ++i) out.emplace_back("\xEF\xBF\xBD");
    }
    run_.clear();
  }
  static std::string bytes(std::string_view token, bool) {
    const auto byte = byte_of(token);
    return byte ? std::string(1, static_cast<char>(*byte)) : std::string(token);
  }

 private:
  static int digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
  }
  static std::optional<uint8_t> byte_of(std::string_view token) {
    if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
    const int high = digit(token[3]);
    const int low = digit(token[4]);
    if (high < 0 || low < 0) return std::nullopt;
    return static_cast<uint8_t>(high * 16 + low);
  }
  std::string run_;
};

/// Takes up to `count` characters `content` off the start: of every token, or (after Fuse) of the
/// text once.
class StripStep final : public DecodeStep {
 public:
  StripStep(std::string_view content, int64_t count, bool fused)
      : content_(content), count_(count), fused_(fused), left_(count) {}
  void push(std::string_view token, std::vector<std::string>& out) override {
    if (!fused_) left_ = count_;
    while (left_ > 0 && token.starts_with(content_)) {
      token.remove_prefix(content_.size());
      --left_;
    }
    if (!token.empty()) {
      left_ = 0;
      out.emplace_back(token);
    } else if (!fused_) {
      out.emplace_back();
    }
  }
  void finish(std::vector<std::string>&) override {}

 private:
  std::string_view content_;
  int64_t count_;
  bool fused_;
  int64_t left_;
};

class MetaspaceStep final : public DecodeStep {
 public:
  MetaspaceStep(const std::string& replacement, bool prepended)
      : replacement_(replacement), at_start_(prepended) {}
  void push(std::string_view token, std::vector<std::string>& out) override {
    std::string text;
    while (!token.empty()) {
      if (token.starts_with(replacement_)) {
        if (!at_start_) text += ' ';  // in the first token every mark goes, as in Hugging Face
        token.remove_prefix(replacement_.size());
      } else {
        text += token[0];
        token.remove_prefix(1);
      }
    }
    at_start_ = false;
    out.push_back(std::move(text));
  }
  void finish(std::vector<std::string>&) override {}

 private:
  const std::string& replacement_;
  bool at_start_;
};

class ByteLevelStep final : public DecodeStep {
 public:
  void push(std::string_view token, std::vector<std::string>& out) override {
    std::string text;
    for (const char c : byte_level::decode(token)) bytes_.push(static_cast<uint8_t>(c), text);
    if (!text.empty()) out.push_back(std::move(text));
  }
  void finish(std::vector<std::string>& out) override {
    std::string text;
    bytes_.finish(text);
    if (!text.empty()) out.push_back(std::move(text));
  }
  static std::string bytes(std::string_view token, bool) { return byte_level::decode(token); }

 private:
  unicode::LossyUtf8 bytes_;
};

class SpacesStep final : public DecodeStep {
 public:
  void push(std::string_view token, std::vector<std::string>& out) override {
    out.emplace_back(first_ ? "" : " ");
    out.back() += token;
    first_ = false;
  }
  void finish(std::vector<std::string>&) override {}
  static std::string bytes(std::string_view token, bool first) {
    std::string out(first ? "" : " ");
    out += token;
    return out;
  }

 private:
  bool first_ = true;
};

class ChainStep final : public DecodeStep {
 public:
  explicit ChainStep(std::vector<std::unique_ptr<DecodeStep>> steps) : steps_(std::move(steps)) {}
  void push(std::string_view token, std::vector<std::string>& out) override {
    feed(0, {std::string(token)}, out);
  }
  void finish(std::vector<std::string>& out) override {
    for (size_t i = 0; i < steps_.size(); ++i) {
      std::vector<std::string> rest;
      steps_[i]->finish(rest);
      feed(i + 1, std::move(rest), out);
    }
  }

 private:
  void feed(size_t from, std::vector<std::string> tokens, std::vector<std::string>& out) {
    for (size_t i = from; i < steps_.size(); ++i) {
      std::vector<std::string> next;
      for (const std::string& token : tokens) steps_[i]->push(token, next);
      tokens = std::move(next);
    }
    for (std::string& token : tokens) out.push_back(std::move(token));
  }
  std::vector<std::unique_ptr<DecodeStep>> steps_;
};

template <typename Step>
class Plain final : public Decoder {
 public:
  std::unique_ptr<DecodeStep> start() const override { return std::make_unique<Step>(); }
  std::string bytes(std::string_view token, bool first) const override {
    return Step::bytes(token, first);
  }
};

/// What one step makes of one token.
std::string pushed(DecodeStep& step, std::string_view token) {
  std::vector<std::string> pieces;
  step.push(token, pieces);
  std::string out;
  for (const std::string& piece : pieces) out += piece;
  return out;
}

class ReplaceDecoder final : public Decoder {
 public:
  ReplaceDecoder(Regex pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  std::unique_ptr<DecodeStep> start() const override {
    return std::make_unique<ReplaceStep>(pattern_, content_);
  }
  std::string bytes(std::string_view token, bool) const override {
    // Behind ByteFallback there may be a part of a character, which no pattern matches.
    return is_utf8(token) ? pattern_.replace_all(token, content_) : std::string(token);
  }

 private:
  Regex pattern_;
  std::string content_;
};

class StripDecoder final : public Decoder {
 public:
  StripDecoder(std::string content, int64_t count, bool fused)
      : content_(std::move(content)), count_(count), fused_(fused) {}
  std::unique_ptr<DecodeStep> start() const override {
    return std::make_unique<StripStep>(content_, count_, fused_);
  }
  std::string bytes(std::string_view token, bool first) const override {
    if (fused_ && !first) return std::string(token);
    return pushed(*start(), token);
  }

 private:
  std::string content_;
  int64_t count_;
  bool fused_;
};

class MetaspaceDecoder final : public Decoder {
 public:
  MetaspaceDecoder(std::string replacement, bool prepended)
      : replacement_(std::move(replacement)), prepended_(prepended) {}
  std::unique_ptr<DecodeStep> start() const override {
    return std::make_unique<MetaspaceStep>(replacement_, prepended_);
  }
  std::string bytes(std::string_view token, bool first) const override {
    MetaspaceStep step(replacement_, prepended_ && first);
    return pushed(step, token);
  }

 private:
  std::string replacement_;
  bool prepended_;
};

class Chain final : public Decoder {
 public:
  explicit Chain(std::vector<std::unique_ptr<Decoder>> parts) : parts_(std::move(parts)) {}
  std::unique_ptr<DecodeStep> start() const override {
    std::vector<std::unique_ptr<DecodeStep>> steps;
    for (const auto& part : parts_) steps.push_back(part->start());
    return std::make_unique<ChainStep>(std::move(steps));
  }
  std::string bytes(std::string_view token, bool first) const override {
    std::string text(token);
    for (const auto& part : parts_) text = part->bytes(text, first);
    return text;
  }

 private:
  std::vector<std::unique_ptr<Decoder>> parts_;
};

std::unique_ptr<Decoder> make_strip(const JsonView& json, bool fused) {
  std::string content = json.at("content").string();
  size_t at = 0;
  if (!content.empty()) unicode::next(content, at);
  if (content.empty() || at != content.size()) json.at("content").fail("one character is wanted");
  if (json.has("stop") && json.at("stop").integer(0, INT32_MAX) != 0)
    json.at("stop").fail("only 0 is supported");
  return std::make_unique<StripDecoder>(
      std::move(content), json.at("start").integer(0, INT32_MAX), fused);
}

/// A step that works on single tokens, before Fuse.
std::unique_ptr<Decoder> make_token_decoder(const JsonView& json, const std::string& type) {
  if (type == "Replace") {
    return std::make_unique<ReplaceDecoder>(read_pattern(json.at("pattern")),
                                            json.at("content").string());
  }
  if (type == "ByteFallback") return std::make_unique<Plain<ByteFallbackStep>>();
  if (type == "Strip") return make_strip(json, false);
  if (type == "Metaspace") {
    std::string replacement = json.string_or("replacement", "\u2581");
    if (replacement.empty()) json.at("replacement").fail("is empty");
    const bool prepended = json.boolean_or("add_prefix_space", true) &&
                           json.string_or("prepend_scheme", "") != "never";
    return std::make_unique<MetaspaceDecoder>(std::move(replacement), prepended);
  }
  json.at("type").fail(
      "decoder \"",
      printable(type),
      "\" is not supported; ByteLevel, Metaspace, Replace, Strip, ByteFallback, Fuse and "
      "Sequence are");
}

}  // namespace

std::unique_ptr<Decoder> make_decoder(const JsonView& json) {
  if (json.is_null()) return std::make_unique<Plain<SpacesStep>>();
  const std::string type = json.type();
  if (type == "ByteLevel") return std::make_unique<Plain<ByteLevelStep>>();
  std::vector<std::unique_ptr<Decoder>> parts;
  if (type == "Fuse") return std::make_unique<Chain>(std::move(parts));
  if (type != "Sequence") return make_token_decoder(json, type);
  const JsonView list = json.at("decoders").array();
  bool fused = false;
  for (size_t i = 0; i < list.size(); ++i) {
    const JsonView part = list.element(i);
    const std::string name = part.type();
    if (name == "Fuse") {
      fused = true;
    } else if (fused && name == "Strip") {
      parts.push_back(make_strip(part, true));
    } else if (fused) {
      part.at("type").fail(
          "\"", printable(name), "\" behind Fuse or ByteLevel is not supported; Strip is");
    } else if (name == "ByteLevel") {
      parts.push_back(std::make_unique<Plain<ByteLevelStep>>());
      fused = true;
    } else {
      parts.push_back(make_token_decoder(part, name));
    }
  }
  return std::make_unique<Chain>(std::move(parts));
}

std::unique_ptr<Decoder> make_sentencepiece_decoder(bool dummy_prefix) {
  std::vector<std::unique_ptr<Decoder>> parts;
  parts.push_back(std::make_unique<ReplaceDecoder>(Regex::literal("\u2581", "SentencePiece"), " "));
  parts.push_back(std::make_unique<Plain<ByteFallbackStep>>());
  if (dummy_prefix) parts.push_back(std::make_unique<StripDecoder>(" ", 1, true));
  return std::make_unique<Chain>(std::move(parts));
}

}  // namespace praetor
