#include "server/jobs/sqlite.h"

#include <sqlite3.h>

#include <utility>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/jobs/posix_file.h"

namespace ess::jobs {

absl::Status SqliteStatus(int code) {
  switch (code & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
      return absl::OkStatus();
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return absl::UnavailableError("jobs: the database is locked by another program; try again");
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
      return absl::UnavailableError(
          fmt::format("jobs: the database cannot be read or written ({})", sqlite3_errstr(code)));
    case SQLITE_FULL:
      return DiskFullError("jobs: the disk of state_dir is full");
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::DataLossError(
          fmt::format("jobs: the database is damaged ({})", sqlite3_errstr(code)));
    case SQLITE_CONSTRAINT:
      return absl::AlreadyExistsError("jobs: there is one already");
    default:
      return absl::InternalError(
          fmt::format("jobs: the database answers {} ({})", code, sqlite3_errstr(code)));
  }
}

Query::~Query() {
  if (statement_ == nullptr) return;
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
}

Query& Query::Bind(int64_t value) {
  failed_ |= sqlite3_bind_int64(statement_, next_parameter_++, value);
  return *this;
}

Query& Query::Bind(double value) {
  failed_ |= sqlite3_bind_double(statement_, next_parameter_++, value);
  return *this;
}

Query& Query::Bind(std::string_view value) {
  failed_ |= sqlite3_bind_text64(statement_, next_parameter_++, value.data(), value.size(),
                                 SQLITE_TRANSIENT, SQLITE_UTF8);
  return *this;
}

Query& Query::BindBlob(std::string_view value) {
  failed_ |= sqlite3_bind_blob64(statement_, next_parameter_++, value.data(), value.size(),
                                 SQLITE_TRANSIENT);
  return *this;
}

Query& Query::BindNull() {
  failed_ |= sqlite3_bind_null(statement_, next_parameter_++);
  return *this;
}

absl::StatusOr<bool> Query::Step() {
  if (failed_ != SQLITE_OK) return SqliteStatus(failed_);
  const int code = sqlite3_step(statement_);
  ESS_RETURN_IF_ERROR(SqliteStatus(code));
  return code == SQLITE_ROW;
}

absl::Status Query::Run() { return Step().status(); }

int64_t Query::Integer(int column) const { return sqlite3_column_int64(statement_, column); }
double Query::Real(int column) const { return sqlite3_column_double(statement_, column); }

std::string Query::Text(int column) const {
  const void* data = sqlite3_column_blob(statement_, column);
  const int size = sqlite3_column_bytes(statement_, column);
  return data == nullptr ? "" : std::string(static_cast<const char*>(data), size);
}

absl::StatusOr<std::unique_ptr<Database>> Database::Open(const std::filesystem::path& path,
                                                         absl::Duration busy) {
  sqlite3* handle = nullptr;
  const int code =
      sqlite3_open_v2(path.c_str(), &handle,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX, nullptr);
  std::unique_ptr<Database> database(new Database(handle));
  ESS_RETURN_IF_ERROR(SqliteStatus(code));
  sqlite3_busy_timeout(handle, static_cast<int>(absl::ToInt64Milliseconds(busy)));
  return database;
}

Database::~Database() {
  for (const auto& [sql, statement] : statements_) sqlite3_finalize(statement);
  sqlite3_close(handle_);
}

absl::Status Database::Execute(const char* sql) {
  return SqliteStatus(sqlite3_exec(handle_, sql, nullptr, nullptr, nullptr));
}

absl::StatusOr<Query> Database::Prepare(const char* sql) {
  auto found = statements_.find(std::string_view(sql));
  if (found == statements_.end()) {
    sqlite3_stmt* statement = nullptr;
    ESS_RETURN_IF_ERROR(SqliteStatus(
        sqlite3_prepare_v3(handle_, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, nullptr)));
    found = statements_.emplace(sql, statement).first;
  }
  return Query(found->second);
}

int64_t Database::changes() const { return sqlite3_changes64(handle_); }
int64_t Database::last_row() const { return sqlite3_last_insert_rowid(handle_); }

absl::StatusOr<Transaction> Transaction::Begin(Database& database) {
  ESS_RETURN_IF_ERROR(database.Execute("BEGIN IMMEDIATE"));
  return Transaction(database);
}

Transaction::~Transaction() {
  if (database_ != nullptr) database_->Execute("ROLLBACK").IgnoreError();
}

absl::Status Transaction::Commit() {
  ESS_RETURN_IF_ERROR(database_->Execute("COMMIT"));
  database_ = nullptr;
  return absl::OkStatus();
}

}  // namespace ess::jobs
