#include "actors/serve/json_fields.h"

#include <utility>

#include "actors/serve/api.h"
#include "core/base/error.h"
#include "core/base/text.h"

namespace praetor::serve {

using nlohmann::json;

namespace {

json parsed(const std::string& body) {
  try {
    json object = json::parse(body);
    if (object.is_object()) return object;
  } catch (const json::exception& failure) {
    throw ApiError{.message = str("the body is not valid JSON: ", printable(failure.what(), 160))};
  }
  throw ApiError{.message = "the body must be a JSON object"};
}

}  // namespace

JsonFields::JsonFields(const std::string& body) : object_(parsed(body)) {}

JsonFields::JsonFields(const json& object, std::string where)
    : object_(object), where_(std::move(where)) {}

void JsonFields::fail(const std::string& name, const std::string& complaint) const {
  throw ApiError{.message = str(where_, name, ": ", complaint), .param = where_ + name};
}

const json& JsonFields::value(const std::string& name) {
  static const json kNull;
  known_.insert(name);
  const auto found = object_.find(name);
  return found == object_.end() ? kNull : *found;
}

bool JsonFields::has(const std::string& name) {
  return !value(name).is_null();
}

std::optional<double> JsonFields::number(const std::string& name, const Range& range) {
  const json& v = value(name);
  if (v.is_null()) return std::nullopt;
  if (!v.is_number()) fail(name, str("must be a number, not ", v.type_name()));
  const auto number = v.get<double>();
  if (!range.holds(number)) fail(name, str(number, " is outside ", range.text()));
  return number;
}

std::optional<int64_t> JsonFields::integer(const std::string& name, const Range& range) {
  const json& v = value(name);
  if (v.is_null()) return std::nullopt;
  const bool too_large = v.is_number_unsigned() && v.get<uint64_t>() >> 63U != 0;
  if (!v.is_number_integer() || too_large) {
    fail(name, str("must be an integer, not ", printable(v.dump())));
  }
  const auto number = v.get<int64_t>();
  if (!range.holds(static_cast<double>(number))) {
    fail(name, str(number, " is outside ", range.text()));
  }
  return number;
}

bool JsonFields::flag(const std::string& name, bool otherwise) {
  const json& v = value(name);
  if (v.is_null()) return otherwise;
  if (!v.is_boolean()) fail(name, str("must be true or false, not ", printable(v.dump())));
  return v.get<bool>();
}

std::optional<std::string> JsonFields::text(const std::string& name) {
  const json& v = value(name);
  if (v.is_null()) return std::nullopt;
  if (!v.is_string()) fail(name, str("must be a string, not ", v.type_name()));
  return v.get<std::string>();
}

std::vector<std::string> JsonFields::texts(const std::string& name) {
  const json& v = value(name);
  if (v.is_null()) return {};
  if (v.is_string()) return {v.get<std::string>()};
  std::vector<std::string> all;
  if (!v.is_array()) fail(name, str("must be a string or a list of strings, not ", v.type_name()));
  for (const json& each : v) {
    if (!each.is_string()) fail(name, str("must hold strings, found ", printable(each.dump())));
    all.push_back(each.get<std::string>());
  }
  return all;
}

std::vector<int64_t> JsonFields::token_ids(const std::string& name) {
  const json& v = value(name);
  return v.is_null() ? std::vector<int64_t>{} : token_ids_of(v, where_ + name);
}

void JsonFields::ignore(std::initializer_list<const char*> names) {
  known_.insert(names.begin(), names.end());
}

void JsonFields::refuse(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    const json& v = value(name);
    const bool nothing =
        v.is_null() || v == false || v == "" || ((v.is_array() || v.is_object()) && v.empty());
    if (!nothing) fail(name, "is not supported by this server");
  }
}

void JsonFields::reject_unknown() const {
  for (const auto& [name, v] : object_.items()) {
    if (known_.contains(name)) continue;
    const auto near = nearest(name, {known_.begin(), known_.end()});
    fail(printable(name),
         near ? str("is not known; did you mean ", *near, '?') : std::string("is not known"));
  }
}

std::vector<int64_t> token_ids_of(const json& list, const std::string& where) {
  const auto complain = [&](const std::string& found) {
    throw ApiError{.message = str(where, ": must be a list of token ids, found ", found),
                   .param = where};
  };
  if (!list.is_array()) complain(list.type_name());
  std::vector<int64_t> ids;
  for (const json& id : list) {
    const bool too_large = id.is_number_unsigned() && id.get<uint64_t>() >> 63U != 0;
    if (!id.is_number_integer() || too_large) complain(printable(id.dump()));
    ids.push_back(id.get<int64_t>());
  }
  return ids;
}

}  // namespace praetor::serve
