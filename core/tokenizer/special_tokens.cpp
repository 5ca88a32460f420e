#include "core/tokenizer/special_tokens.h"

#include <charconv>

#include "core/base/text.h"
#include "core/tokenizer/vocabulary.h"

namespace praetor {

namespace {

/// A token given as a string or as {"content": ...}.
std::optional<std::string> read_token(const JsonView& json, const std::string& key) {
  if (!json.has(key)) return std::nullopt;
  const JsonView value = json.at(key);
  if (value.json().is_string()) return value.string();
  if (value.json().is_object()) return value.at("content").string();
  value.fail("a token is wanted, as a string or an object with \"content\"");
}

void read_roles(const JsonView& json, const std::filesystem::path& file, SpecialTokens& out) {
  const auto take = [&](std::optional<std::string>& role, const char* key) {
    if (role) return;
    role = read_token(json, key);
    if (role && role->empty()) role.reset();
    if (role && out.source.empty()) out.source = file;
  };
  take(out.bos, "bos_token");
  take(out.eos, "eos_token");
  take(out.pad, "pad_token");
  take(out.unk, "unk_token");
}

int64_t read_id_key(const JsonView& list, const std::string& key) {
  int64_t id = -1;
  const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
  if (error != std::errc() || end != key.data() + key.size() || id < 0 || id > kMaxTokenId) {
    list.fail("\"", printable(key), "\" is not an id from 0 to ", kMaxTokenId);
  }
  return id;
}

std::optional<TemplateText> read_chat_template(const JsonView& given) {
  if (given.json().is_string()) return TemplateText{given.string(), given.place()};
  for (size_t i = 0; i < given.array().size(); ++i) {
    const JsonView one = given.element(i);
    if (one.at("name").string() != "default") continue;
    return TemplateText{one.at("template").string(), one.at("template").place()};
  }
  return std::nullopt;
}

}  // namespace

bool SpecialTokens::class_frames_text() const {
  return tokenizer_class == "LlamaTokenizer" || tokenizer_class == "CodeLlamaTokenizer" ||
         tokenizer_class == "GemmaTokenizer";
}

SpecialTokens read_special_tokens(const std::filesystem::path& folder) {
  SpecialTokens out;
  if (const auto file = folder / "tokenizer_config.json"; std::filesystem::exists(file)) {
    const nlohmann::json document = read_json_file(file);
    const JsonView json(document, file.string());
    json.object();
    read_roles(json, file, out);
    const auto flag = [&](const char* key) -> std::optional<bool> {
      return json.has(key) ? std::optional(json.at(key).boolean()) : std::nullopt;
    };
    out.add_bos = flag("add_bos_token");
    out.add_eos = flag("add_eos_token");
    out.legacy = flag("legacy");
    out.tokenizer_class = json.string_or("tokenizer_class", "");
    if (out.tokenizer_class.ends_with("Fast"))
      out.tokenizer_class.resize(out.tokenizer_class.size() - 4);
    if (json.has("chat_template")) out.chat_template = read_chat_template(json.at("chat_template"));
    if (json.has("added_tokens_decoder")) {
      const JsonView list = json.at("added_tokens_decoder").object();
      for (const auto& [key, value] : list.json().items()) {
        out.added.push_back(AddedToken::from_json(list.child(key, value), read_id_key(list, key)));
      }
    }
  }
  if (const auto file = folder / "special_tokens_map.json"; std::filesystem::exists(file)) {
    const nlohmann::json document = read_json_file(file);
    read_roles(JsonView(document, file.string()).object(), file, out);
  }
  return out;
}

}  // namespace praetor
