#include "core/tokenizer/json_view.h"

#include <algorithm>
#include <utility>

#include "core/base/fs.h"
#include "core/base/text.h"

namespace praetor {

namespace {

constexpr size_t kMaxBytes = size_t{512} << 20;
constexpr int kMaxDepth = 64;

/// Depth of the brackets outside strings; right for well-formed JSON, which is all that matters
/// here.
int deepest(std::string_view text) {
  int depth = 0;
  int most = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '[' || c == '{') {
      most = std::max(most, ++depth);
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return most;
}

}  // namespace

nlohmann::json read_json_file(const std::filesystem::path& file) {
  const std::string text = read_file(file, kMaxBytes);
  if (deepest(text) > kMaxDepth) {
    throw DataError(
        file.string(), ": nested deeper than ", kMaxDepth, " levels, which no tokenizer needs");
  }
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& failure) {
    std::string_view what = failure.what();
    if (const size_t tag = what.find("] "); tag != std::string_view::npos)
      what.remove_prefix(tag + 2);
    throw DataError(file.string(), ": not valid JSON: ", printable(what, 300));
  }
}

bool JsonView::has(const std::string& key) const {
  object();
  const auto found = value_->find(key);
  return found != value_->end() && !found->is_null();
}

JsonView JsonView::at(const std::string& key) const {
  object();
  const auto found = value_->find(key);
  if (found == value_->end()) fail("\"", key, "\" is missing");
  return child(key, *found);
}

JsonView JsonView::child(const std::string& key, const nlohmann::json& value) const {
  return {value, where_, path_.empty() ? printable(key) : path_ + "." + printable(key)};
}

JsonView JsonView::element(size_t index) const {
  return {array().value_->at(index), where_, str(path_, "[", index, "]")};
}

const JsonView& JsonView::object() const {
  if (!value_->is_object()) wrong_type("an object");
  return *this;
}

const JsonView& JsonView::array() const {
  if (!value_->is_array()) wrong_type("a list");
  return *this;
}

std::string JsonView::string() const {
  if (!value_->is_string()) wrong_type("a string");
  return value_->get<std::string>();
}

bool JsonView::boolean() const {
  if (!value_->is_boolean()) wrong_type("true or false");
  return value_->get<bool>();
}

int64_t JsonView::integer(int64_t lowest, int64_t highest) const {
  if (!value_->is_number_integer()) wrong_type("a whole number");
  const bool huge =
      value_->is_number_unsigned() && value_->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  const int64_t number = huge ? 0 : value_->get<int64_t>();
  if (huge || number < lowest || number > highest) {
    fail(value_->dump(), " is outside ", lowest, " to ", highest);
  }
  return number;
}

std::string JsonView::string_or(const std::string& key, const std::string& otherwise) const {
  return has(key) ? at(key).string() : otherwise;
}

bool JsonView::boolean_or(const std::string& key, bool otherwise) const {
  return has(key) ? at(key).boolean() : otherwise;
}

void JsonView::wrong_type(std::string_view wanted) const {
  fail(wanted, " is wanted, not ", value_->type_name());
}

}  // namespace praetor
