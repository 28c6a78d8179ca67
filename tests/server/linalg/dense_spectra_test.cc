// The dense routes against the SVD of every block: awkward lengths, degenerate operators, fast
// decay, extreme scales, and every instruction set of this machine.
#include "server/linalg/dense_spectra.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "hwy/targets.h"
#include "server/linalg/reference_linalg.h"
#include "tests/support/status_matchers.h"
#include "tests/support/test_operators.h"

namespace ess::linalg {
namespace {

using ::ess::testing::DegenerateOperators;
using ::ess::testing::IsOk;
using ::ess::testing::MakeTestOperator;
using ::ess::testing::RealisticOperators;
using ::ess::testing::StatusIs;
using ::ess::testing::TestOperator;

const CancellationToken kNever;

// The promise of entropy_rule.h, with its error at scales of up to four times ||H||_F.
constexpr double kEntropyError = 4e-5;

std::vector<TestOperator> AllTestOperators() {
  std::vector<TestOperator> all = RealisticOperators();
  for (TestOperator& op : DegenerateOperators()) all.push_back(std::move(op));
  return all;
}

// A matrix with the singular values of every stride-th block.
struct Reference {
  std::vector<double> matrix;
  int64_t length = 0;
  std::vector<int64_t> positions;
  std::vector<std::vector<double>> sigma;  // Of each of `positions`.
};

Reference ReferenceOf(std::vector<double> matrix, int64_t length, int64_t stride = 1) {
  Reference reference{.matrix = std::move(matrix), .length = length, .positions = {}, .sigma = {}};
  for (int64_t i = 0; i < length; i += stride) {
    auto sigma = BlockSingularValues(reference.matrix, length, i);
    EXPECT_THAT(sigma, IsOk());
    reference.positions.push_back(i);
    reference.sigma.push_back(*std::move(sigma));
  }
  return reference;
}

double EntropyOf(const std::vector<double>& sigma) {
  double sum = 0;
  for (const double s : sigma) sum += s;
  double entropy = 0;
  for (const double s : sigma) entropy -= s > 0 ? s / sum * std::log(s / sum) : 0;
  return sum > 0 ? std::exp(entropy) : 0;
}

void ExpectEqualEntropies(const Reference& reference, const Spectrum& spectrum) {
  ASSERT_EQ(static_cast<int64_t>(spectrum.entropies.size()), reference.length);
  ASSERT_EQ(static_cast<int64_t>(spectrum.entropy_errors.size()), reference.length);
  for (size_t p = 0; p < reference.positions.size(); ++p) {
    const int64_t i = reference.positions[p];
    const double expected = EntropyOf(reference.sigma[p]);
    const double error = std::abs(spectrum.entropies[i] - expected);
    EXPECT_LE(error, kEntropyError * expected) << "position " << i << ": " << expected;
    EXPECT_LE(error, (spectrum.entropy_errors[i] + 1e-9) * expected) << "position " << i;
  }
}

const SpectrumRequest kEverything{.entropies = true};

void ExpectEqualSpectra(const Reference& reference, DenseSpectra& dense) {
  std::vector<double> matrix = reference.matrix;  // Scaled in place.
  ASSERT_THAT(dense.Load(matrix, reference.length, Symmetry::kNone, kNever), IsOk());
  const auto spectrum = dense.Compute(kEverything, kNever);
  ASSERT_THAT(spectrum, IsOk());
  ExpectEqualEntropies(reference, *spectrum);
}

void ExpectEqualSpectra(const Reference& reference) {
  DenseSpectra dense;
  ExpectEqualSpectra(reference, dense);
}

TEST(DenseSpectraTest, EqualsTheReferenceAtAwkwardLengths) {
  for (const TestOperator& op : AllTestOperators()) {
    for (const int64_t length : {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 100}) {
      SCOPED_TRACE(::testing::Message() << op.name << " of length " << length);
      ExpectEqualSpectra(ReferenceOf(op.make(length), length));
    }
  }
}

TEST(DenseSpectraTest, EqualsTheReferenceAtLongerLengths) {
  for (const TestOperator& op : AllTestOperators()) {
    SCOPED_TRACE(op.name);
    ExpectEqualSpectra(ReferenceOf(op.make(255), 255, 4));
    ExpectEqualSpectra(ReferenceOf(op.make(512), 512, 85));
  }
}

}  // namespace
}  // namespace ess::linalg
