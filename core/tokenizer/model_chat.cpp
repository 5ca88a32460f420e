#include "core/tokenizer/model_chat.h"

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/tokenizer/json_view.h"
#include "core/tokenizer/tokenizer.h"

namespace praetor {

namespace {

struct Source {
  std::string text;
  std::string name;  ///< where it stands
};

std::optional<Source> find_source(const std::filesystem::path& folder) {
  if (const auto file = folder / "chat_template.jinja"; std::filesystem::exists(file))
    return Source{read_file(file), file.string()};
  const auto file = folder / "tokenizer_config.json";
  if (!std::filesystem::exists(file)) return std::nullopt;
  const nlohmann::json document = read_json_file(file);
  const JsonView json(document, file.string());
  if (!json.has("chat_template")) return std::nullopt;
  const JsonView given = json.at("chat_template");
  if (given.json().is_string()) return Source{given.string(), given.place()};
  for (size_t i = 0; i < given.array().size(); ++i) {
    const JsonView one = given.element(i);
    if (one.at("name").string() == "default")
      return Source{one.at("template").string(), one.at("template").place()};
  }
  return std::nullopt;
}

}  // namespace

std::shared_ptr<const ModelChat> ModelChat::load(const std::filesystem::path& folder,
                                                 const SpecialTokens& special) {
  const std::optional<Source> source = find_source(folder);
  if (!source) return nullptr;
  auto out = std::make_shared<ModelChat>();
  try {
    out->template_ = jinja::Template::parse(source->text, source->name);
  } catch (const DataError& e) {
    out->complaint_ = e.what();
  }
  const auto add = [&](const char* name, const std::optional<std::string>& token) {
    if (token) out->variables_[name] = *token;
  };
  add("bos_token", special.bos);
  add("eos_token", special.eos);
  add("pad_token", special.pad);
  add("unk_token", special.unk);
  return out;
}

jinja::Template::Rendered ModelChat::render(std::span<const Message> messages,
                                            bool add_generation_prompt,
                                            std::optional<std::tm> now) const {
  if (!template_) throw DataError(complaint_);
  nlohmann::ordered_json variables = variables_;
  variables["messages"] = nlohmann::ordered_json::array();
  for (const Message& message : messages)
    variables["messages"].push_back({{"role", message.role}, {"content", message.content}});
  variables["tools"] = nullptr;
  variables["documents"] = nullptr;
  variables["add_generation_prompt"] = add_generation_prompt;
  return template_->render(variables, now);
}

}  // namespace praetor
