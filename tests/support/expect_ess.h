// Answers of the engine against an SVD at every position, by the guard that docs/ess.md promises.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "server/ess/ess_engine.h"
#include "server/ess/reference_ess.h"
#include "server/linalg/reference_linalg.h"
#include "server/operators/sequence_operator.h"
#include "tests/support/status_matchers.h"

namespace ess::testing {

// 0 ... count - 1.
inline std::vector<int64_t> Range(int64_t count) {
  std::vector<int64_t> range(count);
  std::iota(range.begin(), range.end(), 0);
  return range;
}

// One measure of each kind, in the order of Measure::Kind. Causal, the last, is left out on
// request.
inline std::vector<Measure> EveryMeasure(double tolerance, double fraction, bool with_causal) {
  using Kind = Measure::Kind;
  std::vector<Measure> measures;
  for (int kind = 0; kind <= static_cast<int>(Kind::kCausal); ++kind) {
    Measure measure{.kind = static_cast<Kind>(kind)};
    switch (measure.kind) {
      case Kind::kTolerance:
        measure.value = tolerance;
        break;
      case Kind::kRelative:
      case Kind::kHeadRelative:
        measure.value = fraction;
        break;
      case Kind::kSingularValues:
        measure.count = 3;
        break;
      case Kind::kCausal:
        if (!with_causal) continue;
        break;
      case Kind::kEntropy:
      case Kind::kSpectralNorm:
      case Kind::kFrobeniusNorm:
        break;
    }
    measures.push_back(measure);
  }
  return measures;
}

// Singular values of the blocks of one head at some positions.
struct HeadSigma {
  std::vector<int64_t> positions;
  std::vector<std::vector<double>> sigma;  // [positions], in descending order.
  double norm = 0;                         // max_i sigma_1(H_i), over all positions of the head.
};

// `norm` is the largest sigma_1 that is found, which is the head's if all positions are asked for.
inline HeadSigma SigmaOfHead(const operators::SequenceOperator& op, int64_t head,
                             std::span<const int64_t> positions) {
  const int64_t length = op.length();
  std::vector<double> matrix(length * length);
  op.DenseHead(head, matrix);
  HeadSigma result{.positions = {positions.begin(), positions.end()}, .sigma = {}};
  for (const int64_t position : positions) {
    auto sigma = linalg::BlockSingularValues(matrix, length, position);
    EXPECT_THAT(sigma, IsOk());
    if (!sigma->empty()) result.norm = std::max(result.norm, sigma->front());
    result.sigma.push_back(*std::move(sigma));
  }
  return result;
}

// Equal to the reference, but for singular values within the guard of tau; a tie is no excuse. With
// `certify` the guard is 1e-9, and what rounding of the SVD itself leaves open.
inline void ExpectCount(double count, std::span<const double> sigma, double norm, double tau,
                        bool certify, const std::string& where) {
  if (tau == 0) {
    EXPECT_EQ(count, 0) << where;
    return;
  }
  const double ratio = norm / tau;
  const double of_route = certify ? 1e-9 : std::max(1e-9, 1e-16 * ratio * ratio);
  const double guard = std::max(of_route, 1e-14 * ratio);
  const bool tie = std::any_of(sigma.begin(), sigma.end(),
                               [tau](double s) { return std::abs(s / tau - 1) < 1e-12; });
  EXPECT_GE(count, CountAbove(sigma, tau * (1 + guard))) << where;
  EXPECT_LE(count, CountAbove(sigma, tau * (tie ? 1 : 1 - guard))) << where;
}

// One measure at one position; kCausal is not checked here.
inline void ExpectMeasure(const Measure& measure, std::span<const float> value,
                          std::span<const double> sigma, double norm, bool certify,
                          const std::string& where) {
  using Kind = Measure::Kind;
  const double first = sigma.empty() ? 0 : sigma[0];
  const std::vector<float> expected =
      measure.kind == Kind::kCausal ? std::vector<float>() : EvaluateMeasure(measure, sigma, norm);
  switch (measure.kind) {
    case Kind::kTolerance:
      return ExpectCount(value[0], sigma, norm, measure.value, certify, where);
    case Kind::kRelative:
      return ExpectCount(value[0], sigma, norm, measure.value * first, certify, where);
    case Kind::kHeadRelative:
      return ExpectCount(value[0], sigma, norm, measure.value * norm, certify, where);
    case Kind::kEntropy:
      // Far below the head's scale singular values are rounding, of the SVD too.
      if (first > 1e-9 * norm || first == 0) {
        EXPECT_NEAR(value[0], expected[0], 1e-4 * expected[0]) << where;
      }
      return;
    case Kind::kSpectralNorm:
    case Kind::kFrobeniusNorm:
    case Kind::kSingularValues:
      for (size_t k = 0; k < expected.size(); ++k) {
        EXPECT_NEAR(value[k], expected[k], 1e-6 * expected[k] + 1e-13 * norm) << where << " " << k;
      }
      return;
    case Kind::kCausal:
      return;
  }
}

// All values of one head, `row` of `ess`; computed at the positions of `expected`.
inline void ExpectHead(const OperatorEss& ess, int64_t row, std::span<const Measure> measures,
                       const HeadSigma& expected, const std::string& what) {
  const int64_t count = std::ssize(expected.positions);
  for (size_t m = 0; m < measures.size(); ++m) {
    const int64_t size = measures[m].ValuesPerPosition();
    for (int64_t p = 0; p < count; ++p) {
      const std::span<const float> value(ess.values[m].data() + (row * count + p) * size, size);
      ExpectMeasure(
          measures[m], value, expected.sigma[p], expected.norm, !ess.certain.empty(),
          fmt::format("{} {} at {}", what, FormatMeasure(measures[m]), expected.positions[p]));
    }
  }
}

}  // namespace ess::testing
