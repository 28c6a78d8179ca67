// Short convolutions, without gates and with, against the SVD of every block.
#include "server/linalg/short_convolution_spectra.h"

#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "tests/support/banded_cases.h"
#include "tests/support/status_matchers.h"

namespace ess::linalg {
namespace {

using ::ess::testing::Banded;
using ::ess::testing::ExpectEqualToReference;
using ::ess::testing::FilledBand;

TEST(ShortConvolutionSpectraTest, EveryPositionEqualsTheReference) {
  std::mt19937_64 generator(5);
  std::normal_distribution<double> normal;
  for (const int64_t taps : {1, 2, 3, 4, 9, 30}) {
    std::vector<double> filter(taps);
    for (double& tap : filter) tap = normal(generator);
    for (const int64_t length : {1, 2, 3, 8, 31, 57, 58, 90}) {
      const Banded op = FilledBand("convolution", length, taps, 0,
                                   [&](int64_t i, int64_t j) { return filter[i - j]; });
      ShortConvolutionSpectra spectra(filter, length);
      EXPECT_EQ(ExpectEqualToReference(op, spectra), 0);
    }
  }
}

TEST(ShortConvolutionSpectraTest, GatesMakeABand) {
  constexpr int64_t kLength = 50;
  std::mt19937_64 generator(6);
  std::normal_distribution<double> normal;
  std::vector<double> taps(7), gate_in(kLength), gate_out(kLength);
  for (std::vector<double>* values : {&taps, &gate_in, &gate_out}) {
    for (double& value : *values) value = normal(generator);
  }
  const Banded op = FilledBand("gated convolution", kLength, 7, 0, [&](int64_t i, int64_t j) {
    return gate_out[i] * taps[i - j] * gate_in[j];
  });
  LocalSpectra spectra(GatedConvolutionBand(taps, kLength, gate_out, gate_in), kLength, 7);

  EXPECT_EQ(ExpectEqualToReference(op, spectra), 0);
}

}  // namespace
}  // namespace ess::linalg
