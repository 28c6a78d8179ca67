#include "server/ess/ess_cache.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ess {
namespace {

HeadEss Answer(float value, size_t count = 1) {
  HeadEss ess;
  ess.values = {std::vector<float>(count, value)};
  return ess;
}

TEST(EssCacheTest, FindsWhatWasInserted) {
  EssCache cache(1000);
  cache.Insert("a", Answer(1));
  cache.Insert("b", Answer(2));

  ASSERT_TRUE(cache.Find("a").has_value());
  EXPECT_EQ(cache.Find("a")->values[0][0], 1);
  EXPECT_EQ(cache.Find("b")->values[0][0], 2);
  EXPECT_FALSE(cache.Find("c").has_value());
}

TEST(EssCacheTest, ForgetsWhatWasUsedLongestAgoWhenItIsFull) {
  EssCache cache(3 * (4 * 10 + 1));
  for (const char* key : {"a", "b", "c"}) cache.Insert(key, Answer(1, 10));
  ASSERT_TRUE(cache.Find("a").has_value());

  cache.Insert("d", Answer(4, 10));

  EXPECT_TRUE(cache.Find("a").has_value());
  EXPECT_FALSE(cache.Find("b").has_value());
  EXPECT_TRUE(cache.Find("c").has_value());
  EXPECT_TRUE(cache.Find("d").has_value());
}

TEST(EssCacheTest, DoesNotKeepWhatIsLargerThanItself) {
  EssCache cache(100);
  cache.Insert("small", Answer(1));

  cache.Insert("large", Answer(2, 100));

  EXPECT_TRUE(cache.Find("small").has_value());
  EXPECT_FALSE(cache.Find("large").has_value());
}

TEST(EssCacheTest, KeysTellEverythingApartThatAnAnswerDependsOn) {
  const std::vector<double> taps = {1, 0.5, 0.25};
  const std::vector<double> others = {1, 0.5, 0.125};
  const std::vector<int64_t> positions = {0, 1, 2};
  const std::vector<int64_t> fewer = {0, 1};
  const std::vector<Measure> entropy = {{.kind = Measure::Kind::kEntropy}};
  const std::vector<Measure> count = {{.kind = Measure::Kind::kTolerance, .value = 1e-3}};
  const EssOptions none;

  const std::vector<std::string> keys = {
      CacheKey(taps, 1e-7, positions, entropy, none),
      CacheKey(others, 1e-7, positions, entropy, none),
      CacheKey(taps, 1e-16, positions, entropy, none),
      CacheKey(taps, 1e-7, fewer, entropy, none),
      CacheKey(taps, 1e-7, positions, count, none),
      CacheKey(taps, 1e-7, positions, entropy, {.horizon = 2}),
      CacheKey(taps, 1e-7, positions, entropy, {.certify = true})};

  for (size_t x = 0; x < keys.size(); ++x) {
    EXPECT_EQ(std::count(keys.begin(), keys.end(), keys[x]), 1) << x;
  }
  EXPECT_EQ(keys[0], CacheKey(taps, 1e-7, positions, entropy, none));
}

}  // namespace
}  // namespace ess
