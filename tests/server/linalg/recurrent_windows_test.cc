// Ranks of the past factor against its singular values, by the definition.
#include "server/linalg/recurrent_windows.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "hwy/targets.h"
#include "server/linalg/reference_linalg.h"
#include "tests/support/status_matchers.h"
#include "tests/support/test_recurrences.h"

namespace ess::linalg {
namespace {

using ::ess::testing::Flavour;
using ::ess::testing::FlavourName;
using ::ess::testing::IsOk;
using ::ess::testing::kAllFlavours;
using ::ess::testing::kAllRecurrenceKinds;
using ::ess::testing::MakeTestRecurrence;
using ::ess::testing::RecurrenceKind;
using ::ess::testing::RecurrenceKindName;
using ::ess::testing::StatusIs;
using ::ess::testing::TestRecurrence;

const CancellationToken kNever;

std::vector<int32_t> RanksOf(const TestRecurrence& op) {
  RecurrentWindows windows(op.Space(), 0);
  auto ranks = windows.CausalRanks(kNever);
  EXPECT_THAT(ranks, IsOk());
  return *std::move(ranks);
}

// The singular values of [A_{i-1} ... A_1 b_0, ..., b_{i-1}] for each i.
std::vector<std::vector<double>> PastSingularValues(const TestRecurrence& op) {
  const int64_t N = op.real_states();
  std::vector<std::vector<double>> columns;
  std::vector<std::vector<double>> sigma(op.length);
  for (int64_t i = 1; i < op.length; ++i) {
    for (std::vector<double>& column : columns) column = op.Advance(i - 1, column);
    columns.push_back(op.Input(i - 1));
    // As the block at i of a larger matrix.
    std::vector<double> matrix((N + i) * (N + i), 0.0);
    for (int64_t n = 0; n < N; ++n) {
      for (int64_t j = 0; j < i; ++j) matrix[(i + n) * (N + i) + j] = columns[j][n];
    }
    auto values = BlockSingularValues(matrix, N + i, i);
    EXPECT_THAT(values, IsOk());
    sigma[i] = *std::move(values);
  }
  return sigma;
}

class CausalRanksTest : public ::testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { hwy::SetSupportedTargetsForTest(GetParam()); }
  void TearDown() override { hwy::SetSupportedTargetsForTest(0); }
};

TEST_P(CausalRanksTest, EqualTheSingularValuesAboveTheThreshold) {
  for (const RecurrenceKind kind : kAllRecurrenceKinds) {
    for (const Flavour flavour : kAllFlavours) {
      for (const auto& [length, states] :
           {std::pair<int64_t, int64_t>{1, 3}, {2, 1}, {9, 5}, {40, 9}}) {
        SCOPED_TRACE(RecurrenceKindName(kind) + " " + FlavourName(flavour) + " L " +
                     std::to_string(length));
        const TestRecurrence op = MakeTestRecurrence(kind, flavour, length, states, 7);
        const auto sigma = PastSingularValues(op);

        const std::vector<int32_t> ranks = RanksOf(op);

        ASSERT_EQ(static_cast<int64_t>(ranks.size()), length);
        EXPECT_EQ(ranks[0], 0);
        for (int64_t i = 1; i < length; ++i) {
          const double threshold = static_cast<double>(std::max(op.real_states(), i)) * 0x1p-52 *
                                   (sigma[i].empty() ? 0 : sigma[i].front());
          const auto above = [&](double limit) {
            return std::count_if(sigma[i].begin(), sigma[i].end(),
                                 [limit](double s) { return s > limit; });
          };
          // Rounding of either side is a share of the threshold.
          EXPECT_GE(ranks[i], above(2 * threshold)) << "position " << i;
          EXPECT_LE(ranks[i], above(threshold / 2)) << "position " << i;
        }
      }
    }
  }
}

TEST_P(CausalRanksTest, StartAgainAfterAReset) {
  constexpr int64_t kStates = 6;
  const TestRecurrence op =
      MakeTestRecurrence(RecurrenceKind::kScalarGate, Flavour::kResets, 64, kStates, 2);

  const std::vector<int32_t> ranks = RanksOf(op);

  int64_t start = 0;
  for (int64_t i = 1; i < op.length; ++i) {
    if (op.a[i - 1] == 0) start = i - 1;
    EXPECT_EQ(ranks[i], std::min(kStates, i - start)) << "position " << i;
  }
}

TEST_P(CausalRanksTest, SeeThatInputsSpanTwoDimensions) {
  const TestRecurrence op =
      MakeTestRecurrence(RecurrenceKind::kScalarGate, Flavour::kRankDeficient, 50, 8, 2);

  const std::vector<int32_t> ranks = RanksOf(op);

  for (int64_t i = 1; i < op.length; ++i) EXPECT_EQ(ranks[i], std::min<int64_t>(2, i)) << i;
}

TEST(CausalRanksCancelTest, StopWhenCancelled) {
  const TestRecurrence op = MakeTestRecurrence(RecurrenceKind::kDelta, Flavour::kSlow, 20, 4, 1);
  RecurrentWindows windows(op.Space(), 0);
  CancellationToken cancelled;
  cancelled.Cancel();

  EXPECT_THAT(windows.CausalRanks(cancelled), StatusIs(absl::StatusCode::kCancelled, ::testing::_));
  EXPECT_THAT(windows.Prepare(cancelled), StatusIs(absl::StatusCode::kCancelled, ::testing::_));
}

INSTANTIATE_TEST_SUITE_P(AllTargets, CausalRanksTest,
                         ::testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](const auto& info) { return hwy::TargetName(info.param); });

}  // namespace
}  // namespace ess::linalg
