#include "server/linalg/local_matrix.h"

#include <algorithm>
#include <cmath>

#include "server/base/log.h"

namespace ess::linalg {
namespace {

// Squares below this one have lost digits; their sum is made again from scaled entries.
constexpr double kTinySquare = 1e-280;

// Rows between two stored Grams of the sinks.
constexpr int64_t kSinkStep = 64;
// Beyond it the squares of entries that are stored unscaled may underflow.
constexpr double kLargestStoredScale = 0x1p300;

double LargestMagnitude(const std::vector<double>& entries) {
  double largest = 0;
  for (const double entry : entries) largest = std::max(largest, std::abs(entry));
  return largest;
}

struct SumOfSquares {
  static double Term(double entry) { return entry * entry; }
  static double Add(double x, double y) { return x + y; }
};

struct Largest {
  static double Term(double entry) { return std::abs(entry); }
  static double Add(double x, double y) { return std::max(x, y); }
};

}  // namespace

LocalMatrix::LocalMatrix(std::span<const double> band, int64_t length, int64_t window,
                         std::span<const double> sink_columns, int64_t sinks)
    : length_(length),
      memory_(std::min(window, length) - 1),
      sinks_(std::min(sinks, length)),
      band_(length * memory_, 0.0),
      sink_columns_(length * sinks_, 0.0) {
  ESS_CHECK(length >= 1 && window >= 1 && sinks >= 0);
  ESS_CHECK(static_cast<int64_t>(band.size()) == length * window);
  ESS_CHECK(static_cast<int64_t>(sink_columns.size()) == length * sinks);
  for (int64_t row = 0; row < length_; ++row) {
    double* sink_row = sink_columns_.data() + row * sinks_;
    const int64_t past_sinks = std::min(sinks_, row);
    for (int64_t column = 0; column < past_sinks; ++column) {
      const int64_t distance = row - column;
      sink_row[column] =
          distance < window ? band[row * window + distance] : sink_columns[row * sinks + column];
    }
    double* band_row = band_.data() + row * memory_;
    const int64_t first_column = row - memory_;
    for (int64_t column = std::max(first_column, sinks_); column < row; ++column) {
      band_row[column - first_column] = band[row * window + row - column];
    }
  }
  Normalize();
  if (sinks_ == 0) return;
  const int64_t steps = (length_ + kSinkStep - 1) / kSinkStep;
  const int64_t count = sinks_ * sinks_;
  sink_grams_.assign((steps + 1) * count, 0.0);
  for (int64_t step = steps - 1; step >= 0; --step) {
    double* gram = sink_grams_.data() + step * count;
    std::copy_n(gram + count, count, gram);
    AddSinkRows(step * kSinkStep, std::min((step + 1) * kSinkStep, length_), 1.0, gram);
  }
}

void LocalMatrix::AddSinkRows(int64_t begin, int64_t end, double scale, double* gram) const {
  for (int64_t row = begin; row < end; ++row) {
    const double* entries = SinkRow(row);
    for (int64_t i = 0; i < sinks_; ++i) {
      const double factor = scale * entries[i];
      for (int64_t j = 0; j < sinks_; ++j) gram[i * sinks_ + j] += factor * (scale * entries[j]);
    }
  }
}

std::vector<double> LocalMatrix::SinkGram(int64_t row, double scale) const {
  const int64_t count = sinks_ * sinks_;
  std::vector<double> gram(count, 0.0);
  if (scale > kLargestStoredScale) {
    AddSinkRows(row, length_, scale, gram.data());
    return gram;
  }
  const int64_t step = (row + kSinkStep - 1) / kSinkStep;
  for (int64_t k = 0; k < count; ++k) gram[k] = scale * (scale * sink_grams_[step * count + k]);
  AddSinkRows(row, std::min(step * kSinkStep, length_), scale, gram.data());
  return gram;
}

void LocalMatrix::Normalize() {
  std::frexp(std::max(LargestMagnitude(band_), LargestMagnitude(sink_columns_)), &exponent_);
  // In two steps, since 2^-exponent itself may be out of range.
  const double step = std::ldexp(1.0, -(exponent_ / 2));
  const double rest = std::ldexp(1.0, exponent_ / 2 - exponent_);
  for (double& entry : band_) entry = entry * step * rest;
  for (double& entry : sink_columns_) entry = entry * step * rest;
}

int64_t LocalMatrix::RowEnd(int64_t position) const {
  return std::min(position + memory_, length_);
}

int64_t LocalMatrix::ColumnBegin(int64_t position) const {
  return std::max({position - memory_, std::min(sinks_, position), int64_t{0}});
}

// Each row adds to position i what its columns below i sum up to.
template <typename Sum>
std::vector<double> LocalMatrix::SumOverBlocks() const {
  std::vector<double> sums(length_, 0.0);
  double sinks_below = 0;
  for (int64_t row = length_ - 1; row >= 1; --row) {
    const int64_t first_column = row - memory_;
    double sum = 0;
    for (int64_t column = std::max(first_column, int64_t{0}); column < row; ++column) {
      sum = Sum::Add(sum, Sum::Term(BandRow(row)[column - first_column]));
      sums[column + 1] = Sum::Add(sums[column + 1], sum);
    }
    sum = 0;
    for (int64_t column = 0; column < std::min(sinks_, row); ++column) {
      sum = Sum::Add(sum, Sum::Term(SinkRow(row)[column]));
      if (column + 1 < sinks_) sums[column + 1] = Sum::Add(sums[column + 1], sum);
    }
    sinks_below = Sum::Add(sinks_below, sum);
    if (row >= sinks_) sums[row] = Sum::Add(sums[row], sinks_below);
  }
  return sums;
}

double LocalMatrix::ScaledNorm(int64_t position, double largest) const {
  double squares = 0;
  const auto add = [&](double entry) { squares += entry / largest * (entry / largest); };
  for (int64_t row = position; row < length_; ++row) {
    const int64_t first_column = row - memory_;
    for (int64_t column = std::max(first_column, int64_t{0}); column < position; ++column) {
      add(BandRow(row)[column - first_column]);
    }
    for (int64_t column = 0; column < std::min(sinks_, position); ++column) {
      add(SinkRow(row)[column]);
    }
  }
  return std::sqrt(squares);
}

std::vector<double> LocalMatrix::FrobeniusNorms() const {
  std::vector<double> norms = SumOverBlocks<SumOfSquares>();
  const bool tiny = std::any_of(norms.begin() + 1, norms.end(),
                                [](double square) { return square < kTinySquare; });
  const std::vector<double> largest = tiny ? SumOverBlocks<Largest>() : std::vector<double>();
  for (int64_t i = 1; i < length_; ++i) {
    const bool again = norms[i] < kTinySquare && largest[i] > 0;
    norms[i] = again ? largest[i] * ScaledNorm(i, largest[i]) : std::sqrt(norms[i]);
  }
  return norms;
}

}  // namespace ess::linalg
