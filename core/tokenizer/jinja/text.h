#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// Python's methods of str, on UTF-8. Cases are those of single code points.
namespace praetor::jinja {

std::string lower(std::string_view text);
std::string upper(std::string_view text);
std::string capitalize(std::string_view text);  ///< the first upper, all others lower
std::string title(std::string_view text);       ///< so for every word

enum class Side { kBoth, kLeft, kRight };
/// Without `chars`: white space.
std::string strip(std::string_view text,
                  const std::optional<std::string>& chars = std::nullopt,
                  Side side = Side::kBoth);
/// At most `most` cuts; -1: all. @throws DataError for an empty separator
std::vector<std::string> split(std::string_view text, std::string_view separator, int64_t most);
/// At white space, and none of it is kept.
std::vector<std::string> split_words(std::string_view text, int64_t most);
std::string replace(std::string_view text,
                    std::string_view from,
                    std::string_view to,
                    int64_t most);

}  // namespace praetor::jinja
