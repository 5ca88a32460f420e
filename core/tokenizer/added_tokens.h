#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/tokenizer/json_view.h"

namespace praetor {

/// A token that is found in the text before the model sees it.
struct AddedToken {
  int64_t id = 0;
  std::string content;
  bool single_word = false;  ///< only where no word character touches it
  bool lstrip = false;       ///< takes the white space on its left along
  bool rstrip = false;       ///< takes the white space on its right along
  bool normalized = false;   ///< looked for in normalised text, else in the text as given
  bool special = false;      ///< left out by decode(skip_special)

  /// Reads the flags of `entry`, and its "content".
  static AddedToken from_json(const JsonView& entry, int64_t id);
};

/// A stretch of text: a token, or text that is not one.
struct Stretch {
  int64_t id;  ///< -1 for text
  size_t begin;
  size_t end;
};

/// Finds added tokens: from left to right, the longest at each place, none overlapping.
class AddedTokenFinder {
 public:
  /// `content` is what is looked for; empty content is never found.
  void add(const AddedToken& token, std::string_view content);
  /// Cuts all of `text`; time is linear but for the length of the longest token.
  std::vector<Stretch> split(std::string_view text) const;

 private:
  struct Node {
    int32_t token = -1;  ///< index into tokens_ of the content that ends here
    std::unordered_map<char, int32_t> children;
  };
  /// The longest token that begins at `at`, and its end; -1 for none.
  int32_t match(std::string_view text, size_t at, size_t& end) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;
  bool first_bytes_[256] = {};
};

}  // namespace praetor
