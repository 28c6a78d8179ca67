#include <fstream>
#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "tests/server/residency/model_residency_fixture.h"
#include "tests/support/status_matchers.h"

namespace ess::residency {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;
using ::testing::_;
using ::testing::HasSubstr;

TEST_F(ModelResidencyTest, LoadsAColdModelForItsFirstLease) {
  ModelResidency residency = MakeResidency();
  EXPECT_EQ(residency.Get("m")->state, ModelState::kCold);

  const auto lease = residency.Acquire("m", never_);

  ASSERT_THAT(lease, IsOk());
  EXPECT_EQ(residency.Get("m")->state, ModelState::kReady);
  ASSERT_THAT(residency.Acquire("m", never_), IsOk());
  EXPECT_EQ(loads_, 1);
}

TEST_F(ModelResidencyTest, ACallerWaitsAsideOnlyForAModelThatIsNotInMemory) {
  ModelResidency residency = MakeResidency();
  int waits = 0;
  const auto aside = [&waits](absl::FunctionRef<absl::Status()> wait) {
    ++waits;
    return wait();
  };
  ASSERT_THAT(residency.Acquire("m", never_, aside), IsOk());
  EXPECT_EQ(waits, 1);
  ASSERT_THAT(residency.Acquire("m", never_, aside), IsOk());
  EXPECT_EQ(waits, 1);
}

TEST_F(ModelResidencyTest, ACallerThatCannotGoOnAfterItsWaitLeavesNoLease) {
  ModelResidency residency = MakeResidency();
  const auto aside = [](absl::FunctionRef<absl::Status()> wait) {
    EXPECT_THAT(wait(), IsOk());
    return absl::CancelledError("the caller left");
  };

  EXPECT_THAT(residency.Acquire("m", never_, aside), StatusIs(absl::StatusCode::kCancelled, _));

  EXPECT_THAT(Unload(residency, "m", never_), IsOk());  // Waits for leases.
}

TEST_F(ModelResidencyTest, LoadsOnceWhenManyAskAtTheSameTime) {
  ModelResidency residency = MakeResidency();
  std::vector<std::thread> threads;

  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] { EXPECT_THAT(residency.Acquire("m", never_), IsOk()); });
  }
  for (std::thread& thread : threads) thread.join();

  EXPECT_EQ(loads_, 1);
}

TEST_F(ModelResidencyTest, AnswersNotFoundForAnUnknownModel) {
  ModelResidency residency = MakeResidency();
  constexpr auto kNotFound = absl::StatusCode::kNotFound;
  EXPECT_THAT(residency.Acquire("x", never_), StatusIs(kNotFound, _));
  EXPECT_THAT(residency.Load({.name = "x"}, never_), StatusIs(kNotFound, _));
  EXPECT_THAT(Unload(residency, "x", never_), StatusIs(kNotFound, _));
  EXPECT_THAT(residency.Get("x"), StatusIs(kNotFound, _));
}

TEST_F(ModelResidencyTest, KeepsTheReasonOfAFailedLoadAndDoesNotTryAgainByItself) {
  ModelResidency residency = MakeResidency();
  load_result_ = absl::DataLossError("model.safetensors: truncated");

  EXPECT_THAT(residency.Acquire("m", never_),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("truncated")));
  EXPECT_THAT(residency.Acquire("m", never_),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("truncated")));

  EXPECT_EQ(loads_, 1);
  EXPECT_EQ(residency.Get("m")->state, ModelState::kFailed);
  EXPECT_EQ(residency.Get("m")->reason, "load failed: DATA_LOSS: model.safetensors: truncated");
}

TEST_F(ModelResidencyTest, LoadAnswersTheErrorItselfAndTriesAFailedModelAgain) {
  ModelResidency residency = MakeResidency();
  load_result_ = absl::DataLossError("broken");
  EXPECT_THAT(residency.Load({.name = "m"}, never_),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("broken")));

  load_result_ = absl::OkStatus();

  EXPECT_THAT(residency.Load({.name = "m"}, never_), IsOk());
  EXPECT_THAT(residency.Acquire("m", never_), IsOk());
}

TEST_F(ModelResidencyTest, GivesMemoryBackOnUnload) {
  ModelResidency residency = MakeResidency();
  ASSERT_THAT(residency.Acquire("m", never_), IsOk());
  ASSERT_EQ(alive_, 1);

  const auto released = Unload(residency, "m", never_);

  ASSERT_THAT(released, IsOk());
  EXPECT_EQ(*released, 100);
  EXPECT_EQ(alive_, 0);
  EXPECT_EQ(residency.Get("m")->state, ModelState::kCold);
}

TEST_F(ModelResidencyTest, UnloadingAColdModelReleasesNothing) {
  ModelResidency residency = MakeResidency();
  const auto released = Unload(residency, "m", never_);
  ASSERT_THAT(released, IsOk());
  EXPECT_EQ(*released, 0);
}

TEST_F(ModelResidencyTest, UnloadWaitsForTheLastLease) {
  ModelResidency residency = MakeResidency();
  auto lease = std::make_unique<ModelLease>(*residency.Acquire("m", never_));

  std::thread unload([&] { EXPECT_THAT(Unload(residency, "m", never_), IsOk()); });
  while (residency.Get("m")->state != ModelState::kUnloading) std::this_thread::yield();
  EXPECT_EQ(alive_, 1);
  // The profile that holds the lease still needs the description.
  EXPECT_NE(residency.Get("m")->description, nullptr);
  lease.reset();
  unload.join();

  EXPECT_EQ(alive_, 0);
}

TEST_F(ModelResidencyTest, AnUnloadThatIsCancelledLeavesTheModelServing) {
  ModelResidency residency = MakeResidency();
  const auto lease = residency.Acquire("m", never_);
  const CancellationToken past(absl::Now() - absl::Seconds(1));

  EXPECT_THAT(Unload(residency, "m", past), StatusIs(absl::StatusCode::kDeadlineExceeded, _));

  EXPECT_EQ(residency.Get("m")->state, ModelState::kReady);
  EXPECT_THAT(residency.Acquire("m", never_), IsOk());
}

TEST_F(ModelResidencyTest, RefusesOtherOptionsForALoadedModel) {
  ModelResidency residency = MakeResidency();
  const ModelOptions as_stored{.as_stored = true};
  ASSERT_THAT(residency.Load({.name = "m", .options = as_stored}, never_), IsOk());
  EXPECT_TRUE(last_options_.as_stored);
  const ModelOptions float32;

  EXPECT_THAT(residency.Load({.name = "m", .options = as_stored}, never_), IsOk());
  EXPECT_THAT(residency.Load({.name = "m", .options = float32}, never_),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("other options")));
  EXPECT_EQ(loads_, 1);
}

TEST_F(ModelResidencyTest, ServesTheSameFolderUnderAnAlias) {
  ModelResidency residency = MakeResidency();
  const ModelOptions as_stored{.as_stored = true};

  const auto loaded =
      residency.Load({.name = "m", .alias = "m-stored", .options = as_stored}, never_);

  ASSERT_THAT(loaded, IsOk());
  EXPECT_EQ(loaded->name, "m-stored");
  EXPECT_THAT(residency.Acquire("m-stored", never_), IsOk());
  EXPECT_EQ(residency.List().size(), 2u);
}

TEST_F(ModelResidencyTest, SurvivesALoadThatThrows) {
  ModelResidency residency = MakeResidency();
  load_throws_ = true;
  EXPECT_THAT(residency.Load({.name = "m"}, never_),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("out of host memory")));
  EXPECT_EQ(residency.Get("m")->state, ModelState::kFailed);

  load_throws_ = false;

  EXPECT_THAT(residency.Load({.name = "m"}, never_), IsOk());
}

TEST_F(ModelResidencyTest, ARefusedLoadChangesNothingForAnAlias) {
  ModelResidency residency = MakeResidency();
  const ModelOptions as_stored{.as_stored = true};
  const ModelOptions float32;
  ASSERT_THAT(residency.Load({.name = "m", .alias = "alias", .options = as_stored}, never_),
              IsOk());
  ASSERT_THAT(residency.Load({.name = "m", .alias = "alias", .options = float32}, never_),
              StatusIs(absl::StatusCode::kAlreadyExists, _));
  ASSERT_THAT(Unload(residency, "alias", never_), IsOk());

  ASSERT_THAT(residency.Acquire("alias", never_), IsOk());

  EXPECT_TRUE(last_options_.as_stored);
}

TEST_F(ModelResidencyTest, ALoadOntoADeviceThatIsNotThereChangesNothing) {
  ModelResidency residency = MakeResidency();
  const ModelOptions nonsense{.device = "abacus"};
  const ModelOptions absent{.device = "meta"};

  EXPECT_THAT(residency.Load({.name = "m", .options = nonsense}, never_),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'abacus'")));
  EXPECT_THAT(residency.Load({.name = "m", .alias = "alias", .options = absent}, never_),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("'meta'")));

  EXPECT_EQ(residency.Get("m")->state, ModelState::kCold);
  EXPECT_THAT(residency.Get("alias"), StatusIs(absl::StatusCode::kNotFound, _));
  EXPECT_EQ(loads_, 0);
}

TEST_F(ModelResidencyTest, AConfiguredDeviceThatIsNotThereFailsTheModel) {
  ModelCatalogue catalogue({}, {{"far", root_ / "m", {.device = "cuda:99"}}});
  ModelResidency residency(catalogue, metrics_, {});

  EXPECT_THAT(residency.Acquire("far", never_),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("'cuda:99'")));
}

TEST_F(ModelResidencyTest, LoadsAndUnloadsFromManyThreads) {
  ModelResidency residency = MakeResidency();
  std::vector<std::thread> threads;

  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        if (t == 0) {
          EXPECT_THAT(Unload(residency, "m", never_), IsOk());
          continue;
        }
        const auto lease = residency.Acquire("m", never_);
        ASSERT_THAT(lease, IsOk());
        EXPECT_NE(residency.Get("m")->description, nullptr);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();

  EXPECT_LE(alive_, 1);
}

TEST_F(ModelResidencyTest, AModelThatWasEvictedComesBackWithTheOptionsOfItsLoad) {
  std::filesystem::create_directories(root_ / "other");
  std::ofstream(root_ / "other" / "config.json") << "{}";
  device_budget_ = 150;
  ModelResidency residency = MakeResidency();
  const ModelOptions as_stored{.as_stored = true};
  ASSERT_THAT(residency.Load({.name = "m", .options = as_stored}, never_), IsOk());
  ASSERT_THAT(residency.Acquire("other", never_), IsOk());
  ASSERT_EQ(residency.Get("m")->reason, "evicted for 'other'");

  ASSERT_THAT(residency.Acquire("m", never_), IsOk());
  EXPECT_TRUE(last_options_.as_stored);

  ASSERT_THAT(Unload(residency, "m", never_), IsOk());
  ASSERT_THAT(residency.Acquire("m", never_), IsOk());
  EXPECT_FALSE(last_options_.as_stored);
}

TEST_F(ModelResidencyTest, AReloadKeepsTheOptionsThatTheModelHas) {
  ModelResidency residency = MakeResidency();
  const ModelOptions as_stored{.as_stored = true};
  ASSERT_THAT(residency.Load({.name = "m", .options = as_stored}, never_), IsOk());

  const auto reloaded = residency.Load({.name = "m", .reload = true}, never_);

  ASSERT_THAT(reloaded, IsOk());
  EXPECT_TRUE(reloaded->options.as_stored);
  EXPECT_EQ(loads_, 2);
}

TEST_F(ModelResidencyTest, ALeaseDescribesItsOwnWeightsAfterAReload) {
  ModelResidency residency = MakeResidency();
  const auto lease = residency.Acquire("m", never_);
  const auto before = residency.Get("m")->description;
  ASSERT_THAT(residency.Load({.name = "m", .reload = true}, never_), IsOk());

  EXPECT_EQ(residency.Describe(*lease).description, before);
  EXPECT_NE(residency.Get("m")->description, before);
}

TEST_F(ModelResidencyTest, DrawsWeightsWithTheSeedOfTheOptions) {
  ModelResidency residency = MakeResidency();
  const ModelOptions random{.random_init_seed = 7};

  const auto loaded = residency.Load({.name = "m", .alias = "random", .options = random}, never_);

  ASSERT_THAT(loaded, IsOk());
  EXPECT_EQ(loaded->options.random_init_seed, 7u);
  EXPECT_EQ(last_options_.random_init_seed, 7u);
  EXPECT_EQ(residency.Get("m")->options.random_init_seed, std::nullopt);
  const ModelOptions other{.random_init_seed = 8};
  EXPECT_THAT(residency.Load({.name = "random", .options = other}, never_),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("other options")));
}

TEST_F(ModelResidencyTest, AnAliasIsLoadedAgainAsItWasLoadedLast) {
  ModelResidency residency = MakeResidency();
  for (const uint64_t seed : {1, 2}) {
    const ModelOptions random{.random_init_seed = seed};
    ASSERT_THAT(residency.Load({.name = "m", .alias = "random", .options = random}, never_),
                IsOk());
    ASSERT_THAT(Unload(residency, "random", never_), IsOk());
  }

  ASSERT_THAT(residency.Acquire("random", never_), IsOk());

  EXPECT_EQ(last_options_.random_init_seed, 2u);
}

TEST_F(ModelResidencyTest, AnAliasIsLoadedAgainAsItWasLoadedLastUnderItsOwnName) {
  ModelResidency residency = MakeResidency();
  const ModelOptions first{.random_init_seed = 1}, second{.random_init_seed = 2};
  ASSERT_THAT(residency.Load({.name = "m", .alias = "random", .options = first}, never_), IsOk());
  ASSERT_THAT(Unload(residency, "random", never_), IsOk());
  ASSERT_THAT(residency.Load({.name = "random", .options = second}, never_), IsOk());
  ASSERT_THAT(Unload(residency, "random", never_), IsOk());

  ASSERT_THAT(residency.Acquire("random", never_), IsOk());

  EXPECT_EQ(last_options_.random_init_seed, 2u);
}

TEST_F(ModelResidencyTest, OnlyAnAliasRemembersTheOptionsOfALoad) {
  const ModelOptions configured{.random_init_seed = 5}, other{.random_init_seed = 6};
  ModelCatalogue catalogue(root_, {{.name = "mine", .folder = root_ / "m", .options = configured}});
  ModelResidency residency = MakeResidency(catalogue);
  for (const char* const name : {"mine", "m"}) {
    ASSERT_THAT(residency.Load({.name = name, .options = other}, never_), IsOk());
    EXPECT_EQ(last_options_.random_init_seed, 6u);
    ASSERT_THAT(Unload(residency, name, never_), IsOk());
  }

  ASSERT_THAT(residency.Acquire("mine", never_), IsOk());
  EXPECT_EQ(last_options_.random_init_seed, 5u);
  ASSERT_THAT(residency.Acquire("m", never_), IsOk());
  EXPECT_EQ(last_options_.random_init_seed, std::nullopt);
}

TEST_F(ModelResidencyTest, AConfiguredModelIsInitialisedAtItsFirstRequest) {
  ModelResidency residency = MakeResidency();
  const ModelOptions random{.random_init_seed = 5};
  ASSERT_THAT(catalogue_.Add({.name = "random", .folder = root_ / "m", .options = random}), IsOk());

  ASSERT_THAT(residency.Acquire("random", never_), IsOk());

  EXPECT_EQ(last_options_.random_init_seed, 5u);
}

}  // namespace
}  // namespace ess::residency
