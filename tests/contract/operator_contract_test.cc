// What every operator class promises, for every class in the table and every form of its arguments.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/base/worker_pool.h"
#include "server/ess/ess_engine.h"
#include "server/ess/reference_ess.h"
#include "server/linalg/reference_linalg.h"
#include "server/operators/operator_classes.h"
#include "tests/support/operator_forms.h"
#include "tests/support/operator_variants.h"
#include "tests/support/status_matchers.h"

namespace ess::operators {
namespace {

using ::ess::testing::AllOperatorVariants;
using ::ess::testing::DenseForm;
using ::ess::testing::IsOk;
using ::ess::testing::LargestError;
using ::ess::testing::OperatorVariant;
using ::ess::testing::StatusIs;

constexpr int64_t kLengths[] = {1, 2, 3, 7, 8, 9, 31, 32, 33, 63, 64, 100};
constexpr int64_t kHeads = 2;
const CancellationToken kNever;

class OperatorContractTest : public ::testing::TestWithParam<OperatorVariant> {
 protected:
  std::unique_ptr<SequenceOperator> Make(int64_t length) const {
    return GetParam().Make(kHeads, length, 100 + length);
  }
};

std::vector<int64_t> Range(int64_t count) {
  std::vector<int64_t> range(count);
  std::iota(range.begin(), range.end(), 0);
  return range;
}

TEST_P(OperatorContractTest, SaysItsClassAndShape) {
  const auto op = Make(31);

  EXPECT_EQ(op->class_name(), GetParam().class_name);
  EXPECT_EQ(op->head_count(), kHeads);
  EXPECT_EQ(op->length(), 31);
  EXPECT_GT(op->feature_epsilon(), 0);
}

TEST_P(OperatorContractTest, TheFutureDoesNotReachThePast) {
  for (const int64_t L : kLengths) {
    const auto op = Make(L);
    for (int64_t head = 0; head < kHeads; ++head) {
      const std::vector<double> T = DenseForm(*op, head);
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
      std::vector<double> T = DenseForm(*op, head);
      const at::Tensor dense = at::from_blob(T.data(), {L, L}, at::kDouble);
      const double difference = (dense.matmul(u[head]) - y[head]).abs().max().item<double>();
      EXPECT_LE(difference, 1e-12 * (1 + y.abs().max().item<double>())) << "length " << L;
    }
  }
}

TEST_P(OperatorContractTest, HeadsThatShareAnArgumentEqualTheExpandedOperator) {
  constexpr int64_t L = 33;
  const OperatorArguments shared = GetParam().arguments(kHeads, L, 7);
  OperatorArguments expanded = shared;
  for (auto& [name, tensor] : expanded.tensors) {
    std::vector<int64_t> shape = tensor.sizes().vec();
    shape[0] = kHeads;
    tensor = tensor.expand(shape).clone();
  }

  const auto built_shared = BuildOperator(GetParam().class_name, shared);
  const auto built_expanded = BuildOperator(GetParam().class_name, expanded);

  ASSERT_THAT(built_shared, IsOk());
  ASSERT_THAT(built_expanded, IsOk());
  ASSERT_EQ(built_shared->op->head_count(), kHeads);
  for (int64_t head = 0; head < kHeads; ++head) {
    EXPECT_EQ(DenseForm(*built_shared->op, head), DenseForm(*built_expanded->op, head));
  }
}

// Random lengths and seeds: the dense form is what Apply does, and counts are the reference's.
TEST_P(OperatorContractTest, ManySmallOperators) {
  WorkerPool pool(1);
  std::mt19937_64 generator(1);
  for (int repetition = 0; repetition < 60; ++repetition) {
    const int64_t L = 1 + generator() % 20;
    const auto op = GetParam().Make(1, L, generator());
    const double share = std::pow(10.0, -6 * static_cast<double>(generator() % 1000) / 1000);
    const Measure measure{.kind = Measure::Kind::kHeadRelative, .value = 0.9 * share};
    const std::vector<double> T = DenseForm(*op, 0);
    const at::Tensor applied = op->Apply(at::eye(L, at::kDouble).unsqueeze(0)).contiguous();

    const auto fast = EssEngine(pool).Compute(*op, Range(1), Range(L), {&measure, 1}, {}, kNever);
    const auto reference = ReferenceEss(T, L, Range(L), {&measure, 1}, kNever);

    const double* columns = applied.const_data_ptr<double>();
    EXPECT_LE(LargestError({columns, columns + L * L}, T), 1e-12) << "length " << L;
    ASSERT_THAT(fast, IsOk());
    ASSERT_THAT(reference, IsOk());
    EXPECT_EQ(fast->values, *reference) << "length " << L << " share " << measure.value;
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

// The bound is not just any: somewhere the operators of the examples reach it.
TEST_P(OperatorContractTest, TheStateIsReached) {
  constexpr int64_t L = 64;
  const auto op = Make(L);
  const int64_t bound = std::min(op->state_size().At(L / 2), L / 2);
  const auto singular_values = linalg::BlockSingularValues(DenseForm(*op, 0), L, L / 2);

  ASSERT_THAT(singular_values, IsOk());
  EXPECT_GT((*singular_values)[bound - 1], 1e-13 * singular_values->front());
}

TEST_P(OperatorContractTest, FastCountsEqualTheReference) {
  WorkerPool pool(2);
  std::vector<Measure> measures;
  for (const double share : {1e-1, 1e-3, 1e-5}) {
    measures.push_back({.kind = Measure::Kind::kHeadRelative, .value = share});
  }
  for (const int64_t L : kLengths) {
    const auto op = Make(L);

    const auto fast = EssEngine(pool).Compute(*op, Range(kHeads), Range(L), measures, {}, kNever);

    ASSERT_THAT(fast, IsOk());
    for (int64_t head = 0; head < kHeads; ++head) {
      const auto reference = ReferenceEss(DenseForm(*op, head), L, Range(L), measures, kNever);
      ASSERT_THAT(reference, IsOk());
      for (size_t m = 0; m < measures.size(); ++m) {
        // Some positions may be left to an SVD, never all of them.
        EXPECT_THAT(fast->routes[m],
                    ::testing::StartsWith(std::string(RouteName(ChooseRoute(ShapeOf(*op))))));
        const auto begin = fast->values[m].begin() + head * L;
        EXPECT_EQ(std::vector<float>(begin, begin + L), (*reference)[m])
            << "length " << L << " share " << measures[m].value;
      }
    }
  }
}

// T[i, j] of one channel from lanes that start at `first`, which is at most j.
double FromLanes(const linalg::ChannelRecurrence& lanes_of, const std::vector<double>& a,
                 const std::vector<double>& b, const std::vector<double>& c, int64_t lanes,
                 int64_t lane, int64_t i, int64_t j) {
  const int64_t N = lanes_of.states();
  const auto at = [&](const std::vector<double>& x, int64_t t, int64_t n) {
    return x[(t * N + n) * lanes + lane];
  };
  if (lanes_of.reads_before() && i == j) return 0;
  double sum = 0;
  for (int64_t n = 0; n < N; ++n) {
    double product = at(c, i, n) * at(b, j, n);
    for (int64_t t = j + 1; t < (lanes_of.reads_before() ? i : i + 1); ++t) product *= at(a, t, n);
    sum += product;
  }
  return sum;
}

TEST_P(OperatorContractTest, LanesAreTheOperatorAndBeyondItNothingHappens) {
  constexpr int64_t kLanes = 4;  // Two of them beyond the heads.
  constexpr int64_t kFirst = 3;
  for (const int64_t L : {7, 31}) {
    const auto op = Make(L);
    const linalg::ChannelRecurrence* lanes = op->channel_recurrence();
    if (lanes == nullptr) continue;  // This class has no such route, and says so.
    ASSERT_EQ(lanes->channels(), kHeads);
    ASSERT_EQ(lanes->length(), L);
    const int64_t count = L - kFirst + 2;  // Two positions beyond the end.
    const int64_t N = lanes->states();
    std::vector<double> a(count * N * kLanes, NAN), b = a, c = a;

    lanes->FillLanes(0, kLanes, kFirst, count, a.data(), b.data(), c.data());

    for (int64_t head = 0; head < kHeads; ++head) {
      const std::vector<double> T = DenseForm(*op, head);
      for (int64_t i = kFirst; i < L; ++i) {
        for (int64_t j = kFirst; j <= i; ++j) {
          EXPECT_NEAR(FromLanes(*lanes, a, b, c, kLanes, head, i - kFirst, j - kFirst),
                      T[i * L + j], 1e-12)
              << i << ", " << j;
        }
      }
    }
    for (int64_t x = 0; x < count * N * kLanes; ++x) {
      if (x % kLanes < kHeads && x / (N * kLanes) < L - kFirst) continue;
      EXPECT_EQ(a[x], 1);
      EXPECT_EQ(b[x], 0);
      EXPECT_EQ(c[x], 0);
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

INSTANTIATE_TEST_SUITE_P(AllVariants, OperatorContractTest,
                         ::testing::ValuesIn(AllOperatorVariants()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace ess::operators
