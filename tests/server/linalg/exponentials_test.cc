// Against the standard library, on every instruction set of this machine.
#include "server/linalg/exponentials.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "hwy/targets.h"

namespace ess::linalg {
namespace {

class ExponentialsTest : public ::testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { hwy::SetSupportedTargetsForTest(GetParam()); }
  void TearDown() override { hwy::SetSupportedTargetsForTest(0); }
};

void ExpectExponentials(const std::vector<double>& arguments) {
  std::vector<double> values = arguments;
  ExponentiateInPlace(values);
  for (size_t k = 0; k < values.size(); ++k) {
    const double x = arguments[k];
    const double expected = std::exp(x);
    if (std::isinf(expected) || expected == 0) {
      EXPECT_EQ(values[k], expected) << x;
    } else {
      EXPECT_NEAR(values[k], expected, (2 + std::abs(x)) * 0x1p-52 * expected + 0x1p-1074) << x;
    }
  }
}

TEST_P(ExponentialsTest, ManyArguments) {
  std::mt19937_64 generator(1);
  for (const double range : {1e-9, 1.0, 30.0, 700.0}) {
    std::uniform_real_distribution<double> uniform(-range, range);
    std::vector<double> arguments(20000);
    for (double& x : arguments) x = uniform(generator);
    ExpectExponentials(arguments);
  }
}

TEST_P(ExponentialsTest, EdgesOfTheRange) {
  const double infinity = std::numeric_limits<double>::infinity();
  ExpectExponentials({0.0, -0.0, 1e-320, -745.0, -745.2, -740.5, -708.4, -708.3, -1e3, -1e300,
                      -infinity, 699.0, 701.0, 709.7, 709.8, 1e300, infinity, 1.0, -1.0});
}

TEST_P(ExponentialsTest, AnyCount) {
  for (size_t count = 0; count < 20; ++count) {
    std::vector<double> arguments(count);
    for (size_t k = 0; k < count; ++k) arguments[k] = -0.3 * k;
    ExpectExponentials(arguments);
  }
}

TEST_P(ExponentialsTest, NeighboursChangeNoBit) {
  std::vector<double> all = {-0.7, 705.0, -3.1, 1e-3, 709.0, -80.0, -700.0, 2.5, -0.1, -0.2, 800.0};
  const std::vector<double> arguments = all;
  ExponentiateInPlace(all);
  for (size_t k = 0; k < all.size(); ++k) {
    double alone = arguments[k];
    ExponentiateInPlace({&alone, 1});
    EXPECT_EQ(alone, all[k]) << arguments[k];
  }
}

TEST_P(ExponentialsTest, AnArgumentThatIsNoNumberStaysOne) {
  std::vector<double> values(9, std::nan(""));
  values[3] = 0;
  ExponentiateInPlace(values);
  for (size_t k = 0; k < values.size(); ++k) {
    if (k == 3) {
      EXPECT_EQ(values[k], 1);
    } else {
      EXPECT_TRUE(std::isnan(values[k]));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, ExponentialsTest,
                         ::testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](const auto& info) { return std::string(hwy::TargetName(info.param)); });

}  // namespace
}  // namespace ess::linalg
