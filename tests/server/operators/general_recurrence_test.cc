#include "server/operators/general_recurrence.h"

#include "gtest/gtest.h"
#include "tests/support/naive_recurrence.h"
#include "tests/support/operator_forms.h"

namespace ess::operators {
namespace {

using ::ess::testing::DenseForm;
using ::ess::testing::LargestError;
using ::ess::testing::NaiveRecurrence;
using ::ess::testing::RandomTensor;

TEST(GeneralRecurrenceTest, EntriesAreProductsOfTheTransitionsBetween) {
  for (const int64_t length : {1, 2, 7, 8, 9, 21}) {
    for (const int64_t states : {1, 3, 8}) {
      const at::Tensor A = RandomTensor({1, length, states, states}, 1) * 0.4;
      const at::Tensor b = RandomTensor({1, length, states}, 2);
      const at::Tensor c = RandomTensor({1, length, states}, 3);
      for (const bool read_before : {false, true}) {
        const GeneralRecurrence op(A, b, c, read_before);

        EXPECT_LE(LargestError(DenseForm(op, 0), NaiveRecurrence(A[0], b[0], c[0], read_before)),
                  1e-13)
            << "length " << length << " states " << states << " read_before " << read_before;
      }
    }
  }
}

TEST(GeneralRecurrenceTest, AShiftRegisterDelays) {
  constexpr int64_t kDelay = 3;
  constexpr int64_t kLength = 10;
  const at::Tensor shift = at::eye(kDelay, at::kDouble).roll(1, 0).tril(-1);
  const at::Tensor A = shift.expand({1, kLength, kDelay, kDelay});
  const at::Tensor b = at::eye(kDelay, at::kDouble)[0].expand({1, kLength, kDelay});
  const at::Tensor c = at::eye(kDelay, at::kDouble)[kDelay - 1].expand({1, kLength, kDelay});

  const std::vector<double> T = DenseForm(GeneralRecurrence(A, b, c, /*read_before=*/true), 0);

  for (int64_t i = 0; i < kLength; ++i) {
    for (int64_t j = 0; j < kLength; ++j) {
      EXPECT_EQ(T[i * kLength + j], i - j == kDelay ? 1 : 0) << i << ", " << j;
    }
  }
}

TEST(GeneralRecurrenceTest, TheStateSizeIsTheNumberOfStates) {
  const at::Tensor x = RandomTensor({1, 9, 4}, 1);
  const GeneralRecurrence op(RandomTensor({1, 9, 4, 4}, 2).to(at::kHalf), x, x);

  EXPECT_EQ(op.state_size(), StateSize::Constant(4));
  EXPECT_EQ(op.feature_epsilon(), 0x1p-10);
}

}  // namespace
}  // namespace ess::operators
