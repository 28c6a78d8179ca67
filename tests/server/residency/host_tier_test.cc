#include "server/residency/host_tier.h"

#include "gtest/gtest.h"

namespace ess::residency {
namespace {

class HostTierTest : public ::testing::Test {
 protected:
  static CatalogueEntry Entry(const std::string& name, ModelOptions options = {}) {
    return {.name = name, .folder = {}, .options = std::move(options)};
  }
  void Keep(const std::string& name, int64_t bytes) {
    auto copy = std::make_shared<HostCopy>();
    copy->weights.totals.bytes = bytes;
    tier_.Keep(Entry(name), std::move(copy));
  }
  bool Has(const std::string& name) { return tier_.Find(Entry(name)) != nullptr; }

  telemetry::Metrics metrics_;
  HostTier tier_{100, metrics_};
};

TEST_F(HostTierTest, DropsTheLeastRecentlyUsedCopyForANewOne) {
  Keep("a", 40);
  Keep("b", 40);
  EXPECT_TRUE(Has("a"));

  Keep("c", 40);

  EXPECT_TRUE(Has("a"));
  EXPECT_FALSE(Has("b"));
  EXPECT_TRUE(Has("c"));
}

TEST_F(HostTierTest, DoesNotKeepWhatIsLargerThanTheBudget) {
  Keep("a", 40);
  EXPECT_FALSE(tier_.MakeRoom(101));
  Keep("b", 101);
  EXPECT_TRUE(Has("a"));
  EXPECT_FALSE(Has("b"));
}

TEST_F(HostTierTest, ReplacesAnOlderCopyOfTheSameModel) {
  Keep("a", 60);
  Keep("a", 60);
  Keep("b", 40);
  EXPECT_TRUE(Has("a"));
  EXPECT_TRUE(Has("b"));
}

TEST_F(HostTierTest, ACopyWithOtherOptionsIsAnotherModel) {
  Keep("a", 40);
  EXPECT_EQ(tier_.Find(Entry("a", {.as_stored = true})), nullptr);
}

TEST_F(HostTierTest, ForgetsAModelThatIsUnloadedByRequest) {
  Keep("a", 100);
  tier_.Forget("a");
  EXPECT_FALSE(Has("a"));
  Keep("b", 100);
  EXPECT_TRUE(Has("b"));
}

}  // namespace
}  // namespace ess::residency
