#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

namespace praetor {

/// Ids stay below this, so that a broken file cannot ask for memory that its size does not pay for.
constexpr int64_t kMaxTokenId = (int64_t{1} << 24) - 1;

/// Tokens and ids, one to one.
class Vocabulary {
 public:
  /// @throws DataError beginning with `where` when the token or the id is taken by another
  void add(const std::string& token, int64_t id, const std::string& where);
  std::optional<int64_t> id(std::string_view token) const {
    const auto found = ids_.find(token);
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }
  /// Null when the id is no token.
  const std::string* token(int64_t id) const {
    const auto found = tokens_.find(id);
    return found == tokens_.end() ? nullptr : found->second;
  }
  int64_t size() const { return highest_ + 1; }  ///< highest id + 1

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  std::unordered_map<std::string, int64_t, Hash, std::equal_to<>> ids_;
  std::unordered_map<int64_t, const std::string*> tokens_;  ///< into ids_, whose nodes stay put
  int64_t highest_ = -1;
};

/// Ids of the tokens <0x00> to <0xFF>, which stand for bytes; -1 where there is none.
std::array<int32_t, 256> byte_token_ids(const Vocabulary& vocabulary);

}  // namespace praetor
