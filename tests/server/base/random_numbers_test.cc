#include "server/base/random_numbers.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "gtest/gtest.h"

namespace ess {
namespace {

constexpr int64_t kCount = 1 << 20;

std::vector<float> Normals(const RandomNumbers& random, int64_t first, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  random.Normal(first, values);
  return values;
}

std::vector<float> Uniforms(const RandomNumbers& random, int64_t first, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  random.Uniform(first, values);
  return values;
}

// The largest distance between the distribution of the values and `cumulative`, in units in which
// 2.3 is exceeded by chance once in 20 000 times.
template <typename Cumulative>
double KolmogorovSmirnov(std::vector<float> values, Cumulative cumulative) {
  std::sort(values.begin(), values.end());
  const double count = static_cast<double>(values.size());
  double largest = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double expected = cumulative(static_cast<double>(values[i]));
    largest = std::max({largest, expected - static_cast<double>(i) / count,
                        static_cast<double>(i + 1) / count - expected});
  }
  return largest * std::sqrt(count);
}

double NormalCumulative(double x) { return 0.5 * std::erfc(-x * std::sqrt(0.5)); }

TEST(RandomNumbersTest, NormalNumbersAreNormal) {
  const std::vector<float> values = Normals(RandomNumbers(1, "x"), 0, kCount);
  EXPECT_LT(KolmogorovSmirnov(values, NormalCumulative), 2.3);
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  EXPECT_LT(*low, -4);  // The tails are there: beyond 4 lie 33 of a million on each side.
  EXPECT_GT(*high, 4);
}

TEST(RandomNumbersTest, UniformNumbersAreUniform) {
  const std::vector<float> values = Uniforms(RandomNumbers(1, "x"), 0, kCount);
  EXPECT_LT(KolmogorovSmirnov(values, [](double x) { return x; }), 2.3);
  EXPECT_GE(*std::min_element(values.begin(), values.end()), 0.0f);
  EXPECT_LT(*std::max_element(values.begin(), values.end()), 1.0f);
}

TEST(RandomNumbersTest, NeighboursAreIndependent) {
  const std::vector<float> values = Normals(RandomNumbers(3, "x"), 0, kCount);
  for (const size_t lag : {1, 2, 3, 64}) {
    double product = 0, product_of_squares = 0;
    for (size_t i = lag; i < values.size(); ++i) {
      const double a = values[i], b = values[i - lag];
      product += a * b;
      product_of_squares += (a * a - 1) * (b * b - 1);
    }
    const double deviation = std::sqrt(static_cast<double>(kCount));
    EXPECT_LT(std::abs(product) / deviation, 4.5) << lag;
    EXPECT_LT(std::abs(product_of_squares) / (2 * deviation), 4.5) << lag;
  }
}

TEST(RandomNumbersTest, SeedsAndNamesHaveSequencesOfTheirOwn) {
  const std::vector<float> values = Normals(RandomNumbers(1, "x"), 0, kCount);
  for (const auto& other : {RandomNumbers(2, "x"), RandomNumbers(1, "y"), RandomNumbers(1, ""),
                            RandomNumbers(1, "xx"), RandomNumbers(uint64_t{1} << 63 | 1, "x")}) {
    const std::vector<float> others = Normals(other, 0, kCount);
    double product = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      product += static_cast<double>(values[i]) * static_cast<double>(others[i]);
    }
    EXPECT_LT(std::abs(product) / std::sqrt(static_cast<double>(kCount)), 4.5);
  }
}

TEST(RandomNumbersTest, PiecesAreThoseOfTheWhole) {
  const RandomNumbers random(4, "x");
  const std::vector<float> normals = Normals(random, 0, 101);
  const std::vector<float> uniforms = Uniforms(random, 0, 101);

  EXPECT_EQ(Normals(random, 40, 61), std::vector<float>(normals.begin() + 40, normals.end()));
  EXPECT_EQ(Normals(random, 0, 33), std::vector<float>(normals.begin(), normals.begin() + 33));
  EXPECT_EQ(Uniforms(random, 41, 60), std::vector<float>(uniforms.begin() + 41, uniforms.end()));
}

}  // namespace
}  // namespace ess
