#include "server/residency/eviction_choice.h"

#include "gmock/gmock.h"

namespace ess::residency {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Optional;

const std::vector<EvictionCandidate> kCandidates = {
    {.bytes = 10, .last_use = 3}, {.bytes = 20, .last_use = 1}, {.bytes = 30, .last_use = 2}};

TEST(ChooseEvictionsTest, TakesTheLeastRecentlyUsedUntilTheySuffice) {
  EXPECT_THAT(ChooseEvictions(kCandidates, 20), Optional(ElementsAre(1)));
  EXPECT_THAT(ChooseEvictions(kCandidates, 21), Optional(ElementsAre(1, 2)));
  EXPECT_THAT(ChooseEvictions(kCandidates, 60), Optional(ElementsAre(1, 2, 0)));
}

TEST(ChooseEvictionsTest, TakesNobodyWhenNothingIsMissing) {
  EXPECT_THAT(ChooseEvictions(kCandidates, 0), Optional(IsEmpty()));
  EXPECT_THAT(ChooseEvictions(kCandidates, -5), Optional(IsEmpty()));
}

TEST(ChooseEvictionsTest, TakesNobodyWhenAllTogetherDoNotSuffice) {
  EXPECT_EQ(ChooseEvictions(kCandidates, 61), std::nullopt);
  EXPECT_EQ(ChooseEvictions({}, 1), std::nullopt);
}

}  // namespace
}  // namespace ess::residency
