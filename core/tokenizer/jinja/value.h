#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

/// Values of the template language with the behaviour of Python's, as far as chat templates see it.
namespace praetor::jinja {

class Value;

/// What a name without a value stands for; `what` names it in errors.
struct Undefined {
  std::string what;
};
struct None {};
struct List {
  std::vector<Value> items;
  bool tuple = false;
};
struct Dict {
  std::vector<std::pair<std::string, Value>> items;  ///< in the order of their insertion
  bool is_namespace = false;                         ///< its attributes can be set
  const Value* find(std::string_view key) const;
  void set(std::string_view key, Value value);
};
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
  /// The argument of that place or name, or null.
  const Value* get(size_t place, std::string_view name) const;
};
/// What can be called. @throws DataError without a place; the evaluator adds it
struct Function {
  std::string name;
  std::function<Value(const Arguments&)> call;
};

class Value {
 public:
  using Data = std::variant<Undefined,
                            None,
                            bool,
                            int64_t,
                            double,
                            std::string,
                            std::shared_ptr<List>,
                            std::shared_ptr<Dict>,
                            std::shared_ptr<Function>>;
  Value() : data_(None{}) {}
  Value(Undefined u) : data_(std::move(u)) {}
  Value(bool b) : data_(b) {}
  Value(int64_t i) : data_(i) {}
  Value(double d) : data_(d) {}
  Value(std::string s) : data_(std::move(s)) {}
  Value(std::string_view s) : data_(std::string(s)) {}
  Value(const char* s) : data_(std::string(s)) {}
  Value(std::vector<Value> items, bool tuple = false)
      : data_(std::make_shared<List>(List{std::move(items), tuple})) {}
  Value(Dict dict) : data_(std::make_shared<Dict>(std::move(dict))) {}
  Value(Function f) : data_(std::make_shared<Function>(std::move(f))) {}
  static Value from_json(const nlohmann::ordered_json& json);

  bool undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool none() const { return std::holds_alternative<None>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  /// True and False are integers too.
  bool is_integer() const { return is_bool() || std::holds_alternative<int64_t>(data_); }
  bool is_number() const { return is_integer() || std::holds_alternative<double>(data_); }
  const std::string* string() const { return std::get_if<std::string>(&data_); }
  List* list() const;
  Dict* dict() const;
  const Function* function() const;
  int64_t integer() const;  ///< of an integer
  double number() const;    ///< of a number
  const Undefined& as_undefined() const { return std::get<Undefined>(data_); }

  bool truth() const;
  std::string text() const;  ///< str()
  std::string repr() const;  ///< repr()
  /// json.dumps without ASCII escapes; indent < 0: on one line.
  std::string json(int64_t indent = -1) const;
  std::string type() const;  ///< Python's name of it
  /// What a loop goes over: items, keys, characters; nothing of an undefined value.
  /// @throws DataError
  std::vector<Value> elements() const;
  bool operator==(const Value& other) const;
  /// @throws DataError when the two have no order
  bool less(const Value& other) const;
  bool contains(const Value& element) const;

 private:
  Data data_;
};

/// Code points of a string, each as text.
std::vector<std::string> characters(std::string_view text);
bool is_space(std::string_view character);  ///< what str.strip() takes off

}  // namespace praetor::jinja
