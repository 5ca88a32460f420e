#include "core/model/generator.h"

#include "core/base/error.h"

namespace praetor {

const char* to_string(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
  }
  throw InternalError("finish reason ", static_cast<int>(reason), " has no name");
}

}  // namespace praetor
