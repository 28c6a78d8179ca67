// Random requests against a simple model of what must be in memory, and from many threads against
// what must never happen.
#include <algorithm>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "server/residency/resident_models.h"
#include "tests/server/residency/resident_models_fixture.h"
#include "tests/support/fake_model_source.h"
#include "tests/support/status_matchers.h"

namespace ess::residency {
namespace {

using ::ess::testing::FakeModelSource;
using ::ess::testing::IsOk;
using Lease = ResidentModels::Lease;

constexpr int kModels = 8;
constexpr int64_t kBudget = 300;

std::string NameOf(int model) { return std::string(1, static_cast<char>('a' + model)); }
int64_t BytesOf(int model) { return 20 + 17 * model; }  // 20 ... 139

// WhenReady that waits. Counts its answers.
class Caller {
 public:
  explicit Caller(ResidentModels& models) : models_(models) {}

  absl::StatusOr<Lease> Call(ResidentModels::Request request) {
    {
      absl::MutexLock lock(&mutex_);
      result_.reset();
    }
    ++calls_;
    models_.WhenReady(std::move(request), [this](absl::StatusOr<Lease> result) {
      absl::MutexLock lock(&mutex_);
      ++answers_;
      result_.emplace(std::move(result));
    });
    absl::MutexLock lock(&mutex_);
    auto called = [this] { return result_.has_value(); };
    mutex_.Await(absl::Condition(&called));
    return *std::move(result_);
  }

  bool every_call_was_answered_once() {
    absl::MutexLock lock(&mutex_);
    return calls_ == answers_;
  }

 private:
  ResidentModels& models_;
  int calls_ = 0;
  absl::Mutex mutex_;
  int answers_ = 0;
  std::optional<absl::StatusOr<Lease>> result_;
};

ResidentModels::Request RequestFor(int model, bool pinned = false) {
  return {.entry = {.name = NameOf(model), .folder = {}, .options = {.pinned = pinned}},
          .cancellation = std::make_shared<CancellationToken>()};
}

void FillSource(FakeModelSource& source) {
  for (int model = 0; model < kModels; ++model) source.SetBytes(NameOf(model), BytesOf(model));
}

// What one caller at a time must find in memory.
class ExpectedModels {
 public:
  void Use(int model, bool pinned) {
    const auto found = std::find(by_use_.begin(), by_use_.end(), model);
    if (found != by_use_.end()) {
      by_use_.erase(found);
    } else {
      for (auto victim = by_use_.begin(); Bytes() + BytesOf(model) > kBudget;) {
        victim = pinned_.contains(*victim) ? std::next(victim) : by_use_.erase(victim);
      }
      if (pinned) pinned_.insert(model);
    }
    by_use_.push_back(model);
  }
  void Unload(int model) {
    std::erase(by_use_, model);
    pinned_.erase(model);
  }
  bool Fits(int model) const {
    int64_t pinned = 0;
    for (const int each : pinned_) pinned += each == model ? 0 : BytesOf(each);
    return pinned + BytesOf(model) <= kBudget;
  }
  int64_t Bytes() const {
    int64_t bytes = 0;
    for (const int model : by_use_) bytes += BytesOf(model);
    return bytes;
  }
  bool Holds(int model) const {
    return std::find(by_use_.begin(), by_use_.end(), model) != by_use_.end();
  }

 private:
  std::vector<int> by_use_;  // The least recently used first.
  std::set<int> pinned_;
};

class RandomResidencyTest : public ::testing::TestWithParam<uint64_t> {};

TEST_P(RandomResidencyTest, OneCallerFindsInMemoryWhatASimpleModelSays) {
  FakeModelSource source(kBudget);
  FillSource(source);
  telemetry::Metrics metrics;
  ResidentModels models(source, metrics, {});
  Caller caller(models);
  ExpectedModels expected;
  std::mt19937_64 random(GetParam());

  for (int step = 0; step < 300; ++step) {
    const int model = static_cast<int>(random() % kModels);
    if (random() % 4 == 0) {
      ASSERT_THAT(UnloadAndWait(models, NameOf(model)), IsOk());
      expected.Unload(model);
    } else if (expected.Fits(model)) {
      const bool pinned = random() % 16 == 0;
      ASSERT_THAT(caller.Call(RequestFor(model, pinned)), IsOk());
      expected.Use(model, pinned);
    }

    ASSERT_EQ(models.UsedBytes("fake"), expected.Bytes()) << "step " << step;
    ASSERT_EQ(source.alive_bytes(), expected.Bytes());
    for (int each = 0; each < kModels; ++each) {
      const auto status = models.Get(NameOf(each), [](const Weights&) {});
      ASSERT_EQ(status.state, expected.Holds(each) ? ModelState::kReady : ModelState::kCold);
    }
  }

  EXPECT_LE(source.peak_bytes(), kBudget);
  EXPECT_TRUE(caller.every_call_was_answered_once());
}

// One of many callers, each with its own random requests.
class RandomCaller {
 public:
  RandomCaller(ResidentModels& models, FakeModelSource& source, uint64_t seed)
      : models_(models), source_(source), caller_(models), random_(seed) {}

  void Run(int steps) {
    for (int step = 0; step < steps; ++step) {
      const int model = static_cast<int>(random_() % kModels);
      switch (random_() % 10) {
        case 0:
          Unload(model);
          break;
        case 1:
          Load(model, /*reload=*/true);
          break;
        case 2:
          Load(model, /*reload=*/false);
          break;
        case 3:
          source_.SetFailure(NameOf(model),
                             random_() % 2 == 0 ? absl::DataLossError("broken") : absl::OkStatus());
          break;
        default:
          Use(model);
      }
      EXPECT_LE(models_.UsedBytes("fake"), kBudget);
    }
    EXPECT_TRUE(caller_.every_call_was_answered_once());
  }

 private:
  // A token that fires at some time, or never.
  std::shared_ptr<CancellationToken> Token() {
    switch (random_() % 4) {
      case 0:
        return std::make_shared<CancellationToken>(absl::Now() +
                                                   absl::Microseconds(random_() % 3000));
      case 1: {
        auto token = std::make_shared<CancellationToken>();
        token->Cancel();
        return token;
      }
      default:
        return std::make_shared<CancellationToken>();
    }
  }

  void Unload(int model) { UnloadAndWait(models_, NameOf(model), Token()).status().IgnoreError(); }

  void Load(int model, bool reload) {
    ResidentModels::Request request = RequestFor(model, /*pinned=*/random_() % 16 == 0);
    request.explicit_load = true;
    request.reload = reload;
    request.cancellation = Token();
    caller_.Call(std::move(request)).status().IgnoreError();
  }

  void Use(int model) {
    ResidentModels::Request request = RequestFor(model);
    request.cancellation = Token();
    const absl::StatusOr<Lease> lease = caller_.Call(std::move(request));
    if (!lease.ok()) return;
    EXPECT_EQ(lease->name(), NameOf(model));
    EXPECT_EQ(lease->weights().bytes(), BytesOf(model));
    if (random_() % 2 == 0) return;
    const auto work = models_.ReserveWork(*lease, static_cast<int64_t>(random_() % 150), *Token());
    if (work.ok()) absl::SleepFor(absl::Microseconds(random_() % 300));
  }

  ResidentModels& models_;
  FakeModelSource& source_;
  Caller caller_;
  std::mt19937_64 random_;
};

TEST_P(RandomResidencyTest, ManyCallersNeverExceedTheBudgetAndAreAllAnswered) {
  FakeModelSource source(kBudget);
  FillSource(source);
  telemetry::Metrics metrics;
  ResidentModels models(source, metrics,
                        {.max_parallel_loads = 1 + static_cast<int>(GetParam() % 3),
                         .eviction_patience = absl::Milliseconds(GetParam() % 5)});
  std::vector<std::thread> threads;

  for (uint64_t t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      RandomCaller caller(models, source, GetParam() * 100 + t);
      caller.Run(/*steps=*/150);
    });
  }
  for (std::thread& thread : threads) thread.join();

  EXPECT_LE(source.peak_bytes(), kBudget);
  EXPECT_FALSE(source.overlapped());
  for (int model = 0; model < kModels; ++model) {
    ASSERT_THAT(UnloadAndWait(models, NameOf(model)), IsOk());
  }
  EXPECT_EQ(models.UsedBytes("fake"), 0);
  EXPECT_EQ(source.alive_bytes(), 0);
  EXPECT_TRUE(source.serving().empty());
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomResidencyTest, ::testing::Range<uint64_t>(1, 13));

}  // namespace
}  // namespace ess::residency
