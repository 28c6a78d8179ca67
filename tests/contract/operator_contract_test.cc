// What every operator class promises, for every class in the table.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "gtest/gtest.h"
#include "server/base/worker_pool.h"
#include "server/ess/ess_engine.h"
#include "server/ess/reference_ess.h"
#include "server/linalg/reference_linalg.h"
#include "server/operators/operator_classes.h"
#include "tests/support/status_matchers.h"

namespace ess::operators {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;

constexpr int64_t kLengths[] = {1, 2, 3, 8, 31, 64, 100};
constexpr int64_t kHeads = 2;
const CancellationToken kNever;

class OperatorContractTest : public ::testing::TestWithParam<OperatorClass> {
 protected:
  std::unique_ptr<SequenceOperator> Make(int64_t length) const {
    return GetParam().make_example(kHeads, length, 100 + length);
  }
};

std::vector<double> Head(const SequenceOperator& op, int64_t head) {
  std::vector<double> out(op.length() * op.length(), NAN);
  op.DenseHead(head, out);
  return out;
}

std::vector<int64_t> Range(int64_t count) {
  std::vector<int64_t> range(count);
  std::iota(range.begin(), range.end(), 0);
  return range;
}

TEST_P(OperatorContractTest, SaysItsClassAndShape) {
  const auto op = Make(31);

  EXPECT_EQ(op->class_name(), GetParam().name);
  EXPECT_EQ(op->head_count(), kHeads);
  EXPECT_EQ(op->length(), 31);
  EXPECT_GT(op->feature_epsilon(), 0);
}

TEST_P(OperatorContractTest, TheFutureDoesNotReachThePast) {
  for (const int64_t L : kLengths) {
    const auto op = Make(L);
    for (int64_t head = 0; head < kHeads; ++head) {
      const std::vector<double> T = Head(*op, head);
      for (int64_t i = 0; i < L; ++i) {
        for (int64_t j = i + 1; j < L; ++j) ASSERT_EQ(T[i * L + j], 0) << i << ", " << j;
      }
    }
  }
}

TEST_P(OperatorContractTest, TheDenseFormEqualsApply) {
  for (const int64_t L : kLengths) {
    const auto op = Make(L);
    at::Generator generator = at::detail::createCPUGenerator(L);
    const at::Tensor u = at::randn({kHeads, L, 3}, generator, at::kDouble);

    const at::Tensor y = op->Apply(u);

    for (int64_t head = 0; head < kHeads; ++head) {
      std::vector<double> T = Head(*op, head);
      const at::Tensor dense = at::from_blob(T.data(), {L, L}, at::kDouble);
      const double difference = (dense.matmul(u[head]) - y[head]).abs().max().item<double>();
      EXPECT_LE(difference, 1e-12 * (1 + y.abs().max().item<double>())) << "length " << L;
    }
  }
}

TEST_P(OperatorContractTest, EssIsBoundedByPastFutureAndState) {
  WorkerPool pool(1);
  for (const int64_t L : kLengths) {
    const auto op = Make(L);
    // Far enough above rounding for the count to be a rank.
    const Measure rank{.kind = Measure::Kind::kHeadRelative, .value = 1e-6};

    const auto ess = EssEngine(pool).Compute(*op, Range(kHeads), Range(L), {&rank, 1}, {}, kNever);

    ASSERT_THAT(ess, IsOk());
    for (int64_t head = 0; head < kHeads; ++head) {
      for (int64_t i = 0; i < L; ++i) {
        EXPECT_LE(ess->values[0][head * L + i], std::min({i, L - i, op->state_size().At(i)}))
            << "length " << L << " position " << i;
      }
    }
  }
}

TEST_P(OperatorContractTest, FastCountsEqualTheReference) {
  WorkerPool pool(2);
  for (const int64_t L : kLengths) {
    const auto op = Make(L);
    for (const double share : {1e-1, 1e-3, 1e-5}) {
      const Measure measure{.kind = Measure::Kind::kHeadRelative, .value = share};

      const auto fast =
          EssEngine(pool).Compute(*op, Range(kHeads), Range(L), {&measure, 1}, {}, kNever);

      ASSERT_THAT(fast, IsOk());
      EXPECT_EQ(fast->routes[0], "inertia_tree");
      for (int64_t head = 0; head < kHeads; ++head) {
        const auto reference = ReferenceEss(Head(*op, head), L, Range(L), {&measure, 1}, kNever);
        ASSERT_THAT(reference, IsOk());
        const auto begin = fast->values[0].begin() + head * L;
        EXPECT_EQ(std::vector<float>(begin, begin + L), reference->front())
            << "length " << L << " share " << share;
      }
    }
  }
}

// Any operator with one entry of its dense form replaced.
class Damaged final : public SequenceOperator {
 public:
  Damaged(const SequenceOperator& op, double value) : op_(op), value_(value) {}
  std::string_view class_name() const override { return op_.class_name(); }
  int64_t head_count() const override { return op_.head_count(); }
  int64_t length() const override { return op_.length(); }
  StateSize state_size() const override { return op_.state_size(); }
  double feature_epsilon() const override { return op_.feature_epsilon(); }
  void DenseHead(int64_t head, std::span<double> out) const override {
    op_.DenseHead(head, out);
    if (head == 1) out[7 * length() + 4] = value_;
  }
  at::Tensor Apply(const at::Tensor& u) const override { return op_.Apply(u); }

 private:
  const SequenceOperator& op_;
  const double value_;
};

TEST_P(OperatorContractTest, ANonFiniteEntryIsAnErrorThatNamesIt) {
  WorkerPool pool(2);
  const auto op = Make(31);
  const Measure measure{.kind = Measure::Kind::kTolerance, .value = 1e-3};
  for (const double value : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
    EXPECT_THAT(
        EssEngine(pool).Compute(Damaged(*op, value), Range(kHeads), Range(31), {&measure, 1}, {},
                                kNever),
        StatusIs(absl::StatusCode::kInternal, ::testing::HasSubstr("head 1: entry [7, 4]")));
  }
}

INSTANTIATE_TEST_SUITE_P(AllClasses, OperatorContractTest,
                         ::testing::ValuesIn(AllOperatorClasses().begin(),
                                             AllOperatorClasses().end()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace ess::operators
