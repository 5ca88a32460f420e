#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

struct sqlite3;
struct sqlite3_stmt;

namespace praetor {

class Query;

/// One connection to a SQLite file, used by one thread at a time. Statements are prepared once and
/// kept. Every failure throws: IoError (full or failing disk), TemporaryError (another process
/// holds the file), DataError (not a database, or damaged), InternalError (a constraint, our SQL).
class Database {
 public:
  enum class Mode { kOwner, kReader };
  /// Holds the file alone from the first access to the end. kReader changes nothing and needs an
  /// existing file. @throws also MissingInput
  Database(const std::filesystem::path& file, Mode mode);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  void exec(const char* sql);  ///< one or more statements without results
  /// A statement with its parameters bound, ready to step. `sql` must be a literal.
  template <typename... Args>
  Query query(const char* sql, const Args&... args);
  /// Runs a statement to its end; the number of rows it changed.
  template <typename... Args>
  int64_t run(const char* sql, const Args&... args);
  /// First column of the first row as an integer; `otherwise` when there is no row or it is null.
  template <typename... Args>
  int64_t integer(int64_t otherwise, const char* sql, const Args&... args);

  const std::filesystem::path& file() const { return file_; }

 private:
  friend class Query;
  [[noreturn]] void fail(int code, std::string_view doing) const;
  sqlite3_stmt* take(const char* sql);
  int64_t changes() const;

  std::filesystem::path file_;
  sqlite3* handle_ = nullptr;
  std::map<std::string_view, std::vector<sqlite3_stmt*>> idle_;
};

/// A statement under way; goes back to its database when it ends, which must be before the
/// database.
class Query {
 public:
  template <typename... Args>
  Query(Database& database, const char* sql, const Args&... args)
      : database_(database), sql_(sql), statement_(database.take(sql)) {
    try {
      (bind(args), ...);
    } catch (...) {
      give_back();
      throw;
    }
  }
  ~Query() { give_back(); }
  Query(const Query&) = delete;
  Query& operator=(const Query&) = delete;

  void bind(int64_t value);
  void bind(int32_t value) { bind(static_cast<int64_t>(value)); }
  void bind(bool value) { bind(static_cast<int64_t>(value)); }
  void bind(double value);
  void bind(std::string_view value);  ///< copied
  void bind(const std::string& value) { bind(std::string_view(value)); }
  void bind(const char* value) { bind(std::string_view(value)); }
  void bind(const std::optional<double>& value);

  bool step();  ///< true while there is a row
  int64_t integer(int column) const;
  double real(int column) const;
  std::string text(int column) const;
  bool is_null(int column) const;

 private:
  void check(int code);
  void give_back() noexcept;

  Database& database_;
  const char* sql_;
  sqlite3_stmt* statement_;
  int bound_ = 0;
};

template <typename... Args>
Query Database::query(const char* sql, const Args&... args) {
  return Query(*this, sql, args...);
}

template <typename... Args>
int64_t Database::run(const char* sql, const Args&... args) {
  Query statement(*this, sql, args...);
  while (statement.step()) {
  }
  return changes();
}

template <typename... Args>
int64_t Database::integer(int64_t otherwise, const char* sql, const Args&... args) {
  Query statement(*this, sql, args...);
  return statement.step() && !statement.is_null(0) ? statement.integer(0) : otherwise;
}

}  // namespace praetor
