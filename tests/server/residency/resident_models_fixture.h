// What tests of the state machine share: a source of made-up models, and what callers do.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "gmock/gmock.h"
#include "server/residency/resident_models.h"
#include "tests/support/await_answer.h"
#include "tests/support/fake_model_source.h"
#include "tests/support/status_matchers.h"

namespace ess::residency {

// What came of one WhenReady. Thread-safe.
class Outcome {
 public:
  ResidentModels::Done Receiver() {
    return [this](absl::StatusOr<ResidentModels::Lease> result) {
      absl::MutexLock lock(&mutex_);
      ++calls_;
      thread_ = std::this_thread::get_id();
      result_.emplace(std::move(result));
    };
  }
  bool answered() {
    absl::MutexLock lock(&mutex_);
    return calls_ > 0;
  }
  int calls() {
    absl::MutexLock lock(&mutex_);
    return calls_;
  }
  std::thread::id thread() {
    absl::MutexLock lock(&mutex_);
    return thread_;
  }
  absl::Status Wait() {
    absl::MutexLock lock(&mutex_);
    auto called = [this] { return calls_ > 0; };
    mutex_.Await(absl::Condition(&called));
    return result_->status();
  }
  // Gives the lease back, if there is one.
  void Release() {
    absl::MutexLock lock(&mutex_);
    result_.reset();
  }
  const ResidentModels::Lease& lease() {
    absl::MutexLock lock(&mutex_);
    return **result_;
  }

 private:
  absl::Mutex mutex_;
  int calls_ = 0;
  std::thread::id thread_;
  std::optional<absl::StatusOr<ResidentModels::Lease>> result_;
};

// An unload, from its beginning to its end.
inline absl::StatusOr<int64_t> UnloadAndWait(
    ResidentModels& models, const std::string& name,
    std::shared_ptr<const CancellationToken> cancellation = std::make_shared<CancellationToken>()) {
  return testing::AwaitAnswer<int64_t>(
      [&](auto done) { models.Unload(name, cancellation, std::move(done)); });
}

class ResidentModelsTest : public ::testing::Test {
 protected:
  // Long enough that no test meets it by chance.
  static constexpr absl::Duration kNever = absl::Hours(1);

  void Start(absl::Duration patience = kNever, int max_parallel_loads = 1) {
    models_ = std::make_unique<ResidentModels>(
        source_, metrics_,
        ResidentModels::Options{.max_parallel_loads = max_parallel_loads,
                                .eviction_patience = patience});
  }

  ResidentModels::Request RequestFor(const std::string& name, ModelOptions options = {}) {
    return {.entry = {.name = name, .folder = {}, .options = std::move(options)},
            .cancellation = never_};
  }
  ResidentModels::Request LoadOf(const std::string& name, ModelOptions options = {}) {
    ResidentModels::Request request = RequestFor(name, std::move(options));
    request.explicit_load = true;
    return request;
  }
  ResidentModels::Request ReloadOf(const std::string& name) {
    ResidentModels::Request request = LoadOf(name);
    request.reload = true;
    return request;
  }

  // A lease, at once or after a load.
  void Use(Outcome& outcome, const std::string& name) {
    models_->WhenReady(RequestFor(name), outcome.Receiver());
    ASSERT_THAT(outcome.Wait(), ess::testing::IsOk());
  }
  // In memory, and not used.
  void Touch(const std::string& name, ModelOptions options = {}) {
    Outcome outcome;
    models_->WhenReady(RequestFor(name, std::move(options)), outcome.Receiver());
    ASSERT_THAT(outcome.Wait(), ess::testing::IsOk());
  }

  ResidentModels::Status Get(const std::string& name) {
    return models_->Get(name, [](const Weights&) {});
  }
  ModelState StateOf(const std::string& name) { return Get(name).state; }
  void WaitForState(const std::string& name, ModelState state) {
    while (StateOf(name) != state) std::this_thread::yield();
  }
  void WaitForReason(const std::string& name, const std::string& part) {
    while (Get(name).reason.find(part) == std::string::npos) std::this_thread::yield();
  }

  ess::testing::FakeModelSource source_{300};
  telemetry::Metrics metrics_;
  const std::shared_ptr<CancellationToken> never_ = std::make_shared<CancellationToken>();
  std::unique_ptr<ResidentModels> models_;
};

}  // namespace ess::residency
