// T of an operator whose memory is a window: a band below the diagonal and, optionally, its first
// columns in full ("sinks").
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace ess::linalg {

// Keeps its own copy, scaled: every entry is the given one divided by 2^exponent(), the largest is
// in [0.5, 1). Immutable. Memory: L (memory + sinks + sinks^2 / 64) doubles.
//
// A column below `sinks` is a sink as a whole, also where the band reaches it, so each entry of T
// is held once.
class LocalMatrix {
 public:
  // `band` [length, window]: T[i, i - d] = band[i, d]; entries with d = 0 or d > i are not read.
  // `sink_columns` [length, sinks]: T[i, j] for i - j >= window; other entries are not read.
  // REQUIRES: length, window >= 1; sinks >= 0; finite entries.
  LocalMatrix(std::span<const double> band, int64_t length, int64_t window,
              std::span<const double> sink_columns, int64_t sinks);

  int64_t length() const { return length_; }
  int64_t memory() const { return memory_; }  // min(window, length) - 1; may be 0.
  int64_t sinks() const { return sinks_; }
  int exponent() const { return exponent_; }

  // [memory]: T[row, row - memory], ..., T[row, row - 1]; 0 in columns that are sinks or negative.
  const double* BandRow(int64_t row) const { return band_.data() + row * memory_; }
  // [sinks]: T[row, 0], ..., T[row, sinks - 1]; 0 on and above the diagonal.
  const double* SinkRow(int64_t row) const { return sink_columns_.data() + row * sinks_; }

  // How far H_position reaches: rows before RowEnd have entries in the band, columns from
  // ColumnBegin on are not sinks.
  int64_t RowEnd(int64_t position) const;
  int64_t ColumnBegin(int64_t position) const;

  // ||H_i||_F for i in [0, L), scaled as the entries; sums of squares only. 0 only where H_i = 0.
  std::vector<double> FrobeniusNorms() const;

  // [sinks, sinks]: S^T S with S = scale T[row:, :sinks], row in [0, L]. `scale` is a power of two.
  // Cost: 64 sinks^2, unless the scale is above 2^300.
  std::vector<double> SinkGram(int64_t row, double scale) const;

 private:
  void Normalize();
  void AddSinkRows(int64_t begin, int64_t end, double scale, double* gram) const;
  // For each position i, the sum in the sense of `Sum` over the entries of H_i.
  template <typename Sum>
  std::vector<double> SumOverBlocks() const;
  // ||H_position||_F / largest, entry by entry.
  double ScaledNorm(int64_t position, double largest) const;

  int64_t length_;
  int64_t memory_;
  int64_t sinks_;
  int exponent_ = 0;
  std::vector<double> band_;          // [L, memory]
  std::vector<double> sink_columns_;  // [L, sinks]
  std::vector<double> sink_grams_;    // SinkGram of every 64th row.
};

}  // namespace ess::linalg
