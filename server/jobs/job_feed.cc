#include "server/jobs/job_feed.h"

#include <utility>
#include <vector>

namespace ess::jobs {

JobFeed::JobFeed(absl::Duration interval) : interval_(interval), thread_([this] { RunThread(); }) {}

JobFeed::~JobFeed() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

int64_t JobFeed::Add(const std::string& job_id, Listener listener) {
  absl::MutexLock lock(&mutex_);
  watched_.insert(job_id);
  entries_[next_] = {.job_id = job_id, .listener = std::move(listener)};
  return next_++;
}

void JobFeed::Remove(int64_t listener) {
  Entry removed;  // What it holds goes after the lock.
  absl::MutexLock lock(&mutex_);
  const auto found = entries_.find(listener);
  if (found == entries_.end()) return;
  removed = std::move(found->second);
  entries_.erase(found);
  watched_.erase(watched_.find(removed.job_id));
}

void JobFeed::Close() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
  urgent_ = true;
  changed_.insert(watched_.begin(), watched_.end());
}

bool JobFeed::closed() {
  absl::MutexLock lock(&mutex_);
  return closed_;
}

void JobFeed::Notify(const std::string& job_id, bool at_once) {
  absl::MutexLock lock(&mutex_);
  if (!watched_.contains(job_id)) return;
  changed_.insert(job_id);
  urgent_ |= at_once;
}

bool JobFeed::IsDueOrStops() { return stopping_ || !changed_.empty(); }

void JobFeed::RunThread() {
  while (true) {
    std::vector<Listener> due;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &JobFeed::IsDueOrStops));
      if (stopping_) return;
      for (const auto& [id, entry] : entries_) {
        if (changed_.contains(entry.job_id)) due.push_back(entry.listener);
      }
      changed_.clear();
      urgent_ = false;
    }
    for (const Listener& listener : due) listener();
    due.clear();
    absl::MutexLock lock(&mutex_);
    auto wake = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return urgent_ || stopping_; };
    mutex_.AwaitWithTimeout(absl::Condition(&wake), interval_);
  }
}

}  // namespace ess::jobs
