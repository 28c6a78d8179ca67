// FillWindow of every state space against the recurrence, step by step.
#include "server/linalg/state_space.h"

#include <cmath>

#include "gtest/gtest.h"
#include "hwy/targets.h"
#include "tests/support/test_recurrences.h"

namespace ess::linalg {
namespace {

using ::ess::testing::Flavour;
using ::ess::testing::FlavourName;
using ::ess::testing::kAllFlavours;
using ::ess::testing::kAllRecurrenceKinds;
using ::ess::testing::MakeTestRecurrence;
using ::ess::testing::RecurrenceKind;
using ::ess::testing::RecurrenceKindName;
using ::ess::testing::TestRecurrence;

double Dot(const std::vector<double>& x, const std::vector<double>& y) {
  double sum = 0;
  for (size_t n = 0; n < x.size(); ++n) sum += x[n] * y[n];
  return sum;
}

// Element [row, column] of the transition as a matrix.
double TransitionEntry(TransitionKind kind, const StateWindow& window, int64_t padded, int64_t row,
                       int64_t column) {
  const std::vector<double>& numbers = window.transition;
  switch (kind) {
    case TransitionKind::kDiagonal:
      return row == column ? numbers[row] : 0;
    case TransitionKind::kPairs:
      if (row / 2 != column / 2) return 0;
      if (row == column) return numbers[row / 2 * 2];
      return row < column ? -numbers[row / 2 * 2 + 1] : numbers[row / 2 * 2 + 1];
    case TransitionKind::kDense:
      return numbers[row * padded + column];
  }
  return NAN;
}

void ExpectNear(double actual, double expected, const std::string& what) {
  EXPECT_NEAR(actual, expected, 1e-13 * (1 + std::abs(expected))) << what;
}

// A window as the recurrence itself makes it: every state and every input is followed alone.
void ExpectWindow(const TestRecurrence& op, int64_t first, int64_t width) {
  const auto space = op.Space();
  const int64_t N = op.real_states();
  ASSERT_EQ(space->states(), N);
  ASSERT_EQ(space->length(), op.length);
  const int64_t P = RoundUpToBlock(N);
  const int64_t W = RoundUpToBlock(width);
  StateWindow window;
  space->FillWindow(first, width, window);
  ASSERT_EQ(static_cast<int64_t>(window.output.size()), W * P);
  ASSERT_EQ(static_cast<int64_t>(window.input.size()), P * W);
  ASSERT_EQ(static_cast<int64_t>(window.inside.size()), W * W);

  const int64_t count = std::min(width, op.length - first);
  const auto follow = [&](std::vector<double> h, int64_t from, const auto& seen) {
    for (int64_t t = from; t < count; ++t) {
      if (op.reads_before) seen(t, Dot(op.Output(first + t), h));
      h = op.Advance(first + t, h);
      if (!op.reads_before) seen(t, Dot(op.Output(first + t), h));
    }
    return h;
  };
  for (int64_t n = 0; n < N; ++n) {
    std::vector<double> unit(N, 0.0);
    unit[n] = 1;
    const std::vector<double> end = follow(
        unit, 0, [&](int64_t t, double y) { ExpectNear(window.output[t * P + n], y, "output"); });
    for (int64_t m = 0; m < N; ++m) {
      ExpectNear(TransitionEntry(space->transition_kind(), window, P, m, n), end[m], "transition");
    }
  }
  for (int64_t j = 0; j < count; ++j) {
    const std::vector<double> end = follow(op.Input(first + j), j + 1, [&](int64_t t, double y) {
      ExpectNear(window.inside[t * W + j], y, "inside");
    });
    for (int64_t n = 0; n < N; ++n) ExpectNear(window.input[n * W + j], end[n], "input");
  }
  for (int64_t row = 0; row < W; ++row) {
    for (int64_t column = 0; column < W; ++column) {
      if (column < row && row < count) continue;
      EXPECT_EQ(window.inside[row * W + column], 0) << row << " " << column;
    }
    for (int64_t n = 0; n < P; ++n) {
      if (row < count && n < N) continue;
      EXPECT_EQ(window.output[row * P + n], 0) << row << " " << n;
      EXPECT_EQ(window.input[n * W + row], 0) << row << " " << n;
    }
  }
}

class StateSpaceTest : public ::testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { hwy::SetSupportedTargetsForTest(GetParam()); }
  void TearDown() override { hwy::SetSupportedTargetsForTest(0); }
};

TEST_P(StateSpaceTest, WindowsEqualTheRecurrenceStepByStep) {
  for (const RecurrenceKind kind : kAllRecurrenceKinds) {
    for (const Flavour flavour : kAllFlavours) {
      for (const int64_t states : {1, 3, 8, 13}) {
        for (const bool reads_before : {false, true}) {
          SCOPED_TRACE(::testing::Message()
                       << RecurrenceKindName(kind) << " " << FlavourName(flavour) << " N " << states
                       << " pre-read " << reads_before);
          TestRecurrence op = MakeTestRecurrence(kind, flavour, 70, states, states);
          op.reads_before = reads_before;
          ExpectWindow(op, 0, 32);
          ExpectWindow(op, 16, 40);
          ExpectWindow(op, 5, 9);
          ExpectWindow(op, 69, 1);
          ExpectWindow(op, 50, 20);
        }
      }
    }
  }
}

TEST_P(StateSpaceTest, AWindowMadeAfterAnotherIsTheSame) {
  for (const RecurrenceKind kind : kAllRecurrenceKinds) {
    const TestRecurrence op = MakeTestRecurrence(kind, Flavour::kSlow, 90, 12, 3);
    const auto space = op.Space();
    StateWindow fresh;
    space->FillWindow(32, 24, fresh);
    StateWindow used;
    space->FillWindow(0, 64, used);

    space->FillWindow(32, 24, used);

    EXPECT_EQ(fresh.transition, used.transition) << RecurrenceKindName(kind);
    EXPECT_EQ(fresh.output, used.output) << RecurrenceKindName(kind);
    EXPECT_EQ(fresh.input, used.input) << RecurrenceKindName(kind);
    EXPECT_EQ(fresh.inside, used.inside) << RecurrenceKindName(kind);
  }
}

// Gates of 1000 that the rest of the transition takes back: A_t = 0, and no trace may be left.
TEST_P(StateSpaceTest, GatesThatGrowLoseNoDigits) {
  for (const RecurrenceKind kind : {RecurrenceKind::kDelta, RecurrenceKind::kRankOne}) {
    TestRecurrence op = MakeTestRecurrence(kind, Flavour::kCopies, 40, 1, 1);
    op.a.assign(40, 1e3);
    op.b.assign(40, 1);
    op.c.assign(40, 1);
    op.beta.assign(40, 1);
    op.p.assign(40, -1e3);
    op.q.assign(40, 1);
    for (const bool reads_before : {false, true}) {
      op.reads_before = reads_before;
      SCOPED_TRACE(RecurrenceKindName(kind));
      ExpectWindow(op, 0, 40);
      ExpectWindow(op, 8, 17);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(AllTargets, StateSpaceTest,
                         ::testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](const auto& info) { return hwy::TargetName(info.param); });

}  // namespace
}  // namespace ess::linalg
