#include "core/tokenizer/normalizer.h"

#include <utility>
#include <vector>

#include "core/base/text.h"
#include "core/tokenizer/charsmap.h"
#include "core/tokenizer/pattern.h"
#include "core/tokenizer/regex.h"
#include "core/tokenizer/unicode.h"

namespace praetor {

namespace {

class UnicodeForm final : public Normalizer {
 public:
  explicit UnicodeForm(unicode::Form form) : form_(form) {}
  std::string apply(std::string_view text) const override {
    return unicode::normalize(text, form_);
  }

 private:
  unicode::Form form_;
};

class Prepend final : public Normalizer {
 public:
  explicit Prepend(std::string what) : what_(std::move(what)) {}
  std::string apply(std::string_view text) const override {
    return text.empty() ? std::string() : what_ + std::string(text);
  }

 private:
  std::string what_;
};

class Replace final : public Normalizer {
 public:
  Replace(Regex pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  std::string apply(std::string_view text) const override {
    return pattern_.replace_all(text, content_);
  }

 private:
  Regex pattern_;
  std::string content_;
};

class Strip final : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  std::string apply(std::string_view text) const override {
    while (left_ && !text.empty()) {
      size_t at = 0;
      if (!unicode::is_white_space(unicode::next(text, at))) break;
      text.remove_prefix(at);
    }
    while (right_ && !text.empty()) {
      const size_t last = unicode::previous(text, text.size());
      size_t at = last;
      if (!unicode::is_white_space(unicode::next(text, at))) break;
      text = text.substr(0, last);
    }
    return std::string(text);
  }

 private:
  bool left_;
  bool right_;
};

class Lowercase final : public Normalizer {
 public:
  std::string apply(std::string_view text) const override {
    std::string out;
    for (size_t at = 0; at < text.size();) {
      const char32_t code = unicode::next(text, at);
      if (code == U'\u0130') {  // the one letter whose lower case is two characters
        out += "i\u0307";
      } else {
        unicode::append(out, unicode::lower(code));
      }
    }
    return out;
  }
};

class Sequence final : public Normalizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<Normalizer>> parts) : parts_(std::move(parts)) {}
  std::string apply(std::string_view text) const override {
    std::string out(text);
    for (const auto& part : parts_) out = part->apply(out);
    return out;
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> parts_;
};

}  // namespace

std::unique_ptr<Normalizer> make_normalizer(const JsonView& json) {
  if (json.is_null()) return nullptr;
  const std::string type = json.type();
  if (type == "NFC") return std::make_unique<UnicodeForm>(unicode::Form::kNfc);
  if (type == "NFD") return std::make_unique<UnicodeForm>(unicode::Form::kNfd);
  if (type == "NFKC") return std::make_unique<UnicodeForm>(unicode::Form::kNfkc);
  if (type == "NFKD") return std::make_unique<UnicodeForm>(unicode::Form::kNfkd);
  if (type == "Lowercase") return std::make_unique<Lowercase>();
  if (type == "StripAccents") return std::make_unique<Replace>(Regex("\\p{M}", json.place()), "");
  if (type == "Precompiled") return std::make_unique<Charsmap>(json.at("precompiled_charsmap"));
  if (type == "Prepend") return std::make_unique<Prepend>(json.at("prepend").string());
  if (type == "Replace") {
    return std::make_unique<Replace>(read_pattern(json.at("pattern")), json.at("content").string());
  }
  if (type == "Strip") {
    return std::make_unique<Strip>(json.at("strip_left").boolean(),
                                   json.at("strip_right").boolean());
  }
  if (type == "Sequence") {
    const JsonView list = json.at("normalizers").array();
    std::vector<std::unique_ptr<Normalizer>> parts;
    for (size_t i = 0; i < list.size(); ++i) {
      if (auto part = make_normalizer(list.element(i))) parts.push_back(std::move(part));
    }
    return std::make_unique<Sequence>(std::move(parts));
  }
  json.at("type").fail("normalizer \"",
                       printable(type),
                       "\" is not supported; NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, "
                       "Precompiled, Prepend, Replace, Strip and Sequence are");
}

}  // namespace praetor
