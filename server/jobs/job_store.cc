#include "server/jobs/job_store.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/time/time.h"
#include "fmt/format.h"
#include "server/base/status_macros.h"

namespace ess::jobs {
namespace {

constexpr absl::Duration kBusy = absl::Seconds(2);
constexpr int64_t kApplicationId = 0x45535350;  // "ESSP"
constexpr int64_t kSchemaVersion = 1;

constexpr char kSchema[] = R"(
CREATE TABLE jobs (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  owner TEXT NOT NULL,
  idempotency_key TEXT,
  content_digest TEXT NOT NULL,
  specification BLOB NOT NULL,
  model TEXT NOT NULL,
  priority INTEGER NOT NULL,
  state INTEGER NOT NULL,
  error_code INTEGER NOT NULL,
  error_message TEXT NOT NULL,
  prompts_total INTEGER NOT NULL,
  prompts_done INTEGER NOT NULL,
  cells_total INTEGER NOT NULL,
  cells_done INTEGER NOT NULL,
  submitted_at REAL NOT NULL,
  started_at REAL NOT NULL,
  finished_at REAL NOT NULL,
  run_seconds REAL NOT NULL,
  restarts INTEGER NOT NULL,
  failed_starts INTEGER NOT NULL,
  stored_bytes INTEGER NOT NULL,
  result_bytes INTEGER NOT NULL,
  result_sha256 TEXT NOT NULL,
  age_seconds REAL NOT NULL DEFAULT 0);
CREATE UNIQUE INDEX jobs_by_key ON jobs (owner, idempotency_key)
  WHERE idempotency_key IS NOT NULL;
CREATE INDEX jobs_by_state ON jobs (state, sequence);
CREATE INDEX jobs_by_owner ON jobs (owner, sequence);
CREATE TABLE layers (
  job INTEGER NOT NULL,
  prompt_group INTEGER NOT NULL,
  layer INTEGER NOT NULL,
  notes TEXT NOT NULL,
  PRIMARY KEY (job, prompt_group, layer)) WITHOUT ROWID;
)";

#define ESS_JOB_COLUMNS_WITH(specification)                                                 \
  "sequence, id, owner, idempotency_key, content_digest, " specification                    \
  ", model, priority, state, error_code, error_message, prompts_total, prompts_done, "      \
  "cells_total, cells_done, submitted_at, started_at, finished_at, run_seconds, restarts, " \
  "failed_starts, stored_bytes, result_bytes, result_sha256"
#define ESS_JOB_COLUMNS ESS_JOB_COLUMNS_WITH("specification")
// For lists of any length: specifications are up to a message long.
#define ESS_SHORT_JOB_COLUMNS ESS_JOB_COLUMNS_WITH("''")

Job ReadJob(const Query& row) {
  Job job;
  job.sequence = row.Integer(0);
  job.id = row.Text(1);
  job.owner = row.Text(2);
  job.idempotency_key = row.Text(3);
  job.content_digest = row.Text(4);
  job.specification = row.Text(5);
  job.model = row.Text(6);
  job.priority = static_cast<JobPriority>(row.Integer(7));
  job.state = static_cast<JobState>(row.Integer(8));
  job.error = absl::Status(static_cast<absl::StatusCode>(row.Integer(9)), row.Text(10));
  job.prompts_total = row.Integer(11);
  job.prompts_done = row.Integer(12);
  job.cells_total = row.Integer(13);
  job.cells_done = row.Integer(14);
  job.submitted_at = row.Real(15);
  job.started_at = row.Real(16);
  job.finished_at = row.Real(17);
  job.run_seconds = row.Real(18);
  job.restarts = row.Integer(19);
  job.failed_starts = row.Integer(20);
  job.stored_bytes = row.Integer(21);
  job.result_bytes = row.Integer(22);
  job.result_sha256 = row.Text(23);
  return job;
}

absl::StatusOr<int64_t> Pragma(Database& database, const char* sql) {
  ESS_ASSIGN_OR_RETURN(Query query, database.Prepare(sql));
  ESS_ASSIGN_OR_RETURN(const bool row, query.Step());
  return row ? query.Integer(0) : 0;
}

absl::Status CheckIntegrity(Database& database) {
  ESS_ASSIGN_OR_RETURN(Query query, database.Prepare("PRAGMA quick_check(1)"));
  ESS_ASSIGN_OR_RETURN(const bool row, query.Step());
  std::string found = row ? query.Text(0) : "no answer";
  if (found == "ok") return absl::OkStatus();
  std::replace(found.begin(), found.end(), '\n', ' ');
  return absl::DataLossError(fmt::format("jobs: the database is damaged ({})", found));
}

absl::Status MakeSchema(Database& database) {
  ESS_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database));
  ESS_RETURN_IF_ERROR(database.Execute(kSchema));
  ESS_RETURN_IF_ERROR(
      database.Execute(fmt::format("PRAGMA application_id = {}; PRAGMA user_version = {}",
                                   kApplicationId, kSchemaVersion)
                           .c_str()));
  return transaction.Commit();
}

// Reads only, until everything is as it should be.
absl::Status CheckAndComplete(Database& database) {
  ESS_ASSIGN_OR_RETURN(const int64_t application, Pragma(database, "PRAGMA application_id"));
  ESS_ASSIGN_OR_RETURN(const int64_t version, Pragma(database, "PRAGMA user_version"));
  ESS_ASSIGN_OR_RETURN(const int64_t tables,
                       Pragma(database, "SELECT count(*) FROM sqlite_schema"));
  const bool is_new = application == 0 && version == 0 && tables == 0;
  if (!is_new && application != kApplicationId) {
    return absl::DataLossError("jobs: the file is a database of another program");
  }
  if (version > kSchemaVersion) {
    return absl::FailedPreconditionError(fmt::format(
        "jobs: the database has schema {}, of a newer server; this one knows {}. Start the newer "
        "server, or give another state_dir",
        version, kSchemaVersion));
  }
  ESS_RETURN_IF_ERROR(CheckIntegrity(database));
  ESS_RETURN_IF_ERROR(database.Execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL"));
  return is_new ? MakeSchema(database) : absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<JobStore>> JobStore::Open(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / kFileName;
  absl::StatusOr<std::unique_ptr<Database>> database = Database::Open(path, kBusy);
  absl::Status status = database.status();
  if (status.ok()) status = CheckAndComplete(**database);
  if (status.ok()) return std::unique_ptr<JobStore>(new JobStore(*std::move(database)));
  std::string advice;
  if (status.code() == absl::StatusCode::kDataLoss) {
    advice = fmt::format(
        ". Nothing was changed. To go on without these jobs, move '{}*' and the folder 'jobs' "
        "beside it away; finished results are jobs/ID/result.safetensors. To save what can be "
        "read: sqlite3 {} .recover",
        path.string(), path.string());
  } else if (status.code() == absl::StatusCode::kUnavailable) {
    advice = fmt::format(". Nothing was changed. Look for who has '{}' open, or for its rights",
                         path.string());
  }
  return absl::Status(status.code(),
                      fmt::format("state_dir: {}{}", std::string(status.message()), advice));
}

absl::Status JobStore::Insert(Job& job) {
  absl::MutexLock lock(&mutex_);
  ESS_ASSIGN_OR_RETURN(
      Query query,
      database_->Prepare(
          "INSERT INTO jobs (id, owner, idempotency_key, content_digest, specification, model, "
          "priority, state, error_code, error_message, prompts_total, prompts_done, cells_total, "
          "cells_done, submitted_at, started_at, finished_at, run_seconds, restarts, "
          "failed_starts, stored_bytes, result_bytes, result_sha256) VALUES "
          "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"));
  query.Bind(job.id).Bind(job.owner);
  if (job.idempotency_key.empty()) {
    query.BindNull();
  } else {
    query.Bind(job.idempotency_key);
  }
  query.Bind(job.content_digest).BindBlob(job.specification).Bind(job.model);
  query.Bind(static_cast<int64_t>(job.priority)).Bind(static_cast<int64_t>(job.state));
  query.Bind(static_cast<int64_t>(job.error.code())).Bind(std::string(job.error.message()));
  query.Bind(job.prompts_total).Bind(job.prompts_done).Bind(job.cells_total).Bind(job.cells_done);
  query.Bind(job.submitted_at).Bind(job.started_at).Bind(job.finished_at).Bind(job.run_seconds);
  query.Bind(job.restarts).Bind(job.failed_starts).Bind(job.stored_bytes);
  query.Bind(job.result_bytes).Bind(job.result_sha256);
  ESS_RETURN_IF_ERROR(query.Run());
  job.sequence = database_->last_row();
  return absl::OkStatus();
}

absl::StatusOr<Job> JobStore::Get(const std::string& id) {
  absl::MutexLock lock(&mutex_);
  ESS_ASSIGN_OR_RETURN(Query query,
                       database_->Prepare("SELECT " ESS_JOB_COLUMNS " FROM jobs WHERE id = ?"));
  query.Bind(id);
  ESS_ASSIGN_OR_RETURN(const bool found, query.Step());
  if (!found) return NoSuchJob(id);
  return ReadJob(query);
}

absl::StatusOr<std::optional<Job>> JobStore::FindByKey(const std::string& owner,
                                                       const std::string& key) {
  absl::MutexLock lock(&mutex_);
  ESS_ASSIGN_OR_RETURN(Query query,
                       database_->Prepare("SELECT " ESS_JOB_COLUMNS
                                          " FROM jobs WHERE owner = ? AND idempotency_key = ?"));
  query.Bind(owner).Bind(key);
  ESS_ASSIGN_OR_RETURN(const bool found, query.Step());
  if (!found) return std::optional<Job>();
  return std::optional<Job>(ReadJob(query));
}

absl::StatusOr<std::vector<Job>> JobStore::Select(Query query) {
  std::vector<Job> jobs;
  while (true) {
    ESS_ASSIGN_OR_RETURN(const bool row, query.Step());
    if (!row) return jobs;
    jobs.push_back(ReadJob(query));
  }
}

absl::StatusOr<std::vector<Job>> JobStore::List(const JobFilter& filter, int64_t limit) {
  absl::MutexLock lock(&mutex_);
  // One text for each combination, so that an index serves it.
  std::string sql = "SELECT " ESS_JOB_COLUMNS " FROM jobs WHERE sequence < ?";
  if (filter.owner) sql += " AND owner = ?";
  if (filter.state) sql += " AND state = ?";
  sql += " ORDER BY sequence DESC LIMIT ?";
  ESS_ASSIGN_OR_RETURN(Query query, database_->Prepare(sql.c_str()));
  query.Bind(filter.before.value_or(std::numeric_limits<int64_t>::max()));
  if (filter.owner) query.Bind(*filter.owner);
  if (filter.state) query.Bind(static_cast<int64_t>(*filter.state));
  query.Bind(limit);
  return Select(std::move(query));
}

absl::StatusOr<std::vector<Job>> JobStore::Unfinished() {
  absl::MutexLock lock(&mutex_);
  ESS_ASSIGN_OR_RETURN(Query query,
                       database_->Prepare("SELECT " ESS_SHORT_JOB_COLUMNS
                                          " FROM jobs WHERE state IN (1, 2) ORDER BY sequence"));
  return Select(std::move(query));
}

absl::StatusOr<std::vector<Job>> JobStore::Ended() {
  absl::MutexLock lock(&mutex_);
  ESS_ASSIGN_OR_RETURN(Query query,
                       database_->Prepare("SELECT " ESS_SHORT_JOB_COLUMNS
                                          " FROM jobs WHERE state IN (3, 4, 5) ORDER BY "
                                          "age_seconds DESC, sequence"));
  return Select(std::move(query));
}

absl::Status JobStore::UpdateLocked(const Job& job) {
  ESS_ASSIGN_OR_RETURN(
      Query query,
      database_->Prepare(
          "UPDATE jobs SET state = ?, error_code = ?, error_message = ?, prompts_done = ?, "
          "cells_total = ?, cells_done = ?, started_at = ?, finished_at = ?, run_seconds = ?, "
          "restarts = ?, failed_starts = ?, stored_bytes = ?, result_bytes = ?, result_sha256 = ? "
          "WHERE id = ? AND state IN (1, 2)"));
  query.Bind(static_cast<int64_t>(job.state)).Bind(static_cast<int64_t>(job.error.code()));
  query.Bind(std::string(job.error.message())).Bind(job.prompts_done);
  query.Bind(job.cells_total).Bind(job.cells_done).Bind(job.started_at).Bind(job.finished_at);
  query.Bind(job.run_seconds).Bind(job.restarts).Bind(job.failed_starts).Bind(job.stored_bytes);
  query.Bind(job.result_bytes).Bind(job.result_sha256).Bind(job.id);
  ESS_RETURN_IF_ERROR(query.Run());
  if (database_->changes() == 1) return absl::OkStatus();
  ESS_ASSIGN_OR_RETURN(Query exists, database_->Prepare("SELECT 1 FROM jobs WHERE id = ?"));
  exists.Bind(job.id);
  ESS_ASSIGN_OR_RETURN(const bool found, exists.Step());
  if (!found) return NoSuchJob(job.id);
  return absl::FailedPreconditionError("jobs: the job has ended");
}

absl::Status JobStore::Update(const Job& job) {
  absl::MutexLock lock(&mutex_);
  ESS_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(*database_));
  ESS_RETURN_IF_ERROR(UpdateLocked(job));
  if (HasEnded(job.state)) {
    ESS_ASSIGN_OR_RETURN(Query query, database_->Prepare("DELETE FROM layers WHERE job = ?"));
    ESS_RETURN_IF_ERROR(query.Bind(job.sequence).Run());
  }
  return transaction.Commit();
}

absl::Status JobStore::AddLayer(const Job& job, const FinishedLayer& layer) {
  absl::MutexLock lock(&mutex_);
  ESS_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(*database_));
  ESS_RETURN_IF_ERROR(UpdateLocked(job));
  {
    ESS_ASSIGN_OR_RETURN(
        Query query,
        database_->Prepare(
            "INSERT OR REPLACE INTO layers (job, prompt_group, layer, notes) VALUES (?, ?, ?, ?)"));
    query.Bind(job.sequence).Bind(layer.group).Bind(layer.layer).Bind(layer.notes);
    ESS_RETURN_IF_ERROR(query.Run());
  }
  return transaction.Commit();
}

absl::Status JobStore::ForEachLayer(int64_t sequence,
                                    absl::FunctionRef<void(const FinishedLayer& layer)> visit) {
  absl::MutexLock lock(&mutex_);
  ESS_ASSIGN_OR_RETURN(
      Query query, database_->Prepare("SELECT prompt_group, layer, notes FROM layers WHERE job = ? "
                                      "ORDER BY prompt_group, layer"));
  query.Bind(sequence);
  while (true) {
    ESS_ASSIGN_OR_RETURN(const bool row, query.Step());
    if (!row) return absl::OkStatus();
    visit({.group = query.Integer(0), .layer = query.Integer(1), .notes = query.Text(2)});
  }
}

absl::StatusOr<bool> JobStore::Delete(const std::string& id) {
  absl::MutexLock lock(&mutex_);
  ESS_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(*database_));
  {
    ESS_ASSIGN_OR_RETURN(
        Query query,
        database_->Prepare(
            "DELETE FROM layers WHERE job = (SELECT sequence FROM jobs WHERE id = ?)"));
    ESS_RETURN_IF_ERROR(query.Bind(id).Run());
  }
  int64_t deleted = 0;
  {
    ESS_ASSIGN_OR_RETURN(Query query, database_->Prepare("DELETE FROM jobs WHERE id = ?"));
    ESS_RETURN_IF_ERROR(query.Bind(id).Run());
    deleted = database_->changes();
  }
  ESS_RETURN_IF_ERROR(transaction.Commit());
  return deleted > 0;
}

absl::StatusOr<std::vector<std::string>> JobStore::Age(double seconds, double limit_seconds) {
  absl::MutexLock lock(&mutex_);
  {
    ESS_ASSIGN_OR_RETURN(Query query,
                         database_->Prepare("UPDATE jobs SET age_seconds = age_seconds + ? "
                                            "WHERE state IN (3, 4, 5)"));
    ESS_RETURN_IF_ERROR(query.Bind(seconds).Run());
  }
  ESS_ASSIGN_OR_RETURN(
      Query query,
      database_->Prepare("SELECT id FROM jobs WHERE state IN (3, 4, 5) AND age_seconds > ?"));
  query.Bind(limit_seconds);
  std::vector<std::string> ids;
  while (true) {
    ESS_ASSIGN_OR_RETURN(const bool row, query.Step());
    if (!row) return ids;
    ids.push_back(query.Text(0));
  }
}

absl::StatusOr<std::map<JobState, int64_t>> JobStore::CountByState() {
  absl::MutexLock lock(&mutex_);
  ESS_ASSIGN_OR_RETURN(Query query,
                       database_->Prepare("SELECT state, count(*) FROM jobs GROUP BY state"));
  std::map<JobState, int64_t> counts;
  while (true) {
    ESS_ASSIGN_OR_RETURN(const bool row, query.Step());
    if (!row) return counts;
    counts[static_cast<JobState>(query.Integer(0))] = query.Integer(1);
  }
}

absl::StatusOr<JobStore::Totals> JobStore::ResultTotals() {
  absl::MutexLock lock(&mutex_);
  ESS_ASSIGN_OR_RETURN(
      Query query,
      database_->Prepare("SELECT count(*), total(result_bytes) FROM jobs WHERE state = 3"));
  ESS_RETURN_IF_ERROR(query.Run());
  return Totals{.files = query.Integer(0), .bytes = query.Integer(1)};
}

}  // namespace ess::jobs
