#include "core/tokenizer/model_chat.h"

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/tokenizer/tokenizer.h"

namespace praetor {

std::shared_ptr<const ModelChat> ModelChat::load(const std::filesystem::path& folder,
                                                 const SpecialTokens& special) {
  std::optional<TemplateText> source = special.chat_template;
  if (const auto file = folder / "chat_template.jinja"; std::filesystem::exists(file))
    source = TemplateText{read_file(file), file.string()};
  if (!source) return nullptr;
  auto out = std::make_shared<ModelChat>();
  try {
    out->template_ = jinja::Template::parse(source->text, source->place);
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
