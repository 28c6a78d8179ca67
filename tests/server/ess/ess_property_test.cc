// Thousands of small random operators of every class: every measure at every position against SVD.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <string>

#include "gtest/gtest.h"
#include "server/base/worker_pool.h"
#include "server/ess/ess_engine.h"
#include "server/ess/reference_ess.h"
#include "server/linalg/reference_linalg.h"
#include "server/operators/dense_operator.h"
#include "server/operators/operator_classes.h"
#include "tests/support/status_matchers.h"

namespace ess {
namespace {

using ::ess::testing::IsOk;
using Kind = Measure::Kind;

const CancellationToken kNever;

std::vector<int64_t> Range(int64_t count) {
  std::vector<int64_t> range(count);
  std::iota(range.begin(), range.end(), 0);
  return range;
}

// Singular values of every block of one head, and the largest of all.
struct Spectra {
  std::vector<std::vector<double>> sigma;  // [L]
  double norm = 0;
};

Spectra SpectraOf(const operators::SequenceOperator& op, int64_t head) {
  const int64_t L = op.length();
  std::vector<double> matrix(L * L);
  op.DenseHead(head, matrix);
  Spectra spectra;
  for (int64_t i = 0; i < L; ++i) {
    auto sigma = linalg::BlockSingularValues(matrix, L, i);
    EXPECT_THAT(sigma, IsOk());
    if (!sigma->empty()) spectra.norm = std::max(spectra.norm, sigma->front());
    spectra.sigma.push_back(*std::move(sigma));
  }
  return spectra;
}

// A count may differ only by singular values within max(1e-9, 1e-16 (sigma_1 / tau)^2) of tau, and
// by the rounding of the SVD itself.
void ExpectCount(double count, const Spectra& spectra, int64_t position, double tau,
                 const std::string& what) {
  if (tau == 0) {
    EXPECT_EQ(count, 0) << what;
    return;
  }
  const std::vector<double>& sigma = spectra.sigma[position];
  const double ratio = spectra.norm / tau;
  const double guard = std::max({1e-9, 1e-16 * ratio * ratio, 1e-14 * ratio});
  const bool tie = std::any_of(sigma.begin(), sigma.end(),
                               [tau](double s) { return std::abs(s / tau - 1) < 1e-12; });
  const int64_t high = CountAbove(sigma, tau * (1 - (tie ? 0 : guard)));
  const int64_t low = CountAbove(sigma, tau * (1 + guard));
  EXPECT_GE(count, low) << what;
  EXPECT_LE(count, high) << what;
}

void ExpectMeasures(const operators::SequenceOperator& op, std::mt19937_64& random,
                    const std::string& what) {
  const auto power = [&random](double low, double high) {
    return std::pow(10.0, std::uniform_real_distribution<double>(low, high)(random));
  };
  const std::vector<Measure> measures = {
      {.kind = Kind::kTolerance, .value = power(-5, 1)},
      {.kind = Kind::kTolerance, .value = power(-3, 0)},
      {.kind = Kind::kHeadRelative, .value = power(-6, -0.1)},
      {.kind = Kind::kRelative, .value = power(-4, -0.1)},
      {.kind = Kind::kEntropy},
      {.kind = Kind::kSpectralNorm},
      {.kind = Kind::kFrobeniusNorm},
  };
  const int64_t L = op.length();
  WorkerPool pool(1);
  const auto ess =
      EssEngine(pool).Compute(op, Range(op.head_count()), Range(L), measures, {}, kNever);
  ASSERT_THAT(ess, IsOk()) << what;
  for (int64_t head = 0; head < op.head_count(); ++head) {
    const Spectra spectra = SpectraOf(op, head);
    for (int64_t i = 0; i < L; ++i) {
      const std::vector<double>& sigma = spectra.sigma[i];
      const double first = sigma.empty() ? 0 : sigma[0];
      const auto value = [&](size_t m) { return ess->values[m][head * L + i]; };
      const std::string where = what + " head " + std::to_string(head) + " at " + std::to_string(i);
      ExpectCount(value(0), spectra, i, measures[0].value, where + " tolerance");
      ExpectCount(value(1), spectra, i, measures[1].value, where + " tolerance");
      ExpectCount(value(2), spectra, i, measures[2].value * spectra.norm, where + " head_relative");
      ExpectCount(value(3), spectra, i, measures[3].value * first, where + " relative");
      // Far below the head's scale singular values are rounding, of the SVD too.
      if (first > 1e-9 * spectra.norm) {
        EXPECT_NEAR(value(4), EntropyEss(sigma), 1e-4 * EntropyEss(sigma)) << where;
      }
      EXPECT_NEAR(value(5), first, 1e-6 * first + 1e-13 * spectra.norm) << where;
      double squares = 0;
      for (const double s : sigma) squares += s * s;
      EXPECT_NEAR(value(6), std::sqrt(squares), 1e-6 * std::sqrt(squares)) << where;
    }
  }
}

class EssPropertyTest : public ::testing::TestWithParam<operators::OperatorClass> {};

TEST_P(EssPropertyTest, EveryMeasureEqualsTheReferenceOnRandomOperators) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 120 && !HasFailure(); ++round) {
    const int64_t length = 1 + static_cast<int64_t>(random() % (round % 10 == 0 ? 140 : 24));
    const int64_t heads = 1 + static_cast<int64_t>(random() % 5);
    const auto op = GetParam().make_example(heads, length, 1000 + round);
    ExpectMeasures(*op, random,
                   std::string(GetParam().name) + " round " + std::to_string(round) + " length " +
                       std::to_string(length));
  }
}

INSTANTIATE_TEST_SUITE_P(AllClasses, EssPropertyTest,
                         ::testing::ValuesIn(operators::AllOperatorClasses().begin(),
                                             operators::AllOperatorClasses().end()),
                         [](const auto& info) { return std::string(info.param.name); });

// Matrices with exact zeros, repeated rows, low rank and entries of very different size.
TEST(EssPropertyTest, EveryMeasureEqualsTheReferenceOnAwkwardMatrices) {
  std::mt19937_64 random(11);
  for (int round = 0; round < 400 && !::testing::Test::HasFailure(); ++round) {
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
                   random, "round " + std::to_string(round) + " length " + std::to_string(L));
  }
}

}  // namespace
}  // namespace ess
