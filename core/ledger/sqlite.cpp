#include "core/ledger/sqlite.h"

#include <sqlite3.h>

#include "core/base/error.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

/// How long an opener waits for the holder of the file to let go: a restart follows closely on an
/// end.
constexpr int kOwnerWaitMs = 3000;
constexpr int kReaderWaitMs = 200;

}  // namespace

Database::Database(const fs::path& file, Mode mode) : file_(file) {
  const bool owner = mode == Mode::kOwner;
  if (!owner && !fs::exists(file)) throw MissingInput(file.string(), ": no such file");
  // A reader needs write access too: recovering the write-ahead log takes a lock that a read-only
  // handle cannot have.
  const int flags = SQLITE_OPEN_READWRITE | (owner ? SQLITE_OPEN_CREATE : 0);
  const int code = sqlite3_open_v2(file.c_str(), &handle_, flags, nullptr);
  try {
    if (code != SQLITE_OK) fail(code, "open");
    sqlite3_extended_result_codes(handle_, 1);
    sqlite3_busy_timeout(handle_, owner ? kOwnerWaitMs : kReaderWaitMs);
    // Before the first access, so that the index of the log lives on the heap: its shared memory
    // file does not work on network file systems.
    exec("PRAGMA locking_mode=EXCLUSIVE");
    if (owner) {
      exec("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL");
      exec("BEGIN EXCLUSIVE; COMMIT");
    } else {
      // Closing must leave the log as a crashed owner left it.
      sqlite3_db_config(handle_, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
      exec("PRAGMA query_only=ON; SELECT COUNT(*) FROM sqlite_master");
    }
  } catch (...) {
    sqlite3_close(handle_);
    throw;
  }
}

Database::~Database() {
  for (const auto& [sql, statements] : idle_) {
    for (sqlite3_stmt* statement : statements) sqlite3_finalize(statement);
  }
  sqlite3_close(handle_);
}

void Database::fail(int code, std::string_view doing) const {
  const std::string what = str(file_.string(),
                               ": cannot ",
                               doing,
                               ": ",
                               handle_ ? sqlite3_errmsg(handle_) : sqlite3_errstr(code));
  switch (code & 0xFF) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      throw TemporaryError(file_.string(),
                           ": another process owns this ledger; ask the controller of the run, or "
                           "wait until it has ended");
    case SQLITE_FULL:
      throw IoError(
          what,
          "; make room on the disk, then start again with --resume auto: nothing that was "
          "recorded is lost");
    case SQLITE_IOERR:
      throw IoError(
          what,
          "; the disk may be full: make room, then start again with --resume auto: nothing "
          "that was recorded is lost");
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
      throw IoError(what, "; is the folder there, and writable?");
    case SQLITE_CORRUPT:
      throw DataError(what, "; the file is damaged: restore it from a copy");
    case SQLITE_NOTADB:
      throw DataError(file_.string(), ": this is not a Praetor ledger");
    default:
      throw InternalError(what, " (SQLite code ", code, ")");
  }
}

void Database::exec(const char* sql) {
  const int code = sqlite3_exec(handle_, sql, nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) fail(code, sql);
}

sqlite3_stmt* Database::take(const char* sql) {
  auto& idle = idle_[sql];
  if (!idle.empty()) {
    sqlite3_stmt* statement = idle.back();
    idle.pop_back();
    return statement;
  }
  sqlite3_stmt* statement = nullptr;
  const int code =
      sqlite3_prepare_v3(handle_, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
  if (code != SQLITE_OK) fail(code, sql);
  return statement;
}

int64_t Database::changes() const {
  return sqlite3_changes(handle_);
}

void Query::give_back() noexcept {
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
  try {
    database_.idle_[sql_].push_back(statement_);
  } catch (...) {
    sqlite3_finalize(statement_);
  }
}

void Query::check(int code) {
  if (code != SQLITE_OK) database_.fail(code, sql_);
}

void Query::bind(int64_t value) {
  check(sqlite3_bind_int64(statement_, ++bound_, value));
}

void Query::bind(double value) {
  check(sqlite3_bind_double(statement_, ++bound_, value));
}

void Query::bind(std::string_view value) {
  // An empty view may have no address, which SQLite would take for null.
  check(sqlite3_bind_text64(statement_,
                            ++bound_,
                            value.data() ? value.data() : "",
                            value.size(),
                            SQLITE_TRANSIENT,
                            SQLITE_UTF8));
}

void Query::bind(const std::optional<double>& value) {
  if (value) return bind(*value);
  check(sqlite3_bind_null(statement_, ++bound_));
}

bool Query::step() {
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  database_.fail(code, sql_);
}

int64_t Query::integer(int column) const {
  return sqlite3_column_int64(statement_, column);
}

double Query::real(int column) const {
  return sqlite3_column_double(statement_, column);
}

std::string Query::text(int column) const {
  const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
  const auto size = static_cast<size_t>(sqlite3_column_bytes(statement_, column));
  return bytes ? std::string(bytes, size) : std::string();
}

bool Query::is_null(int column) const {
  return sqlite3_column_type(statement_, column) == SQLITE_NULL;
}

}  // namespace praetor
