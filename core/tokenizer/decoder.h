#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/tokenizer/json_view.h"

namespace praetor {

/// One step of a decode: tokens in, tokens (later: fragments of text) out, in order.
class DecodeStep {
 public:
  virtual ~DecodeStep() = default;
  virtual void push(std::string_view token, std::vector<std::string>& out) = 0;
  virtual void finish(std::vector<std::string>& out) = 0;
};

/// The `decoder` of a tokenizer.json: makes the steps of one decode. Immutable; any thread.
/// All decoding is done step by step, so that streaming and decoding the whole cannot differ.
class Decoder {
 public:
  virtual ~Decoder() = default;
  virtual std::unique_ptr<DecodeStep> start() const = 0;
  /// What a token adds to a text, as bytes. `first`: nothing stands before it.
  virtual std::string bytes(std::string_view token, bool first) const = 0;
};

/// ByteLevel, Metaspace, and Sequence of Replace, Strip, ByteFallback, then Fuse, then Strip. A
/// null decoder puts spaces between the tokens, as Hugging Face does. @throws DataError naming any
/// other.
std::unique_ptr<Decoder> make_decoder(const JsonView& json);

/// What a SentencePiece model's tokens need: U+2581 to spaces, bytes joined, one leading space
/// taken off where the model puts one in front.
std::unique_ptr<Decoder> make_sentencepiece_decoder(bool dummy_prefix);

}  // namespace praetor
