#include "core/data/line_reader.h"

#include <zlib.h>

#include <cerrno>
#include <cstring>

#include "core/base/error.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

constexpr unsigned kChunk = 1 << 18;

}  // namespace

/// zlib reads plain files too, so that one source serves both.
struct LineReader::Source {
  gzFile file = nullptr;
  ~Source() {
    if (file) gzclose(file);
  }
};

LineReader::LineReader(const fs::path& file, int64_t max_line_bytes)
    : file_(file), max_line_bytes_(max_line_bytes), source_(std::make_unique<Source>()) {
  std::error_code ignored;
  if (!fs::exists(file, ignored)) throw MissingInput(file.string(), ": no such file");
  if (fs::is_directory(file, ignored)) {
    throw MissingInput(file.string(), ": is a folder, a file of JSON lines is wanted");
  }
  errno = 0;
  source_->file = gzopen(file.c_str(), "rbe");
  if (!source_->file) {
    throw IoError("cannot open ", file.string(), ": ", std::strerror(errno ? errno : ENOMEM));
  }
  gzbuffer(source_->file, kChunk);
  const bool zipped = gzdirect(source_->file) == 0;
  const bool named_so = file.extension() == ".gz";
  if (named_so && !zipped && fs::file_size(file, ignored) > 0) {
    throw DataError(file.string(), ": its name ends in .gz, but it does not hold gzip data");
  }
  if (!named_so && zipped) {
    throw DataError(file.string(), ": holds gzip data: give it a name that ends in .gz");
  }
}

LineReader::~LineReader() = default;

bool LineReader::fill() {
  buffer_.erase(0, at_);
  at_ = 0;
  const size_t before = buffer_.size();
  buffer_.resize(before + kChunk);
  errno = 0;
  const int got = gzread(source_->file, buffer_.data() + before, kChunk);
  buffer_.resize(before + static_cast<size_t>(got < 0 ? 0 : got));
  int code = Z_OK;
  const char* what = gzerror(source_->file, &code);
  if (code == Z_ERRNO) throw IoError("cannot read ", file_.string(), ": ", std::strerror(errno));
  // A file that ends early is reported with the last bytes, not by a negative count.
  if (code == Z_BUF_ERROR && got <= 0) {
    throw DataError(file_.string(), ":", line_ + 1, ": the gzip data end early: the file is torn");
  }
  if (got < 0) {
    throw DataError(file_.string(), ":", line_ + 1, ": damaged gzip data: ", what);
  }
  return got > 0;
}

bool LineReader::next(std::string& line) {
  size_t searched = at_;
  for (;;) {
    const size_t end = buffer_.find('\n', searched);
    const size_t length = (end == std::string::npos ? buffer_.size() : end) - at_;
    if (static_cast<int64_t>(length) > max_line_bytes_) {
      throw DataError(file_.string(),
                      ":",
                      line_ + 1,
                      ": the line is longer than ",
                      max_line_bytes_,
                      " bytes; is this one JSON object a line?");
    }
    if (end == std::string::npos) {
      const size_t seen = buffer_.size() - at_;
      if (fill()) {
        searched = seen;
        continue;
      }
      if (buffer_.empty()) return false;
    }
    line.assign(buffer_, at_, length);
    at_ += length + (end == std::string::npos ? 0 : 1);
    if (!line.empty() && line.back() == '\r') line.pop_back();
    ++line_;
    return true;
  }
}

}  // namespace praetor
