// Thousands of small random operators of every class: every measure at every position against SVD.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>

#include "gtest/gtest.h"
#include "server/base/worker_pool.h"
#include "server/ess/ess_engine.h"
#include "server/operators/dense_operator.h"
#include "server/operators/operator_classes.h"
#include "tests/support/expect_ess.h"
#include "tests/support/operator_variants.h"
#include "tests/support/status_matchers.h"

namespace ess {
namespace {

using ::ess::testing::AllOperatorVariants;
using ::ess::testing::EveryMeasure;
using ::ess::testing::ExpectHead;
using ::ess::testing::HeadSigma;
using ::ess::testing::IsOk;
using ::ess::testing::OperatorVariant;
using ::ess::testing::Range;
using ::ess::testing::SigmaOfHead;
using Kind = Measure::Kind;

const CancellationToken kNever;

absl::StatusOr<OperatorEss> Compute(const operators::SequenceOperator& op,
                                    const std::vector<Measure>& measures, const EssOptions& options,
                                    int threads) {
  WorkerPool pool(threads);
  return EssEngine(pool).Compute(op, Range(op.head_count()), Range(op.length()), measures, options,
                                 kNever);
}

// Every measure of every head against SVD; and the same bits again, on another number of threads.
void ExpectMeasures(const operators::SequenceOperator& op, std::mt19937_64& random,
                    const EssOptions& options, const std::string& what) {
  const auto power = [&random](double low, double high) {
    return std::pow(10.0, std::uniform_real_distribution<double>(low, high)(random));
  };
  const bool recurrence = op.state_size().kind == operators::StateSize::Kind::kConstant;
  std::vector<Measure> measures = EveryMeasure(power(-5, 1), power(-4, -0.1), recurrence);
  measures.push_back({.kind = Kind::kTolerance, .value = power(-3, 0)});
  measures.push_back({.kind = Kind::kHeadRelative, .value = power(-6, -0.1)});

  const auto ess = Compute(op, measures, options, 1);
  const auto again = Compute(op, measures, options, 2);

  ASSERT_THAT(ess, IsOk()) << what;
  ASSERT_THAT(again, IsOk()) << what;
  EXPECT_EQ(again->values, ess->values) << what;
  EXPECT_EQ(again->certain, ess->certain) << what;
  EXPECT_EQ(again->noise_floors, ess->noise_floors) << what;
  EXPECT_EQ(again->routes, ess->routes) << what;
  for (int64_t head = 0; head < op.head_count(); ++head) {
    const HeadSigma expected = SigmaOfHead(op, head, Range(op.length()));
    ExpectHead(*ess, head, measures, expected, what + " head " + std::to_string(head));
    const double floor =
        op.feature_epsilon() * expected.norm * std::sqrt(static_cast<double>(op.length()));
    EXPECT_NEAR(ess->noise_floors[head], floor, 1e-6 * floor) << what;
  }
}

const operators::OperatorClass& ClassNamed(const std::string& name) {
  const auto classes = operators::AllOperatorClasses();
  return *std::find_if(classes.begin(), classes.end(),
                       [&name](const operators::OperatorClass& op) { return op.name == name; });
}

class EssPropertyTest : public ::testing::TestWithParam<OperatorVariant> {};

TEST_P(EssPropertyTest, EveryMeasureEqualsTheReferenceOnRandomOperators) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 40 && !HasFailure(); ++round) {
    const int64_t length = 1 + static_cast<int64_t>(random() % (round % 10 == 0 ? 110 : 24));
    const int64_t heads = 1 + static_cast<int64_t>(random() % 5);
    const auto op = GetParam().Make(heads, length, 1000 + round);
    ExpectMeasures(
        *op, random, {.certify = round % 3 == 0},
        GetParam().name + " round " + std::to_string(round) + " length " + std::to_string(length));
  }
}

// Counts are of the numbers that were given, whatever their type; the type makes the noise floor.
TEST_P(EssPropertyTest, NarrowTypesAreTakenAsTheyAre) {
  std::mt19937_64 random(13);
  for (const auto& [type, epsilon] :
       {std::pair{at::kFloat, 0x1p-23}, std::pair{at::kBFloat16, 0x1p-7}}) {
    operators::OperatorArguments arguments = GetParam().arguments(2, 40, 3);
    for (auto& [name, tensor] : arguments.tensors) {
      const bool complex = tensor.is_complex();
      if (complex && type == at::kBFloat16) return;  // There is no such type.
      tensor = tensor.to(complex ? at::kComplexFloat : type);
    }
    // Callers cannot send bfloat16; models have it.
    const auto op = ClassNamed(GetParam().class_name).build(arguments);

    EXPECT_EQ(op->feature_epsilon(), epsilon);
    ExpectMeasures(*op, random, {}, GetParam().name + " " + at::toString(type));
  }
}

INSTANTIATE_TEST_SUITE_P(AllVariants, EssPropertyTest, ::testing::ValuesIn(AllOperatorVariants()),
                         [](const auto& info) { return info.param.name; });

// Matrices with exact zeros, repeated rows, low rank and entries of very different size.
TEST(EssPropertyTest, EveryMeasureEqualsTheReferenceOnAwkwardMatrices) {
  std::mt19937_64 random(11);
  for (int round = 0; round < 300 && !::testing::Test::HasFailure(); ++round) {
    const int64_t L = 1 + static_cast<int64_t>(random() % (round % 20 == 0 ? 100 : 20));
    at::Generator generator = at::detail::createCPUGenerator(round);
    at::Tensor map = at::randn({1, L, L}, generator, at::kDouble);
    if (round % 4 == 1) map = map * at::bernoulli(at::full({1, L, L}, 0.3), generator);
    if (round % 4 == 2) {
      map = at::randn({1, L, 2}, generator, at::kDouble)
                .matmul(at::randn({1, 2, L}, generator, at::kDouble));
    }
    if (round % 4 == 3) map = map * at::exp(3 * at::randn({1, L, L}, generator, at::kDouble));
    const double scale = round % 5 == 0 ? 1e3 : 1;
    ExpectMeasures(operators::DenseOperator(map.tril() * scale, operators::StateSize::Growing()),
                   random, {.certify = round % 3 == 0},
                   "round " + std::to_string(round) + " length " + std::to_string(L));
  }
}

}  // namespace
}  // namespace ess
