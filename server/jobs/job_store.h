// The database of jobs: state_dir/jobs.sqlite3, in SQLite's write-ahead mode. What it has said is
// on the disk before it returns.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/jobs/job.h"
#include "server/jobs/sqlite.h"

namespace ess::jobs {

// A layer of a group of prompts whose values are in the working file.
struct FinishedLayer {
  int64_t group = 0;
  int64_t layer = 0;
  std::string notes;  // What is kept of it beside the values; opaque here.
};

struct JobFilter {
  std::optional<std::string> owner;
  std::optional<JobState> state;
  std::optional<int64_t> before;  // Sequences below this one.
};

// Thread-safe. Cost: reads well below a millisecond; writes one fsync.
// Errors of all: those of SqliteStatus.
class JobStore {
 public:
  static constexpr char kFileName[] = "jobs.sqlite3";

  // Opens the database of `folder` and checks it, or makes it. Changes nothing when it refuses.
  // Errors: kDataLoss            damaged, or no database of this server: says how to recover.
  //         kFailedPrecondition  made by a newer server.
  //         kUnavailable         locked by another program.
  static absl::StatusOr<std::unique_ptr<JobStore>> Open(const std::filesystem::path& folder);

  // Adds a job; sets its sequence.
  // Errors: kAlreadyExists  the owner has a job with this idempotency key.
  absl::Status Insert(Job& job);

  // Errors: kNotFound.
  absl::StatusOr<Job> Get(const std::string& id);
  absl::StatusOr<std::optional<Job>> FindByKey(const std::string& owner, const std::string& key);
  // Newest first.
  absl::StatusOr<std::vector<Job>> List(const JobFilter& filter, int64_t limit);
  // Those that have not ended, oldest first.
  absl::StatusOr<std::vector<Job>> Unfinished();
  // Those that have ended, the one that ended first first.
  absl::StatusOr<std::vector<Job>> Ended();

  // Writes what changes of a job that has not ended: state, error, counts, times, sizes.
  // Errors: kNotFound            no such job.
  //         kFailedPrecondition  it has ended meanwhile.
  absl::Status Update(const Job& job);

  // Records a finished layer and the job's counts in one step. Errors: as Update.
  absl::Status AddLayer(const Job& job, const FinishedLayer& layer);
  // By group, then by layer. `visit` must not call the store.
  absl::Status ForEachLayer(int64_t sequence,
                            absl::FunctionRef<void(const FinishedLayer& layer)> visit);

  // Whether there was such a job.
  absl::StatusOr<bool> Delete(const std::string& id);

  // Makes all ended jobs older. Returns the ids of those that are now older than `limit_seconds`.
  absl::StatusOr<std::vector<std::string>> Age(double seconds, double limit_seconds);

  absl::StatusOr<std::map<JobState, int64_t>> CountByState();

  struct Totals {
    int64_t files = 0;
    int64_t bytes = 0;
  };
  // Of the results.
  absl::StatusOr<Totals> ResultTotals();

 private:
  explicit JobStore(std::unique_ptr<Database> database) : database_(std::move(database)) {}
  absl::Status UpdateLocked(const Job& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<std::vector<Job>> Select(Query query) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Mutex mutex_;
  const std::unique_ptr<Database> database_ ABSL_PT_GUARDED_BY(mutex_);
};

}  // namespace ess::jobs
