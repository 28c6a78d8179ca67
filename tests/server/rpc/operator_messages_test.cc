#include "server/rpc/operator_messages.h"

#include <cstring>

#include "gmock/gmock.h"
#include "tests/support/status_matchers.h"

namespace ess::rpc {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr size_t kMaxMessageBytes = 1 << 20;

// Keeps what was written and checks its size.
struct Collected {
  absl::Status operator()(v1::ProfileOperatorsResponse message) const {
    EXPECT_LE(message.ByteSizeLong(), kMaxMessageBytes);
    messages.push_back(std::move(message));
    return absl::OkStatus();
  }
  mutable std::vector<v1::ProfileOperatorsResponse> messages;
};

OperatorsJob JobOf(int64_t heads, int64_t positions) {
  OperatorsJob job;
  job.request_id = "r1";
  job.shape = {.batch_shape = {heads}, .head_count = heads, .length = positions};
  job.measures = {{.kind = Measure::Kind::kTolerance, .value = 1},
                  {.kind = Measure::Kind::kSingularValues, .count = 3}};
  for (int64_t i = 0; i < positions; ++i) job.positions.push_back(i);
  return job;
}

TEST(OperatorMessagesTest, TheHeaderSaysWhatWillCome) {
  OperatorsJob job = JobOf(4, 10);
  job.options = {.horizon = 3, .certify = true};
  job.reduction = Reduction::kHeads;
  Collected collected;

  ASSERT_THAT(WriteOperatorsHeader(job, operators::StateSize::Constant(7), collected), IsOk());

  const v1::OperatorsHeader& header = collected.messages.at(0).header();
  EXPECT_THAT(header.batch_shape(), ElementsAre(4));
  EXPECT_EQ(header.length(), 10);
  EXPECT_THAT(header.measure_names(), ElementsAre("tolerance:1", "singular_values:3"));
  EXPECT_EQ(header.state_size().constant(), 7);
  EXPECT_EQ(header.positions().ranges(0).last(), 9);
  EXPECT_EQ(header.options().horizon(), 3);
  EXPECT_TRUE(header.options().certify());
  EXPECT_EQ(header.options().reduction(), v1::REDUCTION_HEADS);
  EXPECT_EQ(header.request_id(), "r1");
}

TEST(OperatorMessagesTest, RefusesAHeaderOfMoreThanAMessage) {
  OperatorsJob job = JobOf(1, 1);
  job.positions.clear();
  for (int64_t i = 0; i < 200000; ++i) job.positions.push_back(i * i);
  Collected collected;

  EXPECT_THAT(WriteOperatorsHeader(job, {}, collected),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("positions: ")));
}

TEST(OperatorMessagesTest, SplitsLargeGroupsAndTheirPartsFitTogether) {
  OperatorsJob job = JobOf(8, 40000);
  job.options.certify = true;
  OperatorEss ess{.values = {std::vector<float>(4 * 40000), std::vector<float>(4 * 40000 * 3)}};
  for (auto& values : ess.values) {
    auto& certain = ess.certain.emplace_back(values.size());
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<float>(i);
      certain[i] = i % 3 == 0;
    }
  }
  Collected collected;

  ASSERT_THAT(WriteOperatorsEss(job, 4, ess, collected), IsOk());  // The second half.

  std::vector<size_t> seen = {0, 0};
  const std::vector<int64_t> first = {4 * 40000, 4 * 40000 * 3};
  for (const auto& message : collected.messages) {
    const v1::OperatorsSlice& slice = message.ess();
    const int m = slice.measure();
    ASSERT_EQ(slice.first_element(), first[m] + static_cast<int64_t>(seen[m]));
    const size_t count = slice.certain().size();
    ASSERT_EQ(slice.values().size(), count * sizeof(float));
    EXPECT_EQ(std::memcmp(slice.values().data(), &ess.values[m][seen[m]], count * sizeof(float)),
              0);
    EXPECT_EQ(std::memcmp(slice.certain().data(), &ess.certain[m][seen[m]], count), 0);
    seen[m] += count;
  }
  EXPECT_EQ(seen[0], ess.values[0].size());
  EXPECT_EQ(seen[1], ess.values[1].size());
}

TEST(OperatorMessagesTest, CountsTheElementsOfReducedValues) {
  OperatorsJob job = JobOf(8, 10);
  job.reduction = Reduction::kPositions;
  const OperatorEss ess{.values = {{1, 2}, {1, 2, 3, 4, 5, 6}}};
  Collected collected;

  ASSERT_THAT(WriteOperatorsEss(job, 4, ess, collected), IsOk());

  EXPECT_EQ(collected.messages[0].ess().first_element(), 4);
  EXPECT_EQ(collected.messages[1].ess().first_element(), 12);
  EXPECT_TRUE(collected.messages[1].ess().certain().empty());
}

TEST(OperatorMessagesTest, SplitsALargeSummaryAndMarksTheLast) {
  LayerRecord record = LayerRecord::Empty(2, 200000);
  for (size_t i = 0; i < record.noise_floors.size(); ++i) record.noise_floors[i] = i;
  record.routes = {"inertia_tree", "reference_svd"};
  record.below_noise_floor = {3, 0};
  Collected collected;

  ASSERT_THAT(WriteOperatorsSummary(record, 1.5, collected), IsOk());

  ASSERT_GT(collected.messages.size(), 1u);
  int64_t floors = 0;
  for (size_t i = 0; i < collected.messages.size(); ++i) {
    const v1::OperatorsSummary& summary = collected.messages[i].summary();
    EXPECT_EQ(summary.last(), i + 1 == collected.messages.size());
    for (const double floor : summary.noise_floors()) EXPECT_EQ(floor, floors++);
  }
  EXPECT_EQ(floors, 200000);
  const v1::OperatorsSummary& last = collected.messages.back().summary();
  EXPECT_THAT(last.routes(), ElementsAre("inertia_tree", "reference_svd"));
  EXPECT_THAT(last.below_noise_floor(), ElementsAre(3, 0));
  EXPECT_EQ(last.seconds(), 1.5);
}

}  // namespace
}  // namespace ess::rpc
