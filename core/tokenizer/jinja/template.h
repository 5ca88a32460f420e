#pragma once

#include <ctime>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace praetor::jinja {

/// A template in the language of Jinja as Hugging Face's chat templates use it (trim_blocks and
/// lstrip_blocks on): expressions, if, for, set, macro, raw, break, continue and the tags of
/// generation; filters, tests, and methods of texts and dictionaries. Values behave as Python's.
/// There is no access to anything but the variables given. Immutable; any thread.
class Template {
 public:
  struct Rendered {
    std::string text;
    /// [begin, end) in bytes of what {% generation %} marks, in order.
    std::vector<std::pair<size_t, size_t>> generation;
  };

  /// @param name  of the file, for errors
  /// @throws DataError "NAME: line N: ..." for a tag, filter or test that is not supported
  static Template parse(const std::string& source, std::string name);
  ~Template();
  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;

  /// @param variables  an object
  /// @param now  what strftime_now tells; without it the template sees no such function
  /// @throws DataError "NAME: line N: ...", what raise_exception says among it
  Rendered render(const nlohmann::ordered_json& variables,
                  std::optional<std::tm> now = std::nullopt) const;

 private:
  struct Impl;
  explicit Template(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

}  // namespace praetor::jinja
