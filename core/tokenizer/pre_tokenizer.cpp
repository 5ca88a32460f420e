#include "core/tokenizer/pre_tokenizer.h"

#include <utility>

#include "core/base/text.h"
#include "core/tokenizer/byte_level.h"
#include "core/tokenizer/pattern.h"
#include "core/tokenizer/regex.h"

namespace praetor {

namespace {

enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

/// A stretch of text that matches the pattern or lies between matches.
struct Part {
  Span span;
  bool match;
};

std::vector<Part> parts_of(const Regex& pattern, std::string_view text, bool invert) {
  std::vector<Part> parts;
  size_t done = 0;
  for (const Span& found : pattern.find_all(text)) {
    if (done < found.first) parts.push_back({{done, found.first}, invert});
    parts.push_back({found, !invert});
    done = found.second;
  }
  if (done < text.size()) parts.push_back({{done, text.size()}, invert});
  return parts;
}

/// Joins parts as the behaviour says; what is left of each is one piece.
std::vector<Span> arrange(const std::vector<Part>& parts, Behavior behavior) {
  std::vector<Span> out;
  bool previous_match = false;
  for (size_t i = 0; i < parts.size(); ++i) {
    const auto& [span, match] = parts[i];
    bool joins = false;  // with the piece before it
    switch (behavior) {
      case Behavior::kRemoved:
        if (match) continue;
        break;
      case Behavior::kIsolated:
        break;
      case Behavior::kMergedWithPrevious:
        joins = i > 0 && match && !previous_match;
        break;
      case Behavior::kMergedWithNext:
        joins = i > 0 && !match && previous_match;
        break;
      case Behavior::kContiguous:
        joins = i > 0 && match == previous_match;
        break;
    }
    if (joins) {
      out.back().second = span.second;
    } else {
      out.push_back(span);
    }
    previous_match = match;
  }
  return out;
}

void emit(const Piece& piece, const std::vector<Span>& spans, std::vector<Piece>& out) {
  for (const auto& [begin, end] : spans) {
    out.push_back({piece.text.substr(begin, end - begin), piece.first && begin == 0});
  }
}

class Split final : public PreTokenizer {
 public:
  Split(Regex pattern, Behavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}
  void cut(const Piece& piece, std::vector<Piece>& out) const override {
    emit(piece, arrange(parts_of(pattern_, piece.text, invert_), behavior_), out);
  }

 private:
  Regex pattern_;
  Behavior behavior_;
  bool invert_;
};

class ByteLevel final : public PreTokenizer {
 public:
  ByteLevel(bool add_prefix_space, bool use_regex)
      : add_prefix_space_(add_prefix_space),
        use_regex_(use_regex),
        pattern_(byte_level::kSplitPattern, "GPT-2") {}
  void cut(const Piece& piece, std::vector<Piece>& out) const override {
    if (piece.text.empty()) return;
    Piece whole = piece;
    if (add_prefix_space_ && whole.text[0] != ' ') whole.text.insert(0, 1, ' ');
    const size_t before = out.size();
    if (use_regex_) {
      emit(whole, arrange(parts_of(pattern_, whole.text, false), Behavior::kIsolated), out);
    } else {
      out.push_back(std::move(whole));
    }
    for (size_t i = before; i < out.size(); ++i) out[i].text = byte_level::encode(out[i].text);
  }

 private:
  bool add_prefix_space_;
  bool use_regex_;
  Regex pattern_;
};

class Metaspace final : public PreTokenizer {
 public:
  enum class Prepend { kAlways, kFirst, kNever };
  Metaspace(std::string replacement, Prepend prepend, bool split, const std::string& where)
      : replacement_(std::move(replacement)),
        prepend_(prepend),
        split_(split),
        pattern_(Regex::literal(replacement_, where)) {}
  void cut(const Piece& piece, std::vector<Piece>& out) const override {
    if (piece.text.empty()) return;
    Piece whole{"", piece.first};
    for (const char c : piece.text) {
      if (c == ' ') {
        whole.text += replacement_;
      } else {
        whole.text += c;
      }
    }
    const bool wanted =
        prepend_ == Prepend::kAlways || (prepend_ == Prepend::kFirst && piece.first);
    if (wanted && !whole.text.starts_with(replacement_)) whole.text.insert(0, replacement_);
    if (split_) {
      emit(whole, arrange(parts_of(pattern_, whole.text, false), Behavior::kMergedWithNext), out);
    } else {
      out.push_back(std::move(whole));
    }
  }

 private:
  std::string replacement_;
  Prepend prepend_;
  bool split_;
  Regex pattern_;
};

class Sequence final : public PreTokenizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<PreTokenizer>> parts) : parts_(std::move(parts)) {}
  void cut(const Piece& piece, std::vector<Piece>& out) const override {
    std::vector<Piece> now{piece};
    for (const auto& part : parts_) {
      std::vector<Piece> next;
      for (const Piece& each : now) part->cut(each, next);
      now = std::move(next);
    }
    for (Piece& each : now) out.push_back(std::move(each));
  }

 private:
  std::vector<std::unique_ptr<PreTokenizer>> parts_;
};

Behavior read_behavior(const JsonView& json) {
  const std::string name = json.string();
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  json.fail("behavior \"", printable(name), "\" is not known");
}

std::unique_ptr<PreTokenizer> make_metaspace(const JsonView& json) {
  const std::string replacement = json.string_or("replacement", "\u2581");
  if (replacement.empty()) json.at("replacement").fail("is empty");
  auto prepend = json.boolean_or("add_prefix_space", true) ? Metaspace::Prepend::kAlways
                                                           : Metaspace::Prepend::kNever;
  if (json.has("prepend_scheme")) {
    const std::string scheme = json.at("prepend_scheme").string();
    if (scheme == "always") {
      prepend = Metaspace::Prepend::kAlways;
    } else if (scheme == "first") {
      prepend = Metaspace::Prepend::kFirst;
    } else if (scheme == "never") {
      prepend = Metaspace::Prepend::kNever;
    } else {
      json.at("prepend_scheme")
          .fail("\"", printable(scheme), "\" is not known; always, first and never are");
    }
  }
  return std::make_unique<Metaspace>(
      replacement, prepend, json.boolean_or("split", true), json.place());
}

}  // namespace

std::unique_ptr<PreTokenizer> make_pre_tokenizer(const JsonView& json) {
  if (json.is_null()) return nullptr;
  const std::string type = json.type();
  if (type == "ByteLevel") {
    return std::make_unique<ByteLevel>(json.boolean_or("add_prefix_space", true),
                                       json.boolean_or("use_regex", true));
  }
  if (type == "Split") {
    return std::make_unique<Split>(read_pattern(json.at("pattern")),
                                   read_behavior(json.at("behavior")),
                                   json.boolean_or("invert", false));
  }
  if (type == "Digits") {
    const bool single = json.boolean_or("individual_digits", false);
    return std::make_unique<Split>(
        Regex("\\p{N}", json.place()), single ? Behavior::kIsolated : Behavior::kContiguous, false);
  }
  if (type == "Punctuation") {
    return std::make_unique<Split>(
        Regex("[\\p{P}$+<=>^`|~]", json.place()),
        json.has("behavior") ? read_behavior(json.at("behavior")) : Behavior::kIsolated,
        false);
  }
  if (type == "Whitespace") {  // keeps what is a word or signs beside one another
    return std::make_unique<Split>(
        Regex("\\w+|[^\\w\\s]+", json.place()), Behavior::kRemoved, true);
  }
  if (type == "WhitespaceSplit")
    return std::make_unique<Split>(Regex("\\s", json.place()), Behavior::kRemoved, false);
  if (type == "Metaspace") return make_metaspace(json);
  if (type == "Sequence") {
    const JsonView list = json.at("pretokenizers").array();
    std::vector<std::unique_ptr<PreTokenizer>> parts;
    for (size_t i = 0; i < list.size(); ++i) {
      if (auto part = make_pre_tokenizer(list.element(i))) parts.push_back(std::move(part));
    }
    return std::make_unique<Sequence>(std::move(parts));
  }
  json.at("type").fail("pre-tokenizer \"",
                       printable(type),
                       "\" is not supported; ByteLevel, Split, Digits, Punctuation, Whitespace, "
                       "WhitespaceSplit, Metaspace and Sequence are");
}

}  // namespace praetor
