#include "server/pipeline/selection.h"

#include <limits>

#include "gmock/gmock.h"
#include "tests/support/status_matchers.h"

namespace ess {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(SelectionTest, SelectsEverythingWhenEmpty) {
  EXPECT_THAT(SelectedIndices({}, 3), ElementsAre(0, 1, 2));
}

TEST(SelectionTest, JoinsOverlappingRangesInAscendingOrder) {
  const IndexSelection selection{{{.first = 4, .last = 9, .stride = 3}, {0, 1, 1}, {4, 5, 1}}};
  EXPECT_THAT(SelectedIndices(selection, 100), ElementsAre(0, 1, 4, 5, 7));
}

TEST(SelectionTest, LeavesOutWhatDoesNotExist) {
  EXPECT_THAT(SelectedIndices({{{0, 10, 4}}}, 5), ElementsAre(0, 4));
  EXPECT_THAT(SelectedIndices({{{7, 9, 1}}}, 5), IsEmpty());
}

TEST(SelectionTest, TakesRangesUpToTheLargestInteger) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  const IndexSelection selection{{{.first = 1, .last = kMax, .stride = kMax}}};

  EXPECT_THAT(ValidateSelection(selection, "positions"), IsOk());
  EXPECT_THAT(SelectedIndices(selection, 3), ElementsAre(1));
}

TEST(SelectionTest, RefusesRangesThatAreNone) {
  for (const IndexRange& range :
       {IndexRange{-1, 3, 1}, IndexRange{3, 2, 1}, IndexRange{0, 3, -1}}) {
    EXPECT_THAT(ValidateSelection({{range}}, "heads"), StatusIs(kInvalid, HasSubstr("heads: ")));
  }
}

TEST(SelectionTest, RefusesMoreRangesThanItsLimit) {
  IndexSelection selection{std::vector<IndexRange>(kMaxRanges)};
  EXPECT_THAT(ValidateSelection(selection, "heads"), IsOk());
  selection.ranges.emplace_back();
  EXPECT_THAT(ValidateSelection(selection, "heads"),
              StatusIs(kInvalid, HasSubstr("heads: 16385 ranges; the limit is 16384")));
}

TEST(SelectionTest, NamesTheIndexThatExistsNowhere) {
  EXPECT_THAT(CheckExists({{{0, 9, 1}}}, 9, "heads", "heads"),
              StatusIs(kInvalid, HasSubstr("heads: index 9 does not exist; there are 9 heads")));
}

TEST(SelectionTest, JudgesARangeByTheIndicesItReallyContains) {
  EXPECT_THAT(CheckExists({{{0, 511, 8}}}, 505, "positions", "positions"), IsOk());
}

}  // namespace
}  // namespace ess
