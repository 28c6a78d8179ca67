// SQLite as this server uses it: prepared statements, and Status in place of result codes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

struct sqlite3;
struct sqlite3_stmt;

namespace ess::jobs {

// The Status of an SQLite result code; OK for SQLITE_OK, SQLITE_ROW and SQLITE_DONE.
//   kUnavailable        busy, locked, or an I/O error: may work later
//   kResourceExhausted  the disk is full
//   kDataLoss           the file is damaged, or is no database
//   kAlreadyExists      a constraint
//   kInternal           anything else
absl::Status SqliteStatus(int code);

// One run of a prepared statement; resets it at its end. Parameters count from 1, columns from 0.
class Query {
 public:
  explicit Query(sqlite3_stmt* statement) : statement_(statement) {}
  Query(Query&& other) noexcept : statement_(std::exchange(other.statement_, nullptr)) {}
  Query& operator=(Query&&) = delete;
  ~Query();

  Query& Bind(int64_t value);
  Query& Bind(double value);
  Query& Bind(std::string_view value);  // Copied. As text.
  Query& BindBlob(std::string_view value);
  Query& BindNull();

  // Whether there is a row.
  absl::StatusOr<bool> Step();
  // For statements without rows.
  absl::Status Run();

  int64_t Integer(int column) const;
  double Real(int column) const;
  std::string Text(int column) const;  // Of a blob, too; "" of NULL.

 private:
  sqlite3_stmt* statement_;
  int next_parameter_ = 1;
  int failed_ = 0;  // First result code of a bind that is not OK.
};

// Not thread-safe.
class Database {
 public:
  // Opens the file, or makes it. Waits for other processes' locks, at most for `busy` each time.
  static absl::StatusOr<std::unique_ptr<Database>> Open(const std::filesystem::path& path,
                                                        absl::Duration busy);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  // One or several statements without parameters.
  absl::Status Execute(const char* sql);

  // The statement is prepared once for each text.
  absl::StatusOr<Query> Prepare(const char* sql);

  // Rows of the last insert, update or delete.
  int64_t changes() const;
  int64_t last_row() const;

 private:
  explicit Database(sqlite3* handle) : handle_(handle) {}

  sqlite3* handle_;
  std::map<std::string, sqlite3_stmt*, std::less<>> statements_;
};

// BEGIN IMMEDIATE; rolls back unless Commit was OK.
class Transaction {
 public:
  static absl::StatusOr<Transaction> Begin(Database& database);
  Transaction(Transaction&& other) noexcept : database_(std::exchange(other.database_, nullptr)) {}
  Transaction& operator=(Transaction&&) = delete;
  ~Transaction();
  absl::Status Commit();

 private:
  explicit Transaction(Database& database) : database_(&database) {}
  Database* database_;
};

}  // namespace ess::jobs
