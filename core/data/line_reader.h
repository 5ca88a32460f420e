#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

namespace praetor {

constexpr int64_t kMaxLineBytes = int64_t{16} << 20;

/// Reads a text file line by line, plain, or through zlib when its name ends in .gz. One thread.
class LineReader {
 public:
  /// @throws MissingInput; IoError; DataError when a .gz file is not gzip data
  explicit LineReader(const std::filesystem::path& file, int64_t max_line_bytes = kMaxLineBytes);
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  /// The next line without its end ("\n" or "\r\n"); false at the end of the file.
  /// @throws IoError; DataError "file:line: ..." for a line that is too long, or damaged gzip data
  bool next(std::string& line);
  int64_t line() const { return line_; }  ///< number of the line that was read last, from 1

 private:
  struct Source;
  bool fill();  ///< false at the end of the file

  std::filesystem::path file_;
  int64_t max_line_bytes_;
  std::unique_ptr<Source> source_;
  std::string buffer_;
  size_t at_ = 0;  ///< of the first byte of buffer_ that was not given out
  int64_t line_ = 0;
};

}  // namespace praetor
