// Tells those who watch a job that it has changed.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace ess::jobs {

// Thread-safe. Costs nothing while nobody watches. Progress reaches the watchers after at most
// `interval`, and no more often; a change of state at once.
class JobFeed {
 public:
  // Must not block. Called from a thread of the feed.
  using Listener = std::function<void()>;

  explicit JobFeed(absl::Duration interval = absl::Seconds(1));
  ~JobFeed();
  JobFeed(const JobFeed&) = delete;
  JobFeed& operator=(const JobFeed&) = delete;

  // Until Remove; a call that has begun may still be under way then.
  int64_t Add(const std::string& job_id, Listener listener);
  void Remove(int64_t listener);

  void OnProgress(const std::string& job_id) { Notify(job_id, /*at_once=*/false); }
  void OnStateChange(const std::string& job_id) { Notify(job_id, /*at_once=*/true); }

  // The server drains: tells everybody, and everybody who comes.
  void Close();
  bool closed();

 private:
  struct Entry {
    std::string job_id;
    Listener listener;
  };
  void Notify(const std::string& job_id, bool at_once);
  void RunThread();
  bool IsDueOrStops() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const absl::Duration interval_;
  absl::Mutex mutex_;
  std::map<int64_t, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  std::multiset<std::string> watched_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> changed_ ABSL_GUARDED_BY(mutex_);
  bool urgent_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t next_ ABSL_GUARDED_BY(mutex_) = 1;
  std::thread thread_;
};

}  // namespace ess::jobs
