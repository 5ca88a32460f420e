#include "actors/cli/generate_prompts.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/data/example.h"

namespace praetor::cli {
namespace {

using nlohmann::json;

constexpr size_t kMostErrors = 20;

const std::string& text_at(const json& object, const char* key) {
  if (!object.contains(key)) throw DataError("has no \"", key, "\"");
  const json& value = object[key];
  if (!value.is_string()) throw DataError('"', key, "\" must be a string, not ", value.type_name());
  return value.get_ref<const std::string&>();
}

std::vector<int64_t> ids_of(const json& list) {
  if (!list.is_array()) {
    throw DataError("\"tokens\" must be a list of token ids, not ", list.type_name());
  }
  std::vector<int64_t> ids;
  for (const json& id : list) {
    if (!id.is_number_integer() || (id.is_number_unsigned() && id.get<uint64_t>() >> 63 != 0)) {
      throw DataError("\"tokens\" must be a list of token ids, found ", printable(id.dump()));
    }
    ids.push_back(id.get<int64_t>());
  }
  return ids;
}

std::vector<Message> messages_of(const json& list) {
  if (!list.is_array() || list.empty()) {
    throw DataError(R"("messages" must be a list of {"role", "content"} that is not empty)");
  }
  std::vector<Message> messages;
  for (const json& each : list) {
    if (!each.is_object()) throw DataError("a message must be an object, not ", each.type_name());
    messages.push_back({text_at(each, "role"), text_at(each, "content")});
  }
  return messages;
}

std::vector<int64_t> tokens_of(const std::string& line,
                               const Tokenizer& tokenizer,
                               const TextFormat& format) {
  json row;
  try {
    row = json::parse(line);
  } catch (const json::exception& failure) {
    throw DataError("not valid JSON: ", printable(failure.what(), 160));
  }
  if (!row.is_object()) throw DataError("must be an object, not ", row.type_name());
  if (row.contains("prompt") + row.contains("tokens") + row.contains("messages") != 1) {
    throw DataError(R"(must have exactly one of "prompt", "tokens" and "messages")");
  }
  if (row.contains("tokens")) return ids_of(row["tokens"]);
  Row prompt;
  if (row.contains("prompt")) {
    prompt.prompt = text_at(row, "prompt");
  } else {
    prompt.messages = messages_of(row["messages"]);
  }
  return prompt_tokens(prompt, tokenizer, format);
}

void check_tokens(const std::vector<int64_t>& ids, const ModelConfig& model) {
  if (ids.empty()) throw DataError("the prompt has no tokens; at least 1 is needed");
  if (static_cast<int64_t>(ids.size()) >= model.max_positions) {
    throw DataError("the prompt has ",
                    ids.size(),
                    " tokens; the model has ",
                    model.max_positions,
                    " positions, and the response needs at least one of them");
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= model.vocab_size) {
      throw DataError(
          "token ", i, " is ", ids[i], ", outside the model's vocabulary of ", model.vocab_size);
    }
  }
}

}  // namespace

std::vector<std::vector<int64_t>> read_generate_prompts(const std::string& text,
                                                        const std::string& name,
                                                        const Tokenizer& tokenizer,
                                                        const ModelConfig& model,
                                                        const std::string& chat_template) {
  const TextFormat format{.chat_template = chat_template};
  std::vector<std::vector<int64_t>> prompts;
  std::vector<std::string> errors;
  size_t number = 0;
  for (size_t begin = 0; begin < text.size() && errors.size() < kMostErrors;) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    try {
      prompts.push_back(tokens_of(line, tokenizer, format));
      check_tokens(prompts.back(), model);
    } catch (const Error& failure) {
      errors.push_back(str(name, ":", number, ": ", failure.what()));
    }
  }
  if (!errors.empty()) throw DataError(join(errors, "\n"));
  if (prompts.empty()) throw DataError(name, ": has no rows; one prompt a line is wanted");
  return prompts;
}

}  // namespace praetor::cli
