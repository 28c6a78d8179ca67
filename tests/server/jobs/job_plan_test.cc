#include "server/jobs/job_plan.h"

#include "gmock/gmock.h"
#include "tests/support/status_matchers.h"

namespace ess::jobs {
namespace {

std::vector<int64_t> CountsOf(const std::vector<int64_t>& lengths) {
  std::vector<int64_t> counts;
  int64_t next = 0;
  for (const PromptGroup& group : MakeGroups(lengths)) {
    EXPECT_EQ(group.first, next);
    next += group.count;
    counts.push_back(group.count);
  }
  return counts;
}

TEST(JobPlanTest, GroupsAreFullBatchesOfPromptsOrOfTokens) {
  EXPECT_THAT(CountsOf(std::vector<int64_t>(600, 3)), ::testing::ElementsAre(256, 256, 88));
  EXPECT_THAT(CountsOf({8192, 8192, 8192}), ::testing::ElementsAre(2, 1));
  EXPECT_THAT(CountsOf({1, 20000, 1, 1}), ::testing::ElementsAre(1, 1, 2));
}

TEST(JobPlanTest, WorkLengthsAreNoShorterAndFew) {
  std::vector<int64_t> seen;
  for (int64_t length = 1; length <= 8192; ++length) {
    const int64_t work = WorkLength(length);
    EXPECT_GE(work, length);
    EXPECT_LE(work, length + length / 16);
    if (seen.empty() || seen.back() != work) seen.push_back(work);
  }
  EXPECT_LT(seen.size(), 200U);
}

TEST(JobPlanTest, APlanIsReadAsItWasWritten) {
  JobPlan plan{.model = {{"name", "m"}, {"dtype", "float32"}},
               .server_version = "1",
               .measures = {{.name = "entropy"}, {.name = "singular_values:2", .count = 2}},
               .horizon = 3,
               .certify = true,
               .reduce = "heads",
               .layers = {{.name = "000",
                           .layer_index = 0,
                           .operator_class = "DenseOperator",
                           .heads = {1, 3},
                           .channels = {8, 8},
                           .state_size = operators::StateSize::GrowingUpTo(4)}},
               .positions = {0, 2},
               .prompts_json_bytes = 17,
               .work = {{4, 0.25}}};

  const absl::StatusOr<JobPlan> read = ReadPlan(WritePlan(plan));

  ASSERT_THAT(read, ::ess::testing::IsOk());
  EXPECT_EQ(WritePlan(*read), WritePlan(plan));
  EXPECT_EQ(read->layers[0].state_size, plan.layers[0].state_size);
  EXPECT_EQ(read->horizon, 3);
  EXPECT_FALSE(ReadPlan("{}").ok());
}

}  // namespace
}  // namespace ess::jobs
