#include "server/admission/request_queue.h"

#include <algorithm>
#include <iterator>
#include <tuple>
#include <utility>

#include "absl/time/clock.h"
#include "fmt/format.h"
#include "server/admission/retry_after.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"

namespace ess::admission {
namespace {

// Requests of one weight that may be aside; then no more of it begin.
constexpr int kAside = 16;
constexpr int64_t kNormalStartsBeforeALow = 7;
// Weight of the newest request in the time that a token takes.
constexpr double kNewest = 0.2;
constexpr absl::Duration kYieldPoll = absl::Milliseconds(20);
constexpr absl::Duration kShortestRetry = absl::Milliseconds(50);
constexpr absl::Duration kLongestRetry = absl::Minutes(1);
constexpr absl::Duration kUnknownRetry = absl::Seconds(1);

size_t Index(Weight weight) { return weight == Weight::kLarge ? 0 : 1; }

double Cost(const QueuedRequest& request) {
  return static_cast<double>(std::max<int64_t>(request.tokens, 1));
}

}  // namespace

const char* PriorityName(Priority priority) {
  return priority == Priority::kNormal ? "normal" : "low";
}

RequestQueue::RequestQueue(const Options& options, telemetry::Metrics& metrics)
    : options_(options), metrics_(metrics) {
  ESS_CHECK(options.large_slots >= 1 && options.small_slots >= 1);
  absl::MutexLock lock(&mutex_);
  StartThreads();
}

void RequestQueue::StartThreads() {
  const int needed = options_.large_slots + options_.small_slots + aside_[0] + aside_[1];
  while (!stopping_ && std::ssize(threads_) < needed) {
    threads_.emplace_back([this] { RunThread(); });
  }
}

RequestQueue::~RequestQueue() {
  {
    absl::MutexLock lock(&mutex_);
    draining_ = true;
    stopping_ = true;
  }
  for (std::thread& thread : threads_) thread.join();  // No more are started.
}

absl::StatusOr<RequestQueue::Id> RequestQueue::Enter(QueuedRequest request, Displaced displaced) {
  if (!request.background && request.tokens > options_.max_tokens) {
    return absl::InvalidArgumentError(
        fmt::format("prompts: {} tokens in one request; the limit is {} (max_queued_tokens)",
                    request.tokens, options_.max_tokens));
  }
  Entry loser;
  absl::Status lost;
  absl::StatusOr<Id> id;
  {
    absl::MutexLock lock(&mutex_);
    const auto refuse = [&](absl::Status status, const char* reason) {
      metrics_.requests_shed.Increment({request.model, reason});
      return status;
    };
    if (draining_) return refuse(absl::UnavailableError("the server is shutting down"), "drain");
    // What is in the background is not counted.
    const Load load = request.background ? Load() : loads_[request.model];
    if (!request.background && load.tokens + request.tokens > options_.max_tokens) {
      return refuse(
          WithRetryAfter(absl::ResourceExhaustedError(fmt::format(
                             "{} tokens are asked for and {} wait for model '{}'; the limit is {} "
                             "(max_queued_tokens); try again later",
                             request.tokens, load.tokens, request.model, options_.max_tokens)),
                         TimeToClear(load)),
          "queue_tokens");
    }
    if (!request.background && load.requests >= options_.max_requests) {
      const auto full = [&](const std::string& who) {
        return WithRetryAfter(absl::ResourceExhaustedError(fmt::format(
                                  "{} requests wait for model '{}'{}; the limit is {} "
                                  "(max_queued_profiles); try again later",
                                  load.requests, request.model, who, options_.max_requests)),
                              TimeToClear(load));
      };
      const auto displaceable = Displaceable(request);
      if (displaceable == entries_.end()) return refuse(full(""), "queue_requests");
      loser = Take(displaceable);
      lost = refuse(full(", most of them this caller's"), "caller_limit");
    }
    id = next_id_++;
    ForgetIdleCallers();
    double& served = served_[request.caller];
    served = std::max(served, clock_);
    Count(request, +1);
    entries_.push_back(
        {.id = *id, .request = std::move(request), .displaced = std::move(displaced)});
  }
  if (!lost.ok()) loser.displaced(lost);
  return id;
}

void RequestQueue::Start(Id id, Weight weight, Work work) {
  absl::MutexLock lock(&mutex_);
  const auto entry = Find(id);
  if (entry == entries_.end()) return;
  entry->weight = weight;
  entry->work = std::move(work);
}

bool RequestQueue::Leave(Id id) {
  Entry left;  // What it holds goes after the lock.
  absl::MutexLock lock(&mutex_);
  const auto entry = Find(id);
  if (entry == entries_.end()) return false;
  left = Take(entry);
  return true;
}

bool RequestQueue::Drain(absl::Duration limit) {
  absl::MutexLock lock(&mutex_);
  draining_ = true;
  auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return entries_.empty() && running_[0] + running_[1] + aside_[0] + aside_[1] == 0;
  };
  return mutex_.AwaitWithTimeout(absl::Condition(&idle), limit);
}

void RequestQueue::EndWaiting(const absl::Status& status) {
  std::vector<Entry> ended;
  {
    absl::MutexLock lock(&mutex_);
    while (!entries_.empty()) ended.push_back(Take(entries_.begin()));
  }
  for (const Entry& entry : ended) entry.displaced(status);
}

void RequestQueue::Slot::Pause() {
  ESS_CHECK(!aside_);
  aside_ = true;
  ++queue_.aside_[Index(weight_)];
  --queue_.running_[Index(weight_)];
  queue_.StartThreads();
}

void RequestQueue::Slot::GoOn() {
  aside_ = false;
  --queue_.aside_[Index(weight_)];
  ++queue_.running_[Index(weight_)];
}

bool RequestQueue::Slot::HasRoom() const {
  return queue_.running_[Index(weight_)] < queue_.Slots(weight_);
}

absl::Status RequestQueue::Slot::WaitAside(absl::FunctionRef<absl::Status()> wait,
                                           const CancellationToken& cancellation) {
  {
    absl::MutexLock lock(&queue_.mutex_);
    Pause();
  }
  ESS_RETURN_IF_ERROR(wait());
  absl::MutexLock lock(&queue_.mutex_);
  int& resuming = queue_.resuming_[Index(weight_)];
  ++resuming;
  const absl::Status waited =
      AwaitOrCancel(queue_.mutex_, absl::Condition(this, &Slot::HasRoom), cancellation);
  --resuming;
  ESS_RETURN_IF_ERROR(waited);
  GoOn();
  return absl::OkStatus();
}

absl::Status RequestQueue::Slot::Yield(absl::Duration longest,
                                       const CancellationToken& cancellation) {
  const auto unwanted = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(queue_.mutex_) {
    return HasRoom() && !queue_.IsWanted(weight_);
  };
  // Waits for `condition` until `end`. Whether it holds, or the token's status.
  const auto await = [&](const absl::Condition& condition, absl::Duration limit)
                         ABSL_EXCLUSIVE_LOCKS_REQUIRED(queue_.mutex_) -> absl::StatusOr<bool> {
    for (absl::Duration waited; waited < limit; waited += kYieldPoll) {
      if (queue_.mutex_.AwaitWithTimeout(condition, kYieldPoll)) return true;
      ESS_RETURN_IF_ERROR(cancellation.Check());
    }
    return false;
  };
  absl::MutexLock lock(&queue_.mutex_);
  if (!queue_.IsWanted(weight_)) return absl::OkStatus();
  Pause();
  ESS_ASSIGN_OR_RETURN(bool goes_on, await(absl::Condition(&unwanted), longest));
  if (!goes_on) {
    int& resuming = queue_.resuming_[Index(weight_)];
    ++resuming;
    const absl::StatusOr<bool> resumed = await(absl::Condition(this, &Slot::HasRoom), longest);
    --resuming;
    ESS_ASSIGN_OR_RETURN(goes_on, resumed);
  }
  if (!goes_on) return absl::AbortedError("others needed the slot for longer than it can wait");
  GoOn();
  return absl::OkStatus();
}

void RequestQueue::RunThread() {
  while (true) {
    Entry entry;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &RequestQueue::HasWorkOrStops));
      const auto next = Next();
      if (next == entries_.end()) return;
      Serve(next->request);
      entry = Take(next);
      ++running_[Index(entry.weight)];
    }
    const absl::Time start = absl::Now();
    Slot slot(*this, entry.weight);
    entry.work(slot);
    entry.work = nullptr;  // What it holds goes before the queue counts as idle.
    const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
    absl::MutexLock lock(&mutex_);
    --(slot.aside_ ? aside_ : running_)[Index(entry.weight)];
    if (entry.request.background) continue;  // It has let others go first.
    const double now = seconds / Cost(entry.request);
    seconds_per_token_ += (seconds_per_token_ == 0 ? 1 : kNewest) * (now - seconds_per_token_);
  }
}

bool RequestQueue::HasWorkOrStops() { return stopping_ || Next() != entries_.end(); }

void RequestQueue::Serve(const QueuedRequest& request) {
  normal_in_a_row_ = request.priority == Priority::kNormal ? normal_in_a_row_ + 1 : 0;
  double& served = served_[request.caller];
  clock_ = std::max(clock_, served) + Cost(request) / static_cast<double>(WaitingCallers().size());
  served += Cost(request);
}

std::set<std::string_view> RequestQueue::WaitingCallers() const {
  std::set<std::string_view> callers;
  for (const Entry& entry : entries_) callers.insert(entry.request.caller);
  return callers;
}

void RequestQueue::ForgetIdleCallers() {
  const std::set<std::string_view> callers = WaitingCallers();
  std::erase_if(served_, [&](const auto& caller) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return caller.second <= clock_ && !callers.contains(caller.first);
  });
}

RequestQueue::Entries::iterator RequestQueue::Find(Id id) {
  return std::find_if(entries_.begin(), entries_.end(),
                      [id](const Entry& entry) { return entry.id == id; });
}

int RequestQueue::Slots(Weight weight) const {
  return weight == Weight::kLarge ? options_.large_slots : options_.small_slots;
}

bool RequestQueue::HasSlot(Weight weight) const {
  return running_[Index(weight)] + resuming_[Index(weight)] < Slots(weight);
}

bool RequestQueue::HasThread(Weight weight) const {
  return running_[Index(weight)] + aside_[Index(weight)] < Slots(weight) + kAside;
}

bool RequestQueue::IsWanted(Weight weight) const {
  if (resuming_[Index(weight)] > 0) return true;
  if (!HasThread(weight)) return false;
  return std::any_of(entries_.begin(), entries_.end(), [weight](const Entry& entry) {
    return entry.work && entry.weight == weight && entry.request.priority == Priority::kNormal;
  });
}

RequestQueue::Entries::iterator RequestQueue::Next() {
  const Priority first =
      normal_in_a_row_ >= kNormalStartsBeforeALow ? Priority::kLow : Priority::kNormal;
  auto best = entries_.end();
  const auto rank = [&](const Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return std::tuple(entry.request.priority != first, served_.at(entry.request.caller));
  };
  for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
    if (!entry->work || !HasSlot(entry->weight) || !HasThread(entry->weight)) continue;
    if (best == entries_.end() || rank(*entry) < rank(*best)) best = entry;
  }
  return best;
}

RequestQueue::Entry RequestQueue::Take(Entries::iterator entry) {
  Entry taken = std::move(*entry);
  entries_.erase(entry);
  Count(taken.request, -1);
  return taken;
}

void RequestQueue::Count(const QueuedRequest& request, int64_t sign) {
  if (!request.background) {
    Load& load = loads_[request.model];
    load.requests += sign;
    load.tokens += sign * request.tokens;
  }
  const std::array<std::string, 2> labels = {request.model, PriorityName(request.priority)};
  metrics_.queue_requests.Add(labels, static_cast<double>(sign));
  metrics_.queue_tokens.Add(labels, static_cast<double>(sign * request.tokens));
  metrics_.queue_limit_tokens.Set({request.model}, static_cast<double>(options_.max_tokens));
}

RequestQueue::Entries::iterator RequestQueue::Displaceable(const QueuedRequest& request) {
  std::map<std::string, int64_t> places;
  for (const Entry& entry : entries_) {
    if (entry.request.background) continue;
    if (entry.request.model == request.model) ++places[entry.request.caller];
  }
  const auto most =
      std::max_element(places.begin(), places.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  if (most == places.end() || most->second <= places[request.caller] + 1) return entries_.end();
  const auto newest = std::find_if(entries_.rbegin(), entries_.rend(), [&](const Entry& entry) {
    return entry.request.model == request.model && entry.request.caller == most->first &&
           !entry.request.background;
  });
  return std::prev(newest.base());
}

absl::Duration RequestQueue::TimeToClear(const Load& load) const {
  if (seconds_per_token_ == 0) return kUnknownRetry;
  return std::clamp(absl::Seconds(seconds_per_token_ * static_cast<double>(load.tokens)),
                    kShortestRetry, kLongestRetry);
}

}  // namespace ess::admission
