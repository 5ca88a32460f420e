#pragma once

#include <stdexcept>
#include <string>

#include "core/base/str.h"

namespace praetor {

/// gRPC's status codes, so that an error crosses the wire without loss.
enum class ErrorCode {
  kCancelled = 1,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
};

/// What every Praetor function throws for what ends a request, a step or a run.
/// The message names the thing, the value and the bound; `exit_status` is what `main` returns for
/// it.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, int exit_status, const std::string& message)
      : std::runtime_error(message), code_(code), exit_status_(exit_status) {}
  ErrorCode code() const { return code_; }
  int exit_status() const { return exit_status_; }

 private:
  ErrorCode code_;
  int exit_status_;
};

/// Exit statuses of the program; a batch script acts on them (README.md, "Exit codes").
enum ExitStatus : int {
  kExitDone = 0,
  kExitGoalMissed = 3,
  kExitUsage = 64,
  kExitBadData = 65,
  kExitMissingInput = 66,
  kExitBug = 70,
  kExitIo = 74,
  kExitTemporary = 75,
  kExitRefused = 77,
  kExitBadJob = 78,
};

#define PRAETOR_ERROR(name, code, status)                            \
  class name : public Error {                                        \
   public:                                                           \
    template <typename... Args>                                      \
    explicit name(const Args&... args)                               \
        : Error(ErrorCode::code, status, ::praetor::str(args...)) {} \
  }

PRAETOR_ERROR(InvalidArgument,
              kInvalidArgument,
              kExitUsage);                                  ///< an argument or flag is out of range
PRAETOR_ERROR(ShapeError, kInvalidArgument, kExitBug);      ///< tensors that do not fit each other
PRAETOR_ERROR(ConfigError, kInvalidArgument, kExitBadJob);  ///< the job file
PRAETOR_ERROR(DataError, kDataLoss, kExitBadData);        ///< a data row, model folder or tokenizer
PRAETOR_ERROR(CheckpointError, kDataLoss, kExitBadData);  ///< a torn, edited or foreign checkpoint
PRAETOR_ERROR(MissingInput, kNotFound, kExitMissingInput);  ///< a file or folder that is not there
PRAETOR_ERROR(IoError, kUnavailable, kExitIo);              ///< the disk or file system failed
PRAETOR_ERROR(CollectiveError, kUnavailable, kExitTemporary);  ///< a peer of a collective was lost
PRAETOR_ERROR(RpcError, kUnavailable, kExitTemporary);         ///< a remote call failed
PRAETOR_ERROR(TemporaryError, kUnavailable, kExitTemporary);  ///< worth a retry: requeue and resume
PRAETOR_ERROR(InternalError, kInternal, kExitBug);            ///< our own mistake
#undef PRAETOR_ERROR

/// For our own mistakes; user input never reaches it.
#define PRAETOR_CHECK(condition, ...)                                                  \
  do {                                                                                 \
    if (!(condition)) {                                                                \
      throw ::praetor::InternalError(                                                  \
          __FILE__, ":", __LINE__, ": ", #condition, " does not hold: ", __VA_ARGS__); \
    }                                                                                  \
  } while (false)

}  // namespace praetor
